"""What every encoder of frames needs beside its network: spans of tokens, contrast, batches, labels over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from store.records import Float32, Frames, Label

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_SAMPLED_SIDE = 256


@dataclass(frozen=True)
class LabelRules:
    """How scores of frames become labels of a video.

    At most `most` labels of at least `min_confidence` (0..1) are kept, each with at most `seconds` times. The
    confidence of a label is its mean score over that share (`peak_share`) of the frames in which it is highest: the
    mean of all would punish what is seen for three seconds of thirty.
    """

    most: int
    min_confidence: float
    peak_share: float
    seconds: int


def labels_over_time(
    names: Sequence[str], scores: Float32, seconds: npt.NDArray[np.float64], rules: LabelRules
) -> list[Label]:
    """The surest of `names` by `scores` [n_frames, n_names] in 0..1, each with times at which it is at least half as
    sure as at its best."""
    if not len(scores) or not len(names):
        return []
    count = math.ceil(len(scores) * rules.peak_share)
    confidence = np.sort(scores, axis=0)[-count:].mean(axis=0, dtype=np.float64)
    labels = []
    for index in np.argsort(-confidence, kind="stable")[: rules.most].tolist():
        if confidence[index] < rules.min_confidence or confidence[index] <= 0:
            break
        seen = scores[:, index]
        best = np.argsort(-seen, kind="stable")[: rules.seconds]
        at = sorted(round(float(seconds[frame]), 3) for frame in best if seen[frame] >= seen[best[0]] / 2)
        labels.append(Label(name=names[index], confidence=round(min(float(confidence[index]), 1.0), 4), seconds=at))
    return labels


def contrast_of(pixels: npt.NDArray[np.uint8], scale: float) -> Float32:
    """[n] in 0..1: 1 - exp(-(s / `scale`)^2) for the standard deviation s (0..255) of each frame's brightness. A blank
    frame is near 0. About every so many-th pixel is looked at that 256 are left of the longer side."""
    step = max(1, max(pixels.shape[1:3]) // _SAMPLED_SIDE)
    result = np.zeros(len(pixels), np.float32)
    for index, frame in enumerate(pixels):
        brightness = frame[::step, ::step].astype(np.float32) @ _LUMA
        result[index] = 1.0 - math.exp(-((float(brightness.std(dtype=np.float64)) / scale) ** 2))
    return result


def spans_of(frames: Frames) -> tuple[Float32, Float32]:
    """Start and end [n] of the time to which each frame is the nearest one, from 0 to the end of the video."""
    seconds = frames.seconds
    if not len(seconds):
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    middles = (seconds[:-1] + seconds[1:]) / 2.0
    start = np.concatenate([[min(0.0, seconds[0])], middles])
    end = np.concatenate([middles, [max(frames.duration_seconds, seconds[-1])]])
    return start.astype(np.float32), end.astype(np.float32)


def batches_of(videos: Sequence[Frames], size: int) -> Iterator[tuple[list[tuple[int, int]], npt.NDArray[np.uint8]]]:
    """All frames of all videos, at most `size` at a time: their places (video, frame), and uint8 [n, height, width, 3].

    A batch has pictures of one size only: what pads pictures to a common size (detectors do) would let a picture's
    result depend on its company.
    """
    by_shape: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for video, frames in enumerate(videos):
        height, width = frames.pixels.shape[1:3]
        by_shape.setdefault((height, width), []).extend((video, frame) for frame in range(len(frames.pixels)))
    for places in by_shape.values():
        for first in range(0, len(places), size):
            chosen = places[first : first + size]
            yield chosen, np.stack([videos[video].pixels[frame] for video, frame in chosen])
