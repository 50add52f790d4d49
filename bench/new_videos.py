"""Videos that nobody has watched yet: how well a model ranks them among themselves, for every viewer.

A model is fitted to training without any act of the new videos, and each viewer ranks those alone. Where a data set
brings such videos along (TikTok: 465 without any act in training), they are the test, and what its test part holds of
them is to be found. Elsewhere (MovieLens, Last.fm) a fifth of all videos is drawn, `default_rng(2026).permutation`, all
their acts are taken out of training, and all of them, of whichever part, are to be found.

Validation asks the same of videos of training: another fifth, or as many as test has, drawn the same way. Test's videos
are missing from its training too, so that nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from bench.learning_data import Dataset
from bench.recall_data import SEED
from ranker.evaluation import Integers, Measured, measure
from ranker.models.model import Judge, Model
from ranker.models.training_data import ActLog, TrainingData
from ranker.splits import joined, kept

SHARE = 5
# Fewer videos without acts in training are an accident of the split and no test of new videos.
LEAST = 100


@dataclass(frozen=True, eq=False)
class NewVideoTask:
    """`part`: validation or test. `data`: training without the acts of `candidates` (int64 [n], in order), which are
    ranked among themselves; `held`: the acts on them that are to be found."""

    dataset: str
    part: str
    data: TrainingData
    held: ActLog
    candidates: Integers


def new_video_tasks(dataset: Dataset) -> tuple[NewVideoTask, NewVideoTask]:
    """(validation, test) of a data set."""
    log = dataset.data.log
    cold = np.flatnonzero(~dataset.data.seen_videos).astype(np.int64)
    stream = np.random.default_rng(SEED)
    if dataset.split == "given" and len(cold) >= LEAST:
        warm = np.flatnonzero(dataset.data.seen_videos).astype(np.int64)
        asked = np.sort(stream.permutation(warm)[: len(cold)])
        return (
            _task(dataset, "validation", asked, asked, log),
            _task(dataset, "test", cold, cold, dataset.test),
        )
    order = stream.permutation(log.n_videos)
    fifth = log.n_videos // SHARE
    tested, asked = np.sort(order[:fifth]), np.sort(order[fifth : 2 * fifth])
    return (
        _task(dataset, "validation", asked, np.union1d(asked, tested), log),
        _task(dataset, "test", tested, tested, joined(dataset.later, dataset.test)),
    )


def measure_new(task: NewVideoTask, model: Model, cutoffs: Sequence[int] = (10, 20)) -> Measured:
    """How well a fitted model ranks the candidates: the metrics of `ranker.evaluation`, coverage as a share of the
    candidates. Viewers with nothing to be found are left out."""
    held = task.held.binary[:, task.candidates].tocsr()
    nothing = sparse.csr_matrix(held.shape, dtype=np.float32)
    return measure(lambda viewers: model.score(task.data.log, viewers)[:, task.candidates], held, nothing, cutoffs)


def judge_of_new(task: NewVideoTask) -> Judge:
    """NDCG@10 among the candidates: what choices for new videos are made by."""
    return lambda model: float(measure_new(task, model, (10,)).each["ndcg@10"].mean())


def without(log: ActLog, videos: Integers) -> ActLog:
    """The acts on all other videos."""
    return kept(log, ~np.isin(log.videos, videos))


def _task(dataset: Dataset, part: str, candidates: Integers, removed: Integers, held: ActLog) -> NewVideoTask:
    data = replace(dataset.data, log=without(dataset.data.log, removed))
    return NewVideoTask(dataset.name, part, data, kept(held, np.isin(held.videos, candidates)), candidates)
