"""Cosine of content: a video is scored by how near its vectors are to the mean of what the viewer watched.

    score(u, i) = sum over modalities m of  weight_m * cos(mean over watched j of weight_uj v_mj,  v_mi)

No act on a video is needed, so that new ones are ranked like all others; a video without any features scores 0. Vectors
are made comparable first (`ranker.models.content_features`); acts in training are used by whitening `within` alone.
Viewers without training are scored by their log; who has no history is ranked by popularity, new videos last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ranker.models.content_features import FeatureConfig, prepared, weight_of
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


class ContentConfig(HistoryConfig, FeatureConfig):
    """A history as in `HistoryConfig`, features as in `FeatureConfig`."""


class ContentCosine:
    """`features`: {modality: float32 [n_videos, dim]} of unit length."""

    name: ClassVar[str] = "content"

    def __init__(self, **settings: Any) -> None:
        self.config = ContentConfig(**settings)
        self.features: dict[str, Float32] = {}
        self.popular: Float32 = np.zeros(0, np.float32)

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Raises `ranker.too_few_events`, `ranker.not_finite`, and `ranker.training_failed` where no video has
        features."""
        check_fit(data, 1)
        matrix = trained_on(data.log, self.config)
        self.features = prepared(data.content, matrix, self.config)
        self.popular = popularity_of(matrix)
        return {"modalities": sorted(self.features)}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos], in -1..1 for viewers with a history."""
        rows = histories(log, viewers, self.config, len(self.popular))
        scores = np.zeros(rows.shape, np.float32)
        for name, weight in weight_of(self.config, self.features).items():
            scores += np.float32(weight) * (_wanted(rows, self.features[name])[0] @ self.features[name].T)
        return completed(scores, np.diff(rows.indptr) == 0, self.popular, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By watched video, all modalities together."""
        row = histories(log, np.array([viewer]), self.config, len(self.popular))
        if not row.nnz:
            return by_popularity(self.popular, video)
        if video >= len(self.popular):
            return []
        shares = np.zeros(row.nnz)
        for name, weight in weight_of(self.config, self.features).items():
            features = self.features[name]
            shares += weight * row.data * (features[row.indices] @ features[video]) / _wanted(row, features)[1][0]
        return by_video(row.indices, shares)

    def arrays(self) -> Arrays:
        """`features.MODALITY` and `popular`."""
        return {f"features.{name}": rows for name, rows in self.features.items()} | {"popular": self.popular}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.popular = checked(arrays, "popular", (None,))
        for name in sorted(arrays):
            if name.startswith("features."):
                model.features[name.partition(".")[2]] = checked(arrays, name, (len(model.popular), None))
        return model


def _wanted(rows: Any, features: Float32) -> tuple[Float32, Float32]:
    """(float32 [n, dim]: the direction of each history; float32 [n, 1]: what its sum was divided by)."""
    total = np.asarray(rows @ features, np.float32)
    length = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), np.float32(1e-12))
    return np.asarray(total / length, np.float32), np.asarray(length, np.float32)
