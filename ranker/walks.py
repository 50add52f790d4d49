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

from ranker.grouping import largest, sampled, spread, together
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
    """`videos` int64 [n], best first; `scores` float64 [n]; `rounds` and `kinds` are what `path` is told from."""

    videos: Integers
    scores: Float64
    rounds: tuple[Trail, ...] = ()
    kinds: tuple[str, ...] = ()

    def path(self, video: int) -> tuple[tuple[str, int], ...]:
        """The heaviest path to a found video: video, node, video, ... as (kind, number) pairs from a seed. Through one
        round where one reaches it, else through both."""
        number = next(index for index, trail in enumerate(self.rounds) if trail.to(video) is not None)
        path: list[tuple[str, int]] = [("video", video)]
        at = video
        for trail in reversed(self.rounds[: number + 1]):
            place = trail.to(at)
            if place is None:
                raise AssertionError("a walk's second round starts where its first ended")
            via = int(trail.via[place])
            at = int(trail.origins[via])
            path += [(self.kinds[int(trail.kinds[via])], int(trail.nodes[via])), ("video", at)]
        return tuple(reversed(path))


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
        ties by the lower place.

        It touches what it reaches and nothing else: the cost does not grow with the catalogue."""
        places = np.array(sorted(place for place, weight in seeds.items() if weight > 0), np.int64)
        nothing = Found(np.zeros(0, np.int64), np.zeros(0))
        if not len(places) or not self.edges or most < 1:
            return nothing
        weights = np.array([seeds[int(place)] for place in places], np.float64)
        start = weights / weights.sum()
        rounds = [self._step(places, start, start)]
        if self.config.second and len(rounds[0].videos):
            kept = largest(rounds[0].mass, self.config.widest)
            first = rounds[0]
            rounds.append(self._step(first.videos[kept], first.mass[kept], first.heaviest_path[kept]))
        counted = [one.mass * (self.config.second if number else 1.0) for number, one in enumerate(rounds)]
        videos, share, _, _ = together(
            np.concatenate([one.videos for one in rounds]), np.concatenate(counted), np.concatenate(counted)
        )
        if self.config.beta:
            share = share / np.maximum(self.liked[videos], 1) ** self.config.beta
        others = ~np.isin(videos, places) & (share > 0)
        videos, share = videos[others], share[others]
        best = largest(share, most)
        order = best[np.argsort(-share[best], kind="stable")]
        return Found(videos[order], share[order], tuple(rounds), tuple(edges.kind for edges in self.edges))

    def _step(self, videos: Integers, mass: Float64, heaviest: Float64) -> Trail:
        """One round: to nodes of every kind, and back to videos. `videos` [n] in order, where walkers are; `mass` and
        `heaviest` [n], the chance of being there and of the heaviest path there."""
        reached: list[tuple[Integers, Float64, Float64, Integers]] = []
        kinds, nodes, origins = [], [], []
        before = 0
        for number, edges in enumerate(self.edges):
            at, at_mass, at_heaviest, source = spread(videos, mass, heaviest, edges.out)
            kept = largest(at_mass, self.config.widest)
            at = at[kept]
            there, back, heaviest_back, middle = spread(at, at_mass[kept], at_heaviest[kept], edges.back)
            reached.append((there, edges.weight * back, edges.weight * heaviest_back, before + middle))
            kinds.append(np.full(len(at), number, np.int64))
            nodes.append(at)
            origins.append(videos[source[kept]])
            before += len(at)
        there, back, heaviest_back, middle = (np.concatenate(parts) for parts in zip(*reached, strict=True))
        found, total, top, place = together(there, back, heaviest_back)
        return Trail(
            found, total, top, middle[place], np.concatenate(kinds), np.concatenate(nodes), np.concatenate(origins)
        )


@dataclass(frozen=True, eq=False)
class Trail:
    """Where a walk stands after a round: `videos` int64 [n] in order, the chance `mass` of being at each, the chance of
    the `heaviest_path` to each, and in `via` [n] through which of the nodes that goes: `kinds`, `nodes` and `origins`
    int64 [m] say of what kind each is, its number, and the video from which it was reached."""

    videos: Integers
    mass: Float64
    heaviest_path: Float64
    via: Integers
    kinds: Integers
    nodes: Integers
    origins: Integers

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
