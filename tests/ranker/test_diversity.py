"""Greedy MMR and DPP do what their formulas say, for any scores and vectors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.diversity import LEAST_RESIDUAL, DiversityConfig, diversify, greedy_dpp, greedy_mmr

Float64 = np.ndarray


@st.composite
def pools(draw: st.DrawFn, most: int = 8) -> tuple[Float64, list[str], Float64]:
    count = draw(st.integers(1, most))
    scores = np.array(draw(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0]), min_size=count, max_size=count)))
    ids = draw(st.permutations([f"video {place}" for place in range(count)]))
    vectors = np.random.default_rng(draw(st.integers(0, 10**6))).standard_normal((count, 12))
    if draw(st.booleans()):
        vectors[-1] = vectors[0]
    return scores, list(ids), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(pool=pools(), method=st.sampled_from(["mmr", "dpp"]), steps=st.integers(0, 10))
def test_every_place_once_penalties_never_lift_and_scores_fall(
    pool: tuple[Float64, list[str], Float64], method: str, steps: int
) -> None:
    scores, ids, vectors = pool
    found = (
        greedy_mmr(scores, ids, vectors, 0.5, steps)
        if method == "mmr"
        else greedy_dpp(scores, ids, vectors, 0.6, steps)
    )
    order, penalties = found
    assert sorted(order) == list(range(len(scores)))
    assert (penalties <= 0).all()
    final = (scores + penalties)[order]
    assert all(one >= other - 1e-12 for one, other in itertools.pairwise(final))
    if steps:
        assert penalties[order[0]] == 0


@given(pool=pools(), steps=st.integers(0, 10))
def test_without_weight_both_give_the_order_by_score_then_id(
    pool: tuple[Float64, list[str], Float64], steps: int
) -> None:
    scores, ids, vectors = pool
    by_score = sorted(range(len(scores)), key=lambda place: (-scores[place], ids[place]))
    for order, penalties in (
        greedy_mmr(scores, ids, vectors, 0.0, steps),
        greedy_dpp(scores, ids, vectors, 1.0, steps),
        diversify(scores, ids, vectors, DiversityConfig(method="off"), steps),
    ):
        assert order == by_score
        assert not penalties.any()


@given(pool=pools(), weight=st.floats(0.01, 2))
def test_mmr_takes_what_its_formula_says(pool: tuple[Float64, list[str], Float64], weight: float) -> None:
    scores, ids, vectors = pool
    order, penalties = greedy_mmr(scores, ids, vectors, weight, len(scores))
    taken: list[int] = []
    for place in order:

        def worth(candidate: int) -> float:
            return scores[candidate] - weight * max(
                [0.0, *(float(vectors[candidate] @ vectors[other]) for other in taken)]
            )

        best = max(worth(candidate) for candidate in range(len(scores)) if candidate not in taken)
        assert worth(place) == pytest.approx(best, abs=1e-9)
        assert scores[place] + penalties[place] == pytest.approx(worth(place), abs=1e-9)
        taken.append(place)


@given(pool=pools(), theta=st.floats(0.3, 0.99))
def test_dpp_is_greedy_on_the_determinant_itself(pool: tuple[Float64, list[str], Float64], theta: float) -> None:
    scores, ids, vectors = pool

    def objective(chosen: list[int]) -> float:
        kernel = vectors[chosen] @ vectors[chosen].T
        determinant = max(float(np.linalg.det(kernel)), 0.0)
        return theta * scores[chosen].sum() + (1 - theta) * math.log(max(determinant, 1e-300))

    order, penalties = greedy_dpp(scores, ids, vectors, theta, len(scores))
    trade = (1 - theta) / theta
    for count in range(1, len(order) + 1):
        step = order[:count]
        if penalties[step[-1]] <= trade * math.log(LEAST_RESIDUAL) + 1e-9:
            return
        best = max(objective([*step[:-1], other]) for other in range(len(scores)) if other not in step[:-1])
        assert objective(step) == pytest.approx(best, abs=1e-6)
    determinant = np.linalg.det(vectors[order] @ vectors[order].T)
    assert math.exp(penalties.sum() / trade) == pytest.approx(determinant, rel=1e-6)


def test_the_order_of_the_input_is_of_no_account() -> None:
    generator = np.random.default_rng(4)
    vectors = generator.standard_normal((40, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores, ids = np.round(generator.standard_normal(40), 1), [f"v{place:02d}" for place in range(40)]
    shuffled = generator.permutation(40)
    for method in ("mmr", "dpp"):
        config = DiversityConfig(method=method, mmr_weight=0.4, dpp_theta=0.5)  # type: ignore[arg-type]
        order, _ = diversify(scores, ids, vectors, config, 40)
        again, _ = diversify(scores[shuffled], [ids[place] for place in shuffled], vectors[shuffled], config, 40)
        assert [ids[place] for place in order] == [ids[shuffled[place]] for place in again]
        assert order != sorted(range(40), key=lambda place: (-scores[place], ids[place]))


def test_duplicates_are_driven_apart() -> None:
    vectors = np.eye(4)[[0, 0, 1, 2]]
    scores = np.array([1.0, 0.95, 0.9, 0.7])
    for method in ("mmr", "dpp"):
        config = DiversityConfig(method=method, mmr_weight=0.5)  # type: ignore[arg-type]
        assert diversify(scores, list("abcd"), vectors, config, 4)[0] == [0, 2, 3, 1]
