"""The multi-task ranker: it finds what was planted, keeps its word, and comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from ranker.events import KINDS
from ranker.models.calibration import area_under_curve
from ranker.models.model import Run, make_model, recall
from ranker.models.model_file import from_bytes, to_bytes
from ranker.models.multitask import MultiTask
from ranker.models.task_examples import gathered, held_back
from ranker.models.task_features import names
from ranker.models.task_outcomes import DURATION, HEADS, outcomes_of
from ranker.models.training_data import ActLog, Content, TrainingData
from store.errors import InputError, ModelError

VIEWERS, VIDEOS, GROUPS = 60, 40, 2
QUICK = {"epochs": 25, "batch": 128, "learning_rate": 1e-2, "weight_decay": 1e-3, "patience": 30}
SMALL: dict[str, Any] = {
    "inputs": ("item_knn", "p3alpha"), "dim": 4, "width": 16, "experts": 2, "tower": 4, "buckets": 4, "folds": 2,
    "drawn": 4, "most": 20, "valid_share": 0.2, **QUICK,
}  # fmt: skip


def group(number: int) -> int:
    return number % GROUPS


def planted(kinds: bool = True) -> TrainingData:
    """Viewers watch mostly videos of their group. They finish and like those whose number is a multiple of 4 or one
    more (half of either group), share nothing but video 0 and 1, never follow, and refuse the last videos."""
    stream = np.random.Generator(np.random.PCG64(5))
    rows: list[tuple[int, int, int, float, float]] = []
    for viewer in range(VIEWERS):
        mine = [video for video in range(VIDEOS) if group(video) == group(viewer)]
        strange = [video for video in range(VIDEOS) if group(video) != group(viewer)]
        for video in [*stream.choice(mine, 12, replace=False), *stream.choice(strange, 2, replace=False)]:
            good = video % 4 < 2
            rows.append((viewer, video, KINDS.index("view"), 1.0 if good else 0.4 * stream.random(), 0.5))
            if good:
                rows.append((viewer, video, KINDS.index("like"), np.nan, 1.0))
            if video < 2:
                rows.append((viewer, video, KINDS.index("share"), np.nan, 2.0))
            if video >= VIDEOS - 4 and not good:
                rows.append((viewer, video, KINDS.index("not_interested"), np.nan, -0.4))
    viewers, videos, kind, watched, values = (np.array(column) for column in zip(*rows, strict=True))
    log = ActLog.of(
        viewers.astype(np.int64), videos.astype(np.int64), VIEWERS, VIDEOS,
        values=values.astype(np.float32), watched=watched.astype(np.float32) if kinds else None,
        kinds=kind.astype(np.int8) if kinds else None,
    )  # fmt: skip
    tags = sparse.csr_matrix(np.eye(GROUPS, dtype=np.float32)[[group(video) for video in range(VIDEOS)]])
    lengths = np.full((VIDEOS, 1), 20, np.float32)
    return TrainingData(log, Content({DURATION: lengths}, tags, ("even", "odd")))


@pytest.fixture(scope="module")
def fitted() -> tuple[MultiTask, TrainingData, dict[str, Any]]:
    data = planted()
    model = MultiTask(**SMALL)
    return model, data, model.fit(data)


def unseen(data: TrainingData) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.nonzero(data.log.binary.toarray() == 0)


def test_the_heads_find_what_was_planted(fitted: tuple[MultiTask, TrainingData, dict[str, Any]]) -> None:
    model, data, report = fitted
    viewers, videos = unseen(data)
    found = model.predict(data.log, viewers, videos)
    good = videos % 4 < 2
    assert area_under_curve(found["view"], viewers % GROUPS == videos % GROUPS) > 0.9
    assert area_under_curve(found["finish"], good) > 0.98
    assert area_under_curve(found["like"], good) > 0.98
    assert area_under_curve(found["watch"], good) > 0.98
    assert area_under_curve(found["share"], videos < 2) > 0.98
    assert area_under_curve(found["not_interested"], (videos >= VIDEOS - 4) & ~good) > 0.98
    assert report["left_out"] == {"follow": f"one class only: true 0 times of {report['examples']}"}
    assert set(found) == set(HEADS) - {"follow"}
    for values in found.values():
        assert values.dtype == np.float64
        assert values.shape == viewers.shape
        assert ((values >= 0) & (values <= 1)).all()


def test_calibration_does_not_make_it_worse_where_it_was_learnt(
    fitted: tuple[MultiTask, TrainingData, dict[str, Any]],
) -> None:
    report = fitted[2]
    assert report["calibrated_on"] > 50
    told = dict(report["calibration"])
    watch = told.pop("watch")
    assert watch["error_after"] <= watch["error_before"] + 0.01
    assert set(told) == {"view", "finish", "like", "share", "not_interested"}
    assert all(found["ece_after"] <= found["ece_before"] + 0.03 for found in told.values())


def test_the_best_are_ranked_by_worth_and_the_rest_stay_below(
    fitted: tuple[MultiTask, TrainingData, dict[str, Any]],
) -> None:
    model, data, _ = fitted
    everybody = np.arange(VIEWERS)
    scores = model.score(data.log, everybody)
    assert scores.dtype == np.float32
    assert scores.shape == (VIEWERS, VIDEOS)
    assert np.isfinite(scores).all()
    above = scores > model._floor() + 1
    had = data.log.matrix.toarray() != 0
    assert (above & ~had).sum(axis=1).min() >= SMALL["most"]
    assert (~above).any()
    lists = np.stack([recall(model, data.log, viewer, 5)[0] for viewer in everybody])
    assert (lists % GROUPS == everybody[:, None] % GROUPS).mean() > 0.85
    # What is liked and not refused comes first among what is as likely to be taken up.
    assert (lists % 4 < 2).mean() > 0.6


def test_worth_follows_the_weights_of_heads_and_of_sides(
    fitted: tuple[MultiTask, TrainingData, dict[str, Any]],
) -> None:
    model, data, _ = fitted
    found = model.predict(data.log, np.zeros(VIDEOS, np.int64), np.arange(VIDEOS))
    before = model.config
    try:
        model.config = before.model_copy(update={"head_weights": {"view": 0.0, "share": 2.0}, "most": VIDEOS})
        model.config = model.config.model_copy(
            update={"objectives": before.objectives.model_copy(update={"platform": 3.0})}
        )
        scores = model.score(data.log, np.array([0]))[0]
    finally:
        model.config = before
    assert scores == pytest.approx(6.0 * found["view"] * found["share"], abs=1e-5)


def test_reasons_sum_to_the_score(fitted: tuple[MultiTask, TrainingData, dict[str, Any]]) -> None:
    model, data, _ = fitted
    scores = model.score(data.log, np.array([3]))[0]
    kinds = set()
    for video in range(VIDEOS):
        reasons = model.explain(data.log, 3, video)
        kinds |= {reason.kind for reason in reasons}
        assert sum(reason.share for reason in reasons) == pytest.approx(scores[video], abs=1e-5)
        assert [reason.share for reason in reasons] == sorted((reason.share for reason in reasons), reverse=True)
    assert kinds == {"head", "floor", "inputs"}


def test_a_stored_model_is_the_same(fitted: tuple[MultiTask, TrainingData, dict[str, Any]]) -> None:
    model, data, _ = fitted
    again = from_bytes(to_bytes(model))
    assert to_bytes(again) == to_bytes(model)
    everybody = np.arange(VIEWERS)
    assert np.array_equal(again.score(data.log, everybody), model.score(data.log, everybody))
    arrays = model.arrays()
    arrays["network.wide.weight"] = arrays["network.wide.weight"][:, :-1]
    with pytest.raises(ModelError) as refused:
        MultiTask.from_arrays(model.config.model_dump(mode="json"), arrays)
    assert refused.value.code == "ranker.bad_model"
    del arrays["network.wide.weight"]
    with pytest.raises(ModelError, match="do not fit"):
        MultiTask.from_arrays(model.config.model_dump(mode="json"), arrays)


def test_a_viewer_and_a_video_that_training_did_not_meet(
    fitted: tuple[MultiTask, TrainingData, dict[str, Any]],
) -> None:
    model, data, _ = fitted
    log = data.log
    # One more viewer, with three videos of group 1 in his log; and one with none at all.
    more = ActLog.of(np.r_[log.viewers, [VIEWERS] * 3], np.r_[log.videos, [1, 5, 9]], VIEWERS + 2, VIDEOS)
    scores = model.score(more, np.array([VIEWERS, VIEWERS + 1]))
    assert np.isfinite(scores).all()
    view = model.predict(more, np.full(VIDEOS, VIEWERS), np.arange(VIDEOS))["view"]
    assert area_under_curve(view[10:], np.arange(10, VIDEOS) % GROUPS == 1) > 0.9


def test_a_video_without_acts_has_a_finite_score() -> None:
    data = planted()
    log = data.log
    wider = TrainingData(ActLog.of(log.viewers, log.videos, VIEWERS, VIDEOS + 1, values=log.values))
    model = MultiTask(**SMALL | {"epochs": 1})
    model.fit(wider)
    assert np.isfinite(model.score(wider.log, np.arange(VIEWERS))[:, VIDEOS]).all()
    # And one that came after training, which a viewer has had meanwhile.
    later = ActLog.of(np.r_[log.viewers, [0]], np.r_[log.videos, [VIDEOS + 1]], VIEWERS, VIDEOS + 2)
    scores = model.score(later, np.arange(VIEWERS))
    assert scores.shape == (VIEWERS, VIDEOS + 2)
    assert np.isfinite(scores).all()
    assert sum(reason.share for reason in model.explain(later, 0, VIDEOS + 1)) == pytest.approx(
        scores[0, VIDEOS + 1], abs=1e-5
    )
    assert all(np.isfinite(v).all() for v in model.predict(wider.log, np.array([0]), np.array([VIDEOS])).values())


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "shared_bottom"},
        {"weighting": "uncertainty"},
        {"adversarial": False, "label_smoothing": 0.0, "pairwise": 0.0},
        {"holdout": "last", "calibration": "isotonic", "buckets": 0},
    ],
)
def test_every_choice_learns_and_moves_every_parameter(change: dict[str, Any]) -> None:
    data = planted()
    brief = {"epochs": 2, "weight_decay": 0.0}
    models = [MultiTask(**SMALL | change | brief) for _ in range(2)]
    reports = [model.fit(data) for model in models]
    assert reports[0]["losses"][1] < reports[0]["losses"][0]
    # Same data, same settings: same model, to the last bit.
    assert to_bytes(models[0]) == to_bytes(models[1])
    network = models[0]._network
    assert network is not None
    begun = models[0]._network_of(len(models[0]._standard.mean)).state_dict()
    for name, tensor in network.state_dict().items():
        assert not torch.equal(begun[name], tensor), name


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    data = planted()
    whole = {"epochs": 3, "weight_decay": 0.0}

    class Stopped(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.done == 2:
            raise Stopped

    straight, broken = (MultiTask(**SMALL | whole) for _ in range(2))
    straight.fit(data)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stopped):
        broken.fit(data, Run(progress=stop, checkpoint=path))
    report = broken.fit(data, Run(checkpoint=path))
    assert report["resumed_at"] == 1
    assert to_bytes(broken) == to_bytes(straight)
    with pytest.raises(ModelError) as refused:
        MultiTask(**SMALL | whole | {"dim": 5}).fit(data, Run(checkpoint=path))
    assert refused.value.code == "ranker.bad_checkpoint"


def test_a_judge_ends_training_and_names_the_best() -> None:
    data = planted()
    said = iter([0.1, 0.3, 0.2, 0.2, 0.2])
    seen: list[float] = []

    def judge(model: Any) -> float:
        seen.append(float(model.score(data.log, np.arange(VIEWERS)).sum()))
        return next(said)

    brief = {"epochs": 9, "learning_rate": 1e-3, "weight_decay": 0.0, "patience": 2}
    report = MultiTask(**SMALL | brief).fit(data, Run(judge=judge))
    assert (report["epochs"], report["best_epoch"], report["stopped_early"]) == (4, 2, True)
    assert len(set(seen)) == len(seen)


def test_too_few_events_and_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError) as refused:
        MultiTask(**SMALL).fit(TrainingData(ActLog.of(np.array([0]), np.array([0]), 1, 3)))
    assert refused.value.code == "ranker.too_few_events"
    # Everybody had everything, and said nothing more: there is no head to learn.
    viewers, videos = np.divmod(np.arange(40), 4)
    with pytest.raises(InputError, match="None of the heads") as none:
        MultiTask(**SMALL).fit(TrainingData(ActLog.of(viewers, videos, 10, 4)))
    assert none.value.code == "ranker.too_few_events"
    data = planted()
    broken = Content({"image": np.full((VIDEOS, 2), np.nan, np.float32)})
    with pytest.raises(ModelError) as numbers:
        MultiTask(**SMALL).fit(TrainingData(data.log, broken))
    assert numbers.value.code == "ranker.not_finite"


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings in (
        {"inputs": ["item_knn", "item_knn"]},
        {"inputs": ["multitask"]},
        {"inputs": ["again"], "input_settings": {"again": {"model": "multitask"}}},
        {"inputs": ["ease"], "input_settings": {"als": {}}},
        {"inputs": ["a.b"], "input_settings": {"a.b": {"model": "ease"}}},
        {"head_weights": {"applause": 1}},
        {"task_weights": {"like": float("inf")}},
    ):
        with pytest.raises(InputError) as refused:
            make_model("multitask", settings)
        assert refused.value.code == "request.invalid"


def test_models_may_be_given_instead_of_names() -> None:
    neighbours = make_model("item_knn", {"neighbours": 7})
    model = MultiTask(inputs=[neighbours, "p3alpha"])
    assert model.config.inputs == ("item_knn", "p3alpha")
    assert model.config.input_settings["item_knn"]["neighbours"] == 7
    assert model._make_inputs()[0].config.model_dump()["neighbours"] == 7


def test_one_model_may_be_an_input_twice() -> None:
    data = planted()
    fading = {"model": "p3alpha", "history": "fading", "rank": 2.0}
    model = MultiTask(**SMALL | {"epochs": 1, "inputs": ("p3alpha", "lately"), "input_settings": {"lately": fading}})
    report = model.fit(data)
    assert list(model.members) == list(report["inputs"]) == ["p3alpha", "lately"]
    assert [member.config.model_dump()["history"] for member in model.members.values()] == ["plain", "fading"]
    assert report["features"][:4] == ["p3alpha score", "p3alpha rank", "lately score", "lately rank"]
    again = from_bytes(to_bytes(model))
    everybody = np.arange(VIEWERS)
    assert np.array_equal(again.score(data.log, everybody), model.score(data.log, everybody))


def test_training_sees_counts_as_large_as_those_that_are_served() -> None:
    data = planted(kinds=False)
    outcomes = outcomes_of(data.log)
    fold = held_back(outcomes, "folds", 3, 0.2, 0)
    examples = gathered(
        data, outcomes, fold, Content(), lambda: [make_model("popularity")], drawn=1, hard=0, most=5, seed=0
    )
    own = examples.features[:, 0, names(["popularity"]).index("viewer had")]
    # Everybody had 14 videos: 13 beside the pair, of which two thirds are known while a fold is held back.
    assert float(np.expm1(own).mean()) == pytest.approx(13, abs=0.5)
