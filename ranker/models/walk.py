"""Random walks of three and five steps over viewers and videos: P3 and P5 (Cooper et al. 2014; `ranker.walks`).

    S = (D_video^-1 A)^alpha (D_viewer^-1 A')^alpha            score = (s S + second * s S S) / liked^beta

Five steps reach a video that nobody who shares a video with the viewer has watched: on thin data (TikTok: six acts a
viewer) most of what he will watch lies there. The walk starts at what the viewer watched, so that who was not in
training is scored like everybody else; who has no history is scored by popularity. A new video cannot be reached and
scores 0 (`ranker.models.knowledge_graph` reaches it by its tags).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse
from ranker.models.histories import (
    HistoryConfig,
    by_popularity,
    completed,
    histories,
    interactions_of,
    packed,
    popularity_of,
    trained_on,
    unpacked,
)
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData
from ranker.walks import VIEWER, WalkConfig, Walks, steps


class WalkModelConfig(HistoryConfig):
    """`alpha`: power of each chance; `second`: what a walk of five steps counts beside one of three; `beta`: how much
    is taken from what many liked."""

    alpha: float = Field(1.0, gt=0, allow_inf_nan=False)
    second: float = Field(1.0, ge=0, allow_inf_nan=False)
    beta: float = Field(0.0, ge=0, allow_inf_nan=False)


class Walk:
    """`cells`: CSR float32 [n_viewers, n_videos], who liked what in training; the graph is made of it."""

    name: ClassVar[str] = "walk"

    def __init__(self, **settings: Any) -> None:
        self.config = WalkModelConfig(**settings)
        self._grow(sparse.csr_matrix((0, 0), dtype=np.float32))

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Raises `ranker.too_few_events`."""
        check_fit(data)
        self._grow(trained_on(data.log, self.config))
        return {"edges": int(self.cells.nnz)}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]."""
        rows = histories(log, viewers, self.config, len(self.popular))
        return completed(walked(self.walks, rows), np.diff(rows.indptr) == 0, self.popular, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By the kind of node through which the walk arrives: other viewers here, and tags in a graph that has them."""
        row = histories(log, np.array([viewer]), self.config, len(self.popular))
        if not row.nnz:
            return by_popularity(self.popular, video)
        return arrivals(self.walks, row, video) if video < len(self.popular) else []

    def arrays(self) -> Arrays:
        """`cells`."""
        return packed("cells", self.cells)

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model._grow(unpacked("cells", arrays))
        return model

    def _grow(self, cells: Sparse) -> None:
        self.cells = cells
        self.popular = popularity_of(cells)
        wanted = WalkConfig(
            alpha=self.config.alpha, beta=self.config.beta, second=self.config.second, weights={VIEWER: 1.0}
        )
        self.walks = Walks(interactions_of(cells), config=wanted)


def walked(walks: Walks, rows: Sparse) -> Float32:
    """float32 [n, n_videos]: `walks.scores`, but dense after the first step. The second round starts nearly
    everywhere, and a sparse product of rows that are full is five times slower than a dense one."""
    start = steps(rows, 1.0)
    # Transposed: scipy multiplies sparse by dense from the left, row after row.
    first = np.zeros((walks.n_videos, rows.shape[0]), np.float32)
    for edges in walks.edges:
        first += np.float32(edges.weight) * (edges.back.T @ np.asarray((start @ edges.out).toarray(), np.float32).T)
    total = first
    if walks.config.second:
        total = first + np.float32(walks.config.second) * _round(walks, first)
    if walks.config.beta:
        total = total / (np.maximum(walks.liked, 1) ** walks.config.beta)[:, None]
    return np.asarray(total.T, np.float32)


def _round(walks: Walks, at: Float32) -> Float32:
    """float32 [n_videos, n]: one round on from chances [n_videos, n] of being at each video."""
    found = np.zeros_like(at)
    for edges in walks.edges:
        found += np.float32(edges.weight) * (edges.back.T @ (edges.out.T @ at))
    return found


def arrivals(walks: Walks, row: Sparse, video: int) -> list[Reason]:
    """Parts of one walk's score of a video by the node that its last step leaves: all viewers together, every other
    node (a creator, a tag) by its name where it has one. `row`: CSR [1, n_videos], not empty."""
    start = np.asarray(steps(row, 1.0).toarray(), np.float32).T
    at = start
    if walks.config.second:
        at = start + np.float32(walks.config.second) * _round(walks, start)
    scale = float(np.maximum(walks.liked[video], 1) ** walks.config.beta)
    found: list[tuple[str, str, float]] = []
    for edges in walks.edges:
        last = edges.back[:, [video]].tocoo()
        shares = edges.weight * last.data * (edges.out.T @ at)[last.row, 0] / scale
        if edges.kind == VIEWER:
            found.append((VIEWER, "others", float(shares.sum())))
        else:
            names = [edges.names[node] if edges.names else str(node) for node in last.row]
            found += [(edges.kind, name, float(share)) for name, share in zip(names, shares, strict=True)]
    return [Reason(*one) for one in sorted(found, key=lambda one: (-one[2], one[0], one[1])) if one[2]]
