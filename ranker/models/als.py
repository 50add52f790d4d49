"""Implicit alternating least squares (Hu, Koren, Volinsky 2008, "Collaborative filtering for implicit feedback
datasets", eq. 4 and 5).

    least over X, Y of  sum over u, i of  c_ui (p_ui - x_u . y_i)^2  +  regularisation (|X|^2 + |Y|^2)
    p_ui = 1 where u liked i, else 0;      c_ui = 1 + confidence * r_ui

    x_u = (Y'Y + Y'(C_u - I)Y + regularisation I)^-1  Y'C_u p_u

With a confidence of 0 all cells weigh the same, all viewers share one matrix, and a sweep is one product: a ridge form
of the truncated singular value decomposition, and on small dense data hard to beat. With more, each viewer has a matrix
of his own; those of many viewers are solved together.

A viewer, whether he was in training or not, is solved from his log as it is when he is asked for; who has none is
ranked by popularity. A new video has a factor of 0 and scores 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ranker.interactions import Sparse
from ranker.models.histories import (
    HistoryConfig,
    by_popularity,
    by_video,
    checked,
    completed,
    histories,
    popularity_of,
    trained_on,
)
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.training_data import ActLog, Float32, Float64, Integers, TrainingData
from store.errors import ModelError

# Rows solved at a time: their matrices take 8 * factors^2 bytes each.
ROWS = 1024


class AlsConfig(HistoryConfig):
    """`factors` of each viewer and video; `regularisation`; `confidence` of a liked cell beyond the 1 of all others;
    `scaling`: the regularisation of a row is multiplied by (the weight of its cells, relative to the mean row)^scaling
    (Rendle et al. 2022, "Revisiting the performance of iALS"; 0: the same for all). In a fading history a cell of
    weight w lies between a liked one (1) and one that was not (0)."""

    factors: int = Field(32, ge=1)
    regularisation: float = Field(10.0, gt=0, allow_inf_nan=False)
    confidence: float = Field(0.0, ge=0, allow_inf_nan=False)
    scaling: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    sweeps: int = Field(15, ge=1, description="Over viewers and videos, both.")
    seed: int = Field(0, ge=0)


class Als:
    """`videos`: float32 [n_videos, factors]. `usual`: the mean weight of a viewer's cells in training."""

    name: ClassVar[str] = "als"

    def __init__(self, **settings: Any) -> None:
        self.config = AlsConfig(**settings)
        self.videos: Float32 = np.zeros((0, self.config.factors), np.float32)
        self.popular: Float32 = np.zeros(0, np.float32)
        self.usual = 1.0

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Raises `ranker.too_few_events` and `ranker.not_finite`."""
        check_fit(data)
        matrix = trained_on(data.log, self.config)
        turned = matrix.T.tocsr()
        self.popular = popularity_of(matrix)
        stream = np.random.Generator(np.random.PCG64(self.config.seed))
        videos = stream.standard_normal((matrix.shape[1], self.config.factors)) * 0.1
        # Videos without acts must not speak at all, not even in the first sweep.
        videos[self.popular == 0] = 0
        self.usual = self._weight_of(matrix).mean()
        usual_video = self._weight_of(turned).mean()
        for sweep in range(self.config.sweeps):
            viewers = self._solve(matrix, videos, self.usual)
            videos = self._solve(turned, viewers, usual_video)
            if run is not None:
                run.tell(sweep + 1, self.config.sweeps)
        self.videos = np.asarray(videos, np.float32)
        if not np.isfinite(self.videos).all():
            raise ModelError("ranker.not_finite", "The factors are not finite numbers.", hint="Raise regularisation.")
        return {"sweeps": self.config.sweeps}

    def factors_of(self, log: ActLog, viewers: Integers) -> Float64:
        """float64 [len(viewers), factors], solved from what is in the log; 0 for viewers without history."""
        return self._solve(histories(log, viewers, self.config, len(self.popular)), self.videos, self.usual)

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]."""
        rows = histories(log, viewers, self.config, len(self.popular))
        scores = np.asarray(self._solve(rows, self.videos, self.usual) @ self.videos.T, np.float32)
        return completed(scores, np.diff(rows.indptr) == 0, self.popular, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By watched video: the viewer's factors are linear in p given C (section 5 of the paper)."""
        row = histories(log, np.array([viewer]), self.config, len(self.popular))
        if not row.nnz:
            return by_popularity(self.popular, video)
        if video >= len(self.popular):
            return []
        gram = self._gram(self.videos.astype(np.float64))
        watched = self.videos[row.indices].astype(np.float64)
        system = gram + np.eye(self.config.factors) * self._ridge(row, self.usual)[0]
        system += (watched * (self.config.confidence * row.data[:, None])).T @ watched
        shares = self._wanted(row) * (watched @ np.linalg.solve(system, self.videos[video].astype(np.float64)))
        return by_video(row.indices, shares)

    def arrays(self) -> Arrays:
        """`videos`, `popular` and `usual`."""
        return {"videos": self.videos, "popular": self.popular, "usual": np.array([self.usual], np.float64)}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.popular = checked(arrays, "popular", (None,))
        model.videos = checked(arrays, "videos", (len(model.popular), model.config.factors))
        checked(arrays, "usual", (1,))
        model.usual = float(arrays["usual"][0])
        return model

    def _wanted(self, rows: Sparse) -> Float64:
        """float64 [cells]: c * p of each."""
        data = rows.data.astype(np.float64)
        if self.config.history == "fading":
            return np.asarray((1 + self.config.confidence) * data, np.float64)
        return np.asarray(1 + self.config.confidence * data, np.float64)

    def _weight_of(self, rows: Sparse) -> Float64:
        """float64 [n]: what the cells of each row weigh, those not liked included (by 1 in a thousand columns)."""
        weight = np.asarray(rows.sum(axis=1), np.float64).ravel() * (1 + self.config.confidence)
        return np.asarray(weight + rows.shape[1] / 1000, np.float64)

    def _ridge(self, rows: Sparse, usual: float) -> Float64:
        """float64 [n]: regularisation of each row."""
        if not self.config.scaling:
            return np.full(rows.shape[0], self.config.regularisation)
        scaled = (self._weight_of(rows) / usual) ** self.config.scaling
        return np.asarray(self.config.regularisation * scaled, np.float64)

    def _gram(self, factors: Float64) -> Float64:
        found: Float64 = factors.T @ factors
        return found

    def _solve(self, rows: Sparse, factors: npt.NDArray[Any], usual: float) -> Float64:
        """float64 [n, factors]: the best factors of the rows, given those of the columns."""
        factors = factors.astype(np.float64)
        k = self.config.factors
        gram, ridge = self._gram(factors), self._ridge(rows, usual)
        weighted = rows.astype(np.float64)
        weighted.data = self._wanted(rows)
        right = np.asarray(weighted @ factors)
        if not self.config.confidence and not self.config.scaling:
            found: Float64 = np.linalg.solve(gram + np.eye(k) * self.config.regularisation, right.T).T
            return found
        solved = np.zeros((rows.shape[0], k))
        for part in parts(rows.shape[0], ROWS):
            system = np.empty((part.stop - part.start, k, k))
            for place, row in enumerate(range(part.start, part.stop)):
                own = slice(rows.indptr[row], rows.indptr[row + 1])
                liked = factors[rows.indices[own]]
                np.matmul((liked * (self.config.confidence * rows.data[own, None])).T, liked, out=system[place])
            system += gram
            system[:, np.arange(k), np.arange(k)] += ridge[part][:, None]
            solved[part] = np.linalg.solve(system, right[part][..., None])[..., 0]
        return solved


def parts(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` of `n` rows."""
    yield from (slice(start, min(start + size, n)) for start in range(0, n, size))
