"""The hybrid: that it finds who knows what, leaves alone what is noise, and places videos that nobody has watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from scipy import sparse

from ranker.evaluation import measure
from ranker.models import blending, model_file
from ranker.models.blending import alike, chosen, halves, pool_of
from ranker.models.hybrid import ColdCheck, Hybrid
from ranker.models.model import MODELS, Arrays, Reason, Run, make_model
from ranker.models.training_data import ActLog, Content, Float32, Integers, TrainingData
from store.errors import ReelsenseError

VIEWERS, VIDEOS = 120, 60


class FixedConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fixed:
    """A real model of the interface whose scores are given: what members know is planted by it."""

    name: ClassVar[str] = "fixed"

    def __init__(self, **settings: Any) -> None:
        self.config = FixedConfig(**settings)
        self.scores = np.zeros((0, 0), np.float32)

    @classmethod
    def of(cls, scores: npt.NDArray[Any]) -> Self:
        made = cls()
        made.scores = np.asarray(scores, np.float32)
        return made

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def score(self, log: ActLog, viewers: Integers) -> Float32:  # noqa: ARG002
        return self.scores[viewers]

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:  # noqa: ARG002
        return [Reason("fixed", "score", float(self.scores[viewer, video]))]

    def arrays(self) -> Arrays:
        return {"scores": self.scores}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:  # noqa: ARG003
        return cls.of(arrays["scores"])


@pytest.fixture(autouse=True)
def _fixed_is_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "fixed", f"{__name__}:Fixed")


def planted(seed: int = 0, viewers: int = VIEWERS) -> tuple[TrainingData, sparse.csr_matrix, np.ndarray]:
    """(training, what is held back, the interest behind both): each viewer had 6 of the 9 that he likes best, and
    3 are held back."""
    stream = np.random.default_rng(seed)
    interest = stream.normal(size=(viewers, VIDEOS))
    order = np.argsort(-interest, axis=1)[:, :9]
    shuffled = stream.permuted(order, axis=1)
    log = ActLog.of(np.repeat(np.arange(viewers), 6), shuffled[:, :6].ravel(), viewers, VIDEOS)
    held = sparse.csr_matrix(
        (np.ones(viewers * 3, np.float32), (np.repeat(np.arange(viewers), 3), shuffled[:, 6:].ravel())),
        shape=(viewers, VIDEOS),
    )
    return TrainingData(log), held, interest


def worth(model: Any, data: TrainingData, held: Any) -> float:
    found = measure(lambda viewers: model.score(data.log, viewers), held, data.log.binary, (10,))
    return float(found.each["ndcg@10"].mean())


# --- weights ---------------------------------------------------------------------------------------------------------


def test_two_halves_of_the_truth_are_better_than_either_and_noise_is_left_out() -> None:
    data, held, interest = planted()
    stream = np.random.default_rng(1)
    seen_by_one = stream.random(interest.shape) < 0.5
    members = {
        "one": Fixed.of(np.where(seen_by_one, interest, 0)),
        "other": Fixed.of(np.where(seen_by_one, 0, interest) * 1000 + 7),
        "noise": Fixed.of(stream.normal(size=interest.shape)),
    }
    model = Hybrid(candidates=20)
    facts = model.blend(members, data, held)
    named = dict(zip(model.members, model.weights[0], strict=True))
    assert named["noise"] < 0.1
    assert named["one"] == pytest.approx(named["other"], abs=0.2)
    assert facts["validation"] > facts["alone"] + 0.05
    assert worth(model, data, held) > max(worth(member, data, held) for member in members.values()) + 0.05


def test_what_is_promised_is_measured_on_others() -> None:
    data, held, interest = planted()
    stream = np.random.default_rng(2)
    members = {f"noise{place}": Fixed.of(stream.normal(size=interest.shape)) for place in range(12)}
    model = Hybrid(candidates=20)
    facts = model.blend(members, data, held)
    # By luck a blend of noise is good on the viewers on whom it was searched.
    searched = worth(model, data, held)
    chance = worth(Fixed.of(stream.normal(size=interest.shape)), data, held)
    assert facts["validation"] == pytest.approx(chance, abs=0.035)
    assert searched > facts["validation"]


def test_fits_of_one_model_share_one_weight() -> None:
    data, held, interest = planted()
    stream = np.random.default_rng(8)
    members = {f"drawn@{seed}": Fixed.of(interest + 2 * stream.normal(size=interest.shape)) for seed in range(3)}
    members["other"] = Fixed.of(interest + 2 * stream.normal(size=interest.shape))
    model = Hybrid(kind="z", candidates=30)
    facts = model.blend(members, data, held)
    weights = dict(zip(model.members, model.weights[0], strict=True))
    assert weights["drawn@0"] == weights["drawn@1"] == weights["drawn@2"] > 0.1
    assert sum(weights.values()) == pytest.approx(1)
    # What is promised of the mean of three is kept by the model that is made of them.
    assert worth(model, data, held) == pytest.approx(facts["validation"], abs=0.03)
    assert facts["validation"] > max(worth(member, data, held) for member in members.values())


def test_weights_are_shares_and_the_same_again() -> None:
    data, held, interest = planted()
    stream = np.random.default_rng(3)
    members = {name: Fixed.of(interest + 2 * stream.normal(size=interest.shape)) for name in "abc"}
    first, second = Hybrid(), Hybrid()
    assert first.blend(members, data, held)["weights"] == second.blend(members, data, held)["weights"]
    assert (first.weights >= 0).all()
    assert first.weights.sum(axis=1) == pytest.approx(1)
    assert model_file.to_bytes(first) == model_file.to_bytes(second)


def test_heavy_viewers_have_their_own_weights_only_where_that_pays() -> None:
    stream = np.random.default_rng(4)
    data, held, interest = planted(viewers=300)
    heavy = np.arange(300) >= 150
    more = ActLog.of(
        np.concatenate([data.log.viewers, np.repeat(np.flatnonzero(heavy), 3)]),
        np.concatenate([data.log.videos, np.tile(data.log.videos[:3], 150)]),
        300,
        VIDEOS,
    )
    # Acts for heavy viewers on videos they have already: only their number counts here.
    repeated = more.viewers[len(data.log.viewers) :]
    assert len(repeated) == 450
    noise = stream.normal(size=interest.shape) * 3
    split = {
        "for_heavy": Fixed.of(np.where(heavy[:, None], interest, noise)),
        "for_light": Fixed.of(np.where(heavy[:, None], noise, interest)),
    }
    richer = TrainingData(more)
    model = Hybrid(kind="z", candidates=30)
    facts = model.blend(split, richer, held)
    assert "gain_by_activity" in facts
    light_weights, heavy_weights = (dict(zip(model.members, row, strict=True)) for row in model.weights)
    assert light_weights["for_light"] > 0.8
    assert heavy_weights["for_heavy"] > 0.8
    alike_for_all = {name: Fixed.of(interest + stream.normal(size=interest.shape)) for name in "ab"}
    plain = Hybrid(kind="z", candidates=30)
    assert "gain_by_activity" not in plain.blend(alike_for_all, richer, held)
    assert plain.weights.shape == (1, 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_scores_made_alike_do_not_depend_on_units(seed: int, scale: float, shift: float) -> None:
    stream = np.random.default_rng(seed)
    scores, seen = stream.normal(size=(5, 30)), stream.random((5, 30)) < 0.2
    for kind in blending.KINDS:
        assert alike(scores * scale + shift, seen, kind) == pytest.approx(alike(scores, seen, kind), abs=1e-3)
    made = alike(scores, seen, "z")[~seen]
    assert np.isfinite(made).all()
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(alike(scores, np.zeros_like(seen), "rank"), order, axis=1)
    assert (np.diff(ranked, axis=1) <= 0).all()
    assert ranked[:, 0] == pytest.approx(1)


def test_scores_that_are_all_the_same_say_nothing() -> None:
    nothing = np.zeros((2, 5), bool)
    assert (alike(np.full((2, 5), 3.3), nothing, "z") == 0).all()
    assert np.ptp(alike(np.full((2, 5), 3.3), nothing, "rank")) == 0


def test_the_pool_ranks_as_the_evaluation_does() -> None:
    data, held, interest = planted()
    scores = interest + np.random.default_rng(5).normal(size=interest.shape)
    model = Fixed.of(scores)
    pool = pool_of([lambda viewers: model.score(data.log, viewers)], data.log, held, each=20, viewers=1000, seed=0)
    found = blending.ndcg(pool, pool.scores["z"][0])
    expected = measure(lambda viewers: scores[viewers], held, data.log.binary, (10,)).each["ndcg@10"]
    assert found == pytest.approx(expected, abs=1e-9)


def test_halves_cover_everybody_once_a_parting() -> None:
    for first, second in halves(11, 3, 0):
        assert sorted([*first, *second]) == list(range(11))
    data, held, interest = planted()
    members = [Fixed.of(interest), Fixed.of(-interest)]
    scorers = [lambda viewers, m=m: m.score(data.log, viewers) for m in members]
    pool = pool_of(scorers, data.log, held, each=20, viewers=50, seed=0)
    assert len(pool.viewers) == 50
    blend = chosen(pool, "z", 2, 0)
    assert blend.weights == pytest.approx([1, 0], abs=0.05)
    assert blend.each.mean() == pytest.approx(1.0)


# --- videos without acts ---------------------------------------------------------------------------------------------


def cold_house(seed: int = 0) -> tuple[TrainingData, sparse.csr_matrix, np.ndarray]:
    """The same with the last 15 videos without any act in training, while they are held back like others."""
    stream = np.random.default_rng(seed)
    interest = stream.normal(size=(VIEWERS, VIDEOS))
    order = stream.permuted(np.argsort(-interest, axis=1)[:, :14], axis=1)
    pairs = np.array([(viewer, video) for viewer in range(VIEWERS) for video in order[viewer, :8] if video < 45])
    late = [(viewer, video) for viewer in range(VIEWERS) for video in order[viewer, 8:]]
    late += [(viewer, video) for viewer in range(VIEWERS) for video in order[viewer, :8] if video >= 45]
    table = np.array(late)
    held = sparse.csr_matrix((np.ones(len(table), np.float32), (table[:, 0], table[:, 1])), shape=interest.shape)
    return TrainingData(ActLog.of(pairs[:, 0], pairs[:, 1], VIEWERS, VIDEOS)), held, interest


def test_videos_without_acts_are_placed_by_content_alone() -> None:
    data, held, interest = cold_house()
    stream = np.random.default_rng(6)
    floor = interest + 0.5 * stream.normal(size=interest.shape)
    floor[:, 45:] = floor.min() - 5
    content = interest + stream.normal(size=interest.shape)
    members = {"crowd": Fixed.of(floor), "looks": Fixed.of(content)}
    asked = {"crowd": {"model": "fixed", "cold": False}, "looks": {"model": "fixed", "cold": True}}
    model = Hybrid(members=asked, candidates=30)
    model.blend(members, data, held)
    scores = model.score(data.log, np.arange(VIEWERS))
    assert np.isfinite(scores).all()
    for viewer in range(5):
        assert np.array_equal(np.argsort(scores[viewer, 45:]), np.argsort(content[viewer, 45:]))
    new_alone = held.toarray()
    new_alone[:, :45] = 0
    fresh = sparse.csr_matrix(new_alone)
    found = worth(model, data, fresh)
    # In lists among all videos they stand where the content puts them, and where the crowd alone has none.
    assert found > 0.25
    assert worth(members["crowd"], data, fresh) == 0.0
    assert worth(model, data, held) > max(worth(member, data, held) for member in members.values())
    # They do not flood the lists: a third of what is right is new here.
    top = np.argsort(-np.where(data.log.binary.toarray() > 0, -np.inf, scores), axis=1)[:, :10]
    assert 0.1 < (top >= 45).mean() < 0.6


def test_content_that_knows_known_videos_by_heart_is_found_out_by_new_ones() -> None:
    data, held, interest = cold_house()
    stream = np.random.default_rng(7)
    by_heart = interest.copy()
    by_heart[:, 45:] = stream.normal(size=(VIEWERS, 15))
    honest = interest + stream.normal(size=interest.shape)
    members = {"by_heart": Fixed.of(by_heart), "honest": Fixed.of(honest)}
    asked = {name: {"model": "fixed", "cold": True} for name in members}
    candidates = np.arange(VIDEOS) >= 45
    new_alone = held.toarray() * candidates[None, :]
    check = ColdCheck(members, data.log, sparse.csr_matrix(new_alone), candidates)
    model = Hybrid(members=asked, candidates=20)
    facts = model.blend(members, data, held, check)
    weights = dict(zip(model.members, model.cold_weights, strict=True))
    assert weights["honest"] > 0.85
    assert facts["cold_validation"] > 0.5
    warm = dict(zip(model.members, model.weights[0], strict=True))
    assert warm["by_heart"] > warm["honest"]


# --- the interface ---------------------------------------------------------------------------------------------------


def two_tastes(seed: int = 0) -> TrainingData:
    """Two groups of viewers, each with its own half of the videos; the content tells the halves apart. The last three
    videos have no acts."""
    stream = np.random.default_rng(seed)
    viewers, videos = [], []
    for viewer in range(40):
        half = viewer % 2
        for video in stream.permutation(15)[:7]:
            viewers.append(viewer)
            videos.append(half * 15 + int(video))
    taste = np.zeros((33, 4), np.float32)
    taste[:15, 0] = taste[15:30, 1] = 1
    taste[30:32, 0] = taste[32, 1] = 1
    features = taste + 0.1 * stream.normal(size=taste.shape).astype(np.float32)
    return TrainingData(ActLog.of(np.array(viewers), np.array(videos), 40, 33), Content({"fused": features}))


MEMBERS: dict[str, dict[str, Any]] = {
    "popularity": {"model": "popularity"},
    "item_knn": {"model": "item_knn"},
    "ease": {"model": "ease", "settings": {"regularisation": 5.0}},
}


@pytest.fixture(scope="module")
def fitted() -> tuple[Hybrid, TrainingData, dict[str, Any]]:
    data = two_tastes()
    model = make_model("hybrid", {"members": MEMBERS})
    facts = model.fit(data)
    assert isinstance(model, Hybrid)
    return model, data, facts


def test_it_fits_its_members_and_finds_planted_tastes(fitted: tuple[Hybrid, TrainingData, dict[str, Any]]) -> None:
    model, data, facts = fitted
    scores = model.score(data.log, np.arange(40))
    assert scores.shape == (40, 33)
    unseen = data.log.binary.toarray() == 0
    for viewer in range(40):
        own = np.zeros(33, bool)
        own[viewer % 2 * 15 : viewer % 2 * 15 + 15] = True
        other = np.zeros(33, bool)
        other[15 - viewer % 2 * 15 : 30 - viewer % 2 * 15] = True
        assert scores[viewer][own & unseen[viewer]].min() > scores[viewer][other].max()
    assert facts["weights"]["popularity"][0] < 0.3
    assert 0 < facts["validation"] <= 1


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    make_model("hybrid", {"members": MEMBERS}).fit(
        two_tastes(), Run(progress=lambda progress: told.append((progress.done, progress.most)))
    )
    assert told == [(place, 6) for place in range(1, 7)]


def test_it_comes_back_from_its_file_the_same(fitted: tuple[Hybrid, TrainingData, dict[str, Any]]) -> None:
    model, data, _ = fitted
    stored = model_file.to_bytes(model)
    again = model_file.from_bytes(stored)
    everybody = np.arange(40)
    assert np.array_equal(again.score(data.log, everybody), model.score(data.log, everybody))
    assert model_file.to_bytes(again) == stored


def test_the_same_seed_gives_the_same_file(fitted: tuple[Hybrid, TrainingData, dict[str, Any]]) -> None:
    model, data, _ = fitted
    again = make_model("hybrid", {"members": MEMBERS})
    again.fit(data)
    assert model_file.to_bytes(again) == model_file.to_bytes(model)


def test_reasons_sum_to_the_score(fitted: tuple[Hybrid, TrainingData, dict[str, Any]]) -> None:
    model, data, _ = fitted
    for viewer, video in ((0, 3), (1, 20), (2, 31)):
        reasons = model.explain(data.log, viewer, video)
        score = float(model.score(data.log, np.array([viewer]))[0, video])
        assert sum(reason.share for reason in reasons) == pytest.approx(score, abs=1e-5)
        assert [abs(reason.share) for reason in reasons] == sorted((abs(r.share) for r in reasons), reverse=True)


def test_a_viewer_who_was_not_in_training_is_scored_by_his_log(
    fitted: tuple[Hybrid, TrainingData, dict[str, Any]],
) -> None:
    model, data, _ = fitted
    log = ActLog.of(
        np.concatenate([data.log.viewers, [40, 40]]), np.concatenate([data.log.videos, [16, 17]]), 41, data.log.n_videos
    )
    scores = model.score(log, np.array([40]))[0]
    assert scores[18:30].mean() > scores[:15].mean()


def test_weights_move_to_members_fitted_to_other_data(fitted: tuple[Hybrid, TrainingData, dict[str, Any]]) -> None:
    model = fitted[0]
    other = two_tastes(1)
    members = {label: make_model(member["model"], member.get("settings")) for label, member in MEMBERS.items()}
    for member in members.values():
        member.fit(other)
    moved = model.with_members(members, other)
    assert np.array_equal(moved.weights, model.weights)
    with pytest.raises(ValueError, match="weights of"):
        model.with_members({"ease": members["ease"]}, other)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (TrainingData(ActLog.of(np.array([0, 0]), np.array([0, 1]), 1, 3)), "ranker.too_few_events"),
        (TrainingData(ActLog.of(np.arange(6), np.arange(6), 6, 6)), "ranker.too_few_events"),
        (
            TrainingData(two_tastes().log, Content({"fused": np.full((33, 2), np.nan, np.float32)})),
            "ranker.not_finite",
        ),
    ],
)
def test_what_cannot_be_learnt_is_told(data: TrainingData, code: str) -> None:
    with pytest.raises(ReelsenseError) as told:
        make_model("hybrid", {"members": MEMBERS}).fit(data)
    assert told.value.code == code


def test_settings_that_make_no_sense_are_told() -> None:
    for settings_of in ({"members": {"a/b": {"model": "ease"}}}, {"members": {"blend": {"model": "ease"}}}, {"sum": 1}):
        with pytest.raises(ReelsenseError) as told:
            make_model("hybrid", settings_of)
        assert told.value.code == "request.invalid"
    with pytest.raises(ReelsenseError) as unknown:
        make_model("hybrid", {"members": {"x": {"model": "oracle"}}}).fit(two_tastes())
    assert unknown.value.code == "ranker.no_such_model"


def test_a_file_whose_weights_do_not_fit_is_refused(fitted: tuple[Hybrid, TrainingData, dict[str, Any]]) -> None:
    model, _, _ = fitted
    arrays = model.arrays() | {"blend/weights": np.ones((1, 2))}
    with pytest.raises(ReelsenseError) as told:
        Hybrid.from_arrays(model.config.model_dump(mode="json"), arrays)
    assert told.value.code == "ranker.bad_model"
