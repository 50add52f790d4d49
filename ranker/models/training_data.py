"""What models learn from: acts of viewers, one after another, and what videos are.

Viewers and videos are numbers here, rows of whatever tables the caller keeps: the ids belong to the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ranker.interactions import Sparse, summed

Integers = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ActLog:
    """Acts in order of viewer, then time, then arrival. All arrays have one place an act.

    `viewers` int64 in 0..n_viewers-1, `videos` int64 in 0..n_videos-1, `at` float64 seconds (the place in the file
    where times are not known), `values` float32 what the act says of interest (`ranker.events.value`; 1 in data sets of
    mere pairs), `watched` float32 share of the length that was watched (nan: not known), `kinds` int8 the place in
    `ranker.events.KINDS` (-1: not known), `ratings` float32 stars (nan: none given).
    """

    viewers: Integers
    videos: Integers
    at: Float64
    values: Float32
    watched: Float32
    kinds: npt.NDArray[np.int8]
    ratings: Float32
    n_viewers: int
    n_videos: int

    def __post_init__(self) -> None:
        arrays = (self.videos, self.at, self.values, self.watched, self.kinds, self.ratings)
        if any(len(array) != len(self.viewers) for array in arrays):
            raise ValueError(f"{len(self.viewers)} acts, but arrays of {[len(array) for array in arrays]}")
        if len(self.viewers):
            if self.viewers.min() < 0 or self.viewers.max() >= self.n_viewers:
                raise ValueError("a viewer outside of 0..n_viewers-1")
            if self.videos.min() < 0 or self.videos.max() >= self.n_videos:
                raise ValueError("a video outside of 0..n_videos-1")
            if not np.isfinite(self.values).all() or not np.isfinite(self.at).all():
                raise ValueError("values and times must be finite")
            step = np.diff(self.viewers)
            if (step < 0).any() or (np.diff(self.at)[step == 0] < 0).any():
                raise ValueError("acts are not in order of viewer and time")

    def __len__(self) -> int:
        return len(self.viewers)

    def __repr__(self) -> str:
        return f"ActLog(acts={len(self)}, viewers={self.n_viewers}, videos={self.n_videos})"

    @classmethod
    def of(
        cls,
        viewers: Integers,
        videos: Integers,
        n_viewers: int,
        n_videos: int,
        *,
        at: Float64 | None = None,
        values: Float32 | None = None,
        watched: Float32 | None = None,
        kinds: npt.NDArray[np.int8] | None = None,
        ratings: Float32 | None = None,
    ) -> ActLog:
        """From acts in any order; ties in time stay in the order given."""
        n = len(viewers)
        times = np.arange(n, dtype=np.float64) if at is None else np.asarray(at, np.float64)
        order = np.lexsort((np.arange(n), times, viewers))
        return cls(
            np.asarray(viewers, np.int64)[order],
            np.asarray(videos, np.int64)[order],
            times[order],
            (np.ones(n, np.float32) if values is None else np.asarray(values, np.float32))[order],
            (np.full(n, np.nan, np.float32) if watched is None else np.asarray(watched, np.float32))[order],
            (np.full(n, -1, np.int8) if kinds is None else np.asarray(kinds, np.int8))[order],
            (np.full(n, np.nan, np.float32) if ratings is None else np.asarray(ratings, np.float32))[order],
            n_viewers,
            n_videos,
        )

    @cached_property
    def starts(self) -> Integers:
        """int64 [n_viewers + 1]: the acts of viewer v are places starts[v] to starts[v + 1], oldest first."""
        found: Integers = np.searchsorted(self.viewers, np.arange(self.n_viewers + 1)).astype(np.int64)
        return found

    def history(self, viewer: int) -> Integers:
        """The videos that a viewer had with a value above 0, oldest first, as often as he had them."""
        own = slice(int(self.starts[viewer]), int(self.starts[viewer + 1]))
        return self.videos[own][self.values[own] > 0]

    @cached_property
    def matrix(self) -> Sparse:
        """CSR float32 [n_viewers, n_videos]: summed values, above 0 alone, columns in order."""
        return summed(self.viewers, self.videos, self.values, (self.n_viewers, self.n_videos))

    @cached_property
    def binary(self) -> Sparse:
        """The same with 1 for each value above 0."""
        found = self.matrix.copy()
        found.data[:] = 1
        return found

    def fading(self, half_rank: float) -> Sparse:
        """CSR float32 [n_viewers, n_videos]: exp(-rank / half_rank), where rank counts what the viewer had later; of a
        video he had more than once the latest counts. What has faded below `interactions.ROUNDING` is left out."""
        positive = np.flatnonzero(self.values > 0)
        viewers, videos = self.viewers[positive], self.videos[positive]
        ends = np.searchsorted(viewers, np.arange(self.n_viewers), side="right")
        rank = ends[viewers] - 1 - np.arange(len(viewers))
        weights = np.exp(-rank / half_rank)
        # The last place of each cell: within a viewer they are in order of time.
        _, from_end = np.unique((viewers * self.n_videos + videos)[::-1], return_index=True)
        last = len(viewers) - 1 - from_end
        return summed(viewers[last], videos[last], weights[last], (self.n_viewers, self.n_videos))


@dataclass(frozen=True, eq=False)
class Content:
    """What videos are, known from the first second of their lives. `features` by modality: float32 [n_videos, dim],
    a row of zeros where a video has none. `tags`: CSR float32 [n_videos, n_tags] (None: there are none), named by
    `tag_names`."""

    features: Mapping[str, Float32] = field(default_factory=dict)
    tags: Sparse | None = None
    tag_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a model is fitted to. A video that no act names is a new one: models of content rank it all the same."""

    log: ActLog
    content: Content = field(default_factory=Content)

    @cached_property
    def seen_videos(self) -> npt.NDArray[np.bool_]:
        """bool [n_videos]: those with any value above 0 in training."""
        flags = np.zeros(self.log.n_videos, bool)
        flags[self.log.videos[self.log.values > 0]] = True
        return flags
