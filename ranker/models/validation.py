"""What a trained model is judged by: the latest acts of the log it is trained on, held back by time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from ranker.evaluation import Measured, measure
from ranker.interactions import Sparse
from ranker.models.model import Judge
from ranker.models.training_data import ActLog, Integers
from store.errors import InputError

LAST_SHARE = 0.1
# Of fewer viewers the mean is chance: then the last act of each viewer is held back instead.
LEAST_VIEWERS = 20
CUTOFFS = (10, 20)
METRIC = "ndcg@10"


@dataclass(frozen=True, eq=False)
class Split:
    """`train`: what is learnt from, with the viewers' and videos' numbers of the whole log. `held`: CSR [n_viewers,
    n_videos], what is to be found: liked after that, and not before. `how`: `time` (`cut` seconds since the epoch: all
    acts from then on are held back) or `last_act` (each viewer's last one; there is no one cut)."""

    train: ActLog
    held: Sparse
    how: Literal["time", "last_act"]
    cut: float | None

    @property
    def viewers(self) -> int:
        """How many viewers have anything to be found."""
        return int((np.diff(self.held.indptr) > 0).sum())

    def measured(self, score: Callable[[Integers], Any]) -> Measured:
        """Recall, NDCG and hit rate of `score(viewers)` (float [len(viewers), n_videos]) over all videos; what was
        liked in training is left out, ties go to the lower number."""
        return measure(score, self.held, self.train.binary, CUTOFFS)

    def judge(self) -> Judge:
        """NDCG@10 of a model of the log's own numbers: what early stopping goes by."""
        return lambda model: mean_of(self.measured(lambda viewers: model.score(self.train, viewers)))


def mean_of(measured: Measured, metric: str = METRIC) -> float:
    """The mean over viewers; 0 where there are none."""
    each = measured.each[metric]
    return float(each.mean()) if len(each) else 0.0


def split_by_time(log: ActLog) -> Split:
    """Hold back the last `LAST_SHARE` of all acts. Where that leaves fewer than `LEAST_VIEWERS` viewers with something
    to be found, hold back the last act of each viewer who had another before it.

    Viewers without an act in what is left are no part of what is judged: nobody could know them. Raises
    `ranker.too_few_events` where there is nobody left to judge by.
    """
    if len(log):
        cut = float(np.quantile(log.at, 1 - LAST_SHARE))
        split = _split(log, log.at >= cut, "time", cut)
        if split.viewers >= LEAST_VIEWERS:
            return split
        split = _split(log, _last(log), "last_act", None)
        if split.viewers:
            return split
    raise _too_few(log)


def split_again(log: ActLog, how: Literal["time", "last_act"], cut: float | None) -> Split:
    """Hold back what was held back before from a log that has lost some viewers since: the cut stays where it was, so
    that nothing that was learnt from is asked for. Raises `ranker.too_few_events` where nobody is left."""
    split = _split(log, _last(log) if cut is None else log.at >= cut, how, cut)
    if not split.viewers:
        raise _too_few(log)
    return split


def _last(log: ActLog) -> Any:
    """bool [acts]: the last act of each viewer who had another before it."""
    last = np.zeros(len(log), bool)
    last[log.starts[1:][np.diff(log.starts) > 1] - 1] = True
    return last


def _too_few(log: ActLog) -> InputError:
    return InputError(
        "ranker.too_few_events",
        f"Of {len(log)} acts there is no viewer with one to learn from and a later one to judge by.",
        hint="Take in more events first.",
    )


def _split(log: ActLog, held_back: Any, how: Literal["time", "last_act"], cut: float | None) -> Split:
    train, later = _part(log, ~held_back), _part(log, held_back)
    # Nobody without an act to learn from, and nothing that was liked before.
    known = sparse.diags((np.diff(train.starts) > 0).astype(np.float32))
    held = (known @ (later.binary - later.binary.multiply(train.binary))).tocsr()
    held.eliminate_zeros()
    held.sort_indices()
    return Split(train, held, how, cut)


def _part(log: ActLog, which: Any) -> ActLog:
    return ActLog(
        log.viewers[which], log.videos[which], log.at[which], log.values[which], log.watched[which], log.kinds[which],
        log.ratings[which], log.n_viewers, log.n_videos,
    )  # fmt: skip
