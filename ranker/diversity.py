"""A list whose videos differ from each other: greedy MMR, or greedy MAP of a determinantal point process (DPP).

Both take videos one by one, each time the one whose score less a penalty is largest; the penalty is the `diversity`
term, never above 0, and 0 for the first.

mmr   penalty = -weight * largest cosine with a video taken before, at least 0 (Carbonell & Goldstein 1998)
dpp   penalty = (1 - theta) / theta * log r, where r in 0..1 is the squared distance of the video's unit vector from
      the span of the vectors taken before. Adding up theta * score + (1 - theta) * log r over the list gives
      theta * sum of scores + (1 - theta) * log det(cosines of the list): the trade-off of Chen, Zhang & Zhou 2018,
      "Fast greedy MAP inference for determinantal point process", whose incremental Cholesky factor this is.
off   no penalty

What is taken never scores above what was taken before it. Ties go by id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ranker.section import Section

Float64 = npt.NDArray[np.float64]

# Below this the video lies in the span of those taken before: no further down than that.
LEAST_RESIDUAL = 1e-6
# Up to so many, all cosines are multiplied at once.
AT_ONCE = 512


class DiversityConfig(Section):
    """How a feed is spread out, for viewers whose taste is known."""

    method: Literal["mmr", "dpp", "off"] = Field("mmr", description="`mmr`, `dpp` or `off`.")
    mmr_weight: float = Field(0.2, ge=0, allow_inf_nan=False, description="What a cosine of 1 with the list costs.")
    dpp_theta: float = Field(
        0.9, gt=0, le=1, allow_inf_nan=False, description="1: by score alone; smaller: more spread (dpp)."
    )
    pool: int = Field(150, ge=1, le=2000, description="Only so many of the best are spread out; the others follow.")


def greedy_mmr(
    scores: Float64, ids: Sequence[str], vectors: Float64, weight: float, steps: int
) -> tuple[list[int], Float64]:
    """Places in the order taken, and the penalty of each place [n]. After `steps` the rest follows by what is left."""
    rank = _rank(ids)
    cosines = _cosines(vectors)
    nearest = np.zeros(len(scores))
    waiting = np.ones(len(scores), np.bool_)
    taken: list[int] = []
    while len(taken) < min(steps, len(scores)):
        best = _best(np.where(waiting, scores - weight * nearest, -np.inf), rank)
        waiting[best] = False
        taken.append(best)
        # What was taken keeps the penalty it was taken with.
        np.maximum(nearest, cosines(best), out=nearest, where=waiting)
    return _completed(taken, waiting, scores, -weight * nearest, rank)


def greedy_dpp(
    scores: Float64, ids: Sequence[str], vectors: Float64, theta: float, steps: int
) -> tuple[list[int], Float64]:
    """The same by the determinant; `vectors` [n, dim] are of unit length."""
    rank = _rank(ids)
    cosines = _cosines(vectors)
    trade = (1.0 - theta) / theta
    steps = min(steps, len(scores))
    factor = np.zeros((steps, len(scores)))
    residual = np.ones(len(scores))
    waiting = np.ones(len(scores), np.bool_)
    taken: list[int] = []
    while len(taken) < steps:
        best = _best(np.where(waiting, scores + trade * np.log(residual), -np.inf), rank)
        waiting[best] = False
        if residual[best] > LEAST_RESIDUAL:
            step = len(taken)
            known = factor[:step, best] @ factor[:step]
            added = (cosines(best) - known) / np.sqrt(residual[best])
            factor[step] = added
            residual[waiting] = np.clip(residual[waiting] - added[waiting] ** 2, LEAST_RESIDUAL, 1.0)
        taken.append(best)
    return _completed(taken, waiting, scores, trade * np.log(residual), rank)


def diversify(
    scores: Float64, ids: Sequence[str], vectors: Float64, config: DiversityConfig, steps: int
) -> tuple[list[int], Float64]:
    """(order of places, penalty of each place, at most 0) by the method that is set."""
    if config.method == "dpp":
        return greedy_dpp(scores, ids, vectors, config.dpp_theta, steps)
    weight = config.mmr_weight if config.method == "mmr" else 0.0
    return greedy_mmr(scores, ids, vectors, weight, steps if weight else 0)


def _cosines(vectors: Float64) -> Callable[[int], Float64]:
    """The cosines of one place with all. Rounded, so that equals stay equal whatever block they were multiplied in."""
    if len(vectors) <= AT_ONCE:
        every = np.round(vectors @ vectors.T, 12)
        return lambda place: every[place]
    return lambda place: np.round(vectors @ vectors[place], 12)


def _rank(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    rank = np.empty(len(ids), np.int64)
    rank[sorted(range(len(ids)), key=lambda place: ids[place])] = np.arange(len(ids))
    return rank


def _best(values: Float64, rank: npt.NDArray[np.int64]) -> int:
    tied = np.flatnonzero(values == values.max())
    return int(tied[0] if len(tied) == 1 else tied[np.argmin(rank[tied])])


def _completed(
    taken: list[int],
    waiting: npt.NDArray[np.bool_],
    scores: Float64,
    penalties: Float64,
    rank: npt.NDArray[np.int64],
) -> tuple[list[int], Float64]:
    left = np.flatnonzero(waiting)
    rest = left[np.lexsort((rank[left], -(scores + penalties)[left]))]
    return [*taken, *rest.tolist()], penalties
