"""EASE, ALS, the walks and the content map held to plain computations of what their papers say."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.interactions import Interactions
from ranker.models.als import Als
from ranker.models.content import ContentCosine
from ranker.models.content_features import FeatureConfig, prepared
from ranker.models.content_map import ContentMap, _ridge_map
from ranker.models.ease import Ease
from ranker.models.knowledge_graph import KnowledgeGraph
from ranker.models.p3alpha import P3Alpha
from ranker.models.walk import Walk, walked
from ranker.walks import WalkConfig, Walks
from tests.ranker.planted import NEW, VIEWERS, planted

EVERYBODY = np.arange(VIEWERS)


def test_ease_is_the_regression_of_each_video_on_the_others() -> None:
    data = planted()
    model = Ease(regularisation=3.0)
    model.fit(data)
    dense = data.log.binary.toarray()[:, model.places]
    for column in (0, 11):
        others = np.delete(np.arange(dense.shape[1]), column)
        plain = np.linalg.solve(
            dense[:, others].T @ dense[:, others] + 3.0 * np.eye(len(others)), dense[:, others].T @ dense[:, column]
        )
        assert model.weights[others, column] == pytest.approx(plain, abs=1e-5)
        assert model.weights[column, column] == 0


@pytest.mark.parametrize(("confidence", "scaling"), [(0.0, 0.0), (5.0, 0.0), (5.0, 0.5), (0.0, 0.5)])
def test_als_solves_each_viewer_as_the_paper_says(confidence: float, scaling: float) -> None:
    data = planted()
    model = Als(factors=5, regularisation=2.0, confidence=confidence, scaling=scaling)
    model.fit(data)
    y = model.videos.astype(np.float64)
    found = model.factors_of(data.log, EVERYBODY)
    for viewer in (0, 13):
        liked = data.log.binary[viewer].toarray()[0]
        c = np.diag(1 + confidence * liked)
        ridge = 2.0 * (((liked.sum() * (1 + confidence) + 44 / 1000) / model.usual) ** scaling if scaling else 1)
        plain = np.linalg.solve(y.T @ c @ y + ridge * np.eye(5), y.T @ c @ liked)
        assert found[viewer] == pytest.approx(plain, abs=1e-6)


def test_als_does_not_depend_on_how_rows_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted()
    whole, small = (Als(factors=5, confidence=5.0, sweeps=4) for _ in range(2))
    whole.fit(data)
    monkeypatch.setattr("ranker.models.als.ROWS", 7)
    small.fit(data)
    assert small.videos == pytest.approx(whole.videos, abs=1e-5)


def test_a_fading_cell_lies_between_liked_and_not() -> None:
    data = planted()
    plain, fading = Als(confidence=3.0, factors=5), Als(confidence=3.0, factors=5, history="fading", rank=1e9)
    plain.fit(data)
    fading.fit(data)
    assert fading.score(data.log, EVERYBODY) == pytest.approx(plain.score(data.log, EVERYBODY), abs=1e-4)


def test_walks_are_those_of_the_graph() -> None:
    data = planted()
    matrix = data.log.binary
    table = Interactions.from_arrays(*matrix.nonzero(), *matrix.shape)
    config = WalkConfig(second=0.7, beta=0.3)
    plain = Walks(table, config=config).scores(matrix)
    assert walked(Walks(table, config=config), matrix) == pytest.approx(plain, abs=1e-6)
    model = Walk(second=0.7, beta=0.3)
    model.fit(data)
    assert model.score(data.log, EVERYBODY) == pytest.approx(plain, abs=1e-6)
    alone = P3Alpha(alpha=0.6, beta=0.3)
    alone.fit(data)
    three = Walks(table, config=WalkConfig(second=0, beta=0.3, alpha=0.6)).scores(matrix) * 7
    assert alone.score(data.log, EVERYBODY) == pytest.approx(three, rel=1e-4)


def test_p3alpha_keeps_the_nearest_of_each_found_video() -> None:
    data = planted()
    whole, few = P3Alpha(), P3Alpha(neighbours=5)
    whole.fit(data)
    few.fit(data)
    assert np.diff(few.reached.tocsc().indptr).max() == 5
    column = whole.reached[:, 3].toarray()[:, 0]
    kept = few.reached[:, 3].toarray()[:, 0]
    assert sorted(kept[kept > 0]) == pytest.approx(sorted(column)[-5:])


def test_the_graph_tells_tags_by_name() -> None:
    data = planted()
    model = KnowledgeGraph()
    model.fit(data)
    reasons = model.explain(data.log, 2, int(NEW[2]))
    assert [(reason.kind, reason.name) for reason in reasons] == [("tag", "seas")]
    assert {reason.kind for reason in model.explain(data.log, 2, 6)} == {"viewer", "tag"}


def test_taking_from_what_many_liked_does_not_put_new_videos_first() -> None:
    data = planted()
    model = KnowledgeGraph(beta=1.0, tag_weight=0.05)
    model.fit(data)
    scores = model.score(data.log, EVERYBODY)
    assert (scores[:, NEW].max(axis=1) < scores[:, : NEW[0]].max(axis=1)).all()


def test_within_whitening_evens_out_what_differs_in_one_viewers_videos() -> None:
    data = planted()
    rows = prepared(data.content, data.log.binary, FeatureConfig(weights={"audio": 0}))["vision"].astype(np.float64)
    several = data.log.binary.toarray()
    scatter = np.zeros((6, 6))
    for row in several:
        own = rows[row > 0]
        scatter += (own - own.mean(axis=0)).T @ (own - own.mean(axis=0))
    scatter /= several.sum()
    values, vectors = np.linalg.eigh(scatter)
    plain = rows @ (vectors / np.sqrt(values + 0.1 * values.mean())) @ vectors.T
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    config = FeatureConfig(weights={"audio": 0}, whitening="within", shrinkage=0.1)
    assert prepared(data.content, data.log.binary, config)["vision"] == pytest.approx(plain, abs=1e-4)


def test_a_modality_of_weight_zero_says_nothing() -> None:
    data = planted()
    only = ContentCosine(weights={"audio": 0.0})
    only.fit(data)
    assert set(only.features) == {"vision"}
    both = ContentCosine(weights={"audio": 1e-9})
    both.fit(data)
    assert both.score(data.log, EVERYBODY) == pytest.approx(only.score(data.log, EVERYBODY), abs=1e-6)


def test_sharp_nearness_is_the_share_in_all_that_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranker.models.content.BLOCK", 7)
    data = planted()
    model = ContentCosine(sharpness=4.0, weights={"vision": 3.0})
    model.fit(data)
    cosine = 0.75 * model.features["vision"] @ model.features["vision"].T
    cosine += 0.25 * model.features["audio"] @ model.features["audio"].T
    kernel = np.exp(4.0 * cosine.astype(np.float64))
    own = data.log.history(5)
    plain = kernel[own].mean(axis=0) / kernel[data.seen_videos].mean(axis=0)
    assert model.score(data.log, np.array([5]))[0] == pytest.approx(plain, rel=1e-4)


def test_the_ridge_is_chosen_by_leaving_each_video_out() -> None:
    stream = np.random.default_rng(3)
    rows = np.column_stack([stream.standard_normal((30, 8)), np.ones(30)])
    wanted = rows[:, :2] @ stream.standard_normal((2, 4)) + stream.standard_normal((30, 4))
    weight = stream.uniform(0.5, 2, 30)
    penalty = np.diag([1.0] * 8 + [1e-3]) * weight.mean()
    errors = {}
    for ridge in (0.1, 1.0, 10.0, 100.0):
        error = 0.0
        for out in range(30):
            kept = np.arange(30) != out
            scaled = rows[kept] * weight[kept, None]
            found = np.linalg.solve(scaled.T @ rows[kept] + ridge * penalty, scaled.T @ wanted[kept])
            error += weight[out] * float(np.square(wanted[out] - rows[out] @ found).sum())
        errors[ridge] = error
    chosen, found = _ridge_map(rows, wanted, weight, None)
    assert 0.1 <= chosen / min(errors, key=lambda one: errors[one]) <= 10
    plain = np.linalg.solve((rows * weight[:, None]).T @ rows + chosen * penalty, (rows * weight[:, None]).T @ wanted)
    assert found == pytest.approx(plain, abs=1e-6)


def test_the_map_knows_which_modality_matters() -> None:
    data = planted()
    model = ContentMap(factors=6, regularisation=1.0)
    model.fit(data)
    reasons = {reason.name: reason.share for reason in model.explain(data.log, 1, int(NEW[1]))}
    assert reasons["vision"] > 5 * abs(reasons["audio"])
