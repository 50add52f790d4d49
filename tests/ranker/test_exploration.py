"""Beta posteriors with a prior from what resembles, and draws that are the same within an hour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.exploration import (
    ExplorationConfig,
    Tallies,
    audiences,
    fits,
    posterior,
    prior_means,
    stream_of,
    unit,
)
from tests.ranker.builders import NOON

CONFIG = ExplorationConfig()


def rows(*vectors: list[float]) -> np.ndarray:
    return unit(np.array(vectors, np.float64)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-3, 3), max_size=30), prior=st.floats(0, 1))
def test_a_posterior_is_sound_and_draws_lie_between(values: list[float], prior: float) -> None:
    tallies = Tallies()
    for value in values:
        tallies.add("a", value)
    found = posterior(*tallies.of(["a", "never shown"]), np.array([prior, prior]), CONFIG)
    draws = found.draw(np.random.default_rng(0))
    assert ((draws >= 0) & (draws <= 1)).all()
    liked = sum(min(max(value, 0), 1) for value in values)
    mean = min(max(prior, 1e-3), 1 - 1e-3)
    assert found.mean[0] == pytest.approx((CONFIG.strength * mean + liked) / (CONFIG.strength + len(values)))
    assert found.mean[1] == pytest.approx(mean)


def test_a_new_video_is_expected_to_do_as_those_it_resembles() -> None:
    known = rows([1, 0], [0, 1])
    good, bad, neither = prior_means(
        rows([1, 0.1], [0.1, 1], [-1, -1]), known, np.array([100.0, 100.0]), np.array([90.0, 5.0]), CONFIG
    )
    assert good > 0.8
    assert bad < 0.15
    assert neither == pytest.approx(CONFIG.prior_mean, abs=0.12)
    assert prior_means(known, known[:0], np.zeros(0), np.zeros(0), CONFIG).tolist() == [CONFIG.prior_mean] * 2


def test_the_audience_moves_to_those_who_liked_it() -> None:
    vectors = rows([1, 0], [1, 0])
    found = audiences(vectors, {1: np.array([0.0, 3.0])}, CONFIG)
    assert found[0] == pytest.approx([1, 0])
    assert found[1][1] > found[1][0] > 0


def test_what_fits_the_viewer_is_worth_more_and_unknown_taste_fits_all() -> None:
    wanted = rows([1, 0], [0, 1]).astype(np.float64)
    near, far = fits(np.array([[1.0, 0.0]]), np.ones(1), wanted, CONFIG)
    assert near > 20 * far
    assert fits(np.zeros((0, 2)), np.zeros(0), wanted, CONFIG).tolist() == [1, 1]


def test_draws_change_with_viewer_and_hour_alone() -> None:
    def draw(viewer: str, now: float) -> float:
        return float(stream_of(viewer, now).random())

    assert draw("ann", NOON) == draw("ann", NOON + 100)
    assert len({draw("ann", NOON), draw("bob", NOON), draw("ann", NOON + 3600)}) == 3


def test_what_was_shown_often_without_success_sinks_and_the_unknown_keeps_its_chance() -> None:
    found = posterior(np.array([200.0, 0.0]), np.zeros(2), np.full(2, 0.3), CONFIG)
    stream = np.random.default_rng(1)
    wins = sum(draw[1] > draw[0] for draw in (found.draw(stream) for _ in range(200)))
    assert wins > 190
