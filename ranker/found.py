"""What the sources of recall found, as ranking takes it: rows with scores, and how each was come by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

PREFIX = "source_"
# Not a way of finding: all that may be shown, where there is so little that all of it is scored.
WHOLE = "catalogue"
# The source of what looks for its audience.
TRIALS = "fresh"
# Every source, and how many candidates it brings where the ranker's file says nothing else.
QUOTAS: dict[str, int] = {
    "interest": 300,
    "co_watch": 200,
    "graph": 200,
    "similar_viewers": 100,
    "followed": 100,
    "trending": 100,
    "fresh": 100,
    "model": 200,
}


class FoundBy(Protocol):
    """What one source found: `rows` int64 [n] of the snapshot, `scores` float64 [n] of any scale (larger is better),
    and for some rows the path by which it was come by, such as the nodes of a walk."""

    @property
    def source(self) -> str: ...
    @property
    def rows(self) -> Int64: ...
    @property
    def scores(self) -> Float64: ...
    @property
    def paths(self) -> Mapping[int, tuple[str, ...]]: ...


class Found(Protocol):
    """What all sources found, and which were left out (by the code of their error)."""

    @property
    def candidates(self) -> Sequence[FoundBy]: ...
    @property
    def left_out(self) -> Mapping[str, str]: ...


def union(found: Found) -> Int64:
    """The rows that any source found, each once, in the order of rows."""
    every = [np.asarray(item.rows, np.int64) for item in found.candidates]
    return np.unique(np.concatenate(every)) if every else np.zeros(0, np.int64)


def source_terms(found: Found | None, rows: Int64, weights: Mapping[str, float]) -> dict[str, Float64]:
    """float64 [rows] for each source with a weight that found anything: the weight times the share of what the source
    found that it scored no higher, in 0..1; 0 where it did not find the row.

    Scores of different sources are of different scales (cosines, counts, times), their order alone compares.
    """
    terms: dict[str, Float64] = {}
    for item in found.candidates if found is not None else ():
        weight = weights.get(item.source, 0.0)
        found_rows = np.asarray(item.rows, np.int64)
        scores = np.asarray(item.scores, np.float64)[found_rows >= 0]
        found_rows = found_rows[found_rows >= 0]
        if not weight or not len(found_rows):
            continue
        scores = np.nan_to_num(scores, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        share = np.searchsorted(np.sort(scores), scores, side="right") / len(scores)
        # Of a row that comes twice the larger share is the last.
        order = np.lexsort((share, found_rows))
        place = np.searchsorted(found_rows[order], rows, side="right") - 1
        there = (place >= 0) & (found_rows[order][place] == rows)
        name = PREFIX + item.source
        values = np.where(there, weight * share[order][place], 0.0)
        terms[name] = np.maximum(terms.get(name, np.zeros(len(rows))), values)
    return terms


def trial_rows(found: Found | None, rows: Int64, most: int) -> Int64:
    """Of `rows`, those that look for their audience, the best to try first, at most so many."""
    for item in found.candidates if found is not None else ():
        if item.source == TRIALS:
            order = np.argsort(-np.asarray(item.scores, np.float64), kind="stable")
            ordered = np.asarray(item.rows, np.int64)[order]
            return ordered[np.isin(ordered, rows)][:most]
    return np.zeros(0, np.int64)


def sources_of(found: Found | None, rows: Int64) -> list[list[dict[str, Any]]]:
    """For each row the sources that found it, as JSON: name, score, and the path where there is one."""
    listed: list[list[dict[str, Any]]] = [[] for _ in rows]
    for item in found.candidates if found is not None else ():
        if item.source == WHOLE:
            continue
        shown = np.flatnonzero(np.isin(item.rows, rows))
        scores = {int(item.rows[place]): float(item.scores[place]) for place in shown}
        for place, row in enumerate(rows.tolist()):
            if row in scores:
                said: dict[str, Any] = {"source": item.source, "score": scores[row]}
                if path := item.paths.get(row):
                    said["path"] = list(path)
                listed[place].append(said)
    return listed
