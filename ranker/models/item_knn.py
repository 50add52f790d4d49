"""Item neighbours: a video is scored by what the viewer watched that the same people like (`ranker.item_item`).

    score(u, i) = sum over watched j of  weight_uj * similarity(j, i)

(Sarwar et al. 2001; the shrinkage is that of Bell and Koren 2007.)

Nothing of the viewer is learnt: who was not in training is scored by his log like everybody else, who has none by
popularity. A new video has no neighbours and scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker import item_item
from ranker.item_item import ItemItemConfig
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
from store.errors import ModelError


class ItemKnnConfig(HistoryConfig):
    """`neighbours`, `shrinkage` and `most_videos` as in `ItemItemConfig`."""

    neighbours: int = Field(100, ge=1)
    shrinkage: float = Field(5.0, ge=0, allow_inf_nan=False)
    most_videos: int = Field(500, ge=2)


class ItemKnn:
    """`similarity`: CSR float32 [n_videos, n_videos], watched by found."""

    name: ClassVar[str] = "item_knn"

    def __init__(self, **settings: Any) -> None:
        self.config = ItemKnnConfig(**settings)
        self.similarity: Any = sparse.csr_matrix((0, 0), dtype=np.float32)
        self.popular: Float32 = np.zeros(0, np.float32)

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Raises `ranker.too_few_events`."""
        check_fit(data)
        matrix = trained_on(data.log, self.config)
        near = ItemItemConfig(**self.config.model_dump(include=set(ItemItemConfig.model_fields)))
        self.similarity = item_item.item_item(interactions_of(matrix), near)
        self.popular = popularity_of(matrix)
        return {"cells": int(self.similarity.nnz)}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]."""
        rows = histories(log, viewers, self.config, len(self.popular))
        return completed(item_item.scores(self.similarity, rows), np.diff(rows.indptr) == 0, self.popular, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By watched video."""
        row = histories(log, np.array([viewer]), self.config, len(self.popular))
        if not row.nnz:
            return by_popularity(self.popular, video)
        if video >= len(self.popular):
            return []
        near = self.similarity[row.indices][:, [video]].toarray()[:, 0]
        return by_video(row.indices, row.data * near)

    def arrays(self) -> Arrays:
        """`similarity` and `popular`."""
        return packed("similarity", self.similarity) | {"popular": self.popular}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.similarity = unpacked("similarity", arrays)
        model.popular = checked(arrays, "popular", (model.similarity.shape[1],))
        if model.similarity.shape[0] != model.similarity.shape[1]:
            raise ModelError("ranker.bad_model", f"Similarities of {model.similarity.shape} are not square.")
        return model
