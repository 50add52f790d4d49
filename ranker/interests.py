"""Several interests of one viewer: the videos that speak for (or against) something, grouped by what they are about.

One average of cooking and cars lies between both and near neither. So, as PinnerSage does (Pal et al. 2020,
"PinnerSage: Multi-modal user embedding framework for recommendations at Pinterest"), videos are clustered bottom-up
until nothing is near enough to be joined, and each cluster is an interest of its own. PinnerSage joins by Ward's
criterion over plain counts; here the weights fade, and under weighted Ward a light cluster is joined to anything,
because moving so little costs little: the interest of today would vanish in the one of last year. So clusters are
joined by *weighted average linkage*: the similarity of two clusters is the mean cosine of their videos, each weighted
by its contribution,

    s(A, B) = sum over a in A, b in B of  w_a w_b cos(a, b) / (w(A) w(B))

which depends on shares alone: when all weights fade alike nothing changes. Two are joined while s >= `LEAST_COSINE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

MOST_INTERESTS = 8
# The videos that are clustered: those that weigh most.
MOST_LIKED = 200
MOST_DISLIKED = 50
# Of the 190 pairs of twenty real clips, half lie below 0.03 and 95 of 100 below 0.2; those above 0.3 are of one thing.
LEAST_COSINE = 0.3
INTEREST_TAGS = 20
# Weights are compared in millionths of the heaviest, so that rounding in the sums can never change a cluster.
WEIGHT_DIGITS = 6


class Described(Protocol):
    """What clustering needs of a video: its unit vector [dim] and its weighted tags."""

    @property
    def vector(self) -> npt.NDArray[np.floating]:
        """float [dim], unit."""

    @property
    def tags(self) -> Mapping[str, float]:
        """Weights by tag."""


@dataclass(frozen=True, eq=False)
class Interest:
    """One thing that a viewer likes (or dislikes): `vector` float64 [dim] unit, the weighted mean of its videos; `mass`
    the sum of their weights, in finished views; `tags` their weighted mean, strongest first; `videos` heaviest first
    (none: an interest that was said, not watched)."""

    vector: Float64
    mass: float
    tags: Mapping[str, float] = field(default_factory=dict)
    videos: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Interest(mass={self.mass:.3g}, videos={len(self.videos)}, tags={list(self.tags)[:3]})"


def interests_of(
    weights: Mapping[str, float], videos: Mapping[str, Described], most: int = MOST_INTERESTS
) -> tuple[Interest, ...]:
    """The `most` heaviest interests, heaviest first, of videos with these weights (above 0 count).

    The same whatever the order of the mappings. What is not among the heaviest is in no interest.
    """
    names = sorted(name for name in videos if weights.get(name, 0.0) > 0)
    if not names:
        return ()
    vectors = np.stack([videos[name].vector for name in names]).astype(np.float64)
    mass = np.array([weights[name] for name in names])
    weighted = mass[:, None] * vectors
    found = []
    for members in clusters(vectors, mass):
        chosen = [names[place] for place in members]
        total = weighted[members].sum(axis=0)
        length = float(np.linalg.norm(total))
        if length > 0:
            heaviest = sorted(chosen, key=lambda name: (-weights[name], name))
            held = float(mass[members].sum())
            found.append(Interest(total / length, held, _tags(chosen, weights, videos, held), tuple(heaviest)))
    found.sort(key=lambda interest: (-interest.mass, interest.videos))
    return tuple(found[:most])


def clusters(vectors: Float64, weights: Float64, least: float = LEAST_COSINE) -> list[list[int]]:
    """The places of `vectors` [n, dim] (unit), weighted by `weights` [n] (above 0), in groups; see the module.

    Always the two most similar clusters are joined, of equals those that begin first. O(n^2) numbers are kept: for n up
    to some hundreds.
    """
    count = len(vectors)
    shares = np.maximum(np.round(weights / weights.max(), WEIGHT_DIGITS), 10.0**-WEIGHT_DIGITS)
    # Rounded like the weights: of videos that are equally alike, the order decides and not the last bit.
    alike = np.round(vectors @ vectors.T, 9)
    np.fill_diagonal(alike, -np.inf)
    groups: list[list[int]] = [[place] for place in range(count)]
    nearest = alike.argmax(axis=1)
    places = np.arange(count)
    for _ in range(count - 1):
        one = int(alike[places, nearest].argmax())
        other = int(nearest[one])
        if alike[one, other] < least:
            break
        total = shares[one] + shares[other]
        row = (shares[one] * alike[one] + shares[other] * alike[other]) / total
        # -inf of those that are gone stays -inf.
        alike[one], alike[:, one] = row, row
        alike[one, one] = -np.inf
        alike[other], alike[:, other] = -np.inf, -np.inf
        shares[one] = total
        groups[one] += groups[other]
        groups[other] = []
        # A mean is never above the larger of its two, so only those whose nearest was joined must look again.
        again = np.flatnonzero((nearest == one) | (nearest == other) | (places == one))
        nearest[again] = alike[again].argmax(axis=1)
    return [sorted(group) for group in groups if group]


def _tags(
    names: Sequence[str], weights: Mapping[str, float], videos: Mapping[str, Described], mass: float
) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name in names:
        for tag, share in videos[name].tags.items():
            sums[tag] = sums.get(tag, 0.0) + weights[name] * share / mass
    order = sorted(sums.items(), key=lambda item: (-round(item[1], WEIGHT_DIGITS), item[0]))
    return dict(order[:INTEREST_TAGS])
