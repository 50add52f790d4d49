"""The features block of `ranker.models.multitask`: one row of numbers for a viewer and a video.

    of each input model   its score, standardised over all videos of the viewer, and log2(1 + rank) among those the
                          viewer did not have: what two models say becomes comparable, whatever their scales
    of the video          how many had it (log), how long it has been there (log, seen from the act), and for each head
                          the share of its pairs in which it came true
    of the viewer         how many videos (log), and the same shares
    of the moment         hour of day and day of week on circles, where times are times

Shares are drawn towards the mean by `SMOOTHING` examples' worth. What is said of videos was learnt in training; what is
said of viewers is read from the log that is asked with.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse
from ranker.models.task_outcomes import HEADS, Outcomes
from ranker.models.training_data import Content, Float32, Float64, Integers

SMOOTHING = 5.0
# Places in a file are no times: seconds since 1970 are beyond this.
FIRST_CLOCK = 1e8
DAY = 86_400.0
FARTHEST = 5.0


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """What training knows of videos. `had` float64 [n_videos] pairs; `first_at` float64 [n_videos], nan: never had;
    `rates` float64 [n_videos, heads - 1], view left out; `base` [heads - 1], of all pairs; `span` the time between the
    first and the last act, `clock` 1 where times are times."""

    had: Float64
    first_at: Float64
    rates: Float64
    base: Float64
    span: float
    clock: float

    @classmethod
    def of(cls, outcomes: Outcomes, n_videos: int) -> VideoFacts:
        """From pairs."""
        first = np.full(n_videos, np.inf)
        np.minimum.at(first, outcomes.videos, outcomes.at)
        known = np.isfinite(outcomes.labels[:, 1:])
        base = np.nan_to_num(outcomes.labels[:, 1:]).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        return cls(
            np.bincount(outcomes.videos, minlength=n_videos).astype(np.float64),
            np.where(np.isfinite(first), first, np.nan),
            _rates(outcomes, outcomes.videos, n_videos, base),
            base.astype(np.float64),
            float(np.ptp(outcomes.at)) if len(outcomes) else 0.0,
            float(len(outcomes) > 0 and outcomes.at.min() > FIRST_CLOCK),
        )

    def widened(self, n_videos: int) -> VideoFacts:
        """With videos that came after training: nobody had them, and their shares are those of all."""
        more = n_videos - len(self.had)
        if more <= 0:
            return self
        return VideoFacts(
            np.r_[self.had, np.zeros(more)],
            np.r_[self.first_at, np.full(more, np.nan)],
            np.concatenate([self.rates, np.tile(self.base, (more, 1))]),
            self.base,
            self.span,
            self.clock,
        )

    def arrays(self) -> dict[str, Float64]:
        """All of it, by name."""
        return {
            "had": self.had,
            # nan cannot be stored in a model: one before the first act says as much.
            "first_at": np.nan_to_num(self.first_at, nan=-1.0),
            "known": np.isfinite(self.first_at).astype(np.float64),
            "rates": self.rates,
            "base": self.base,
            "times": np.array([self.span, self.clock]),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> VideoFacts:
        """What `arrays` gave."""
        first = np.where(arrays["known"] > 0, arrays["first_at"], np.nan)
        span, clock = (float(number) for number in arrays["times"])
        return cls(arrays["had"], first, arrays["rates"], arrays["base"], span, clock)


@dataclass(frozen=True, eq=False)
class ViewerFacts:
    """What a log knows of viewers: `had` float64 [n_viewers] pairs, `now` float64 [n_viewers] time of the last act
    (that of the whole log for who has none), `rates` float64 [n_viewers, heads - 1]."""

    had: Float64
    now: Float64
    rates: Float64

    @classmethod
    def of(cls, outcomes: Outcomes, n_viewers: int, base: Float64) -> ViewerFacts:
        """From pairs; `base` float64 [heads - 1] as in training."""
        now = np.full(n_viewers, -np.inf)
        np.maximum.at(now, outcomes.viewers, outcomes.at)
        latest = float(outcomes.at.max()) if len(outcomes) else 0.0
        return cls(
            np.bincount(outcomes.viewers, minlength=n_viewers).astype(np.float64),
            np.where(np.isfinite(now), now, latest),
            _rates(outcomes, outcomes.viewers, n_viewers, base),
        )


def _rates(outcomes: Outcomes, places: Integers, n: int, base: npt.NDArray[Any]) -> Float64:
    found = np.zeros((n, len(HEADS) - 1))
    for column in range(len(HEADS) - 1):
        labels = outcomes.labels[:, column + 1]
        known = np.isfinite(labels)
        total = np.bincount(places[known], labels[known].astype(np.float64), n)
        count = np.bincount(places[known], minlength=n)
        found[:, column] = (total + SMOOTHING * base[column]) / (count + SMOOTHING)
    return found


def names(inputs: Sequence[str]) -> list[str]:
    """What each column of `block` is."""
    found = [f"{name} {what}" for name in inputs for what in ("score", "rank")]
    found += ["video had", "video age", "viewer had", "hour sin", "hour cos", "weekday sin", "weekday cos"]
    return found + [f"{who} {head}" for who in ("video", "viewer") for head in HEADS[1:]]


def standard(scores: npt.NDArray[Any]) -> Float32:
    """float32 [n, videos]: each row with mean 0 and deviation 1; a row that is all alike is 0."""
    given = np.asarray(scores, np.float64)
    centred = given - given.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    # Rounding leaves a hair of deviation in rows that are alike.
    alike = deviation <= 1e-9 * np.maximum(np.abs(given).max(axis=1, keepdims=True), 1e-9)
    return np.where(alike, 0, centred / np.where(alike, 1, deviation)).astype(np.float32)


def ranks(scores: npt.NDArray[Any], seen: npt.NDArray[np.bool_]) -> Integers:
    """int64 [n, videos]: how many unseen videos (those not in bool `seen`) of the row stand before each, best first,
    ties by the lower place."""
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")
    unseen = np.take_along_axis(~seen, order, axis=1).astype(np.int64)
    found = np.empty(order.shape, np.int64)
    np.put_along_axis(found, order, np.cumsum(unseen, axis=1) - unseen, axis=1)
    return found


def candidates(ranked: Sequence[Integers], seen: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.bool_]:
    """bool [n, videos]: the union of the inputs' lists, cut at the same depth for all of them, where it holds at least
    `most` unseen videos (all inputs' ties at that depth come along). Seen videos of that depth are in it like others.
    `ranked`: int64 [n, videos] of each input."""
    depth = np.minimum.reduce(list(ranked))
    if most >= depth.shape[1]:
        return np.ones(depth.shape, bool)
    unseen = np.where(seen, np.iinfo(np.int64).max, depth)
    cut = np.partition(unseen, most - 1, axis=1)[:, most - 1 : most]
    found: npt.NDArray[np.bool_] = depth <= cut
    return found


def block(
    scored: Sequence[npt.NDArray[Any]],
    ranked: Sequence[npt.NDArray[Any]],
    viewers: Integers,
    videos: Integers,
    at: Float64,
    of_videos: VideoFacts,
    of_viewers: ViewerFacts,
) -> Float32:
    """float32 [n, features]. `scored` and `ranked`: [n] of each input; `at` float64 [n], the moment."""
    columns = []
    for score, rank in zip(scored, ranked, strict=True):
        columns += [score, np.log2(1.0 + rank)]
    age = (at - of_videos.first_at[videos]) / max(of_videos.span / 100, 1e-9)
    columns += [
        np.log1p(of_videos.had[videos]),
        np.nan_to_num(np.sign(age) * np.log1p(np.abs(age))),
        np.log1p(of_viewers.had[viewers]),
    ]
    day, week = 2 * np.pi * at / DAY, 2 * np.pi * at / (7 * DAY)
    columns += [of_videos.clock * turned for angle in (day, week) for turned in (np.sin(angle), np.cos(angle))]
    rates = np.concatenate([of_videos.rates[videos], of_viewers.rates[viewers]], axis=1)
    return np.concatenate([np.stack(columns, axis=1), rates], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Standardised:
    """Means and deviations of training's features, float32 [features]; what varied in none of it is 0 for good."""

    mean: Float32
    scale: Float32

    @classmethod
    def of(cls, features: Float32) -> Standardised:
        """From float32 [n, features]."""
        deviation = features.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
        return cls(features.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32))

    def __call__(self, features: Float32) -> Float32:
        """float32 [..., features], within -5..5: a stray number moves no head by more."""
        found: Float32 = np.clip((features - self.mean) * self.scale, -FARTHEST, FARTHEST)
        return found


def hashed_tags(content: Content, n_videos: int, buckets: int) -> Float32:
    """float32 [n_videos, buckets]: the tags' weights, each in the bucket of its name (of its number, unnamed), rows of
    length 1 or 0 (Weinberger et al. 2009, without signs: few tags share a bucket)."""
    if content.tags is None or not buckets:
        return np.zeros((n_videos, buckets), np.float32)
    tags: Sparse = content.tags.tocsr()
    n_tags = tags.shape[1]
    labels = content.tag_names or tuple(str(number) for number in range(n_tags))
    places = np.array([zlib.crc32(label.encode()) % buckets for label in labels], np.int64)
    hashing = sparse.csr_matrix((np.ones(n_tags, np.float32), (np.arange(n_tags), places)), shape=(n_tags, buckets))
    found = np.asarray((tags @ hashing).toarray(), np.float32)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(length > 0, length, 1)).astype(np.float32)
