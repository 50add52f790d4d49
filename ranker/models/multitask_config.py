"""The settings of `ranker.models.multitask`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ranker.models.calibration import Method
from ranker.models.learning import LearningConfig
from ranker.models.task_examples import Holdout
from ranker.models.task_network import Architecture
from ranker.models.task_outcomes import HEADS
from ranker.objectives import Objectives

# Whose value each head is.
SIDES: Mapping[str, Literal["viewer", "creator", "platform"]] = {
    "view": "viewer",
    "finish": "viewer",
    "like": "viewer",
    "not_interested": "viewer",
    "watch": "platform",
    "share": "platform",
    "follow": "creator",
}
HEAD_WEIGHTS = {
    "view": 1.0,
    "finish": 0.3,
    "like": 0.3,
    "share": 0.3,
    "follow": 0.3,
    "not_interested": -1.0,
    "watch": 0.3,
}


class MultiTaskConfig(BaseModel):
    """All of a run. `inputs`: names of models, with `input_settings` by name; `learning.epochs` and `batch` count pairs
    that were held back from the inputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    inputs: tuple[str, ...] = Field(("ease", "als", "content"), min_length=1)
    input_settings: dict[str, dict[str, Any]] = {}
    architecture: Architecture = "mmoe"
    dim: int = Field(16, ge=1, description="Of each embedding.")
    width: int = Field(64, ge=1, description="Of the shared bottom, or of all experts together.")
    experts: int = Field(4, ge=1)
    tower: int = Field(16, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    hidden_share: float = Field(0.3, ge=0, lt=1, description="How often training hides who the viewer or video is.")
    buckets: int = Field(64, ge=0, description="Tags are hashed into so many.")
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    task_weights: dict[str, float] = Field({}, description="Of fixed weighting; 1 for who is not named.")
    label_smoothing: float = Field(0.02, ge=0, lt=1)
    pairwise: float = Field(0.5, ge=0, allow_inf_nan=False)
    adversarial: bool = True
    epsilon: float = Field(0.1, ge=0, allow_inf_nan=False, description="How far an embedding is moved.")
    adversarial_weight: float = Field(0.2, ge=0, allow_inf_nan=False)
    calibration: Method = "platt"
    holdout: Holdout = "folds"
    folds: int = Field(5, ge=2, description="Fits of the inputs besides the last one; of `last` it is one.")
    held_share: float = Field(0.2, gt=0, lt=1, description="Of `last`: how much of each viewer's past is held back.")
    drawn: int = Field(8, ge=1, description="Videos that the viewer never had, against each pair.")
    hard: float = Field(0.0, ge=0, le=1, description="How many of these come from the inputs' best alone.")
    valid_share: float = Field(0.1, gt=0, lt=1, description="Of the pairs: for calibration, and to end training.")
    most: int = Field(200, ge=1, description="Unseen videos of a viewer that are ranked by the heads.")
    objectives: Objectives = Objectives()
    head_weights: dict[str, float] = HEAD_WEIGHTS
    learning: LearningConfig = LearningConfig(epochs=8, batch=512, learning_rate=1e-3, weight_decay=1e-2, patience=2)

    @field_validator("inputs")
    @classmethod
    def _others(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(given)) < len(given) or "multitask" in given:
            raise ValueError("inputs are other models, each named once")
        return given

    @field_validator("task_weights", "head_weights")
    @classmethod
    def _of_heads(cls, given: dict[str, float]) -> dict[str, float]:
        if not set(given) <= set(HEADS):
            raise ValueError(f"heads are {HEADS}")
        if not all(np.isfinite(weight) for weight in given.values()):
            raise ValueError("weights are finite")
        return given
