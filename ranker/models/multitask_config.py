"""The settings of `ranker.models.multitask`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

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
HEAD_WEIGHTS: Mapping[str, float] = {
    "view": 1.0,
    "finish": 0.3,
    "like": 0.3,
    "share": 0.3,
    "follow": 0.3,
    "not_interested": -1.0,
    "watch": 0.3,
}


class MultiTaskConfig(LearningConfig):
    """All of a run. `inputs`: labels of models, with `input_settings` by label; a label is the model's name where its
    settings do not say `model`, so that one model may be there twice. `epochs` and `batch` count pairs that were held
    back from the inputs; `seed` is the ranker's, an input that draws has its own."""

    epochs: int = Field(8, ge=1, description="Most passes over the pairs.")
    batch: int = Field(512, ge=1, description="Pairs in a step.")
    weight_decay: float = Field(1e-2, ge=0, allow_inf_nan=False, description="Of AdamW.")
    patience: int = Field(2, ge=1, description="Looks without gain after which training ends.")
    inputs: tuple[str, ...] = Field(("ease", "als", "content"), min_length=1)
    input_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    architecture: Architecture = "mmoe"
    dim: int = Field(16, ge=1, description="Of each embedding.")
    width: int = Field(64, ge=1, description="Of the shared bottom, or of all experts together.")
    experts: int = Field(4, ge=1)
    tower: int = Field(16, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    hidden_share: float = Field(0.3, ge=0, lt=1, description="How often training hides who the viewer or video is.")
    buckets: int = Field(64, ge=0, description="Tags are hashed into so many.")
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    task_weights: dict[str, float] = Field(default_factory=dict, description="Of fixed weighting; 1 by default.")
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
    head_weights: dict[str, float] = Field(default_factory=lambda: dict(HEAD_WEIGHTS))

    def made_of(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """The inputs by label, in order: name of the model and its settings."""
        given = {label: dict(self.input_settings.get(label, {})) for label in self.inputs}
        return {label: (str(settings.pop("model", label)), settings) for label, settings in given.items()}

    @model_validator(mode="after")
    def _others(self) -> Self:
        # A label is a part of the names of arrays, where a point ends it.
        if len(set(self.inputs)) < len(self.inputs) or any("." in label for label in self.inputs):
            raise ValueError("inputs are labels, each there once, without points")
        if not set(self.input_settings) <= set(self.inputs):
            raise ValueError("input_settings are of inputs")
        if any(name == "multitask" for name, _ in self.made_of().values()):
            raise ValueError("inputs are other models")
        return self

    @field_validator("task_weights", "head_weights")
    @classmethod
    def _of_heads(cls, given: dict[str, float]) -> dict[str, float]:
        if not set(given) <= set(HEADS):
            raise ValueError(f"heads are {HEADS}")
        if not all(np.isfinite(weight) for weight in given.values()):
            raise ValueError("weights are finite")
        return given
