"""What every sequence model must do, on a ring of videos that follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranker.models import model_file
from ranker.models.model import Model, Progress, Run, make_model
from ranker.models.training_data import ActLog, Content, TrainingData
from store.errors import ReelsenseError
from tests.ranker.watch_chains import VIDEOS, best_unseen, next_of, ring, ring_log

# The network alone: the linear part finds the ring by itself.
TINY: dict[str, Any] = {
    "dim": 16,
    "context": 8,
    "batch": 16,
    "learning_rate": 0.01,
    "dropout": 0.0,
    "epochs": 25,
    "linear_weight": 0.0,
    "begin_near": False,
}
BRIEF: dict[str, Any] = {**TINY, "epochs": 3, "dropout": 0.2, "linear_weight": 0.5}


def learnt(name: str, settings: Mapping[str, Any], data: TrainingData | None = None, run: Run | None = None) -> Model:
    """A fitted model."""
    model = make_model(name, settings)
    model.fit(data or ring(extra=2), run)
    return model


def finds_the_ring(name: str, settings: Mapping[str, Any]) -> Model:
    """The network says what comes next, for viewers of training and for ones that came after it."""
    model = learnt(name, settings)
    log = ring_log(extra=2)
    right = best_unseen(model.score(log, np.arange(log.n_viewers)), log) == next_of(log)
    assert right.mean() > 0.9
    others = ring_log(viewers=VIDEOS * 3, length=5, extra=2)
    right = best_unseen(model.score(others, np.arange(others.n_viewers)), others) == next_of(others)
    assert right.mean() > 0.9
    return model


def scores_anybody(name: str) -> None:
    """Shapes; a viewer without acts, videos that came after training, and the parts of every score."""
    model, data = learnt(name, BRIEF), ring(extra=2)
    log = data.log
    scores = model.score(log, np.array([3, 0]))
    assert scores.shape == (2, log.n_videos)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[1], model.score(log, np.array([0]))[0], atol=1e-5)
    assert model.score(log, np.zeros(0, np.int64)).shape == (0, log.n_videos)
    # A viewer without acts, and one with a video that nobody knew.
    later = ActLog.of(np.array([1, 1, 1]), np.array([2, 3, VIDEOS + 3]), 2, VIDEOS + 5)
    known = model.score(later, np.array([0, 1]))
    assert known.shape == (2, VIDEOS + 5)
    assert np.isfinite(known).all()
    assert (known[:, VIDEOS + 2 :] == known[:, : VIDEOS + 2].min(axis=1, keepdims=True)).all()
    for viewer, video in ((1, 4), (1, 2), (1, VIDEOS + 4), (0, 7)):
        reasons = model.explain(later, viewer, video)
        assert sum(reason.share for reason in reasons) == pytest.approx(float(known[viewer, video]), abs=1e-4)
        assert [reason.share for reason in reasons] == sorted((reason.share for reason in reasons), reverse=True)


def says_why(model: Model) -> None:
    """On the ring the newest video speaks most for the next one."""
    log = ring_log(extra=2)
    following = int(next_of(log)[5])
    reasons = [reason for reason in model.explain(log, 5, following) if reason.kind == "video"]
    assert reasons[0].name == str((following - 1) % VIDEOS)


def is_the_same_again(name: str) -> None:
    """Same seed, same arrays; another seed, other ones; and all of it survives being stored."""
    first, second, third = (learnt(name, BRIEF | {"seed": seed}) for seed in (0, 0, 1))
    assert model_file.version_of(first) == model_file.version_of(second) != model_file.version_of(third)
    again = model_file.from_bytes(model_file.to_bytes(first))
    log = ring_log(extra=2)
    np.testing.assert_array_equal(again.score(log, np.arange(9)), first.score(log, np.arange(9)))
    assert model_file.version_of(again) == model_file.version_of(first)


def refuses_parts_that_do_not_fit(name: str) -> None:
    """Arrays of another shape, or less of them, are no model."""
    model = learnt(name, BRIEF)
    config, arrays = model.config.model_dump(), model.arrays()
    fewer = {key: value for key, value in arrays.items() if key != "network.norm.weight"}
    for broken in (
        fewer,
        arrays | {"candidates": np.array([VIDEOS + 9])},
        arrays | {"transitions.weights": np.ones(3)},
    ):
        with pytest.raises(ReelsenseError) as caught:
            type(model).from_arrays(config, broken)
        assert caught.value.code == "ranker.bad_model"


def goes_on_where_it_was_stopped(name: str, path: Path) -> None:
    """A run that is stopped after an epoch and gone on with ends where one that never stopped does."""

    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise Stopped

    whole = learnt(name, BRIEF)
    with pytest.raises(Stopped):
        learnt(name, BRIEF, run=Run(checkpoint=path, progress=stop))
    assert path.exists()
    resumed = make_model(name, BRIEF)
    facts = resumed.fit(ring(extra=2), Run(checkpoint=path))
    assert facts["resumed_at"] == 1
    assert model_file.version_of(resumed) == model_file.version_of(whole)
    with pytest.raises(ReelsenseError) as caught:
        learnt(name, BRIEF | {"dim": 32}, run=Run(checkpoint=path))
    assert caught.value.code == "ranker.bad_checkpoint"


def learns_with_all_of_it(name: str) -> None:
    """Every parameter moves in training."""
    data = ring(extra=2)
    log = replace(
        data.log,
        watched=np.linspace(0, 1.4, len(data.log)).astype(np.float32),
        kinds=(np.arange(len(data.log)) % 10).astype(np.int8),
        ratings=(np.arange(len(data.log)) % 5 + 1).astype(np.float32),
    )
    before, after = (
        learnt(name, TINY | {"epochs": 1, "learning_rate": rate}, replace(data, log=log)).arrays()
        for rate in (1e-12, 0.01)
    )
    still = [key for key in before if key.startswith("network.") and np.allclose(before[key], after[key], atol=1e-6)]
    assert [key for key in still if not key.endswith(".features")] == []


def stops_by_the_judge(name: str) -> None:
    """What the judge liked best is kept, and training ends when it likes nothing more."""
    said = iter([0.1, 0.5, 0.2, 0.2, 0.2, 0.2])
    model = make_model(name, TINY | {"epochs": 6, "patience": 2})
    facts = model.fit(ring(extra=2), Run(judge=lambda _: next(said)))
    assert (facts["best_epoch"], facts["epochs"], facts["stopped_early"]) == (2, 4, True)
    kept = learnt(name, TINY | {"epochs": 2})
    for key, array in kept.arrays().items():
        np.testing.assert_array_equal(array, model.arrays()[key])


def learns_from_draws(name: str) -> None:
    """With more videos than a softmax may hold, the target and some others are enough."""
    finds_the_ring(name, TINY | {"most_candidates": 12, "epochs": 40})


def refuses_bad_data(name: str) -> None:
    """Too few acts, and features that are no numbers."""
    lone = ActLog.of(np.array([0]), np.array([1]), 1, 3)
    with pytest.raises(ReelsenseError) as caught:
        learnt(name, BRIEF, TrainingData(lone))
    assert caught.value.code == "ranker.too_few_events"
    features = ring().content.features["place"].copy()
    features[2, 1] = np.nan
    with pytest.raises(ReelsenseError) as caught:
        learnt(name, BRIEF, TrainingData(ring_log(), Content({"place": features})))
    assert caught.value.code == "ranker.not_finite"
    with pytest.raises(ReelsenseError) as caught:
        make_model(name, {"breadth": 3})
    assert caught.value.code == "request.invalid"
