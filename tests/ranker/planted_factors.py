"""A tiny world with a plain structure: two tastes, and viewers who like one of them each."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ranker.models.training_data import ActLog, Content, TrainingData

VIEWERS, VIDEOS = 40, 30
# The last viewer and the last video had nothing in training.
NEW_VIEWER, NEW_VIDEO = VIEWERS, VIDEOS


def planted(seed: int = 0, *, share: float = 0.6) -> TrainingData:
    """Even viewers have even videos, odd ones odd videos, `share` of them; a tag each for even and odd; stars 5 below
    video 15 and 2 from it on; times in two hours of two days."""
    stream = np.random.default_rng(seed)
    alike = np.arange(VIEWERS)[:, None] % 2 == np.arange(VIDEOS) % 2
    cells = np.argwhere((stream.random((VIEWERS, VIDEOS)) < share) & alike)
    tags = sparse.csr_matrix(np.eye(2, dtype=np.float32)[np.arange(VIDEOS + 1) % 2])
    log = ActLog.of(
        cells[:, 0],
        cells[:, 1],
        VIEWERS + 1,
        VIDEOS + 1,
        at=1.6e9 + stream.integers(0, 2, len(cells)) * 90_000.0,
        ratings=np.where(cells[:, 1] < 15, 5, 2).astype(np.float32),
    )
    return TrainingData(log, Content({}, tags, ("even", "odd")))


def found_of_taste(scores: np.ndarray, data: TrainingData) -> float:
    """Share of viewers of whom every unseen video of their own taste stands above all of the other taste."""
    good = 0
    for viewer in range(VIEWERS):
        own = np.arange(VIDEOS) % 2 == viewer % 2
        unseen = data.log.binary[viewer].toarray()[0, :VIDEOS] == 0
        good += bool(scores[viewer, :VIDEOS][own & unseen].min() > scores[viewer, :VIDEOS][~own].max())
    return good / VIEWERS
