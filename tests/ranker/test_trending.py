"""Counts that fade: the same in any order, halved after a half-life, regions before the world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker import trending
from ranker.trending import Trending

HALF_LIFE = 3600.0
acts = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.floats(-1, 2),
        st.floats(0, 500 * HALF_LIFE),
        st.sampled_from(["", "DE", "FR"]),
        st.sampled_from(["", "de"]),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(rows=acts, random=st.randoms(use_true_random=False))
def test_counts_are_the_faded_sums_in_any_order(rows: list[tuple[str, float, float, str, str]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    now = 500 * HALF_LIFE
    for order in (rows, shuffled):
        found = Trending(HALF_LIFE)
        found.extend(order)
        for region in ("", "DE"):
            for video in "abcd":
                expected = sum(
                    value * 2.0 ** ((at - now) / HALF_LIFE)
                    for name, value, at, where, _ in rows
                    if name == video and value > 0 and region in ("", where)
                )
                assert found.count(video, now, region) == pytest.approx(expected, rel=1e-9, abs=1e-250)


def test_yesterday_fades_and_today_leads() -> None:
    found = Trending(HALF_LIFE)
    for _ in range(10):
        found.add("yesterday", 1.0, 0.0)
    found.add("today", 1.0, 24 * HALF_LIFE)
    assert [video for video, _, _ in found.leading(24 * HALF_LIFE)] == ["today", "yesterday"]
    assert found.count("yesterday", HALF_LIFE) == pytest.approx(5.0)


def test_a_region_and_a_language_have_their_own() -> None:
    found = Trending(HALF_LIFE)
    for _ in range(100):
        found.add("everywhere", 1.0, 0.0, "US", "en")
    for _ in range(60):
        found.add("near", 1.0, 0.0, "DE", "de")
    assert found.leading(0.0)[0][0] == "everywhere"
    assert found.leading(0.0, "DE")[0][0] == "near"
    assert found.leading(0.0, "", "de")[0][0] == "near"
    assert found.leading(0.0, "XX")[0][0] == "everywhere"


def test_one_act_in_a_region_does_not_lead_it() -> None:
    found = Trending(HALF_LIFE)
    for _ in range(1000):
        found.add("everywhere", 1.0, 0.0, "US")
    found.add("lonely", 1.0, 0.0, "DE")
    assert found.leading(0.0, "DE")[0][0] == "everywhere"


def test_leaders_are_exact_though_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trending, "LEADERS", 20)
    found = Trending(HALF_LIFE)
    for video in np.random.default_rng(0).zipf(1.3, 5000) % 1000:
        found.add(str(video), 1.0, 0.0)
    group = found._groups[trending.WORLD]
    assert len(group.counts) > 100
    best = sorted(group.counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    assert {count for _, count in best} <= {group.leaders.get(video) for video, _ in best}
    assert len(group.leaders) <= 40


def test_nothing_is_watched() -> None:
    assert Trending().leading(0.0, "DE", "de") == []
    assert Trending().count("a", 0.0) == 0.0


def test_the_place_that_is_told_is_one_where_it_was_watched() -> None:
    found = Trending()
    found.extend([("far", 1.0, 0.0, "JP", "ja"), ("near", 1.0, 0.0, "DE", "de"), ("told", 1.0, 0.0, "AT", "de")])
    places = {video: place for video, _, place in found.leading(0.0, "DE", "de")}
    assert places == {"far": "world", "near": "DE", "told": "de"}
    assert {place for _, _, place in found.leading(0.0, "XX")} == {"world"}
