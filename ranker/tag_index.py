"""Which videos carry a tag: postings from tag to rows, to match a viewer's weighted tags against all videos at once.

The match of a viewer and a video is a cosine over tags in which a rare tag counts for more than a common one:

    match = sum over shared tags of  u_t x_t idf_t  /  (|u| |x|),   idf_t = log(1 + N / n_t) / log(1 + N)

with u the viewer's weights, x the video's, n_t of N videos carrying the tag (Sparck Jones 1972 for the idf), so it lies
in 0..1. A row that a later one replaced counts for none of them.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


class TagIndex:
    """Postings that only grow; rows are numbered in the order in which they are added."""

    def __init__(self) -> None:
        self._postings: dict[str, tuple[array[int], array[float]]] = {}
        self._carrying: dict[str, int] = {}
        self.rows = 0
        # Rows that were replaced, in the order in which that happened.
        self.replaced: list[int] = []

    def add(self, tags: Mapping[str, float]) -> None:
        """Add the next row with its tags (weights above 0 count)."""
        norm = length(tags)
        for tag, weight in tags.items():
            if weight > 0:
                rows, weights = self._postings.setdefault(tag, (array("q"), array("d")))
                rows.append(self.rows)
                weights.append(weight / norm)
                self._carrying[tag] = self._carrying.get(tag, 0) + 1
        self.rows += 1

    def replace(self, row: int, tags: Mapping[str, float]) -> None:
        """A later row stands for this one, which had these tags."""
        self.replaced.append(row)
        for tag, weight in tags.items():
            if weight > 0:
                self._carrying[tag] -= 1

    def rarity(self, tag: str) -> float:
        """idf_t in 0..1; 0 for a tag that no row has."""
        carrying = self._carrying.get(tag, 0)
        videos = self.rows - len(self.replaced)
        return math.log1p(videos / carrying) / math.log1p(videos) if carrying else 0.0

    def rows_with(self, tag: str, n_rows: int) -> npt.NDArray[np.int64]:
        """int64 [n]: those of the first `n_rows` rows that carry a tag, replaced ones too."""
        postings = self._postings.get(tag)
        rows = np.array(postings[0] if postings is not None else [], np.int64)
        return rows[rows < n_rows]

    def most_carried(self, most: int) -> list[tuple[str, int]]:
        """The `most` tags that most videos carry, and how many do; ties by name."""
        # A copy made in one step: another thread may add tags.
        counts = list(self._carrying.items())
        return heapq.nsmallest(most, counts, key=lambda item: (-item[1], item[0]))

    def matches(self, wanted: Mapping[str, float], n_rows: int) -> Float64:
        """float64 [n_rows]: the match of `wanted` with each of the first `n_rows` rows."""
        found = np.zeros(n_rows, np.float64)
        norm = length(wanted)
        for tag, weight in sorted(wanted.items()):
            postings = self._postings.get(tag)
            if postings is None or weight <= 0:
                continue
            # Copies: an array that grows in another thread must not be held as a buffer.
            weights = np.array(postings[1])
            rows = np.array(postings[0])[: len(weights)]
            inside = int(np.searchsorted(rows, n_rows))
            # A row carries a tag once, so plain fancy indexing adds every posting.
            found[rows[:inside]] += weights[:inside] * (weight / norm * self.rarity(tag))
        return found


def length(tags: Mapping[str, float]) -> float:
    """The Euclidean length of the weights above 0."""
    # hypot, because the squares of what has faded for years underflow.
    return math.hypot(*(weight for weight in tags.values() if weight > 0))


def shares(
    wanted: Mapping[str, float], wanted_length: float, tags: Mapping[str, float], index: TagIndex
) -> dict[str, float]:
    """What each shared tag adds to the match of `wanted` with one video's `tags`; largest first. They sum to it.

    `wanted_length` is `length(wanted)`, which callers know for many videos at once.
    """
    own_length = length(tags)
    found = {
        tag: (weight / own_length) * (wanted[tag] / wanted_length) * index.rarity(tag)
        for tag, weight in tags.items()
        if weight > 0 and wanted.get(tag, 0.0) > 0
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
