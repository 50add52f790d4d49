"""Everybody is shown what most viewers liked: the floor under every other model.

    score(video) = number of viewers with a value above 0 for it in training

It is the same for everybody, so that viewers who were not in training need nothing, and a new video has 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ranker.models.histories import completed
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData
from store.errors import ModelError


class PopularityConfig(BaseModel):
    """There is nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Popularity:
    """`counts`: float32 [n_videos], viewers of each video."""

    name: ClassVar[str] = "popularity"

    def __init__(self, **settings: Any) -> None:
        self.config = PopularityConfig(**settings)
        self.counts: Float32 = np.zeros(0, np.float32)

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Count. Raises `ranker.too_few_events`."""
        check_fit(data, 1)
        self.counts = np.asarray(data.log.binary.sum(axis=0), np.float32).ravel()
        return {"most": float(self.counts.max())}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]: the same row for everybody."""
        rows = np.tile(self.counts, (len(viewers), 1))
        return completed(rows, np.zeros(len(viewers), bool), self.counts, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:  # noqa: ARG002
        """How many viewers liked it."""
        return [Reason("popularity", "viewers", float(self.counts[video]))] if video < len(self.counts) else []

    def arrays(self) -> Arrays:
        """`counts`."""
        return {"counts": self.counts}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.counts = np.asarray(arrays["counts"], np.float32)
        if model.counts.ndim != 1:
            raise ModelError("ranker.bad_model", f"Counts of shape {model.counts.shape} are not one a video.")
        return model
