"""Vectors of videos by modality, made comparable: centred, perhaps whitened, of unit length.

Whitening `whole` divides by the covariance of all videos, so that no direction counts more because the encoder varies
more in it. Whitening `within` divides by the covariance of a viewer's videos about their own mean (within-class
covariance normalisation, Hatch et al. 2006; the closed form of learning a metric): directions in which one and the same
viewer's videos differ say little of his taste.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ranker.interactions import Sparse
from ranker.models.training_data import Content, Float32, Float64
from store.errors import InputError


class FeatureConfig(BaseModel):
    """`weights` by modality (those not named: `other_weight`; 0 leaves one out); `whitening` as above; `shrinkage`: how
    much of the mean variance is added to each direction before it is divided by."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weights: dict[str, float] = {}
    other_weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    whitening: Literal["none", "whole", "within"] = "none"
    shrinkage: float = Field(0.3, gt=0, allow_inf_nan=False)


def prepared(content: Content, matrix: Sparse, config: FeatureConfig) -> dict[str, Float32]:
    """{modality: float32 [n_videos, dim]}, rows of unit length, or of zeros where a video has none of it. Modalities of
    weight 0 are left out. Raises `ranker.training_failed` where none is left.

    `matrix`: CSR [n_viewers, n_videos], who liked what."""
    found = {}
    for name, features in sorted(content.features.items()):
        if config.weights.get(name, config.other_weight) > 0:
            found[name] = _prepared(features.astype(np.float64), matrix, config)
    if not found:
        raise InputError(
            "ranker.training_failed",
            "There are no features of content to learn from.",
            hint="Publish videos first, or give a modality a weight above 0.",
        )
    return found


def _prepared(features: Float64, matrix: Sparse, config: FeatureConfig) -> Float32:
    there = np.abs(features).sum(axis=1) > 0
    if there.any():
        features = np.where(there[:, None], features - features[there].mean(axis=0), 0)
    unit = _unit(features)
    if config.whitening == "whole" and there.any():
        unit = _unit(unit @ _inverse_root(unit[there].T @ unit[there] / there.sum(), config.shrinkage))
    elif config.whitening == "within":
        unit = _unit(unit @ _inverse_root(_within(unit, matrix), config.shrinkage))
    return unit.astype(np.float32)


def _unit(rows: Float64) -> Float64:
    found: Float64 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found


def _within(unit: Float64, matrix: Sparse) -> Float64:
    """float64 [dim, dim]: mean scatter of a viewer's videos about their mean, viewers of two or more."""
    counts = np.diff(matrix.indptr)
    binary = matrix.copy()
    binary.data = np.ones_like(binary.data)
    several = binary[counts > 1]
    if not several.nnz:
        return np.eye(unit.shape[1])
    means = np.asarray(several @ unit) / np.diff(several.indptr)[:, None]
    # Sum of squares less the means': the scatter without a row for each act.
    weight = np.asarray(several.sum(axis=0)).ravel()
    total = (unit * weight[:, None]).T @ unit - (means * np.diff(several.indptr)[:, None]).T @ means
    found: Float64 = (total + total.T) / (2 * several.nnz)
    return found


def _inverse_root(covariance: Float64, shrinkage: float) -> Float64:
    values, vectors = np.linalg.eigh(covariance)
    mean = max(float(values.mean()), 1e-12)
    found: Float64 = (vectors / np.sqrt(np.maximum(values, 0) + shrinkage * mean)) @ vectors.T
    return found


def weight_of(config: FeatureConfig, names: Mapping[str, Any]) -> dict[str, float]:
    """The weight of each modality, summing to 1."""
    given = {name: config.weights.get(name, config.other_weight) for name in names}
    total = sum(given.values())
    return {name: weight / total for name, weight in given.items()}
