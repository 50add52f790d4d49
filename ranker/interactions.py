"""Who liked what: one sparse matrix of viewers and videos, which every source that knows other viewers reads.

A cell is the sum of what all acts of one viewer said of one video (`ranker.events.value`), where that is above 0: a
video that somebody finished and then reported is none that he liked. Offline, on data sets without acts, a cell is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from ranker.events import Event, value
from store.catalogue import StoredEvent

Integers = npt.NDArray[np.int64]
# scipy has no types of its own.
Sparse = Any


@dataclass(frozen=True, eq=False)
class Interactions:
    """`matrix`: CSR float32 [viewers, videos], positive values alone, columns of a row in order. `viewers` and `videos`
    give the row and the column of each id."""

    matrix: Sparse
    viewers: Mapping[str, int]
    videos: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.viewers), len(self.videos)):
            raise ValueError(f"{len(self.viewers)} viewers, {len(self.videos)} videos, but cells {self.matrix.shape}")

    def __repr__(self) -> str:
        return f"Interactions(viewers={len(self.viewers)}, videos={len(self.videos)}, cells={self.matrix.nnz})"

    @classmethod
    def from_events(cls, events: Iterable[Event | StoredEvent], durations: Mapping[str, float]) -> Interactions:
        """From acts in any order; `durations` in seconds by video. Videos that are not in it are passed over."""
        viewers: dict[str, int] = {}
        videos: dict[str, int] = {}
        cells: list[tuple[int, int, float]] = []
        for event in events:
            user, video = (event.user, event.video) if isinstance(event, Event) else (event.user_id, event.video_id)
            if video not in durations:
                continue
            row, column = viewers.setdefault(user, len(viewers)), videos.setdefault(video, len(videos))
            cells.append((row, column, value(event, durations[video])))
        rows, columns, values = zip(*cells, strict=True) if cells else ((), (), ())
        return cls(
            summed(np.array(rows, int), np.array(columns, int), np.array(values), (len(viewers), len(videos))),
            viewers,
            videos,
        )

    @classmethod
    def from_arrays(
        cls, viewers: Integers, videos: Integers, n_viewers: int, n_videos: int, values: npt.NDArray[Any] | None = None
    ) -> Interactions:
        """From numbers of viewers and videos, offline; their ids are the numbers as text. A pair that comes twice
        counts once when there are no `values`, and is their sum otherwise."""
        given = np.ones(len(viewers)) if values is None else values
        matrix = summed(viewers, videos, given, (n_viewers, n_videos))
        if values is None:
            matrix.data[:] = 1
        names = {str(number): number for number in range(n_viewers)}
        return cls(matrix, names, {str(number): number for number in range(n_videos)})


def summed(rows: Integers, columns: Integers, values: npt.NDArray[Any], shape: tuple[int, int]) -> Sparse:
    """CSR float32 of sums; what sums to nothing or less is left out."""
    # Sums in float64: acts for and against must cancel out whatever the order in which they came.
    matrix = sparse.csr_matrix((values.astype(np.float64), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[matrix.data <= ROUNDING] = 0
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix.astype(np.float32)


# What is left when acts for and against a video cancel out.
ROUNDING = 1e-9
