"""Caps and the entropy floor hold wherever the candidates allow it, and every move is told."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ranker.feed_rules import Arranged, FeedRules, arrange, entropy

LOOSE = {"creator": 100, "sound": 100, "topic": 100}


def run(topics: list[str | None], rules: FeedRules, count: int = 100, **keys: list[str | None]) -> Arranged:
    return arrange(list(range(len(topics))), {"topic": topics, **keys}, rules, count)


@given(
    topics=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=40),
    creators=st.lists(st.sampled_from(["x", "y", "z", None]), min_size=40, max_size=40),
    rules=st.builds(
        FeedRules,
        window=st.integers(1, 8),
        creator=st.integers(1, 4),
        topic=st.integers(1, 6),
        least_bits=st.sampled_from([0.0, 0.5, 1.0]),
    ),
    count=st.integers(1, 50),
)
def test_nothing_is_lost_or_doubled_and_a_shorter_feed_is_the_beginning(
    topics: list[str | None], creators: list[str | None], rules: FeedRules, count: int
) -> None:
    creators = creators[: len(topics)]
    found = run(topics, rules, count, creator=creators)
    assert len(found.order) == len(set(found.order)) == min(count, len(topics))
    assert set(found.order) <= set(range(len(topics)))
    assert run(topics, rules, 50, creator=creators).order[:count] == found.order
    # What was overtaken says why.
    for earlier, later in zip(found.order, found.order[1:], strict=False):
        if later < earlier:
            moved = {earlier, later} | set(found.capped)
            assert later in found.capped or later in found.made_room or found.lifted & moved or found.capped


@given(topics=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), cap=st.integers(1, 3))
def test_a_cap_is_broken_only_where_nothing_else_is_left(topics: list[str], cap: int) -> None:
    rules = FeedRules(window=5, least_bits=0, **LOOSE | {"topic": cap})  # type: ignore[arg-type]
    order = run(list(topics), rules).order
    for place in range(len(order)):
        window = Counter(topics[other] for other in order[max(place - 4, 0) : place])
        if window[topics[order[place]]] >= cap:
            assert all(window[topics[other]] >= cap for other in order[place:])


def test_sounds_and_creators_are_capped_and_the_unknown_never() -> None:
    rules = FeedRules(window=4, creator=1, sound=1, topic=4, least_bits=0)
    none: list[str | None] = [None] * 6
    assert run(none, rules, creator=none, sound=none).order == [0, 1, 2, 3, 4, 5]
    creators: list[str | None] = ["x", "x", "y", None, None, "z"]
    found = run(none, rules, creator=creators)
    assert found.order == [0, 2, 3, 4, 1, 5]
    assert found.capped == {1: {"creator"}}
    sounds: list[str | None] = ["s", "s", None, None, None, None]
    assert run(none, rules, sound=sounds).order == [0, 2, 3, 4, 1, 5]


@given(
    topics=st.lists(st.sampled_from(["a", "a", "a", "b", "c"]), min_size=10, max_size=40),
    bits=st.sampled_from([0.3, 0.9, 1.5]),
)
def test_the_entropy_floor_holds_when_the_catalogue_allows(topics: list[str], bits: float) -> None:
    rules = FeedRules(window=10, least_bits=bits, **LOOSE)  # type: ignore[arg-type]
    order = run(list(topics), rules).order
    first = [topics[place] for place in order[:10]]
    reached = entropy(list(Counter(first).values()))
    assert reached >= bits or not improvable(first, [topics[place] for place in order[10:]])


def improvable(first: list[str], rest: list[str]) -> bool:
    """Whether swapping one of the commonest for a waiting one of a topic at least two rarer raises the entropy."""
    counts = Counter(first)
    return any(counts[topic] + 1 < max(counts.values()) for topic in rest)


def test_the_best_of_another_topic_comes_at_the_end_of_the_window() -> None:
    topics: list[str | None] = ["a"] * 12 + ["b", "c"]
    found = run(topics, FeedRules(window=10, topic=10, least_bits=0.4), 10)
    assert found.order == [*range(9), 12]
    assert (found.lifted, found.made_room) == ({12}, {9})
    assert run(topics, FeedRules(window=10, topic=10, least_bits=0), 10).order == list(range(10))


def test_entropy_is_that_of_shannon() -> None:
    assert entropy([5, 5]) == 1.0
    assert entropy([1, 1, 1, 1]) == 2.0
    assert entropy([7]) == 0.0
    assert abs(entropy([9, 1]) - 0.468996) < 1e-6


def test_ten_thousand_of_one_creator_are_arranged_at_once() -> None:
    topics: list[str | None] = ["a"] * 10_000
    found = run(topics, FeedRules(), 10_000, creator=list(topics))
    assert sorted(found.order) == list(range(10_000))


def test_each_window_tries_one_more_video_that_looks_for_its_audience() -> None:
    order = list(range(40))
    keys = {"topic": [place % 7 for place in order]}
    arranged = arrange(order, keys, FeedRules(least_bits=0), 30, trials=[35, 3, 36, 37])
    assert [place for place in arranged.order if place >= 30] == [35, 36]
    assert arranged.order[9] == 35, "at the end of its window"
    assert 3 in arranged.order[:10], "its score brings it there anyway, and it counts"
    assert arranged.order[29] == 36
    assert arranged.tried == {35, 36}
    assert len(arranged.made_room) == 2
    assert arrange(order, keys, FeedRules(least_bits=0, explored=0), 30, trials=[35]).order == list(range(30))
    assert arrange(order, keys, FeedRules(least_bits=0), 10, trials=[35, 3, 36, 37]).order == arranged.order[:10]
