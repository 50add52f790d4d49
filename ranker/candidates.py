"""Where candidates come from: sources side by side under one time budget, each with a name and a quota.

A source that fails or is late is left out of this one feed and named with an error code. The feed is made of what the
others found: a source is never a reason for having no feed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ranker.profiles import Profile
from ranker.video_table import Snapshot
from store.errors import ReelsenseError

Rows = npt.NDArray[np.int64]
log = logging.getLogger(__name__)
Float64 = npt.NDArray[np.float64]

THREADS = 8
# A source that is late this often at once holds its threads: it is not asked again until one of them returns.
MOST_LATE = 2
LATE = "recall.late"
FAILED = "recall.failed"
BUSY = "recall.busy"


@dataclass(frozen=True, eq=False)
class Request:
    """Who asks, when and where. `unseen`: bool [rows of `snapshot`], false for what may not be shown (seen, replaced,
    in quarantine). `viewer` seeds what is drawn; `hour` 0..23 UTC; empty texts are unknown."""

    profile: Profile
    snapshot: Snapshot
    now: float
    unseen: npt.NDArray[np.bool_]
    viewer: str = ""
    region: str = ""
    language: str = ""
    device: str = ""
    hour: int | None = None


class Paths(Mapping[int, tuple[str, ...]]):
    """Paths of some rows, each told when it is asked for: of hundreds that are found, twenty are shown."""

    def __init__(self, rows: Sequence[int], path: Callable[[int], tuple[str, ...]]) -> None:
        self._rows = frozenset(rows)
        self._path = path

    def __getitem__(self, row: int) -> tuple[str, ...]:
        if row not in self._rows:
            raise KeyError(row)
        return self._path(row)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._rows))

    def __len__(self) -> int:
        return len(self._rows)


@dataclass(frozen=True, eq=False)
class Candidates:
    """What one source found: `rows` int64 [n] of the snapshot, best first, each once; `scores` float64 [n], which
    compare within the source alone. `paths`: by row why it was found, as `kind:name` from what was watched to the
    video; a viewer on the path is `viewer` without a name, as a reason names nobody else."""

    source: str
    rows: Rows
    scores: Float64
    paths: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows.shape != self.scores.shape or self.rows.ndim != 1:
            raise ValueError(f"rows {self.rows.shape} and scores {self.scores.shape} of {self.source} do not agree")

    def __repr__(self) -> str:
        return f"Candidates({self.source}, rows={len(self.rows)})"


class Source(Protocol):
    """One way to find videos for somebody."""

    @property
    def name(self) -> str:
        """What the source is called in reasons and settings."""
        ...

    def find(self, request: Request, quota: int) -> Candidates:
        """At most `quota` rows that the request allows, best first; ties by video id. May raise: it is left out
        then."""
        ...


@dataclass(frozen=True, eq=False)
class Gathered:
    """What all sources found, in the order in which they were asked; `left_out`: error code by source; `seconds` by
    source of those that answered."""

    candidates: tuple[Candidates, ...]
    left_out: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        """Each row that anybody found, in order, once."""
        found = [part.rows for part in self.candidates]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def sources_of(self, row: int) -> tuple[str, ...]:
        """The names of the sources that found a row."""
        return tuple(part.source for part in self.candidates if row in part.rows)


class Gatherer:
    """Keeps the threads between requests. `close` ends it; `gather` is for a single use."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="recall")
        self._late: dict[str, list[Future[tuple[Candidates, float]]]] = {}

    def close(self) -> None:
        """Take no more; what still runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def gather(self, sources: Sequence[tuple[Source, int]], request: Request, budget_seconds: float) -> Gathered:
        """Ask all sources at once and wait `budget_seconds` for them in all."""
        asked: dict[str, Future[tuple[Candidates, float]]] = {}
        left_out: dict[str, str] = {}
        for source, quota in sources:
            if quota < 1:
                continue
            if self._stuck(source.name):
                left_out[source.name] = BUSY
            else:
                asked[source.name] = self._pool.submit(_ask, source, request, quota)
        wait(asked.values(), timeout=max(budget_seconds, 0.0))
        found, seconds = [], {}
        for name, future in asked.items():
            if not future.done():
                if not future.cancel():
                    with self._lock:
                        self._late.setdefault(name, []).append(future)
                left_out[name] = LATE
                continue
            try:
                candidates, seconds[name] = future.result()
            except ReelsenseError as error:
                left_out[name] = error.code
            # Whatever a source raises spoils that source and nothing else: its code says so in the answer.
            except Exception:
                log.exception("the source %s of recall failed", name)
                left_out[name] = FAILED
            else:
                found.append(candidates)
        return Gathered(tuple(found), left_out, seconds)

    def _stuck(self, name: str) -> bool:
        with self._lock:
            self._late[name] = [future for future in self._late.get(name, []) if not future.done()]
            return len(self._late[name]) >= MOST_LATE


def gather(sources: Sequence[tuple[Source, int]], request: Request, budget_seconds: float) -> Gathered:
    """`Gatherer.gather` with threads of its own."""
    gatherer = Gatherer(max(1, len(sources)))
    try:
        return gatherer.gather(sources, request, budget_seconds)
    finally:
        gatherer.close()


def _ask(source: Source, request: Request, quota: int) -> tuple[Candidates, float]:
    started = time.perf_counter()
    found = source.find(request, quota)
    return _allowed(found, request, quota), time.perf_counter() - started


def _allowed(found: Candidates, request: Request, quota: int) -> Candidates:
    """What the source found, held to what it was asked: rows that exist and may be shown, finite scores, the quota."""
    inside = (found.rows >= 0) & (found.rows < len(request.unseen)) & np.isfinite(found.scores)
    inside[inside] = request.unseen[found.rows[inside]]
    if inside.all() and len(found.rows) <= quota:
        return found
    rows = found.rows[inside][:quota]
    kept = [row for row in rows.tolist() if row in found.paths]
    return Candidates(found.source, rows, found.scores[inside][:quota], Paths(kept, found.paths.__getitem__))
