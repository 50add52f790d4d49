"""What holds of every model of factors: BPR, SVD++, LightGCN and the factorisation machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranker.models import model_file
from ranker.models.model import Model, Progress, Run, make_model
from ranker.models.training_data import ActLog, Content, TrainingData
from store.errors import InputError, ModelError
from tests.ranker.planted_factors import NEW_VIDEO, NEW_VIEWER, VIDEOS, VIEWERS, found_of_taste, planted

SETTINGS: dict[str, dict[str, Any]] = {
    "bpr": {"dim": 8, "learning_rate": 0.05, "batch": 64, "epochs": 30, "draws": 1, "l2": 0.05},
    "svdpp": {"dim": 8, "learning_rate": 0.05, "batch": 16, "epochs": 30, "l2": 0.01, "l2_own": 0.01},
    "lightgcn": {"dim": 8, "learning_rate": 0.05, "batch": 16, "epochs": 30, "l2": 0.01},
    "fm": {"dim": 8, "learning_rate": 0.05, "batch": 64, "epochs": 40, "l2": 0.1},
}
NAMES = sorted(SETTINGS)
ALL = np.arange(VIEWERS + 1)


def fitted(name: str, data: TrainingData, run: Run | None = None, **settings: Any) -> Model:
    model = make_model(name, SETTINGS[name] | settings)
    model.fit(data, run)
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: fitted(name, planted()) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_two_tastes_are_found(models: dict[str, Model], name: str) -> None:
    data = planted()
    scores = models[name].score(data.log, ALL)
    assert scores.shape == (VIEWERS + 1, VIDEOS + 1)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert found_of_taste(scores, data) >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_new_viewer_is_known_by_what_the_log_holds(models: dict[str, Model], name: str) -> None:
    log = planted().log
    later = ActLog.of(
        np.append(log.viewers, [NEW_VIEWER, NEW_VIEWER, NEW_VIEWER + 1]),
        np.append(log.videos, [3, 7, 4]),
        VIEWERS + 2,
        VIDEOS + 1,
    )
    scores = models[name].score(later, np.array([NEW_VIEWER, NEW_VIEWER + 1]))[:, :VIDEOS]
    odd = np.arange(VIDEOS) % 2 == 1
    assert scores[0, odd].mean() > scores[0, ~odd].mean()
    assert scores[1, ~odd].mean() > scores[1, odd].mean()


@pytest.mark.parametrize("name", NAMES)
def test_nobody_at_all_and_videos_that_came_later(models: dict[str, Model], name: str) -> None:
    log = planted().log
    wider = ActLog.of(log.viewers, log.videos, VIEWERS + 1, VIDEOS + 4)
    scores = models[name].score(wider, np.array([0, NEW_VIEWER, 900]))
    assert scores.shape == (3, VIDEOS + 4)
    assert np.isfinite(scores).all()
    # What nobody had stands no higher than anything that somebody had.
    assert (scores[:, NEW_VIDEO + 1 :] <= scores[:, :VIDEOS].min(axis=1, keepdims=True)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("viewer", [1, NEW_VIEWER])
@pytest.mark.parametrize("video", [2, 9, NEW_VIDEO, NEW_VIDEO + 1])
def test_the_parts_of_a_score_sum_to_it(models: dict[str, Model], name: str, viewer: int, video: int) -> None:
    log = planted().log
    later = ActLog.of(
        np.append(log.viewers, [NEW_VIEWER, NEW_VIEWER]), np.append(log.videos, [3, 7]), VIEWERS + 1, VIDEOS + 2
    )
    parts = models[name].explain(later, viewer, video)
    score = models[name].score(later, np.array([viewer]))[0, video]
    assert sum(part.share for part in parts) == pytest.approx(score, abs=1e-5)
    sizes = [abs(part.share) for part in parts]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_the_same_model(models: dict[str, Model], name: str) -> None:
    log, model = planted().log, models[name]
    data = model_file.to_bytes(model)
    again = model_file.from_bytes(data, model_file.version_of(model))
    assert (again.score(log, ALL) == model.score(log, ALL)).all()
    assert model_file.to_bytes(again) == data
    assert [again.explain(log, 1, 2)] == [model.explain(log, 1, 2)]


@pytest.mark.parametrize("name", NAMES)
def test_factors_that_do_not_fit_are_refused(models: dict[str, Model], name: str) -> None:
    arrays = dict(models[name].arrays())
    arrays["bias"] = arrays["bias"][:-1]
    with pytest.raises(ModelError) as caught:
        type(models[name]).from_arrays(models[name].config.model_dump(), arrays)
    assert caught.value.code == "ranker.bad_model"


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_everything(models: dict[str, Model], name: str) -> None:
    first, again, other = models[name], fitted(name, planted()), fitted(name, planted(), seed=1)
    assert model_file.version_of(first) == model_file.version_of(again)
    assert model_file.version_of(first) != model_file.version_of(other)


@pytest.mark.parametrize("name", NAMES)
def test_every_array_is_learnt(name: str) -> None:
    one, two = (fitted(name, planted(), epochs=epochs).arrays() for epochs in (1, 3))
    fixed = {"seen", "viewer_bias", "stars", "tag_starts", "tag_columns", "tag_shares"}
    if name == "lightgcn":
        fixed.add("bias")
    for array in set(one) - fixed:
        moved = (one[array] != two[array]).reshape(len(one[array]), -1).any(axis=1)
        assert moved.mean() > (0.05 if array in ("part_hours", "part_days") else 0.9), array


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on(name: str, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        # The checkpoint of an epoch is written after its progress is told.
        if progress.done == 4:
            raise Stopped

    checkpoint = tmp_path / "run"
    with pytest.raises(Stopped):
        fitted(name, planted(), Run(progress=stop, checkpoint=checkpoint), epochs=6)
    model = make_model(name, SETTINGS[name] | {"epochs": 6})
    assert model.fit(planted(), Run(checkpoint=checkpoint))["resumed_at"] == 3
    assert model_file.version_of(model) == model_file.version_of(fitted(name, planted(), epochs=6))
    with pytest.raises(ModelError) as caught:
        fitted(name, planted(1), Run(checkpoint=checkpoint), epochs=6)
    assert caught.value.code == "ranker.bad_checkpoint"


@pytest.mark.parametrize("name", NAMES)
def test_the_best_look_is_kept(name: str) -> None:
    data, looks = planted(), []

    def judge(model: Model) -> float:
        looks.append(model.score(data.log, ALL))
        return -float(len(looks))

    model = make_model(name, SETTINGS[name] | {"epochs": 10, "evaluate_every": 1, "patience": 2})
    facts = model.fit(data, Run(judge=judge))
    assert (facts["best_epoch"], facts["epochs"], facts["stopped_early"]) == (1, 3, True)
    assert (model.score(data.log, ALL) == looks[0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_too_little_and_no_numbers(name: str) -> None:
    nothing = ActLog.of(np.zeros(1, np.int64), np.zeros(1, np.int64), 2, 2)
    with pytest.raises(InputError) as caught:
        make_model(name).fit(TrainingData(nothing))
    assert caught.value.code == "ranker.too_few_events"
    data = planted()
    features = np.full((VIDEOS + 1, 3), np.nan, np.float32)
    with pytest.raises(ModelError) as broken:
        make_model(name).fit(replace(data, content=Content({"vision": features})))
    assert broken.value.code == "ranker.not_finite"


@pytest.mark.parametrize("name", ["svdpp", "lightgcn", "fm"])
def test_a_sample_of_the_videos_stands_for_all(name: str) -> None:
    data = planted()
    scores = fitted(name, data, most_candidates=15).score(data.log, ALL)
    assert found_of_taste(scores, data) >= 0.8
