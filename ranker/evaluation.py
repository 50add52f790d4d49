"""How good a ranking is, offline: every video is ranked, what was seen is left out, ties go to the lower place.

No sampled negatives: a metric over a hundred sampled videos orders models otherwise than one over all (Krichene and
Rendle 2020). Choices are made on validation; test is opened once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
# Scores of some viewers (their rows): float [len(viewers), videos], higher is better.
Scorer = Callable[[Integers], npt.NDArray[Any]]
BATCH = 512


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
    """Recall, NDCG and hit rate at each cut-off of the viewers who have anything in `held`.

    `held` and `seen` are sparse [viewers, videos]; what is seen is never ranked. Recall@k divides by all that is held,
    NDCG@k by what the best list of k would reach, HR@k is 1 when anything held is in the list.
    """
    viewers: Integers = np.flatnonzero(np.diff(held.indptr)).astype(np.int64)
    most, n_videos = max(cutoffs), held.shape[1]
    each: dict[str, list[Float64]] = {f"{name}@{k}": [] for k in cutoffs for name in ("recall", "ndcg", "hr")}
    shown = {k: np.zeros(n_videos, bool) for k in cutoffs}
    discount = 1 / np.log2(np.arange(most) + 2)
    for start in range(0, len(viewers), BATCH):
        some = viewers[start : start + BATCH]
        order, valid = best(score(some), seen[some], most)
        right = held[some].toarray() > 0
        hits = (np.take_along_axis(right, order, axis=1) & valid).astype(np.float64)
        count = right.sum(axis=1)
        for k in cutoffs:
            ideal = np.cumsum(discount[:k])[np.minimum(count, k) - 1]
            each[f"recall@{k}"].append(hits[:, :k].sum(axis=1) / count)
            each[f"ndcg@{k}"].append(hits[:, :k] @ discount[:k] / ideal)
            each[f"hr@{k}"].append((hits[:, :k].sum(axis=1) > 0).astype(np.float64))
            shown[k][order[:, :k][valid[:, :k]]] = True
    return Measured(
        viewers,
        {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in each.items()},
        {k: float(flags.mean()) if n_videos else 0.0 for k, flags in shown.items()},
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


def difference(ours: Float64, theirs: Float64, draws: int = 2_000, seed: int = 0) -> dict[str, Any]:
    """By how much ours is better on average over the same viewers, with a bootstrap interval of 95 %."""
    gain = ours - theirs
    stream = np.random.Generator(np.random.PCG64(seed))
    means = [float(gain[stream.integers(len(gain), size=len(gain))].mean()) for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": round(float(gain.mean()), 4), "interval95": [round(float(low), 4), round(float(high), 4)]}
