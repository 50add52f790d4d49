"""Watching, normalised: by the length of the video, and by the habits of the viewer.

Seconds watched grow with the length of a video whatever anybody thinks of it, and the watched share shrinks with it:
both are biased by duration. The debiased measure is the *quantile*: the share of views of videos of like length that
were watched for less. That is D2Q (Zhan et al., KDD 2022, "Deconfounding Duration Bias in Watch-time Prediction for
Video Recommendation"): group by duration, and take the empirical distribution of watch time within the group. (WTG of
Zheng et al., MM 2022, "DVR: Micro-Video Recommendation Optimizing Watch-Time-Gain under Duration Bias", takes standard
scores within the group instead; those are not bounded, and few long views move them.)

What is kept is a histogram: counts by duration and watched seconds, both in logarithmic bins. It adds up in any order
and over any number of processes, and takes the same memory for ten views as for 10^9. Groups are made of neighbouring
duration bins until each holds enough views, so they are of about equal frequency, as in D2Q.

    F(w | d)  = (n F_group(w) + m F_0(w | d)) / (n + m)        n views in the group, m = 50 views' worth of a guess
    F_0(w | d) = 1 - exp(-ln 2 (w / h(d))^0.8),  h(d) = d / (1 + d / 30 s)

F_0 is a Weibull distribution with falling hazard, the shape found for times spent on web pages (Liu, White & Dumais,
SIGIR 2010); its median h says that half of the views of a video of 20 s have ended at 12 s, of a minute at 20 s. It is
a guess that is outvoted as views come.

A viewer who finishes everything says less by finishing: with u the mean quantile of the viewer's own views, drawn
towards 1/2 by m = 10 views' worth, a quantile q becomes q^(ln 1/2 / ln u), which is 1/2 exactly where q = u.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

# A quarter of an octave of duration, from 1 second; an eighth of an octave of watched seconds, from a quarter of one.
DURATION_BINS, DURATION_STEP, SHORTEST = 64, 0.25, 1.0
WATCH_BINS, WATCH_STEP, LEAST_WATCHED = 160, 0.125, 0.25
GROUPS = 30
LEAST_OF_A_GROUP = 100
GUESS_VIEWS = 50.0
HABIT_VIEWS = 10.0
WEIBULL_SHAPE = 0.8
HALF_WATCHED_SECONDS = 30.0
# A habit is never taken for so strong that one view says nothing, or everything.
STRONGEST_HABIT = 0.95


def completion(watched_seconds: float, duration_seconds: float) -> float:
    """The share of the video that was watched, 0..1; replays do not count twice. 0 for a length that is no number."""
    if not (math.isfinite(duration_seconds) and duration_seconds > 0):
        return 0.0
    return min(max(watched_seconds, 0.0) / duration_seconds, 1.0)


def guessed_quantile(watched_seconds: float, duration_seconds: float) -> float:
    """F_0: the share of views of so long a video that are guessed to be shorter, 0..1, rising with the seconds."""
    half = duration_seconds / (1.0 + duration_seconds / HALF_WATCHED_SECONDS)
    return -math.expm1(-math.log(2.0) * (max(watched_seconds, 0.0) / half) ** WEIBULL_SHAPE)


@dataclass(frozen=True, eq=False)
class WatchNorms:
    """How long videos of each length are watched. `counts` int64 [DURATION_BINS, WATCH_BINS]; the default knows
    nothing, and everything is guessed."""

    counts: Int64 = field(default_factory=lambda: np.zeros((DURATION_BINS, WATCH_BINS), np.int64))

    def __post_init__(self) -> None:
        if self.counts.shape != (DURATION_BINS, WATCH_BINS) or (self.counts < 0).any():
            raise ValueError(f"counts must be {(DURATION_BINS, WATCH_BINS)} and not negative, got {self.counts.shape}")

    @classmethod
    def of(cls, views: Iterable[tuple[float, float]]) -> WatchNorms:
        """From (watched seconds, duration in seconds) of views, in any order."""
        return cls().with_views(views)

    def with_views(self, views: Iterable[tuple[float, float]]) -> WatchNorms:
        """With more views. Those that are not measured (no length, no finite seconds) are passed over."""
        counts = self.counts.copy()
        for watched, duration in views:
            if math.isfinite(watched) and watched >= 0 and math.isfinite(duration) and duration > 0:
                counts[_duration_bin(duration), _watch_bin(watched)] += 1
        return WatchNorms(counts)

    def __add__(self, other: WatchNorms) -> WatchNorms:
        """Of both together."""
        return WatchNorms(self.counts + other.counts)

    @property
    def views(self) -> int:
        """How many views are in it."""
        return int(self.counts.sum())

    def __repr__(self) -> str:
        return f"WatchNorms(views={self.views})"

    @cached_property
    def _groups(self) -> tuple[list[int], Float64]:
        """The first duration bin of each group, and float64 [groups, WATCH_BINS + 1] views below each edge."""
        by_duration = self.counts.sum(axis=1)
        enough = max(LEAST_OF_A_GROUP, math.ceil(by_duration.sum() / GROUPS))
        firsts, held = [0], 0
        for place, count in enumerate(by_duration.tolist()):
            # A group ends when it holds enough, and when the rest is enough for one more.
            if held >= enough and by_duration[place:].sum() >= enough:
                firsts.append(place)
                held = 0
            held += count
        below = np.zeros((len(firsts), WATCH_BINS + 1))
        for number, (first, end) in enumerate(pairwise([*firsts, DURATION_BINS])):
            below[number, 1:] = np.cumsum(self.counts[first:end].sum(axis=0))
        return firsts, below

    def measured(self, duration_seconds: float) -> float:
        """How many views of like length there are."""
        firsts, below = self._groups
        return float(below[bisect_right(firsts, _duration_bin(duration_seconds)) - 1, -1])

    def trust(self, duration_seconds: float) -> float:
        """How much of a quantile is measured rather than guessed, 0..1."""
        views = self.measured(duration_seconds)
        return views / (views + GUESS_VIEWS)

    def quantile(self, watched_seconds: float, duration_seconds: float) -> float:
        """F: the share of views of videos of like length that were watched for less, 0..1, never falling with the
        seconds. 0 for a length that is no number above 0."""
        if not (math.isfinite(duration_seconds) and duration_seconds > 0) or math.isnan(watched_seconds):
            return 0.0
        guess = guessed_quantile(watched_seconds, duration_seconds)
        firsts, below = self._groups
        row = below[bisect_right(firsts, _duration_bin(duration_seconds)) - 1]
        views = float(row[-1])
        if views == 0:
            return guess
        low, share = _watch_place(watched_seconds)
        under = row[low] + share * (row[low + 1] - row[low])
        return min((float(under) + GUESS_VIEWS * guess) / (views + GUESS_VIEWS), 1.0)


@dataclass(frozen=True)
class Habit:
    """How a viewer watches: the number of views, and the sum of their quantiles. The default is nobody's habit."""

    views: int = 0
    quantiles: float = 0.0

    @classmethod
    def of(cls, views: Iterable[tuple[float, float]], norms: WatchNorms) -> Habit:
        """From (watched seconds, duration) of the viewer's views, in any order."""
        found = sorted(norms.quantile(watched, duration) for watched, duration in views if duration > 0)
        return cls(len(found), math.fsum(found))

    def with_view(self, quantile: float) -> Habit:
        """With one more view."""
        return Habit(self.views + 1, self.quantiles + quantile)

    @property
    def usual(self) -> float:
        """The viewer's mean quantile, drawn towards 1/2 while there are few views; within (0, 1)."""
        mean = (self.quantiles + 0.5 * HABIT_VIEWS) / (self.views + HABIT_VIEWS)
        return min(max(mean, 1.0 - STRONGEST_HABIT), STRONGEST_HABIT)

    def relative(self, quantile: float) -> float:
        """The quantile as this viewer's: 1/2 for a usual view, 0 and 1 stay what they are, and never falling."""
        return float(min(max(quantile, 0.0), 1.0) ** (math.log(0.5) / math.log(self.usual)))


NO_NORMS = WatchNorms()
NOBODY = Habit()


@dataclass(frozen=True)
class Scale:
    """By what the views of one viewer are measured: how long videos are watched, and how this viewer watches. A profile
    that is folded event by event equals one that is built anew by the same scale."""

    norms: WatchNorms = NO_NORMS
    habit: Habit = NOBODY


GUESSED = Scale()


def norms_as_json(norms: WatchNorms) -> dict[str, int]:
    """The counts that are not zero, by "duration bin/watch bin": to store or send."""
    return {f"{i}/{j}": int(norms.counts[i, j]) for i, j in zip(*np.nonzero(norms.counts), strict=True)}


def norms_from_json(stored: Mapping[str, int]) -> WatchNorms:
    """What `norms_as_json` gave. Raises ValueError."""
    counts = np.zeros((DURATION_BINS, WATCH_BINS), np.int64)
    for name, count in stored.items():
        duration, _, watched = name.partition("/")
        if not (0 <= int(duration) < DURATION_BINS and 0 <= int(watched) < WATCH_BINS):
            raise ValueError(f"there is no bin {name[:20]!r}")
        counts[int(duration), int(watched)] = count
    return WatchNorms(counts)


def _duration_bin(duration: float) -> int:
    return min(max(int(math.log2(max(duration, SHORTEST) / SHORTEST) / DURATION_STEP), 0), DURATION_BINS - 1)


def _watch_bin(watched: float) -> int:
    return _watch_place(watched)[0]


def _watch_place(watched: float) -> tuple[int, float]:
    """The bin of watched seconds, and how far into it, 0..1. The first bin begins at 0, the last one has no end."""
    if watched <= LEAST_WATCHED:
        return 0, max(watched, 0.0) / LEAST_WATCHED
    if watched == math.inf:
        return WATCH_BINS - 1, 1.0
    place = math.log2(watched / LEAST_WATCHED) / WATCH_STEP
    # Rounding may put the end of one bin before the start of the next by a hair: whole numbers decide.
    low = min(int(place), WATCH_BINS - 2)
    return low + 1, min(place - low, 1.0)
