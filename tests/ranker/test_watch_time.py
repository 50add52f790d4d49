"""Watching normalised by length and by viewer: properties, and what the published measure promises."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.events import Event, value
from ranker.watch_norms import NormsFollower
from ranker.watch_time import (
    NO_NORMS,
    Habit,
    WatchNorms,
    completion,
    guessed_quantile,
    norms_as_json,
    norms_from_json,
)
from store.event_log import EventLog
from tests.ranker.builders import NOON, World, video_id

seconds = st.floats(0, 1e5)
durations = st.floats(0.05, 2e4)
views = st.lists(st.tuples(seconds, durations), max_size=60)


@st.composite
def crowds(draw: st.DrawFn) -> WatchNorms:
    """Norms of up to a few thousand views: a few drawn, each many times."""
    drawn = draw(views)
    times = draw(st.sampled_from([1, 20, 400]))
    return WatchNorms.of(drawn * times if times < 400 else drawn[:8] * times)


def viewed(watched: float) -> Event:
    return Event.checked(
        user="a", video=video_id("v"), kind="view", watched_seconds=min(watched, 6e5), at=NOON, now=NOON
    )


@given(crowds(), durations, seconds, seconds)
def test_a_quantile_lies_in_0_to_1_and_never_falls_with_the_seconds(
    norms: WatchNorms, duration: float, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    first, second = norms.quantile(low, duration), norms.quantile(high, duration)
    assert 0 <= first <= second + 1e-12
    assert second <= 1


@given(crowds(), durations, seconds, seconds, st.integers(0, 500), st.floats(0, 1))
def test_a_view_s_value_never_falls_with_the_seconds_whatever_is_known(
    norms: WatchNorms, duration: float, one: float, other: float, count: int, usual: float
) -> None:
    low, high = sorted((one, other))
    habit = Habit(count, count * usual)
    first, second = (value(viewed(watched), duration, norms, habit) for watched in (low, high))
    assert -0.5 <= first <= second + 1e-9
    assert second <= 1


@given(views, st.randoms())
def test_the_order_of_views_and_how_they_are_dealt_out_make_no_difference(
    seen: list[tuple[float, float]], order: random.Random
) -> None:
    shuffled = seen.copy()
    order.shuffle(shuffled)
    whole = WatchNorms.of(seen)
    half = len(seen) // 2
    parts = WatchNorms.of(shuffled[:half]) + WatchNorms.of(shuffled[half:])
    assert (whole.counts == parts.counts).all()
    assert Habit.of(seen, whole) == Habit.of(shuffled, whole)
    assert (norms_from_json(norms_as_json(whole)).counts == whole.counts).all()


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10_000), st.floats(0, 1))
def test_a_habit_keeps_order_and_range(one: float, other: float, count: int, usual: float) -> None:
    low, high = sorted((one, other))
    habit = Habit(count, count * usual)
    assert 0 <= habit.relative(low) <= habit.relative(high) + 1e-12 <= 1 + 1e-12
    assert (habit.relative(0.0), habit.relative(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_that_is_none_is_worth_nothing(duration: float) -> None:
    assert NO_NORMS.quantile(5.0, duration) == 0.0
    assert completion(5.0, duration) == 0.0
    assert WatchNorms.of([(5.0, duration)]).views == 0


def test_without_data_it_is_the_stated_guess() -> None:
    assert NO_NORMS.quantile(12.0, 20.0) == pytest.approx(0.5)
    assert NO_NORMS.quantile(20.0, 60.0) == pytest.approx(0.5)
    assert NO_NORMS.quantile(12.0, 20.0) == guessed_quantile(12.0, 20.0)


def test_data_outvote_the_guess() -> None:
    """Views evenly spread over 0..60 s of videos of a minute: the median moves from 20 s to 30 s."""
    spread = [(60.0 * number / 2000, 60.0) for number in range(2000)]
    few, many = WatchNorms.of(spread[::400]), WatchNorms.of(spread)
    assert few.quantile(20.0, 60.0) > 0.47
    assert many.quantile(30.0, 60.0) == pytest.approx(0.5, abs=0.03)
    assert many.trust(60.0) > 0.97 > few.trust(60.0)


def test_the_quantile_takes_the_length_out() -> None:
    """One taste, three lengths whose watched seconds differ by a factor of ten: like quantiles for like interest."""
    dice = random.Random(7)
    seen, interest = [], []
    for _ in range(6000):
        duration = dice.choice([6.0, 30.0, 180.0])
        liked = dice.random()
        seen.append((duration**0.8 * liked, duration))
        interest.append(liked)
    norms = WatchNorms.of(seen)
    by_length = {
        duration: [
            norms.quantile(watched, length) - liked
            for (watched, length), liked in zip(seen, interest, strict=True)
            if length == duration
        ]
        for duration in (6.0, 30.0, 180.0)
    }
    for errors in by_length.values():
        assert abs(sum(errors) / len(errors)) < 0.02
        assert max(map(abs, errors)) < 0.08
    raw = [watched / 180**0.8 for watched, length in seen if length == 6.0]
    assert max(raw) < 0.1, "in seconds the short ones all look disliked"


def test_who_finishes_everything_says_less_by_finishing() -> None:
    norms = WatchNorms.of([(60.0 * number / 2000, 60.0) for number in range(2000)])
    eager = Habit.of([(58.0, 60.0)] * 100, norms)
    picky = Habit.of([(5.0, 60.0)] * 100, norms)
    new = Habit()
    finish = [value(viewed(57.0), 60.0, norms, habit) for habit in (eager, new, picky)]
    assert all(one < other - 0.02 for one, other in pairwise(finish)), finish
    assert norms.quantile(58.0, 60.0) > 0.9
    assert eager.relative(eager.usual) == pytest.approx(0.5)


def test_the_default_is_what_it_was_before() -> None:
    for watched in (0.0, 1.0, 5.0, 19.0, 20.0, 60.0):
        assert value(viewed(watched), 20.0) == value(viewed(watched), 20.0, NO_NORMS, Habit(90, 80.0))
    assert value(viewed(20.0), 20.0) == pytest.approx(20 / 23)


def test_damaged_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="bin"):
        norms_from_json({"64/0": 3})
    with pytest.raises(ValueError):
        norms_from_json({"1/1": -3})


def test_norms_follow_the_log(world: World) -> None:
    world.enter("v")
    one, other = NormsFollower(EventLog(world.catalogue)), NormsFollower(EventLog(world.catalogue))
    assert one.refresh() == 0
    for number in range(6):
        world.happens(f"u{number}", "v", "view", watched=3.0 * number)
    assert one.refresh() == 6
    world.happens("late", "v", "view", watched=9.0, at=NOON - 1e6)
    world.happens("late", "v", "like")
    before = one.norms
    assert (one.refresh(), other.refresh(), one.refresh()) == (1, 7, 0)
    assert (one.norms.counts == other.norms.counts).all()
    assert (before.views, one.norms.views) == (6, 7)
    assert one.norms.measured(20.0) == 7


def test_a_quantile_rises_evenly_within_a_bin() -> None:
    norms = WatchNorms.of([(10.0, 20.0)] * 3000)
    steps = [norms.quantile(8.0 + number / 200, 20.0) for number in range(800)]
    assert all(low <= high for low, high in pairwise(steps))
    assert max(high - low for low, high in pairwise(steps)) < 0.02, "no jump either"
