"""What a viewer watched, one after another, as the arrays that sequence models read, and the windows they learn from.

Step p of a viewer stands before his act p: what goes in is the act before it (its video, the time since the act before
that, how much was watched, what was done, how many stars were given), what is to be said is the video of act p. Step 0
has nothing before it and takes a mark in place of a video: what it says is what anybody begins with.

All acts go in, also those against a video (a skip is told by its kind and its watched share); only videos of acts with
a value above 0 are to be said.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.models.learning import Rows, seed_of
from ranker.models.training_data import ActLog, Float64, Integers

# Bucket 0 is what is not known. Times in octaves of seconds: bucket 1 is the same second, 31 is 34 years or more.
TIME_BUCKETS = 32
# The watched share in tenths, then one for more than once.
SHARE_BUCKETS = 12
KIND_BUCKETS = 16
STAR_BUCKETS = 12


def time_buckets(seconds: Float64) -> Integers:
    """int64, 1..TIME_BUCKETS-1: the octave of each time, in seconds; below 0 counts as 0."""
    octaves = np.floor(np.log2(np.maximum(seconds, 0) + 1)).astype(np.int64)
    found: Integers = np.minimum(octaves + 1, TIME_BUCKETS - 1)
    return found


def share_buckets(shares: npt.NDArray[np.float32]) -> Integers:
    """int64, 0..SHARE_BUCKETS-1: 0 where a share is not known (nan), 1..10 by tenths, 11 above 1 (watched again)."""
    tenths = np.minimum(np.floor(np.nan_to_num(shares, nan=0.0, posinf=2.0, neginf=0.0).clip(0, 2) * 10), 9)
    found = np.where(shares > 1, SHARE_BUCKETS - 1, tenths.astype(np.int64) + 1)
    return np.where(np.isnan(shares), 0, found).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Sequences:
    """int64 [acts] each: `videos` (places in the model's table), `gaps`, `shares`, `kinds`, `stars` (buckets);
    `right`: bool [acts], whether the act is one to be said. `starts`: int64 [viewers + 1], as in the log. `begin`: the
    table's place of the mark that stands before the first act."""

    videos: Integers
    gaps: Integers
    shares: Integers
    kinds: Integers
    stars: Integers
    right: npt.NDArray[np.bool_]
    starts: Integers
    begin: int

    @classmethod
    def of(cls, log: ActLog, known: npt.NDArray[np.bool_]) -> Sequences:
        """`known`: bool [n]: the videos that have a row of the model's table. The others, and those that came after
        training, share the row n + 1; the mark has row n."""
        n = len(known)
        inside = np.zeros(max(n, log.n_videos), bool)
        inside[:n] = known
        videos = np.where(inside[log.videos], log.videos, n + 1)
        since = np.zeros(len(log))
        since[1:] = np.diff(log.at)
        gaps = time_buckets(since)
        firsts = log.starts[:-1][np.diff(log.starts) > 0]
        gaps[firsts] = 0
        kinds = np.clip(log.kinds.astype(np.int64) + 1, 0, KIND_BUCKETS - 1)
        half_stars = np.clip(np.nan_to_num(log.ratings, nan=0.0) * 2 + 1, 1, STAR_BUCKETS - 1)
        stars = np.where(np.isnan(log.ratings), 0, half_stars).astype(np.int64)
        right = (log.values > 0) & inside[log.videos]
        return cls(videos, gaps, share_buckets(log.watched), kinds, stars, right, log.starts, n)


def acts_of(log: ActLog, viewers: Integers) -> ActLog:
    """The acts of some viewers alone, who are numbered by their place in `viewers` (who may stand there twice)."""
    lengths = np.diff(log.starts)[viewers]
    ends = np.cumsum(lengths)
    places = np.arange(int(lengths.sum())) - np.repeat(ends - lengths - log.starts[viewers], lengths)
    return _chosen(log, np.repeat(np.arange(len(viewers)), lengths), places, len(viewers))


def without_each(log: ActLog, videos: Integers) -> ActLog:
    """The acts of viewer 0 as those of len(videos) viewers, each without the acts on one of `videos`."""
    acts = np.arange(int(log.starts[1]))
    kept = [acts[log.videos[acts] != video] for video in videos]
    owners = np.repeat(np.arange(len(videos)), [len(part) for part in kept])
    return _chosen(log, owners, np.concatenate([acts[:0], *kept]), len(videos))


def _chosen(log: ActLog, viewers: Integers, places: Integers, n_viewers: int) -> ActLog:
    return ActLog(
        viewers,
        log.videos[places],
        log.at[places],
        log.values[places],
        log.watched[places],
        log.kinds[places],
        log.ratings[places],
        n_viewers,
        log.n_videos,
    )


@dataclass(frozen=True, eq=False)
class Windows:
    """int64 [windows, steps] each: what goes in at each step, padded at the end. `targets`: what is to be said there;
    `learnt`: bool, whether it counts. `last`: int64 [windows], the newest step that is no padding."""

    videos: Integers
    gaps: Integers
    shares: Integers
    kinds: Integers
    stars: Integers
    targets: Integers
    learnt: npt.NDArray[np.bool_]
    last: Integers


def cut(sequences: Sequences, context: int, seed: int, epoch: int) -> Rows:
    """int64 [windows]: every step of every viewer in exactly one window of at most `context` steps, in an order and
    with cuts that are drawn anew in each epoch: a step is learnt with less behind it in one epoch than in another. A
    window is its first step, as a place among the acts, times context + 1, plus its length."""
    stream = np.random.Generator(np.random.PCG64(seed_of(seed, epoch)))
    lengths = np.diff(sequences.starts)
    viewers = np.flatnonzero(lengths)
    first = stream.integers(1, context + 1, size=len(viewers))
    more = np.maximum(-(-(lengths[viewers] - first) // context), 0)
    owner = np.repeat(np.arange(len(viewers)), more + 1)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(more + 1) - (more + 1), more + 1)
    begins = np.where(number == 0, 0, first[owner] + (number - 1) * context)
    ends = np.minimum(first[owner] + number * context, lengths[viewers][owner])
    rows = (sequences.starts[viewers][owner] + begins) * (context + 1) + (ends - begins)
    counted = np.concatenate([[0], np.cumsum(sequences.right)])
    place, length = np.divmod(rows, context + 1)
    rows = rows[counted[place + length] > counted[place]]
    shuffled: Rows = stream.permutation(rows).astype(np.int64)
    return shuffled


def windows_of(sequences: Sequences, rows: Rows, context: int) -> Windows:
    """The windows that `cut` named."""
    place, length = np.divmod(rows, context + 1)
    viewers = np.searchsorted(sequences.starts, place, side="right") - 1
    return _filled(sequences, viewers, place - sequences.starts[viewers], length)


def newest(sequences: Sequences, viewers: Integers, context: int) -> Windows:
    """For each viewer the window of at most `context` steps that ends after his newest act. Nothing is to be said."""
    steps = np.diff(sequences.starts)[viewers] + 1
    length = np.minimum(steps, context)
    return _filled(sequences, viewers, steps - length, length)


def _filled(sequences: Sequences, viewers: Integers, first: Integers, length: Integers) -> Windows:
    """Windows of `length` steps of each viewer from his step `first` on. The last step may have nothing to be said."""
    steps = first[:, None] + np.arange(int(length.max(initial=1)))
    given = steps < (first + length)[:, None]
    acts = sequences.starts[viewers][:, None] + steps
    said = given & (acts < sequences.starts[viewers + 1][:, None])
    has_before = given & (steps > 0)

    def at(array: npt.NDArray[np.generic], places: Integers, where: npt.NDArray[np.bool_], otherwise: int) -> Integers:
        if not len(array):
            return np.full(places.shape, otherwise, np.int64)
        found = array[np.where(where, places, 0)].astype(np.int64)
        return np.where(where, found, otherwise)

    return Windows(
        at(sequences.videos, acts - 1, has_before, sequences.begin),
        at(sequences.gaps, acts - 1, has_before, 0),
        at(sequences.shares, acts - 1, has_before, 0),
        at(sequences.kinds, acts - 1, has_before, 0),
        at(sequences.stars, acts - 1, has_before, 0),
        at(sequences.videos, acts, said, 0),
        at(sequences.right, acts, said, 0) > 0,
        length - 1,
    )


def fingerprint(log: ActLog) -> str:
    """What tells the acts that a run learns from: a checkpoint of others is refused."""
    told = hashlib.sha256(f"{log.n_viewers} {log.n_videos}".encode())
    for array in (log.viewers, log.videos, log.at, log.values, log.watched, log.kinds, log.ratings):
        told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()
