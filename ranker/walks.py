"""Random walks over viewers and videos, and over what connects videos: creators, topics, sounds.

A walk starts at a watched video, steps to a neighbour of another kind (somebody who liked it, its creator, one of its
topics) and from there to another video: three steps counted from the viewer, hence P3 (Cooper et al. 2014, "Random
walks in recommender systems"). Two such rounds are P5. Each probability may be raised to a power (`alpha`), and each
kind of node has a weight: the chance that a walker leaves through it.

    S = sum over kinds of  weight * (D_video^-1 A)^alpha (D_node^-1 A^T)^alpha          [videos, videos]
    score = s S + second * s S S,      divided by (how many liked the video) ^ beta

with s the seeds (what the viewer watched, by weight) and A [videos, nodes] who or what is at which video. The walk is
personal because s is: nothing of the viewer himself needs to be in the graph, so the very last event counts.

`scores` multiplies all out, for evaluation. `walk` is for one viewer in a few milliseconds: after each step it goes on
from the heaviest nodes only, and remembers the heaviest path to each video it finds, which is why the video was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Interactions, Sparse

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
VIEWER = "viewer"


class WalkConfig(BaseModel):
    """`second`: what a path of two rounds counts beside one of one (0: P3 alone). `beta`: how much is taken from what
    many liked. `weights` of kinds of nodes; a kind that is not named counts 0. For serving: `widest`, from how many
    nodes a walk goes on after each step, and `degree`, how many edges of a node are kept (none: all), an even
    sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    alpha: float = Field(1.0, gt=0, allow_inf_nan=False)
    beta: float = Field(0.0, ge=0, allow_inf_nan=False)
    second: float = Field(1.0, ge=0, allow_inf_nan=False)
    weights: dict[str, float] = {VIEWER: 1.0, "creator": 0.15, "topic": 0.15, "sound": 0.15}
    widest: int = Field(1000, ge=1)
    degree: int | None = Field(None, ge=1)


@dataclass(frozen=True, eq=False)
class Edges:
    """One kind of node: `out` CSR float32 [videos, nodes] and `back` CSR float32 [nodes, videos] hold the chance of
    each step (raised to alpha), `names` what each node is called (empty: not to be named)."""

    kind: str
    weight: float
    out: Sparse
    back: Sparse
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """`videos` int64 [n], best first; `scores` float64 [n]; `paths`: video, node, video, ... as (kind, number) pairs
    from a seed to the found video."""

    videos: Integers
    scores: Float64
    paths: dict[int, tuple[tuple[str, int], ...]]


class Walks:
    """The graph, made once and only read after that.

    `content`: for each kind but viewers a sparse [videos, nodes] of how much a node is the video's (0: not at all).
    """

    def __init__(
        self,
        interactions: Interactions,
        content: Mapping[str, Sparse] | None = None,
        config: WalkConfig | None = None,
        names: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.config = config or WalkConfig()
        viewers = interactions.matrix.T.tocsr()
        self.liked = np.diff(viewers.indptr).astype(np.float64)
        kinds = {VIEWER: viewers, **(content or {})}
        self.edges = tuple(
            Edges(
                kind,
                self.config.weights[kind],
                steps(sampled(matrix, self.config.degree), self.config.alpha),
                steps(sampled(matrix.T.tocsr(), self.config.degree), self.config.alpha),
                (names or {}).get(kind, ()),
            )
            for kind, matrix in kinds.items()
            if self.config.weights.get(kind, 0.0) > 0 and matrix.nnz
        )
        self.n_videos = int(viewers.shape[0])

    def scores(self, histories: Sparse) -> Float32:
        """float32 [n, videos] of whole walks from each row of `histories`, sparse [n, videos] of weights above 0."""
        start = steps(histories, 1.0)
        first = self._round(start)
        total = np.asarray(first.toarray(), np.float32)
        if self.config.second:
            total = total + np.float32(self.config.second) * np.asarray(self._round(first).toarray(), np.float32)
        return np.asarray(total / np.maximum(self.liked, 1) ** self.config.beta, np.float32)

    def _round(self, start: Sparse) -> Sparse:
        found: Any = sparse.csr_matrix(start.shape, dtype=np.float32)
        for edges in self.edges:
            found = found + np.float32(edges.weight) * ((start @ edges.out) @ edges.back)
        return found

    def walk(self, seeds: Mapping[int, float], most: int) -> Found:
        """The `most` best videos from these seeds (places of videos, weights above 0) that are no seeds themselves,
        ties by the lower place. A path is named for each of them."""
        places = np.array(sorted(place for place, weight in seeds.items() if weight > 0), np.int64)
        nothing = Found(np.zeros(0, np.int64), np.zeros(0), {})
        if not len(places) or not self.edges:
            return nothing
        weights = np.array([seeds[int(place)] for place in places], np.float64)
        trail = Trail(places, weights / weights.sum(), weights / weights.sum(), None, np.zeros(0, np.int64), ())
        rounds = [self._step(trail)]
        if self.config.second and len(rounds[0].videos):
            rounds.append(self._step(rounds[0].heaviest(self.config.widest)))
        share = np.zeros(self.n_videos)
        for number, one in enumerate(rounds):
            share[one.videos] += one.mass * (self.config.second if number else 1.0)
        share /= np.maximum(self.liked, 1) ** self.config.beta
        share[places] = 0
        reached = np.flatnonzero(share)
        if not len(reached):
            return nothing
        order = reached[np.lexsort((reached, -share[reached]))[:most]]
        return Found(order, share[order], {int(video): _path(rounds, int(video)) for video in order})

    def _step(self, start: Trail) -> Trail:
        """One round: to nodes of every kind, and back to videos."""
        mass = np.zeros(self.n_videos)
        heaviest = np.zeros(self.n_videos)
        via = np.full(self.n_videos, -1, np.int64)
        nodes: list[tuple[str, int, int]] = []
        for edges in self.edges:
            reached, at_node, heaviest_at, source = _spread(start.videos, start.mass, start.heaviest_path, edges.out)
            kept = _largest(at_node, self.config.widest)
            reached, at_node, heaviest_at, source = reached[kept], at_node[kept], heaviest_at[kept], source[kept]
            videos, back, heaviest_back, middle = _spread(reached, at_node, heaviest_at, edges.back)
            mass[videos] += edges.weight * back
            better = edges.weight * heaviest_back > heaviest[videos]
            heaviest[videos[better]] = edges.weight * heaviest_back[better]
            via[videos[better]] = len(nodes) + middle[better]
            nodes += [
                (edges.kind, int(node), int(start.videos[origin])) for node, origin in zip(reached, source, strict=True)
            ]
        videos = np.flatnonzero(mass)
        return Trail(videos, mass[videos], heaviest[videos], start, via[videos], tuple(nodes))


@dataclass(frozen=True, eq=False)
class Trail:
    """Where a walk stands after a round: `videos` int64 [n] in order, the chance `mass` of being at each, the chance of
    the `heaviest_path` to each, and in `via` [n] the place in `nodes` (kind, number, video it was reached from)."""

    videos: Integers
    mass: Float64
    heaviest_path: Float64
    before: Trail | None
    via: Integers
    nodes: tuple[tuple[str, int, int], ...]

    def heaviest(self, most: int) -> Trail:
        """The same with the `most` likeliest videos only."""
        kept = _largest(self.mass, most)
        return Trail(
            self.videos[kept], self.mass[kept], self.heaviest_path[kept], self.before, self.via[kept], self.nodes
        )

    def to(self, video: int) -> int | None:
        """The place of a video in this trail."""
        place = int(np.searchsorted(self.videos, video))
        return place if place < len(self.videos) and self.videos[place] == video else None


def steps(matrix: Sparse, alpha: float) -> Sparse:
    """CSR float32 of the chance of each step from a row, raised to `alpha`; rows without any stay empty."""
    chances = matrix.tocsr().astype(np.float64)
    total = np.asarray(chances.sum(axis=1)).ravel()
    chances.data /= np.repeat(total, np.diff(chances.indptr))
    if alpha != 1.0:
        chances.data **= alpha
    return chances.astype(np.float32)


def sampled(matrix: Sparse, most: int | None) -> Sparse:
    """At most `most` cells of each row, drawn evenly: a topic of a million videos costs a walk no more than one of a
    few hundred, and no video of it is preferred."""
    if most is None or not matrix.nnz or int(np.diff(matrix.indptr).max()) <= most:
        return matrix
    matrix = matrix.tocsr()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((np.random.Generator(np.random.PCG64(0)).random(len(rows)), rows))
    kept = np.sort(order[(np.arange(len(rows)) - matrix.indptr[rows]) < most])
    return sparse.csr_matrix((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)


def _largest(values: Float64, most: int) -> Integers:
    """Places of the `most` largest values, in order of place; ties to the lower place."""
    if len(values) <= most:
        return np.arange(len(values))
    return np.sort(np.argsort(-values, kind="stable")[:most])


def _spread(
    places: Integers, mass: Float64, heaviest: Float64, chances: Sparse
) -> tuple[Integers, Float64, Float64, Integers]:
    """One step from `places` along the rows of `chances`: (where to, in order; the chance of being there; the chance of
    the heaviest path there; the index into `places` from which that path comes)."""
    starts, ends = chances.indptr[places].astype(np.int64), chances.indptr[places + 1].astype(np.int64)
    counts = ends - starts
    origin = np.repeat(np.arange(len(places)), counts)
    cells = np.arange(int(counts.sum())) + np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    targets = chances.indices[cells].astype(np.int64)
    chance = chances.data[cells].astype(np.float64)
    moved, best = mass[origin] * chance, heaviest[origin] * chance
    total: Float64 = np.bincount(targets, moved, chances.shape[1]).astype(np.float64)
    top: Float64 = np.zeros(chances.shape[1])
    np.maximum.at(top, targets, best)
    # Written last to first, so that of equally heavy paths the lowest origin stays.
    heavy = np.flatnonzero(best == top[targets])[::-1]
    source: Integers = np.zeros(chances.shape[1], np.int64)
    source[targets[heavy]] = origin[heavy]
    reached: Integers = np.flatnonzero(total).astype(np.int64)
    return reached, total[reached], top[reached], source[reached]


def _path(rounds: list[Trail], video: int) -> tuple[tuple[str, int], ...]:
    """The heaviest path to a video: through one round where one reaches it, else through both."""
    number = next(index for index, trail in enumerate(rounds) if trail.to(video) is not None)
    path: list[tuple[str, int]] = [("video", video)]
    at = video
    for trail in reversed(rounds[: number + 1]):
        place = trail.to(at)
        if place is None:
            raise AssertionError("a walk's second round starts where its first ended")
        kind, node, at = trail.nodes[int(trail.via[place])]
        path += [(kind, node), ("video", at)]
    return tuple(reversed(path))
