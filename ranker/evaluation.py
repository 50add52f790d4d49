"""How good a ranking is, offline: every video is ranked, what was seen is left out, ties go to the lower place.

No sampled negatives: a metric over a hundred sampled videos orders models otherwise than one over all (Krichene and
Rendle 2020). Choices are made on validation; test is opened once. What lists are worth beyond being right is in
`ranker.list_qualities`, what single predictions are worth in `ranker.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
# Scores of some viewers (their rows): float [len(viewers), videos], higher is better.
Scorer = Callable[[Integers], npt.NDArray[Any]]
BATCH = 512
NAMES = ("recall", "precision", "hr", "ndcg", "mrr", "map")
# A viewer of fewer acts than this is a new one.
FEW_EVENTS = 5


@dataclass(frozen=True, eq=False)
class Lists:
    """What some viewers would be shown. `viewers` int64 [n]; `videos` int64 [n, most], best first; `there` bool of the
    same shape, false where a viewer had no more videos to be shown; `n_videos` in the catalogue."""

    viewers: Integers
    videos: Integers
    there: Flags
    n_videos: int

    def first(self, most: int) -> Lists:
        """Lists of at most `most`."""
        return Lists(self.viewers, self.videos[:, :most], self.there[:, :most], self.n_videos)


@dataclass(frozen=True, eq=False)
class Measured:
    """`viewers` int64 [n]: who had anything to be found. `each`: float64 [n] by metric, one figure a viewer.
    `coverage`: by cut-off, the share of all videos that stand in anybody's list."""

    viewers: Integers
    each: dict[str, Float64]
    coverage: dict[int, float]

    def means(self) -> dict[str, float]:
        """The mean over viewers of each metric, and the coverage."""
        found = {name: round(float(values.mean()), 4) if len(values) else 0.0 for name, values in self.each.items()}
        return found | {f"coverage@{most}": round(share, 4) for most, share in self.coverage.items()}


def measure(score: Scorer, held: Any, seen: Any, cutoffs: Sequence[int] = (10, 20)) -> Measured:
    """How well those viewers who have anything in `held` are served, at each cut-off.

    `held` and `seen` are sparse [viewers, videos]; what is seen is never ranked. What is measured: `measure_lists`.
    """
    viewers: Integers = np.flatnonzero(np.diff(held.indptr)).astype(np.int64)
    return measure_lists(listed(score, viewers, seen, max(cutoffs)), held, cutoffs)


def listed(score: Scorer, viewers: Integers, seen: Any, most: int) -> Lists:
    """The `most` best videos of each of `viewers`, what is `seen` (sparse [viewers, videos]) left out."""
    found = []
    for start in range(0, len(viewers), BATCH):
        some = viewers[start : start + BATCH]
        found.append(best(score(some), seen[some], most))
    width = min(most, seen.shape[1])
    return Lists(
        viewers,
        np.concatenate([videos for videos, _ in found]) if found else np.zeros((0, width), np.int64),
        np.concatenate([there for _, there in found]) if found else np.zeros((0, width), bool),
        seen.shape[1],
    )


def measure_lists(lists: Lists, held: Any, cutoffs: Sequence[int] = (10, 20)) -> Measured:
    """What lists of the viewers of `held` (each has something in it) are worth, at each cut-off k:

    Recall@k = found / held; Precision@k = found / k; HR@k = 1 when anything is found; MRR@k = 1 / place of the first
    found; NDCG@k = sum of 1 / log2(place + 1) over what is found, divided by the largest such sum of a list of k
    (Järvelin and Kekäläinen 2002); MAP@k = sum of the precision at the place of each found / held.
    """
    each: dict[str, list[Float64]] = {f"{name}@{k}": [] for k in cutoffs for name in NAMES}
    shown = {k: np.zeros(lists.n_videos, bool) for k in cutoffs}
    places = np.arange(1, lists.videos.shape[1] + 1)
    discount = 1 / np.log2(np.arange(max(cutoffs)) + 2)
    for start in range(0, len(lists.viewers), BATCH):
        part = slice(start, start + BATCH)
        order, there = lists.videos[part], lists.there[part]
        right = held[lists.viewers[part]].toarray() > 0
        hits = (np.take_along_axis(right, order, axis=1) & there).astype(np.float64)
        count = right.sum(axis=1)
        precise = np.cumsum(hits, axis=1) / places * hits
        for k in cutoffs:
            found, ideal = hits[:, :k], np.cumsum(discount[:k])[np.minimum(count, k) - 1]
            each[f"recall@{k}"].append(found.sum(axis=1) / count)
            each[f"precision@{k}"].append(found.sum(axis=1) / k)
            each[f"hr@{k}"].append((found.sum(axis=1) > 0).astype(np.float64))
            each[f"ndcg@{k}"].append(found @ discount[: found.shape[1]] / ideal)
            each[f"mrr@{k}"].append((found / places[:k]).max(axis=1, initial=0.0))
            each[f"map@{k}"].append(precise[:, :k].sum(axis=1) / count)
            shown[k][order[:, :k][there[:, :k]]] = True
    return Measured(
        lists.viewers,
        {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in each.items()},
        {k: float(flags.mean()) if lists.n_videos else 0.0 for k, flags in shown.items()},
    )


def best(scores: npt.NDArray[Any], seen: Any, most: int) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """(int64 [n, most'], bool [n, most']): the best videos of each row that were not seen, best first, ties by the
    lower place; false where a row has no more of them. `seen` is sparse, of the scores' shape."""
    masked = scores.astype(np.float64)
    rows, columns = seen.nonzero()
    masked[rows, columns] = -np.inf
    most = min(most, masked.shape[1])
    if most == 0:
        return np.zeros((len(masked), 0), np.int64), np.zeros((len(masked), 0), bool)
    # Only what reaches the row's most-th best score can stand in its list; a stable sort of those alone breaks ties.
    least = -np.partition(-masked, most - 1, axis=1)[:, most - 1]
    order = np.zeros((len(masked), most), np.int64)
    for row, values in enumerate(masked):
        reaching = np.flatnonzero(values >= least[row])
        order[row] = reaching[np.argsort(-values[reaching], kind="stable")[:most]]
    return order, np.isfinite(np.take_along_axis(masked, order, axis=1))


def groups(events: Integers) -> Mapping[str, Flags]:
    """bool [n] by group, from how many acts each of n viewers has in training: `light` are those at or below the median
    of them, `heavy` those above; `few_events` have fewer than `FEW_EVENTS`."""
    middle = float(np.median(events)) if len(events) else 0.0
    return {"light": events <= middle, "heavy": events > middle, "few_events": events < FEW_EVENTS}


def interval(values: Float64, draws: int = 2_000, seed: int = 0) -> tuple[float, float]:
    """The bootstrap interval of 95 % (Efron and Tibshirani 1993, percentiles) of a mean over viewers. One viewer, or
    none, has none: (nan, nan)."""
    if len(values) < 2:
        return float("nan"), float("nan")
    stream = np.random.Generator(np.random.PCG64(seed))
    means = [float(values[stream.integers(len(values), size=len(values))].mean()) for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def difference(ours: Float64, theirs: Float64, draws: int = 2_000, seed: int = 0) -> dict[str, Any]:
    """By how much ours is better on average over the same viewers, with a bootstrap interval of 95 %."""
    gain = ours - theirs
    low, high = interval(gain, draws, seed)
    return {"mean": round(float(gain.mean()), 4), "interval95": [round(low, 4), round(high, 4)]}
