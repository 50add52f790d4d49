"""Metrics, held to hand computation, to scikit-learn and to what ranx computed (bench/metrics_reference.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    log_loss,
    mean_absolute_error,
    ndcg_score,
    roc_auc_score,
    root_mean_squared_error,
)

from ranker import list_qualities, metrics
from ranker.evaluation import Lists, difference, groups, interval, listed, measure, measure_lists

REFERENCE = json.loads((Path(__file__).parent / "metrics_reference.json").read_text())
Rows = list[list[int]]


def lists_of(rows: Rows, n_videos: int) -> Lists:
    return Lists(np.arange(len(rows)), np.array(rows, np.int64), np.ones((len(rows), len(rows[0])), bool), n_videos)


def cells(rows: Rows, n_columns: int) -> sparse.csr_matrix:
    dense = np.zeros((len(rows), n_columns), np.float32)
    for row, columns in enumerate(rows):
        dense[row, columns] = 1
    return sparse.csr_matrix(dense)


# --- rankings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", REFERENCE["cases"])
def test_rankings_agree_with_ranx(case: dict) -> None:
    held, orders = cells(case["held"], case["videos"]), np.array(case["orders"])
    scores = np.empty(orders.shape)
    np.put_along_axis(scores, orders, -np.arange(orders.shape[1], dtype=float)[None], axis=1)
    found = measure(lambda viewers: scores[viewers], held, held * 0, (1, 5, 10, 20)).each
    assert set(case["expected"]) == set(found)
    for name, expected in case["expected"].items():
        assert found[name] == pytest.approx(expected, abs=1e-9), name


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000), k=st.integers(1, 30))
def test_rankings_agree_with_scikit_learn(seed: int, k: int) -> None:
    stream = np.random.default_rng(seed)
    truth = stream.random((8, 30)) < 0.2
    truth[np.arange(8), stream.integers(30, size=8)] = True
    scores = stream.permutation(240).reshape(8, 30).astype(float)
    held = sparse.csr_matrix(truth.astype(np.float32))
    found = measure(lambda viewers: scores[viewers], held, held * 0, (k, 30)).each
    assert found[f"ndcg@{k}"].mean() == pytest.approx(ndcg_score(truth, scores, k=k), abs=1e-9)
    for row in range(8):
        assert found["map@30"][row] == pytest.approx(average_precision_score(truth[row], scores[row]), abs=1e-9)


def test_rankings_by_hand() -> None:
    held = cells([[1, 3, 7]], 8)
    found = measure_lists(lists_of([[0, 1, 2, 3]], 8), held, (2, 4)).each
    assert found["precision@4"][0] == 0.5
    assert found["precision@2"][0] == 0.5
    assert found["recall@4"][0] == pytest.approx(2 / 3)
    assert found["mrr@4"][0] == 0.5
    assert found["map@4"][0] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["map@2"][0] == pytest.approx((1 / 2) / 3)


def test_an_oracle_is_right_everywhere_and_a_guess_finds_k_of_n() -> None:
    stream = np.random.default_rng(3)
    held = cells([sorted(stream.permutation(100)[:10].tolist()) for _ in range(2500)], 100)
    oracle = measure(lambda viewers: held[viewers].toarray(), held, held * 0, (10,)).means()
    assert {value for name, value in oracle.items() if not name.startswith("coverage")} == {1.0}
    guess = stream.random(held.shape)
    found = measure(lambda viewers: guess[viewers], held, held * 0, (10,)).means()
    assert found["recall@10"] == pytest.approx(0.1, abs=0.007)
    assert found["precision@10"] == pytest.approx(0.1, abs=0.007)
    none = math.prod((90 - step) / (100 - step) for step in range(10))
    assert found["hr@10"] == pytest.approx(1 - none, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_other_numbers_for_viewers_and_videos_change_nothing(seed: int) -> None:
    stream = np.random.default_rng(seed)
    held, seen = stream.random((15, 25)) < 0.1, stream.random((15, 25)) < 0.2
    seen &= ~held
    scores, features = stream.permutation(375).reshape(15, 25).astype(float), stream.normal(size=(25, 4))
    tags = stream.random((25, 5)) < 0.4
    rows, columns = stream.permutation(15), stream.permutation(25)

    def figures(held: np.ndarray, seen: np.ndarray, scores: np.ndarray, features: np.ndarray, tags: np.ndarray) -> dict:
        right, had, named = (sparse.csr_matrix(part.astype(np.float32)) for part in (held, seen, tags))
        found = {name: values.mean() for name, values in measure(lambda v: scores[v], right, had, (5,)).each.items()}
        shown = listed(lambda v: scores[v], np.arange(15), had, 5)
        return found | {
            "coverage": list_qualities.coverage(shown),
            "gini": list_qualities.gini(shown),
            "novelty": np.nanmean(list_qualities.novelty(shown, had)),
            "variety": np.nanmean(list_qualities.variety(shown, features)),
            "miscalibration": np.nansum(list_qualities.miscalibration(shown, had, named)),
        }

    moved = [part[rows][:, columns] for part in (held, seen, scores)]
    same = figures(held, seen, scores, features, tags)
    assert same == pytest.approx(figures(*moved, features[columns], tags[columns]), abs=1e-9)


def test_lists_shorter_than_the_cutoff() -> None:
    held = cells([[0]], 2)
    found = measure(lambda viewers: np.ones((len(viewers), 2)), held, held * 0, (10,)).each
    assert found["ndcg@10"][0] == 1.0
    assert found["precision@10"][0] == pytest.approx(0.1)


# --- intervals and groups --------------------------------------------------------------------------------------------


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    stream = np.random.default_rng(5)
    inside = 0
    for trial in range(200):
        low, high = interval(stream.exponential(size=80), draws=400, seed=trial)
        inside += low <= 1.0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_an_interval_of_one_viewer_is_none() -> None:
    assert all(math.isnan(bound) for bound in interval(np.array([0.5])))


def test_pairs_tell_what_two_intervals_cannot() -> None:
    spread = np.linspace(0, 1, 200)
    found = difference(spread + 0.01, spread)
    assert found["interval95"] == pytest.approx([0.01, 0.01])
    (low, _), (_, high) = interval(spread + 0.01), interval(spread)
    assert low < high


def test_groups_by_hand() -> None:
    found = groups(np.array([1, 4, 5, 10, 100]))
    assert found["light"].tolist() == [True, True, True, False, False]
    assert found["heavy"].tolist() == [False, False, False, True, True]
    assert found["few_events"].tolist() == [True, True, False, False, False]


# --- heads and stars -------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 100_000), levels=st.integers(2, 50))
def test_heads_agree_with_scikit_learn(seed: int, levels: int) -> None:
    stream = np.random.default_rng(seed)
    chances = stream.integers(levels + 1, size=60) / levels
    happened = (stream.random(60) < chances).astype(int)
    happened[:2] = 0, 1
    assert metrics.auc(happened, chances) == pytest.approx(roc_auc_score(happened, chances), abs=1e-9)
    assert metrics.accuracy(happened, chances) == accuracy_score(happened, chances >= 0.5)
    inner = np.clip(chances, 1e-6, 1 - 1e-6)
    assert metrics.log_loss(happened, inner) == pytest.approx(log_loss(happened, inner), abs=1e-9)


def test_stars_agree_with_scikit_learn() -> None:
    stream = np.random.default_rng(6)
    stars, predicted = stream.integers(1, 6, size=200), stream.uniform(1, 5, size=200)
    assert metrics.rmse(stars, predicted) == pytest.approx(root_mean_squared_error(stars, predicted), abs=1e-12)
    assert metrics.mae(stars, predicted) == pytest.approx(mean_absolute_error(stars, predicted), abs=1e-12)


def test_calibration_by_hand() -> None:
    # Bins of a tenth: (.0, .1] holds .05 and .1 of which one happened, (.9, 1] holds 1 which did.
    found = metrics.expected_calibration_error(np.array([0, 1, 1]), np.array([0.05, 0.1, 1.0]), bins=10)
    assert found == pytest.approx(2 / 3 * abs(0.075 - 0.5) + 1 / 3 * 0)
    stream = np.random.default_rng(7)
    chances = stream.random(100_000)
    assert metrics.expected_calibration_error(stream.random(100_000) < chances, chances) < 0.01
    assert metrics.expected_calibration_error(np.zeros(10), np.zeros(10)) == 0.0


def test_one_class_only_has_no_auc_and_says_so() -> None:
    assert math.isnan(metrics.auc(np.ones(5), np.linspace(0, 1, 5)))
    found = metrics.of_head(np.ones(5), np.full(5, 0.9))
    assert found["auc"] is None
    assert found["one_class"] is True
    assert found["accuracy"] == 1.0
    assert metrics.of_head(np.zeros(0), np.zeros(0))["log_loss"] is None


def test_certainty_that_was_wrong_costs_much_and_not_everything() -> None:
    assert 30 < metrics.log_loss(np.array([1]), np.array([0.0])) < 40


@pytest.mark.parametrize("measure_of", [metrics.auc, metrics.accuracy, metrics.log_loss, metrics.rmse, metrics.mae])
def test_predictions_must_be_numbers_and_as_many_as_things(measure_of) -> None:
    with pytest.raises(ValueError, match="finite"):
        measure_of(np.array([0, 1]), np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match="3 predictions of 2"):
        measure_of(np.array([0, 1]), np.array([0.5, 0.5, 0.5]))


# --- beyond being right ----------------------------------------------------------------------------------------------


def test_coverage_and_gini_by_hand() -> None:
    even = lists_of([[0, 1], [2, 3]], 4)
    assert list_qualities.gini(even) == 0.0
    assert list_qualities.coverage(even) == 1.0
    one = lists_of([[0], [0], [0]], 4)
    assert list_qualities.gini(one) == pytest.approx(0.75)
    assert list_qualities.coverage(one) == 0.25
    # Shown 1, 1, 2, 4 times: the mean difference of all pairs over twice the mean.
    counts = [1, 1, 2, 4]
    mixed = lists_of([[video] for video, count in enumerate(counts) for _ in range(count)], 4)
    pairs = np.abs(np.subtract.outer(counts, counts)).mean()
    assert list_qualities.gini(mixed) == pytest.approx(pairs / (2 * np.mean(counts)))


def test_novelty_by_hand() -> None:
    seen = cells([[0, 1], [0], [0], [0]], 3)
    assert list_qualities.novelty(lists_of([[0, 1], [2, 1]], 3), seen).tolist() == [1.0, 2.0]


def test_variety_by_hand() -> None:
    features = np.array([[1, 0], [2, 0], [0, 1], [0, 0], [-1, 0]], float)
    found = list_qualities.variety(lists_of([[0, 1], [0, 2], [0, 4], [0, 3]], 5), features)
    assert found[:3] == pytest.approx([0, 1, 2])
    assert math.isnan(found[3])
    three = list_qualities.variety(lists_of([[0, 1, 2]], 5), features)
    assert three[0] == pytest.approx(2 / 3)
    assert list_qualities.mean(found) == 1.0
    assert list_qualities.mean(np.array([np.nan])) is None


def test_serendipity_by_hand() -> None:
    held = cells([[0, 2], [0]], 4)
    found = list_qualities.serendipity(lists_of([[0, 2], [1, 0]], 4), lists_of([[0, 1], [0, 1]], 4), held)
    assert found.tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="same viewers"):
        list_qualities.serendipity(lists_of([[0]], 4), lists_of([[0], [1]], 4), held)


def test_calibration_of_interests_by_hand() -> None:
    # Videos 0 and 1 are of tag 0, video 2 of tag 1, video 3 of both, video 4 of none.
    tags = cells([[0], [0], [1], [0, 1], []], 2)
    history = cells([[0, 1, 2, 4], [4]], 5)
    found = list_qualities.miscalibration(lists_of([[0, 1], [0, 1]], 5), history, tags)
    p = np.array([2 / 3, 1 / 3])
    q = 0.99 * np.array([1.0, 0.0]) + 0.01 * p
    assert found[0] == pytest.approx((p * np.log(p / q)).sum())
    assert math.isnan(found[1])
    fair = list_qualities.miscalibration(lists_of([[0, 1, 2], [0, 1, 2]], 5), history, tags)
    assert fair[0] == pytest.approx(0, abs=1e-9)
    halves = list_qualities.miscalibration(lists_of([[3, 3], [3, 3]], 5), history, tags)
    assert 0 < halves[0] < found[0]
