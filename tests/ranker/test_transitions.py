"""The closed forms beside the sequence networks."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.models.training_data import ActLog
from ranker.models.transitions import TransitionsConfig, by_content, first_vectors, fitted
from tests.ranker.watch_chains import VIDEOS, best_unseen, next_of, ring, ring_log

SMALL = TransitionsConfig(rank=2.0, together_regularisation=1.0, follow_regularisation=1.0, follow=2.0)


def test_what_follows_is_found() -> None:
    log = ring_log()
    found = fitted(log, SMALL)
    assert (best_unseen(found.score(log, np.arange(log.n_viewers)), log) == next_of(log)).all()


def test_the_regression_is_the_one_written_down() -> None:
    log = ring_log(viewers=10, length=5, videos=6)
    config = TransitionsConfig(rank=3.0, follow_regularisation=2.0, together_regularisation=1e6, follow=1e6)
    rows, said = [], []
    for viewer in range(10):
        history = log.history(viewer)
        for step in range(5):
            row = np.zeros(6)
            for place in range(step):
                row[history[place]] += np.exp(-(step - 1 - place) / 3)
            rows.append(row)
            said.append(np.eye(6)[history[step]])
    a, y = np.array(rows), np.array(said)
    expected = np.linalg.solve(a.T @ a + 2 * np.eye(6), a.T @ y)
    weights = fitted(log, config).weights
    scale = (weights * expected).sum() / (expected**2).sum()
    assert scale > 0
    np.testing.assert_allclose(weights, scale * expected, atol=1e-4 * scale)


def test_parts_are_exact_and_the_spread_is_one() -> None:
    log = ring_log(viewers=30, length=9)
    found = fitted(log, SMALL)
    scores = found.score(log, np.arange(30))
    assert scores.std(axis=1).mean() == pytest.approx(1.0, rel=1e-3)
    assert sum(found.shares(log, 3, 5).values()) == pytest.approx(scores[3, 5], abs=1e-5)


def test_too_many_videos_leave_it_out() -> None:
    log = ring_log()
    found = fitted(log, TransitionsConfig(most_videos=VIDEOS - 1))
    assert len(found.places) == 0
    assert not found.score(log, np.array([0, 1])).any()
    assert first_vectors(log, 4, VIDEOS - 1) is None


def test_first_vectors_put_neighbours_side_by_side() -> None:
    vectors = first_vectors(ring_log(extra=2), 8, 100)
    assert vectors is not None
    assert vectors.shape == (VIDEOS + 2, 8)
    assert not vectors[VIDEOS:].any()
    unit = vectors[:VIDEOS] / np.linalg.norm(vectors[:VIDEOS], axis=1, keepdims=True)
    near = (unit * np.roll(unit, 1, axis=0)).sum(axis=1)
    far = (unit * np.roll(unit, VIDEOS // 2, axis=0)).sum(axis=1)
    assert near.min() > far.max()
    # More dimensions than videos: the rest stays zero, for chance to fill.
    wide = first_vectors(ring_log(), VIDEOS + 5, 100)
    assert wide is not None
    assert not wide[:, VIDEOS:].any()


def test_lone_acts_are_near_nothing() -> None:
    lone = ActLog.of(np.arange(4), np.arange(4), 4, 4)
    assert first_vectors(lone, 2, 100) is None
    assert np.isfinite(fitted(lone, SMALL).weights).all()


def test_content_gives_columns_to_new_videos() -> None:
    data = ring(extra=4)
    known = fitted(data.log, SMALL)
    assert not known.weights[:, VIDEOS:].any()
    features = data.content.features["place"].astype(np.float64)
    mapped = by_content(known, features, 0.1)
    np.testing.assert_allclose(mapped.weights[:, VIDEOS], mapped.weights[:, VIDEOS // 2], atol=1e-4)
    # What speaks most for the new one stands close before the place where it lies.
    assert VIDEOS // 2 - int(mapped.weights[:, VIDEOS].argmax()) in (1, 2, 3)
