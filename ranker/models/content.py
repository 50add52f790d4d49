"""Cosine of content: a video is scored by how near its vectors are to the mean of what the viewer watched.

    score(u, i) = sum over modalities m of  weight_m * cos(mean over watched j of weight_uj v_mj,  v_mi)

With `sharpness` g above 0 it leans to single watched videos and away from hubs, videos that are near to everything: the
share that what the viewer watched has in all that is near the video (the kernel mean of Nadaraya and Watson),

    score(u, i) = mean over watched j of  exp(g cos(j, i))  /  mean over k of  exp(g cos(k, i))

with the weighted sum of all modalities' cosines, and k all videos with acts in training (a sample of many).

No act on a video is needed, so that new ones are ranked like all others; a video without any features scores 0. Vectors
are made comparable first (`ranker.models.content_features`); acts in training are used by whitening `within` alone.
Viewers without training are scored by their log; who has no history is ranked by popularity, new videos last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

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

# Watched videos whose nearness to all others is computed at a time, and videos with acts that hubs are told by.
BLOCK, SAMPLE = 1024, 8192


class ContentConfig(HistoryConfig, FeatureConfig):
    """A history as in `HistoryConfig`, features as in `FeatureConfig`; `sharpness` as above (0: cosine to the mean)."""

    sharpness: float = Field(0.0, ge=0, le=50, allow_inf_nan=False)


class ContentCosine:
    """`features`: {modality: float32 [n_videos, dim]} of unit length. `near`: float32 [n_videos], the mean over k of
    above; ones without sharpness."""

    name: ClassVar[str] = "content"

    def __init__(self, **settings: Any) -> None:
        self.config = ContentConfig(**settings)
        self.features: dict[str, Float32] = {}
        self.popular: Float32 = np.zeros(0, np.float32)
        self.near: Float32 = np.zeros(0, np.float32)

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Raises `ranker.too_few_events`, `ranker.not_finite`, and `ranker.training_failed` where no video has
        features."""
        check_fit(data, 1)
        matrix = trained_on(data.log, self.config)
        self.features = prepared(data.content, matrix, self.config)
        self.popular = popularity_of(matrix)
        self.near = np.ones(len(self.popular), np.float32)
        if self.config.sharpness:
            known = np.flatnonzero(self.popular)
            if len(known) > SAMPLE:
                known = np.sort(np.random.Generator(np.random.PCG64(0)).choice(known, SAMPLE, replace=False))
            total = np.zeros(len(self.popular))
            for start in range(0, len(known), BLOCK):
                total += self._kernel(known[start : start + BLOCK]).sum(axis=0)
            self.near = np.asarray(total / max(len(known), 1), np.float32)
        return {"modalities": sorted(self.features)}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]; in -1..1 for viewers with a history, without sharpness; 1 is no more than
        anything is near, with it."""
        rows = histories(log, viewers, self.config, len(self.popular))
        scores = np.zeros(rows.shape, np.float32)
        if self.config.sharpness:
            watched = np.unique(rows.indices)
            columns = rows.tocsc()
            for start in range(0, len(watched), BLOCK):
                some = watched[start : start + BLOCK]
                scores += np.asarray(columns[:, some] @ self._kernel(some), np.float32)
            scores /= np.maximum(np.asarray(rows.sum(axis=1), np.float32), np.float32(1e-12)) * self.near
            return completed(scores, np.diff(rows.indptr) == 0, self.popular, log.n_videos)
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
        if self.config.sharpness:
            kernel = self._kernel(row.indices)[:, video].astype(np.float64)
            return by_video(row.indices, row.data * kernel / (row.data.sum() * self.near[video]))
        shares = np.zeros(row.nnz)
        for name, weight in weight_of(self.config, self.features).items():
            features = self.features[name]
            shares += weight * row.data * (features[row.indices] @ features[video]) / _wanted(row, features)[1][0]
        return by_video(row.indices, shares)

    def arrays(self) -> Arrays:
        """`features.MODALITY`, `popular` and `near`."""
        return {f"features.{name}": rows for name, rows in self.features.items()} | {
            "popular": self.popular,
            "near": self.near,
        }

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.popular = checked(arrays, "popular", (None,))
        model.near = checked(arrays, "near", (len(model.popular),))
        for name in sorted(arrays):
            if name.startswith("features."):
                model.features[name.partition(".")[2]] = checked(arrays, name, (len(model.popular), None))
        return model

    def _kernel(self, places: npt.NDArray[Any]) -> Float32:
        """float32 [len(places), n_videos]: exp(sharpness * cosine), all modalities together by their weights."""
        total = np.zeros((len(places), len(self.popular)), np.float32)
        for name, weight in weight_of(self.config, self.features).items():
            total += (np.float32(weight * self.config.sharpness) * self.features[name][places]) @ self.features[name].T
        found: Float32 = np.exp(total, out=total)
        return found


def _wanted(rows: Any, features: Float32) -> tuple[Float32, Float32]:
    """(float32 [n, dim]: the direction of each history; float32 [n, 1]: what its sum was divided by)."""
    total = np.asarray(rows @ features, np.float32)
    length = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), np.float32(1e-12))
    return np.asarray(total / length, np.float32), np.asarray(length, np.float32)
