"""Which events are set aside: each rule at its threshold, in any order of arrival, on a real database."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.cleaning import (
    MOST_ACTS,
    MOST_COMMENTS,
    MOST_DELIBERATE,
    REASONS,
    judge,
    reach,
    take_all,
    take_one,
)
from ranker.events import Event, checked_line, record
from store.catalogue import StoredEvent
from store.errors import InputError
from store.event_log import EventLog, Outcome
from tests.ranker.builders import NOON, World, video_id

VIDEO, LENGTH = video_id("v"), 20.0


def act(at: float, kind: str = "view", watched: float | None = None, **more: object) -> StoredEvent:
    given = {"id": f"{kind}-{at}-{sorted(more.items())}-{watched}", "user_id": "ann", "video_id": VIDEO, "kind": kind}
    return StoredEvent.model_validate(given | {"watched_seconds": watched, "at": NOON + at} | more)


def reasons(*new: StoredEvent, near: tuple[StoredEvent, ...] = ()) -> list[str | None]:
    verdicts = judge(new, near, {VIDEO: LENGTH, video_id("w"): LENGTH})
    assert {verdict.reason for verdict in verdicts.values()} <= REASONS.keys()
    return [verdicts[place].reason if place in verdicts else None for place in range(len(new))]


def test_the_same_act_within_a_second_is_one() -> None:
    assert reasons(act(0, "like"), act(0.9, "like", session="b")) == [None, "duplicate"]
    assert reasons(act(0, "like"), act(1.0, "like")) == [None, None]
    assert reasons(act(0, "like"), act(0.5, "share")) == [None, None]
    assert reasons(act(0, "like"), act(0.5, "like", video_id=video_id("w"))) == [None, None]
    assert reasons(act(0, "like"), act(0.5, "like", user_id="ben")) == [None, None]


def test_a_late_duplicate_is_found_on_either_side() -> None:
    assert reasons(act(-0.5, "like"), near=(act(0, "like"),)) == ["duplicate"]
    assert reasons(act(0.5, "like"), near=(act(0, "like"),)) == ["duplicate"]


def test_more_than_the_time_since_the_session_s_last_view_cannot_be_watched() -> None:
    before = act(0, watched=3, session="s")
    assert reasons(before, act(30, watched=65, session="s")) == [None, None], "double speed and five seconds"
    assert reasons(before, act(30, watched=65.1, session="s")) == [None, "impossible_wall_time"]
    assert reasons(before, act(30, watched=65.1, session="t")) == [None, None], "another player"
    assert reasons(before, act(30, watched=65.1)) == [None, None], "nobody says that it is the same player"
    assert reasons(act(30, watched=500, session="s")) == [None], "no view before it: nobody knows how long it took"


def test_a_late_view_that_leaves_no_room_for_what_is_known_is_set_aside() -> None:
    known = act(100, watched=90, session="s")
    assert reasons(act(10, watched=5, session="s"), near=(known,)) == [None]
    assert reasons(act(80, watched=5, session="s"), near=(known,)) == ["impossible_wall_time"]


def test_forty_times_its_length_in_a_minute_is_impossible() -> None:
    elsewhere = act(0, "like")
    assert reasons(elsewhere, act(59, watched=40 * LENGTH)) == [None, "impossible_replays"]
    assert reasons(elsewhere, act(59, watched=39.9 * LENGTH)) == [None, None]
    assert reasons(elsewhere, act(61, watched=40 * LENGTH)) == [None, None], "more than a minute has passed"
    assert reasons(act(59, watched=40 * LENGTH)) == [None], "it may have taken a quarter of an hour"
    parts = [act(at, watched=11 * LENGTH) for at in (0, 10, 20, 30)]
    assert reasons(*parts) == [None, None, None, "impossible_replays"]


def test_looping_a_second_for_a_minute_is_possible() -> None:
    verdicts = judge([act(0, "like"), act(59, watched=60.0)], (), {VIDEO: 1.0})
    assert verdicts == {}


@pytest.mark.parametrize(("kind", "most"), [("skip", MOST_ACTS), ("like", MOST_DELIBERATE), ("comment", MOST_COMMENTS)])
def test_rates_no_person_reaches(kind: str, most: int) -> None:
    def burst(seconds: float) -> list[str | None]:
        made = [act(seconds * number / most, kind, video_id=video_id(str(number % 977))) for number in range(most + 1)]
        return reasons(*made)

    assert burst(59.0)[-1] == "bot_rate"
    assert burst(59.0)[:-1] == [None] * most
    assert burst(61.0) == [None] * (most + 1)


def test_a_late_act_in_the_middle_of_a_full_minute_is_too_much() -> None:
    full = tuple(act(0.19 * number, "skip", video_id=video_id(str(number))) for number in range(MOST_ACTS))
    assert reasons(act(30.0, "skip"), near=full) == ["bot_rate"]
    assert reasons(act(300.0, "skip"), near=full) == [None]


def test_how_far_is_looked_has_limits() -> None:
    assert reach(act(0, "like")) == (60.0, 60.0)
    assert reach(act(0, watched=600, session="s")) == (300.0, 600.0)
    assert reach(act(0, watched=6e5)) == (21_600.0, 60.0)


def test_a_kind_of_tomorrow_is_set_aside() -> None:
    assert reasons(act(0, "teleport")) == ["unknown_kind"]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_batch_is_judged_alike_in_any_order_and_what_stays_is_clean(seed: int, count: int) -> None:
    dice = random.Random(seed)
    made = [
        act(
            round(dice.uniform(0, 90), 2),
            dice.choice(["view", "view", "like", "skip", "odd"]),
            dice.choice([1.0, 30.0, 200.0, 900.0]),
            id=f"e{number}",
            session=dice.choice(["", "s", "t"]),
        )
        for number in range(count)
    ]
    shuffled = dice.sample(made, len(made))
    verdicts = {item.id: reason for item, reason in zip(made, reasons(*made), strict=True)}
    assert verdicts == {item.id: reason for item, reason in zip(shuffled, reasons(*shuffled), strict=True)}
    kept = [item for item in made if verdicts[item.id] is None]
    assert reasons(*kept) == [None] * len(kept)
    back, ahead = reach(made[0])
    assert back >= 60
    assert ahead >= 60


def test_events_set_aside_do_not_reach_profiles(world: World) -> None:
    world.enter("v")
    first = Event.checked(user="ann", video=VIDEO, kind="like", at=NOON, now=NOON)
    again = Event.checked(user="ann", video=VIDEO, kind="like", at=NOON + 0.25, now=NOON)
    assert record(world.catalogue, first)
    assert take_one(world.catalogue, again).verdict is not None
    assert record(world.catalogue, again) is False
    log = EventLog(world.catalogue)
    assert [item.id for item in log.of("ann")] == [first.id]
    assert [(item.id, item.reason) for item in log.set_aside()] == [(again.id, "duplicate")]


def test_late_and_out_of_order_events_are_accepted(world: World) -> None:
    world.enter("v")
    for at in (0.0, -5 * 86_400.0, 3600.0, -300 * 86_400.0):
        assert record(world.catalogue, Event.checked(user="ann", video=VIDEO, kind="view", at=NOON + at, now=NOON))
    assert len(EventLog(world.catalogue).of("ann")) == 4


def test_a_batch_tells_an_unknown_video_from_the_others(world: World) -> None:
    world.enter("v")
    results = take_all(world.catalogue, [act(0, "like"), act(5, "like", video_id="f" * 32), act(9, "like")])
    assert isinstance(results[1], InputError)
    assert results[1].code == "video.unknown"
    assert [item.state for item in results if isinstance(item, Outcome)] == ["new", "new"]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "like",
        {},
        {"kind": ""},
        {"kind": 7},
        {"kind": "x" * 65},
        {"kind": "tele\nport"},
        {"kind": ["like"]},
        {"user": 5},
        {"user": ""},
        {"user": "a\x00"},
        {"video": "v\x00"},
        {"at": 10**400},
        {"at": "noon"},
        {"at": True, "watched": {}},
        {"watched": 1, "watched_seconds": 1},
        {"watched": float("nan")},
        {"loops": -1},
        {"loops": 1.5},
        {"session": "s" * 65},
        {"device": "\x1b[31m"},
        {"region": "r" * 17},
        {"mood": "good"},
        {"id": "\ud800"},
    ],
)
@pytest.mark.parametrize("kind", ["like", "teleport"])
def test_a_line_that_makes_no_sense_is_coded(wrong: object, kind: str) -> None:
    line = (
        {"user": "ann", "video": VIDEO, "kind": kind, "at": NOON} | wrong
        if isinstance(wrong, dict) and wrong
        else wrong
    )
    with pytest.raises(InputError) as raised:
        checked_line(line, NOON)
    assert raised.value.code == "event.invalid"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["user", "video", "kind", "at", "watched", "id", "loops", "session", "x"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_a_line_holds_it_is_an_event_or_coded(line: object) -> None:
    try:
        event = checked_line(line, NOON)
    except InputError as error:
        assert error.code == "event.invalid"
    else:
        assert event.user_id
        assert event.id
