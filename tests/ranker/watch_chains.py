"""Planted order: every viewer goes round the same ring of videos, each from another place."""

from __future__ import annotations

import numpy as np

from ranker.models.training_data import ActLog, Content, TrainingData

VIDEOS = 24
VIEWERS = 48
LENGTH = 12


def ring_log(viewers: int = VIEWERS, length: int = LENGTH, videos: int = VIDEOS, extra: int = 0) -> ActLog:
    """After video i comes video i + 1, round a ring of `videos`; `extra` further videos are never watched."""
    begins = np.random.default_rng(0).integers(videos, size=viewers)
    watched = (begins[:, None] + np.arange(length)) % videos
    return ActLog.of(
        np.repeat(np.arange(viewers), length),
        watched.ravel(),
        viewers,
        videos + extra,
        at=np.tile(np.arange(length) * 60.0, viewers),
    )


def ring(extra: int = 0) -> TrainingData:
    """The log, and as content the angle of each video on the ring, as a soft bump over eight places of it: an extra
    video lies where the video half a ring before it lies."""
    log = ring_log(extra=extra)
    place = np.arange(VIDEOS + extra) % VIDEOS
    place[VIDEOS:] = (np.arange(extra) + VIDEOS // 2) % VIDEOS
    angle = 2 * np.pi * (place[:, None] / VIDEOS - np.arange(8) / 8)
    return TrainingData(log, Content({"place": np.exp(2 * np.cos(angle)).astype(np.float32)}))


def next_of(log: ActLog) -> np.ndarray:
    """int64 [viewers]: the video after each viewer's newest."""
    newest = log.videos[log.starts[1:] - 1]
    return (newest + 1) % VIDEOS


def best_unseen(scores: np.ndarray, log: ActLog) -> np.ndarray:
    """int64 [viewers]: the best video that the viewer did not have."""
    masked = scores.astype(np.float64)
    rows, columns = log.binary.nonzero()
    masked[rows, columns] = -np.inf
    return masked.argmax(axis=1)
