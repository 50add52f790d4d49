"""What people of the same taste liked: the nearest viewers by cosine of what they had, and the sum of their videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ranker.grouping import largest, sampled, spread
from ranker.interactions import Interactions, Sparse
from ranker.item_item import heaviest

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class SimilarViewersConfig(BaseModel):
    """`neighbours`: how many viewers are asked. `shrinkage` of the cosine, as for videos. For serving: `degree`, how
    many viewers of a video are looked at (none: all), an even sample: what everybody watched says little of taste."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    neighbours: int = Field(200, ge=1)
    shrinkage: float = Field(1.0, ge=0, allow_inf_nan=False)
    degree: int | None = Field(None, ge=1)


class SimilarViewers:
    """Made once from the interactions, asked with what somebody watched, whether he is in them or not."""

    def __init__(self, interactions: Interactions, config: SimilarViewersConfig | None = None) -> None:
        self.config = config or SimilarViewersConfig()
        self.cells = interactions.matrix
        self.by_video = self.cells.T.tocsr()
        self.asked = sampled(self.by_video, self.config.degree)
        squares = self.cells.multiply(self.cells).sum(axis=1)
        self.lengths = np.sqrt(np.asarray(squares, np.float64)).ravel()

    def nearest(self, histories: Sparse) -> Sparse:
        """CSR float32 [n, viewers]: how near the nearest viewers are to each row of `histories` [n, videos]."""
        found: Any = (histories @ self.by_video).tocsr()
        own = np.sqrt(np.asarray(histories.multiply(histories).sum(axis=1), np.float64)).ravel()
        rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
        found.data = (found.data / (own[rows] * self.lengths[found.indices] + self.config.shrinkage)).astype(np.float32)
        return heaviest(found, self.config.neighbours)

    def scores(self, histories: Sparse, itself: Sparse | None = None) -> Float32:
        """float32 [n, videos]. `itself`, sparse [n, viewers], marks viewers that are not to be asked (offline:
        oneself)."""
        near = self.nearest(histories)
        if itself is not None:
            near = near - near.multiply(itself > 0)
        return np.asarray((near @ self.cells).toarray(), np.float32)

    def found(self, seeds: Mapping[int, float]) -> tuple[Integers, Float64]:
        """(places of videos, scores) of what the nearest viewers liked, for one viewer; at a cost that does not grow
        with the catalogue."""
        places = np.array(sorted(seeds), np.int64)
        weights = np.array([seeds[place] for place in places.tolist()], np.float64)
        viewers, overlap, _, _ = spread(places, weights, weights, self.asked)
        near = overlap / (np.linalg.norm(weights) * self.lengths[viewers] + self.config.shrinkage)
        nearest = largest(near, self.config.neighbours)
        videos, scores, _, _ = spread(viewers[nearest], near[nearest], near[nearest], self.cells)
        return videos, scores
