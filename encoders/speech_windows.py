"""Cutting a sound into the windows that Whisper hears: where there is speech, at most 30 seconds each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from encoders.speech_activity import WINDOW_SECONDS as ACTIVITY_SECONDS
from store.records import Float32

_CUT_SEARCH_SECONDS = 10.0  # how far before the limit a pause is looked for, when speech goes on for longer than it


@dataclass(frozen=True)
class Window:
    """One stretch of sound for Whisper, from `start` to `end` in seconds of the sound, and the seconds of speech in it:
    the sum of the speech probabilities times their length, so that a doubtful window counts for little."""

    start: float
    end: float
    speech_seconds: float


def speech_within(probabilities: Float32, start: float, end: float) -> float:
    """Expected seconds of speech between `start` and `end` (seconds): the integral of the probabilities."""
    first, last = int(start / ACTIVITY_SECONDS), int(np.ceil(end / ACTIVITY_SECONDS))
    return float(probabilities[first:last].sum(dtype=np.float64)) * ACTIVITY_SECONDS


def windows_of(
    spans: list[tuple[float, float]], probabilities: Float32, join_seconds: float, limit_seconds: float
) -> list[Window]:
    """Windows that hold all of `spans` (seconds, in order), none longer than `limit_seconds`.

    Spans less than `join_seconds` apart share a window while it has room: Whisper reads sentences better than scraps. A
    span that is too long is cut where the probability of speech is lowest.
    """
    pieces = [piece for span in spans for piece in _cut(span, probabilities, limit_seconds)]
    joined: list[tuple[float, float]] = []
    for start, end in pieces:
        if joined and start - joined[-1][1] < join_seconds and end - joined[-1][0] <= limit_seconds:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [Window(start, end, speech_within(probabilities, start, end)) for start, end in joined]


def _cut(span: tuple[float, float], probabilities: Float32, limit: float) -> list[tuple[float, float]]:
    start, end = span
    pieces = []
    while end - start > limit:
        last = int((start + limit) / ACTIVITY_SECONDS)
        first = last - int(min(_CUT_SEARCH_SECONDS, limit / 2) / ACTIVITY_SECONDS)
        # A pause is more than one window of 32 ms: five of them are smoothed before the lowest is taken.
        smooth = np.convolve(probabilities[first - 2 : last + 2].astype(np.float64), np.full(5, 0.2), mode="valid")
        middle = (first + int(np.argmin(smooth)) + 0.5) * ACTIVITY_SECONDS
        pieces.append((start, middle))
        start = middle
    return [*pieces, (start, end)]
