"""What every model in closed form promises: it finds a planted taste, tells why, and is the same after being stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ranker.models.histories import HistoryConfig, histories
from ranker.models.model import Model, make_model, model_class, recall
from ranker.models.model_file import from_bytes, to_bytes, version_of
from ranker.models.training_data import ActLog, Content, TrainingData
from store.errors import ReelsenseError
from tests.ranker.planted import NEW, TASTES, VIDEOS, VIEWERS, found_share, planted

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {},
    "item_knn": {"neighbours": 12, "shrinkage": 1},
    "p3alpha": {"alpha": 0.8, "beta": 0.3},
    "walk": {"second": 0.5, "beta": 0.2},
    "als": {"factors": 4, "regularisation": 2.0, "confidence": 4.0, "scaling": 0.5},
    "ease": {"regularisation": 5.0},
    "content": {"whitening": "within", "weights": {"audio": 0.2}},
    "content_map": {"factors": 6, "regularisation": 1.0, "closeness": 0.3},
    "knowledge_graph": {"beta": 0.2},
}
NAMES = sorted(SETTINGS)
BY_LOG = sorted(set(NAMES) - {"popularity"})
SHARP = {"sharpness": 6.0, "weights": {"audio": 0.1}, "other_weight": 0.9}
OF_CONTENT = ("content", "content_map", "knowledge_graph")
EVERYBODY = np.arange(VIEWERS)


def fitted(name: str, data: TrainingData | None = None, **settings: Any) -> Model:
    model = make_model(name, {**SETTINGS[name], **settings})
    model.fit(data or planted())
    return model


@pytest.mark.parametrize("name", BY_LOG)
def test_it_finds_the_planted_taste(name: str) -> None:
    data = planted()
    assert found_share(fitted(name, data).score(data.log, EVERYBODY), data) > 0.9


@pytest.mark.parametrize("name", OF_CONTENT)
def test_new_videos_go_to_those_whose_taste_they_are(name: str) -> None:
    data = planted()
    scores = fitted(name, data).score(data.log, EVERYBODY)[:, NEW]
    assert (scores.argmax(axis=1) == EVERYBODY % TASTES).mean() > 0.9


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(OF_CONTENT)))
def test_without_content_a_new_video_has_the_floor(name: str) -> None:
    data = planted()
    assert not fitted(name, data).score(data.log, EVERYBODY)[:, NEW].any()


@pytest.mark.parametrize("history", ["plain", "values", "fading"])
@pytest.mark.parametrize("name", BY_LOG)
def test_reasons_sum_to_the_score(name: str, history: str) -> None:
    data = planted()
    model = fitted(name, data, history=history)
    scores = model.score(data.log, EVERYBODY)
    for viewer, video in ((0, 4), (1, 17), (7, 2), (9, int(NEW[1]))):
        reasons = model.explain(data.log, viewer, video)
        assert sum(reason.share for reason in reasons) == pytest.approx(float(scores[viewer, video]), abs=2e-5)
        assert [reason.share for reason in reasons] == sorted((reason.share for reason in reasons), reverse=True)


@pytest.mark.parametrize("name", ["item_knn", "p3alpha", "als", "ease", "content"])
def test_reasons_name_what_was_watched(name: str) -> None:
    data = planted()
    model = fitted(name, data)
    for viewer in range(8):
        best = int(recall(model, data.log, viewer, 1)[0][0])
        reasons = model.explain(data.log, viewer, best)
        assert {reason.kind for reason in reasons} == {"video"}
        assert {int(reason.name) for reason in reasons} <= set(data.log.history(viewer).tolist())
        assert int(reasons[0].name) % TASTES == viewer % TASTES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_same_after_it_was_stored_and_when_fitted_again(name: str) -> None:
    data = planted()
    model = fitted(name, data)
    again = from_bytes(to_bytes(model), version_of(model))
    assert np.array_equal(again.score(data.log, EVERYBODY), model.score(data.log, EVERYBODY))
    assert again.explain(data.log, 3, 7) == model.explain(data.log, 3, 7)
    assert again.config == model.config
    assert to_bytes(fitted(name, planted())) == to_bytes(model) == to_bytes(again)


@pytest.mark.parametrize("name", BY_LOG)
def test_parts_that_do_not_fit_are_refused(name: str) -> None:
    model = fitted(name)
    arrays = model.arrays()
    for key in arrays:
        if key in ("tag_names", "usual", "scale", "als.usual"):
            continue
        damaged = dict(arrays)
        damaged[key] = np.ones(3, arrays[key].dtype) * 7
        with pytest.raises((ReelsenseError, ValueError, IndexError)):
            model_class(name).from_arrays(model.config.model_dump(), damaged)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_finite_scores_for_anybody(name: str) -> None:
    data = planted()
    model = fitted(name, data)
    # A viewer after training with a history, one without any, and two videos that came after training.
    more = ActLog.of(
        np.array([VIEWERS, VIEWERS, VIEWERS]), np.array([1, 5, VIDEOS + TASTES]), VIEWERS + 2, VIDEOS + TASTES + 2
    )
    scores = model.score(more, np.array([VIEWERS + 1, VIEWERS]))
    assert scores.shape == (2, VIDEOS + TASTES + 2)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    nobody = scores[0, :VIDEOS]
    counts = np.asarray(data.log.binary.sum(axis=0)).ravel()[:VIDEOS]
    assert np.argsort(-nobody, kind="stable").tolist() == np.argsort(-counts, kind="stable").tolist()
    if name != "popularity":
        unseen = np.setdiff1d(np.arange(VIDEOS), [1, 5])
        best = unseen[np.argsort(-scores[1, unseen], kind="stable")[:4]]
        assert (best % TASTES == 1).all()
    for video in (3, VIDEOS + TASTES + 1):
        for viewer in (VIEWERS, VIEWERS + 1):
            reasons = model.explain(more, viewer, video)
            expected = float(scores[VIEWERS + 1 - viewer, video])
            assert sum(reason.share for reason in reasons) == pytest.approx(expected, abs=1e-5)
    assert model.score(more, np.zeros(0, np.int64)).shape == (0, VIDEOS + TASTES + 2)


@pytest.mark.parametrize("name", BY_LOG)
def test_who_a_viewer_is_does_not_matter_only_what_he_watched(name: str) -> None:
    data = planted()
    model = fitted(name, data)
    own = data.log.history(5)
    stranger = ActLog.of(np.full(len(own), 3), own, 4, data.log.n_videos)
    assert model.score(stranger, np.array([3]))[0] == pytest.approx(model.score(data.log, np.array([5]))[0], abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_events_are_refused(name: str) -> None:
    data = planted()
    nothing = ActLog.of(np.zeros(0, np.int64), np.zeros(0, np.int64), 3, data.log.n_videos)
    with pytest.raises(ReelsenseError) as caught:
        make_model(name).fit(replace(data, log=nothing))
    assert caught.value.code == "ranker.too_few_events"


@pytest.mark.parametrize("name", OF_CONTENT)
def test_features_that_are_no_numbers_are_refused(name: str) -> None:
    data = planted()
    broken = data.content.features["vision"].copy()
    broken[2, 1] = np.nan
    with pytest.raises(ReelsenseError) as caught:
        make_model(name).fit(replace(data, content=Content({"vision": broken}, data.content.tags)))
    assert caught.value.code == "ranker.not_finite"


@pytest.mark.parametrize("name", ["content", "content_map"])
def test_models_of_content_refuse_a_catalogue_without_any(name: str) -> None:
    with pytest.raises(ReelsenseError) as caught:
        make_model(name).fit(replace(planted(), content=Content()))
    assert caught.value.code == "ranker.training_failed"


@pytest.mark.parametrize("name", ["content", "content_map"])
def test_sharp_nearness_finds_tastes_and_its_reasons_add_up(name: str) -> None:
    data = planted()
    model = fitted(name, data, whitening="none", **SHARP)
    scores = model.score(data.log, EVERYBODY)
    assert found_share(scores, data) > 0.9
    assert (scores[:, NEW].argmax(axis=1) == EVERYBODY % TASTES).mean() > 0.9
    for viewer, video in ((2, 6), (9, int(NEW[0]))):
        shares = [reason.share for reason in model.explain(data.log, viewer, video)]
        assert sum(shares) == pytest.approx(float(scores[viewer, video]), rel=1e-4)
    again = from_bytes(to_bytes(model))
    assert np.array_equal(again.score(data.log, EVERYBODY), scores)


def test_a_dense_inverse_of_too_many_videos_is_refused() -> None:
    with pytest.raises(ReelsenseError) as caught:
        fitted("ease", most_videos=VIDEOS - 1)
    assert caught.value.code == "ranker.training_failed"


def test_settings_that_a_model_does_not_have_are_refused() -> None:
    for settings in ({"colour": 1}, {"rank": 0}, {"history": "backwards"}):
        with pytest.raises(ReelsenseError) as caught:
            make_model("ease", settings)
        assert caught.value.code == "request.invalid"


def test_a_fading_history_is_the_logs_own() -> None:
    stream = np.random.default_rng(1)
    log = ActLog.of(
        stream.integers(5, size=60), stream.integers(9, size=60), 6, 9, values=stream.choice([-1.0, 1.0, 2.0], 60)
    )
    rows = histories(log, np.arange(6), HistoryConfig(history="fading", rank=3.0), 9)
    assert rows.toarray() == pytest.approx(log.fading(3.0).toarray())
    some = histories(log, np.array([4, 1]), HistoryConfig(history="fading", rank=3.0), 7)
    assert some.toarray() == pytest.approx(log.fading(3.0).toarray()[[4, 1], :7])
