"""The random walk of three steps, each chance raised to a power (Cooper et al. 2014): viewer, video, viewer, video.

    score(u, i) = sum over watched j of  weight_uj * S_ji / liked_i^beta,      S as in `ranker.models.walk`

A power below 1 evens out what busy viewers and popular videos say; with `beta` above 0 it is RP3beta (Paudel et al.
2016, "Updatable, accurate, diverse, and scalable recommendations"). `neighbours` keeps the nearest few of each video
that may be found, which leaves out what is connected by chance alone.

Viewers without training are scored by their log, those without history by popularity; a new video scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker.item_item import heaviest
from ranker.models.histories import (
    HistoryConfig,
    by_popularity,
    by_video,
    checked,
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
from ranker.walks import VIEWER, WalkConfig, Walks
from store.errors import ModelError

BLOCK = 1024


class P3AlphaConfig(HistoryConfig):
    """`alpha`: power of each chance; `beta`: power of how many liked a video, which its score is divided by;
    `neighbours`: how many videos each one can be found from (None: all)."""

    alpha: float = Field(1.0, gt=0, allow_inf_nan=False)
    beta: float = Field(0.0, ge=0, allow_inf_nan=False)
    neighbours: int | None = Field(None, ge=1)


class P3Alpha:
    """`reached`: CSR float32 [n_videos, n_videos], from a watched video to a found one."""

    name: ClassVar[str] = "p3alpha"

    def __init__(self, **settings: Any) -> None:
        self.config = P3AlphaConfig(**settings)
        self.reached: Any = sparse.csr_matrix((0, 0), dtype=np.float32)
        self.popular: Float32 = np.zeros(0, np.float32)

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Raises `ranker.too_few_events`."""
        check_fit(data)
        matrix = trained_on(data.log, self.config)
        walks = Walks(
            interactions_of(matrix),
            config=WalkConfig(alpha=self.config.alpha, beta=self.config.beta, second=0, weights={VIEWER: 1.0}),
        )
        (edges,) = walks.edges
        liked = np.maximum(walks.liked, 1) ** self.config.beta
        blocks = []
        # A block of found videos at a time: rows of the transposed matrix, so that each keeps its own nearest.
        into, out = edges.back.T.tocsr(), edges.out.T.tocsr()
        for start in range(0, matrix.shape[1], BLOCK):
            found = (into[start : start + BLOCK] @ out).tocsr()
            found.data /= np.repeat(liked[start : start + BLOCK], np.diff(found.indptr)).astype(np.float32)
            blocks.append(found if self.config.neighbours is None else heaviest(found, self.config.neighbours))
        self.reached = sparse.vstack(blocks, format="csr").T.tocsr()
        self.reached.sort_indices()
        self.popular = popularity_of(matrix)
        return {"cells": int(self.reached.nnz)}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]."""
        rows = histories(log, viewers, self.config, len(self.popular))
        scores = np.asarray((rows @ self.reached).toarray(), np.float32)
        return completed(scores, np.diff(rows.indptr) == 0, self.popular, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By watched video."""
        row = histories(log, np.array([viewer]), self.config, len(self.popular))
        if not row.nnz:
            return by_popularity(self.popular, video)
        if video >= len(self.popular):
            return []
        return by_video(row.indices, row.data * self.reached[row.indices][:, [video]].toarray()[:, 0])

    def arrays(self) -> Arrays:
        """`reached` and `popular`."""
        return packed("reached", self.reached) | {"popular": self.popular}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.reached = unpacked("reached", arrays)
        model.popular = checked(arrays, "popular", (model.reached.shape[1],))
        if model.reached.shape[0] != model.reached.shape[1]:
            raise ModelError("ranker.bad_model", f"Steps of {model.reached.shape} are not square.")
        return model
