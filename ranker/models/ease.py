"""EASE: each video from all the others by one ridge regression without a diagonal (Steck 2019, "Embarrassingly shallow
autoencoders for sparse data", eq. 8).

    P = (X'X + regularisation I)^-1        B_ji = -P_ji / P_ii  (j != i),  0 on the diagonal
    score(u, i) = sum over watched j of  weight_uj * B_ji

With a fading history the matrix stays the same and only what the viewer watched last weighs more when he is scored: B
says what goes together, and what goes with *now* is asked of it. On MovieLens-100K with the last act of each viewer
left out that is ahead of the sequence models of others, which is why ours are held against it (docs/learning.md).

Who was not in training is scored by his log like everybody else, who has none by popularity. A new video scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

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
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData
from store.errors import InputError, ModelError


class EaseConfig(HistoryConfig):
    """`regularisation` in squared values, beside the number of viewers of a video. `most_videos` with an act in
    training: the dense inverse takes 12 bytes for each pair of them, and time by the cube."""

    regularisation: float = Field(250.0, gt=0, allow_inf_nan=False)
    most_videos: int = Field(12_000, ge=2)


class Ease:
    """`places`: int64 [m], the videos with acts in training, in order; `weights`: float32 [m, m], watched by found."""

    name: ClassVar[str] = "ease"

    def __init__(self, **settings: Any) -> None:
        self.config = EaseConfig(**settings)
        self.places: Integers = np.zeros(0, np.int64)
        self.weights: Float32 = np.zeros((0, 0), np.float32)
        self.popular: Float32 = np.zeros(0, np.float32)

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Raises `ranker.too_few_events`, and `ranker.training_failed` for more videos than `most_videos`."""
        from scipy.linalg import lapack  # type: ignore[import-untyped]

        check_fit(data)
        matrix = trained_on(data.log, self.config)
        self.popular = popularity_of(matrix)
        self.places = np.flatnonzero(self.popular).astype(np.int64)
        if len(self.places) > self.config.most_videos:
            raise InputError(
                "ranker.training_failed",
                f"EASE inverts a dense matrix: {len(self.places)} videos are more than {self.config.most_videos}.",
                hint="Raise most_videos where memory allows, or train als or item_knn, which need no dense matrix.",
            )
        cells = matrix[:, self.places]
        gram = np.asarray((cells.T @ cells).toarray(), np.float64, order="F")
        gram[np.diag_indices(len(gram))] += self.config.regularisation
        # Cholesky of a positive definite matrix, then its inverse in place: half the work of a general one.
        factor, failed = lapack.dpotrf(gram, lower=1, overwrite_a=1)
        if not failed:
            factor, failed = lapack.dpotri(factor, lower=1, overwrite_c=1)
        if failed:
            raise ModelError("ranker.training_failed", "The videos' matrix cannot be inverted.")
        lower = np.tril(factor)
        inverse = lower + np.tril(lower, -1).T
        weights = np.asarray(inverse / -np.diag(inverse), np.float32)
        weights[np.diag_indices(len(weights))] = 0
        self.weights = weights
        return {"videos": len(self.places)}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]."""
        rows = histories(log, viewers, self.config, len(self.popular))
        scores = np.zeros(rows.shape, np.float32)
        scores[:, self.places] = rows[:, self.places] @ self.weights
        return completed(scores, np.diff(rows.indptr) == 0, self.popular, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By watched video; a share below 0 speaks against."""
        row = histories(log, np.array([viewer]), self.config, len(self.popular))
        if not row.nnz:
            return by_popularity(self.popular, video)
        watched = row[:, self.places]
        column = np.flatnonzero(self.places == video)
        if not len(column):
            return []
        shares = watched.data * self.weights[watched.indices, column[0]]
        return by_video(self.places[watched.indices], shares)

    def arrays(self) -> Arrays:
        """`places`, `weights` and `popular`."""
        return {"places": self.places, "weights": self.weights, "popular": self.popular}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.places = np.asarray(arrays["places"], np.int64)
        model.popular = checked(arrays, "popular", (None,))
        model.weights = checked(arrays, "weights", (len(model.places), len(model.places)))
        if len(model.places) and not 0 <= model.places.min() <= model.places.max() < len(model.popular):
            raise ModelError("ranker.bad_model", "A place of the stored model is no video.")
        return model
