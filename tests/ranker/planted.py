"""Viewers and videos of four tastes, a little noise, and four videos that nobody has watched yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ranker.models.training_data import ActLog, Content, TrainingData

TASTES, VIEWERS, VIDEOS = 4, 120, 40
NEW = np.arange(VIDEOS, VIDEOS + TASTES)


def planted(seed: int = 0) -> TrainingData:
    """Viewer v and video i are of taste v % 4 and i % 4. Each viewer has six of the ten videos of his taste and one
    other; videos 40 to 43, one of each taste, have no act."""
    stream = np.random.default_rng(seed)
    pairs = []
    for viewer in range(VIEWERS):
        own = stream.choice(np.arange(viewer % TASTES, VIDEOS, TASTES), 6, replace=False)
        other = stream.choice(np.flatnonzero(np.arange(VIDEOS) % TASTES != viewer % TASTES))
        pairs += [(viewer, int(video)) for video in stream.permutation([*own, other])]
    table = np.array(pairs)
    n = VIDEOS + TASTES
    taste = np.arange(n) % TASTES
    features = {
        "vision": (np.eye(6)[taste] + 0.1 * stream.standard_normal((n, 6))).astype(np.float32),
        "audio": stream.standard_normal((n, 5)).astype(np.float32),
    }
    tags = sparse.csr_matrix((np.ones(n, np.float32), (np.arange(n), taste)), shape=(n, TASTES))
    return TrainingData(
        ActLog.of(table[:, 0], table[:, 1], VIEWERS, n), Content(features, tags, ("cats", "cars", "seas", "songs"))
    )


def found_share(scores: npt.NDArray[Any], data: TrainingData) -> float:
    """Of the four best unwatched videos with acts, how many are of the viewer's taste (chance: about 0.12)."""
    masked = scores.astype(np.float64)
    masked[data.log.binary.nonzero()] = -np.inf
    masked[:, NEW] = -np.inf
    best = np.argsort(-masked, axis=1, kind="stable")[:, :4]
    return float((best % TASTES == (np.arange(VIEWERS) % TASTES)[:, None]).mean())
