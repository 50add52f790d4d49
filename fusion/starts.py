"""Where training begins: projections that whiten the catalogue.

Some directions of an embedding differ between any two pictures of one video (framing, light), others hardly ever: the
first are noise to whoever asks which video this is. With C the covariance of embeddings around the catalogue's mean:

    start = (C + shrinkage * mean eigenvalue * I)^(-strength / 2), then the training-free projection
    shift = -mean start

`within` chooses C: 0 is the covariance between all tokens (whitening, as in Su et al. 2021), 1 that of tokens around
the mean of their own video (within-class covariance normalisation, Hatch et al. 2006), and between them the mixture.
Every video counts the same, however many tokens it has. Shrinkage (Ledoit & Wolf 2004) keeps directions that the
catalogue never shows where they were: with few videos that is most of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from fusion.network import NetworkConfig, Start, random_start
from fusion.projection import projection
from store.records import Tokens

Float64 = npt.NDArray[np.float64]
# The decomposition takes seconds with so many; more tell little that is new.
MOST_VIDEOS = 20_000
MOST_TOKENS = 16  # of one video, evenly spread over it


class StartConfig(BaseModel):
    """How much of the catalogue goes into where training begins. `strength` 0 is the training-free projection."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    strength: float = Field(0.5, ge=0, le=1)
    shrinkage: float = Field(0.1, gt=0, le=1e6)
    within: float = Field(0.5, ge=0, le=1)
    centre: float = Field(1.0, ge=0, le=1, description="How much of the mean is taken away.")


def starts_of(videos: Sequence[Mapping[str, Tokens]], network: NetworkConfig, config: StartConfig) -> dict[str, Start]:
    """Where each modality's projection begins; modalities of fewer than two videos begin training-free."""
    return {name: _start_of(name, videos, network, config) for name in network.modalities}


def _start_of(name: str, videos: Sequence[Mapping[str, Tokens]], network: NetworkConfig, config: StartConfig) -> Start:
    rows = [_rows(video[name]) for video in videos[:MOST_VIDEOS] if name in video and len(video[name])]
    rows = [found for found in rows if len(found)]
    if len(rows) < 2 or config.strength == 0:
        return random_start(name, network.widths[name], network)
    rows = [found[np.linspace(0, len(found) - 1, min(len(found), MOST_TOKENS)).astype(int)] for found in rows]
    means = np.stack([found.mean(axis=0) for found in rows])
    mean = means.mean(axis=0)
    # A factor F with F'F = C: rows weighted so that every video counts once.
    parts = []
    for found, middle in zip(rows, means, strict=True):
        share = 1 / math.sqrt(len(found) * len(rows))
        parts.append((found - middle) * share)
        parts.append((middle - mean)[None] * math.sqrt((1 - config.within) / len(rows)))
    variance, directions = _principal(np.concatenate(parts))
    floor = config.shrinkage * variance.sum() / network.widths[name]
    if not floor > 0:
        return random_start(name, network.widths[name], network)
    # (C + floor I)^(-strength / 2) * floor^(strength / 2): the identity off the directions that were seen.
    gains = ((variance + floor) / floor) ** (-config.strength / 2) - 1.0
    joint = projection(name, network.widths[name], network.dim, network.seed).astype(np.float64)
    matrix = (joint + (directions * gains) @ (directions.T @ joint)) / math.sqrt(network.widths[name])
    shift = -config.centre * mean @ matrix
    return Start(torch.from_numpy(matrix.astype(np.float32)), torch.from_numpy(shift.astype(np.float32)))


def mean_rows(videos: Sequence[Mapping[str, Tokens]], name: str, width: int) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """[videos, width]: each video's mean over its tokens of a modality, their root mean square brought to one, and
    which videos have any; zeros for the others."""
    found, there = np.zeros((len(videos), width)), np.zeros(len(videos), bool)
    for place, video in enumerate(videos):
        rows = _rows(video[name]) if name in video and len(video[name]) else found[:0]
        if len(rows):
            found[place], there[place] = rows.mean(axis=0), True
    return found, there


def _principal(factor: Float64) -> tuple[Float64, Float64]:
    """Eigenvalues [k] and eigenvectors [width, k] of `factor` [n, width] transposed times itself, by whichever of the
    two products is the smaller."""
    if len(factor) < factor.shape[1]:
        values, left = np.linalg.eigh(factor @ factor.T)
        seen = values > values[-1] * 1e-9
        directions = (factor.T @ left[:, seen]) / np.sqrt(values[seen])
        return values[seen], directions
    values, directions = np.linalg.eigh(factor.T @ factor)
    return np.maximum(values, 0.0), directions


def _rows(tokens: Tokens) -> Float64:
    """The rows with direction and salience, their root mean square brought to one."""
    embeddings = tokens.embeddings[tokens.salience > 0].astype(np.float64)
    scale = np.abs(embeddings).max(axis=1, keepdims=True, initial=0.0)
    embeddings = embeddings[scale[:, 0] > 0] / scale[scale[:, 0] > 0]
    rows: Float64 = embeddings / np.sqrt(np.square(embeddings).mean(axis=1, keepdims=True))
    return rows
