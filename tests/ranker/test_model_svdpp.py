"""SVD++: the implicit sum follows the log, and stars are predicted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranker.models.svdpp import SvdPlusPlus
from ranker.models.training_data import ActLog, TrainingData
from store.errors import InputError
from tests.ranker.planted_factors import NEW_VIDEO, NEW_VIEWER, VIDEOS, VIEWERS, planted

FAST = {"dim": 8, "learning_rate": 0.05, "batch": 16, "epochs": 40, "l2": 0.001, "l2_own": 0.001}


def test_stars_are_predicted() -> None:
    data = planted()
    model = SvdPlusPlus(loss="ratings", **FAST)
    model.fit(data)
    found = model.predict_ratings(data.log, data.log.viewers, data.log.videos)
    assert np.sqrt(np.mean((found - data.log.ratings) ** 2)) < 0.3
    assert found.min() >= 2
    assert found.max() <= 5
    mean = float(data.log.ratings.mean())
    unknown = model.predict_ratings(data.log, np.array([NEW_VIEWER, 900]), np.array([NEW_VIDEO, NEW_VIDEO + 9]))
    assert unknown == pytest.approx([mean, mean], abs=1e-4)
    # A score is the prediction, within the range of the stars or not.
    score = model.score(data.log, np.array([1]))[0, 3]
    assert np.clip(score, 2, 5) == pytest.approx(model.predict_ratings(data.log, np.array([1]), np.array([3]))[0])
    assert sum(part.share for part in model.explain(data.log, 1, 3)) == pytest.approx(score, abs=1e-5)


def test_stars_need_stars() -> None:
    data = planted()
    without = replace(data.log, ratings=np.full(len(data.log), np.nan, np.float32))
    with pytest.raises(InputError) as caught:
        SvdPlusPlus(loss="ratings").fit(TrainingData(without))
    assert caught.value.code == "ranker.too_few_events"
    model = SvdPlusPlus(**FAST | {"epochs": 1})
    model.fit(data)
    with pytest.raises(InputError) as refused:
        model.predict_ratings(data.log, np.array([0]), np.array([0]))
    assert refused.value.code == "request.invalid"


def test_a_later_act_counts_at_once_and_late_ones_more() -> None:
    data = planted()
    model = SvdPlusPlus(half_rank=2.0, **FAST)
    model.fit(data)

    def shares(videos: list[int]) -> dict[str, float]:
        log = ActLog.of(np.full(len(videos), NEW_VIEWER), np.array(videos), VIEWERS + 1, VIDEOS + 1)
        return {part.name: part.share for part in model.explain(log, NEW_VIEWER, 5) if part.kind == "video"}

    first, then = shares([1, 2]), shares([2, 1])
    assert abs(first["1"]) < abs(then["1"])
    assert abs(first["2"]) > abs(then["2"])
    odd = np.arange(VIDEOS) % 2 == 1
    log = ActLog.of(np.full(8, NEW_VIEWER), np.array([0, 2, 4, 6, 8, 1, 3, 5]), VIEWERS + 1, VIDEOS + 1)
    scores = model.score(log, np.array([NEW_VIEWER]))[0, :VIDEOS]
    assert scores[odd].mean() > scores[~odd].mean()
