"""The two towers: planted tastes are found, by the modality they were planted in, and every part of a score is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ranker.models import model_file
from ranker.models.model import Run, make_model, recall
from ranker.models.tower_network import TowerNetwork
from ranker.models.tower_training import HeldBack, TwoTowerConfig, begin, calibrate
from ranker.models.training_data import ActLog, Content, TrainingData
from ranker.models.two_tower import TwoTower
from store.errors import ReelsenseError

SMALL: dict[str, Any] = {"dim": 16, "width": 8, "interests": 2, "epochs": 30, "batch": 64, "learning_rate": 0.02}
VIEWERS, VIDEOS, CLASSES = 90, 64, 4


def planted(new: int = 0, seed: int = 0) -> tuple[TrainingData, npt.NDArray[np.int64]]:
    """(data, int64 [2, n_videos] the class of each video's picture and of its sound). Every even viewer watches videos
    of one class of pictures, whatever they sound like, every odd one of one class of sounds; classes go round. The last
    `new` videos nobody watched. Class 3 of the rows has no sound."""
    stream = np.random.default_rng(seed)
    kinds = np.stack([np.arange(VIDEOS) % CLASSES, np.arange(VIDEOS) // CLASSES % CLASSES])
    features = {}
    for name, classes in zip(("picture", "sound"), kinds, strict=True):
        centres = stream.standard_normal((CLASSES, 12))
        features[name] = (centres[classes] + 0.1 * stream.standard_normal((VIDEOS, 12))).astype(np.float32)
    pairs = []
    for viewer in range(VIEWERS):
        liked = np.flatnonzero(kinds[viewer % 2, : VIDEOS - new] == viewer // 2 % CLASSES)
        pairs += [(viewer, int(video)) for video in stream.permutation(liked)[:8]]
    table = np.array(pairs, np.int64)
    return TrainingData(ActLog.of(table[:, 0], table[:, 1], VIEWERS, VIDEOS), Content(features)), kinds


@pytest.fixture(scope="module")
def fitted() -> tuple[TwoTower, TrainingData, npt.NDArray[np.int64]]:
    """Fitted to the planted tastes; nobody watched the last eight videos."""
    data, kinds = planted(new=8)
    model = TwoTower(**SMALL)
    model.fit(data)
    return model, data, kinds


def share_of_own(found: npt.NDArray[Any], kinds: npt.NDArray[np.int64], viewer: int) -> float:
    return float((kinds[viewer % 2, found] == viewer // 2 % CLASSES).mean())


# --- what is learnt --------------------------------------------------------------------------------------------------


def test_what_was_not_watched_of_the_own_class_comes_first(fitted: Any) -> None:
    model, data, kinds = fitted
    shares = [share_of_own(recall(model, data.log, viewer, 4)[0], kinds, viewer) for viewer in range(VIEWERS)]
    assert np.mean(shares) > 0.9  # chance: 0.25


def test_new_videos_are_ranked_by_what_they_are(fitted: Any) -> None:
    model, data, kinds = fitted
    new = np.arange(VIDEOS - 8, VIDEOS)
    scores = model.score(data.log, np.arange(VIEWERS))[:, new]
    best = new[np.argsort(-scores, axis=1)[:, :2]]
    # Each class of pictures has two of the eight; of sounds, two classes have four: the others have none to be found.
    asked = [viewer for viewer in range(VIEWERS) if (kinds[viewer % 2, new] == viewer // 2 % CLASSES).any()]
    assert np.mean([share_of_own(best[viewer], kinds, viewer) for viewer in asked]) > 0.9


def test_a_viewer_goes_by_the_modality_that_he_chooses_by(fitted: Any) -> None:
    model, data, _ = fitted
    weights = np.array([model.match(data.log, viewer, 0).weights["picture"] for viewer in range(VIEWERS)])
    assert weights[::2].mean() > weights[1::2].mean() + 0.2


def test_a_viewer_who_was_not_in_training_is_his_history(fitted: Any) -> None:
    model, _, kinds = fitted
    watched = np.flatnonzero(kinds[1] == 2)[:3]
    log = ActLog.of(np.full(3, 200), watched, 201, VIDEOS)
    found, _ = recall(model, log, 200, 5)
    assert (kinds[1, found] == 2).mean() >= 0.8
    nobody = model.score(log, np.array([7]))
    assert np.isfinite(nobody).all()


def test_two_tastes_are_two_interests() -> None:
    """Viewers watch two unlike classes each: one interest averages them, and several keep them apart."""
    stream = np.random.default_rng(3)
    centres = np.eye(6, 12, dtype=np.float32)
    classes = np.arange(60) % 6
    rows = (centres[classes] + 0.05 * stream.standard_normal((60, 12))).astype(np.float32)
    pairs = [
        (viewer, int(video))
        for viewer in range(120)
        for own in stream.permutation(6)[:2]
        for video in stream.permutation(np.flatnonzero(classes == own))[:5]
    ]
    table = np.array(pairs, np.int64)
    data = TrainingData(ActLog.of(table[:, 0], table[:, 1], 120, 60), Content({"picture": rows}))
    model = TwoTower(**{**SMALL, "interests": 4, "choice": 4.0})
    model.fit(data)
    apart = []
    for viewer in range(40):
        history = data.log.history(viewer)
        first, second = np.unique(classes[history])
        matches = [model.match(data.log, viewer, int(np.flatnonzero(classes == own)[0])) for own in (first, second)]
        apart.append(matches[0].interest != matches[1].interest)
    assert np.mean(apart) > 0.5


# --- explanations ----------------------------------------------------------------------------------------------------


def test_the_parts_of_a_score_sum_to_it(fitted: Any) -> None:
    model, data, _ = fitted
    for viewer, video in ((0, 5), (1, 60), (17, 3)):
        reasons = model.explain(data.log, viewer, video)
        score = model.score(data.log, np.array([viewer]))[0, video]
        assert sum(reason.share for reason in reasons) == pytest.approx(score, abs=1e-4)
        assert [abs(reason.share) for reason in reasons] == sorted((abs(r.share) for r in reasons), reverse=True)
        named = {int(reason.name) for reason in reasons if reason.kind == "video"}
        assert named <= set(data.log.history(viewer).tolist())
        assert {reason.name for reason in reasons if reason.kind == "modality"} == {"picture", "sound"}


def test_what_watched_videos_add_is_all_that_ids_add(fitted: Any) -> None:
    """Three watched videos are all named, so that nothing is left for the rest."""
    model, _, _ = fitted
    log = ActLog.of(np.zeros(3, np.int64), np.array([2, 7, 40]), 1, VIDEOS)
    reasons = model.explain(log, 0, 11)
    assert {reason.name for reason in reasons if reason.kind == "video"} == {"2", "7", "40"}
    assert max(abs(reason.share) for reason in reasons if reason.kind == "video") > 0.01
    assert next(reason.share for reason in reasons if reason.kind == "factor") == pytest.approx(0, abs=1e-4)


def test_who_has_no_history_gets_reasons_too(fitted: Any) -> None:
    model, _, _ = fitted
    log = ActLog.of(np.zeros(0, np.int64), np.zeros(0, np.int64), 1, VIDEOS)
    reasons = model.explain(log, 0, 3)
    assert sum(reason.share for reason in reasons) == pytest.approx(model.score(log, np.array([0]))[0, 3], abs=1e-4)
    assert not [reason for reason in reasons if reason.kind == "video"]


def test_a_match_names_what_the_interest_attends_to(fitted: Any) -> None:
    model, data, _ = fitted
    match = model.match(data.log, 4, 9)
    assert sum(match.weights.values()) == pytest.approx(1, abs=1e-5)
    assert {video for video, _ in match.watched} <= set(data.log.history(4).tolist())
    assert [weight for _, weight in match.watched] == sorted((w for _, w in match.watched), reverse=True)


# --- shapes, files, seeds --------------------------------------------------------------------------------------------


def test_a_missing_modality_has_no_weight() -> None:
    data, _ = planted()
    data.content.features["sound"][::3] = 0
    model = TwoTower(**{**SMALL, "epochs": 2})
    model.fit(data)
    assert model.match(data.log, 0, 3).weights["sound"] == 0
    assert model.match(data.log, 0, 3).weights["picture"] == pytest.approx(1)
    assert {reason.name for reason in model.explain(data.log, 0, 3) if reason.kind == "modality"} == {"picture"}


def test_scores_have_their_shape(fitted: Any) -> None:
    model, data, _ = fitted
    scores = model.score(data.log, np.array([5, 2, 2]))
    assert scores.shape == (3, VIDEOS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.array_equal(scores[1], scores[2])
    assert model.score(data.log, np.zeros(0, np.int64)).shape == (0, VIDEOS)


def test_a_model_is_the_same_out_of_its_file(fitted: Any) -> None:
    model, data, _ = fitted
    again = model_file.from_bytes(model_file.to_bytes(model))
    viewers = np.arange(20)
    assert np.array_equal(model.score(data.log, viewers), again.score(data.log, viewers))
    assert model_file.version_of(again) == model_file.version_of(model)


def test_arrays_that_do_not_fit_are_refused(fitted: Any) -> None:
    model, _, _ = fitted
    arrays = model.arrays()
    arrays["attention"] = arrays["attention"][:, :3]
    with pytest.raises(ReelsenseError) as caught:
        TwoTower.from_arrays(model.config.model_dump(), arrays)
    assert caught.value.code == "ranker.bad_model"


@pytest.mark.parametrize("negatives", ["all", "batch"])
def test_the_same_seed_gives_the_same_arrays(negatives: str) -> None:
    data, _ = planted()
    made = []
    for seed in (0, 0, 1):
        model = TwoTower(**{**SMALL, "epochs": 2, "negatives": negatives, "seed": seed})
        model.fit(data)
        made.append(model_file.version_of(model))
    assert made[0] == made[1] != made[2]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    data, _ = planted()
    whole, stopped = TwoTower(**{**SMALL, "epochs": 6}), TwoTower(**{**SMALL, "epochs": 6})
    whole.fit(data)

    def stop(progress: Any) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(data, Run(progress=stop, checkpoint=tmp_path / "run"))
    facts = stopped.fit(data, Run(checkpoint=tmp_path / "run"))
    # The checkpoint of the third epoch was not written yet when progress was told.
    assert facts["resumed_at"] in (2, 3)
    assert model_file.version_of(stopped) == model_file.version_of(whole)


@pytest.mark.parametrize("targets", ["random", "next"])
@pytest.mark.parametrize("negatives", ["all", "batch"])
def test_every_parameter_is_taught(targets: str, negatives: str) -> None:
    data, _ = planted(new=8)
    config = TwoTowerConfig(**SMALL, targets=targets, negatives=negatives, half_rank=5)
    torch.manual_seed(0)
    network, _ = begin(data, config)
    held = HeldBack(data.log, config)
    calibrate(network, held, config)
    # Out of the zeros where `looks` and `taste` start: what lies behind them gets no gradient there.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    held.loss(network, held.viewers).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_what_is_held_back_is_not_shown() -> None:
    data, _ = planted()
    held = HeldBack(data.log, TwoTowerConfig(keep=0.5))
    rows, places, weights = held.drawn(np.arange(VIEWERS))
    assert len(rows) == len(data.log)
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert torch.bincount(rows[weights == 0]).tolist() == [4] * VIEWERS
    later = HeldBack(data.log, TwoTowerConfig(targets="next", horizon=2, half_rank=3))
    rows, places, weights = later.drawn(np.arange(VIEWERS))
    for viewer in range(VIEWERS):
        own = weights[rows == viewer]
        first = int((own <= 0).nonzero()[0])
        shown = own[:first]
        assert shown.tolist() == pytest.approx(np.exp(-np.arange(first)[::-1] / 3).tolist(), rel=1e-5)
        assert (own[first : first + 2] == 0).all()
        assert (own[first + 2 :] == -1).all()
        assert places[rows == viewer].tolist() == data.log.history(viewer).tolist()


def test_the_correction_makes_rivals_of_a_batch_count_as_all_do() -> None:
    """What a softmax over the batch teaches the biases points where that over all videos does only with log q off."""
    stream = np.random.default_rng(0)
    chance = 1 / np.arange(1, VIDEOS + 1)
    pairs = [(v, int(i)) for v in range(300) for i in stream.choice(VIDEOS, 4, replace=False, p=chance / chance.sum())]
    table = np.array(pairs, np.int64)
    data = TrainingData(ActLog.of(table[:, 0], table[:, 1], 300, VIDEOS))
    taught = {}
    for name, extra in (("all", {}), ("right", {"correction": 1.0}), ("wrong", {"correction": 0.0})):
        config = TwoTowerConfig(**SMALL, negatives="all" if name == "all" else "batch", item_dropout=0.0, **extra)
        torch.manual_seed(0)
        network, _ = begin(data, config)
        held = HeldBack(data.log, config)
        for start in range(0, 300, 10):
            torch.manual_seed(start)
            held.loss(network, held.viewers[start : start + 10]).backward()  # type: ignore[no-untyped-call]
        assert network.bias.grad is not None
        taught[name] = torch.nn.functional.normalize(network.bias.grad, dim=0)
    assert float(taught["right"] @ taught["all"]) > 0.95
    assert float(taught["wrong"] @ taught["all"]) < 0.92


# --- videos that come later, and bad input ---------------------------------------------------------------------------


def test_videos_of_after_training_are_served_at_once(fitted: Any) -> None:
    model, data, _ = fitted
    # Copies of two videos that nobody watched: what has no id is scored by its content, the same for both.
    copied = [VIDEOS - 1, VIDEOS - 2]
    content = Content({name: np.concatenate([rows, rows[copied]]) for name, rows in data.content.features.items()})
    larger = model.extended(content, VIDEOS + 2)
    log = ActLog.of(data.log.viewers, data.log.videos, VIEWERS, VIDEOS + 2)
    before, after = model.score(data.log, np.arange(10)), larger.score(log, np.arange(10))
    assert after[:, :VIDEOS] == pytest.approx(before, abs=1e-5)
    assert after[:, VIDEOS:] == pytest.approx(before[:, copied], abs=1e-5)
    with pytest.raises(ReelsenseError) as caught:
        model.score(log, np.arange(2))
    assert caught.value.code == "ranker.bad_model"


def test_without_any_content_it_learns_from_ids() -> None:
    data, kinds = planted()
    model = TwoTower(**SMALL)
    facts = model.fit(TrainingData(data.log, Content({"text": np.zeros((VIDEOS, 5), np.float32)})))
    assert facts["modalities"] == []
    assert facts["left_out"] == ["text"]
    shares = [share_of_own(recall(model, data.log, viewer, 4)[0], kinds, viewer) for viewer in range(VIEWERS)]
    assert np.mean(shares) > 0.7
    assert np.isfinite(model.score(data.log, np.arange(3))).all()


def test_bad_input_has_a_code() -> None:
    data, _ = planted()
    one_each = ActLog.of(np.arange(5), np.arange(5), 5, VIDEOS)
    for log in (one_each, ActLog.of(np.zeros(0, np.int64), np.zeros(0, np.int64), 3, VIDEOS)):
        with pytest.raises(ReelsenseError) as caught:
            TwoTower(**SMALL).fit(TrainingData(log, data.content))
        assert caught.value.code == "ranker.too_few_events"
    data.content.features["sound"][3, 3] = np.nan
    with pytest.raises(ReelsenseError) as caught:
        TwoTower(**SMALL).fit(data)
    assert caught.value.code == "ranker.not_finite"
    with pytest.raises(ReelsenseError) as caught:
        make_model("two_tower", {"interests": 0})
    assert caught.value.code == "request.invalid"


def test_all_videos_are_scored_by_products_of_matrices() -> None:
    """The quick form of the score is the sum of the parts."""
    torch.manual_seed(1)
    features = {"picture": torch.randn(30, 6), "sound": torch.randn(30, 4) * (torch.arange(30) % 3 > 0)[:, None]}
    network = TowerNetwork(features, torch.ones(30), dim=5, width=4, interests=3, power=0.5, choice=2.0, uniform=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        videos = network.videos()
        viewers = network.viewers((torch.rand(7, 30) < 0.2).float().to_sparse(), videos)
        parts = network.parts(viewers, videos)
        each = parts.ids + parts.content.sum(dim=3)
        assert torch.allclose((parts.chosen * each).sum(dim=1) + videos.bias, network.score(viewers, videos), atol=1e-4)
        assert torch.allclose(parts.weights.sum(dim=3), torch.ones(()), atol=1e-5)
        assert (parts.weights[:, :, ::3, 1] == 0).all()
