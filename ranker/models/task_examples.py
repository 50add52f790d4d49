"""What `ranker.models.multitask` learns from: pairs held back from its inputs, with videos drawn against them.

An input's score of what it learnt from is no honest feature. So the pairs are cut into folds; for each fold the inputs
are fitted to the rest, and score the fold (stacking, Wolpert 1992; cross-fitting). `last` holds back the latest pairs
of each viewer once, which costs one fit of the inputs and looks ahead in time as serving does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ranker.models.learning import seed_of
from ranker.models.model import Model
from ranker.models.task_features import VideoFacts, ViewerFacts, block, candidates, ranks, standard
from ranker.models.task_outcomes import Outcomes, taken
from ranker.models.training_data import ActLog, Content, Float32, Integers, TrainingData

Holdout = Literal["folds", "last"]
VIEWERS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Examples:
    """In order of viewer. `viewers` int64 [n]; `videos` int64 [n, 1 + drawn], the pair's own first; `features` float32
    [n, 1 + drawn, features], not standardised; `labels` float32 [n, heads], nan: not known; `values` float32 [n]."""

    viewers: Integers
    videos: Integers
    features: Float32
    labels: Float32
    values: Float32

    def __len__(self) -> int:
        return len(self.viewers)

    def __getitem__(self, kept: npt.NDArray[np.bool_]) -> Examples:
        return Examples(
            self.viewers[kept], self.videos[kept], self.features[kept], self.labels[kept], self.values[kept]
        )


def held_back(outcomes: Outcomes, holdout: Holdout, folds: int, share: float, seed: int) -> Integers:
    """int64 [n]: the fold of each pair, 0..folds - 1 by chance; of `last` 0 for the latest `share` of each viewer's
    pairs (none of who has one pair alone) and -1, never held back, for the rest."""
    n = len(outcomes)
    if holdout == "folds":
        stream = np.random.Generator(np.random.PCG64(seed_of(seed, 1)))
        return (stream.permutation(n) % folds).astype(np.int64)
    order = np.lexsort((np.arange(n), outcomes.at, outcomes.viewers))
    ends = np.searchsorted(outcomes.viewers, outcomes.viewers, side="right")
    starts = np.searchsorted(outcomes.viewers, outcomes.viewers, side="left")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    late = np.minimum(np.ceil(share * (ends - starts)), ends - starts - 1)
    return np.where(rank >= ends - late, 0, -1).astype(np.int64)


def gathered(
    data: TrainingData,
    outcomes: Outcomes,
    fold: Integers,
    content: Content,
    inputs: Callable[[], Sequence[Model]],
    *,
    drawn: int,
    hard: float,
    most: int,
    seed: int,
) -> Examples:
    """The examples of all pairs that are held back in some fold. `inputs` makes unfitted models. `drawn` videos that
    the viewer never had stand against each pair, the share `hard` of them from the inputs' `most` best."""
    parts = []
    for number in range(int(fold.max(initial=-1)) + 1):
        own = np.flatnonzero(fold == number)
        if not len(own):
            continue
        log = taken(data.log, fold[outcomes.pair_of] != number)
        rest = fold != number
        known = Outcomes(
            outcomes.viewers[rest],
            outcomes.videos[rest],
            outcomes.at[rest],
            outcomes.values[rest],
            outcomes.labels[rest],
            outcomes.pair_of[:0],
        )
        models = inputs()
        for model in models:
            model.fit(TrainingData(log, content))
        # Served, the heads see counts of everything: what is counted without the fold is made as many.
        more = len(outcomes) / max(len(known), 1)
        of_videos = VideoFacts.of(known, log.n_videos)
        of_viewers = ViewerFacts.of(known, log.n_viewers, of_videos.base)
        of_videos = replace(of_videos, had=more * of_videos.had)
        of_viewers = replace(of_viewers, had=more * of_viewers.had)
        stream = np.random.Generator(np.random.PCG64(seed_of(seed, 2, number)))
        for chosen in _by_viewers(outcomes.viewers[own]):
            parts.append(
                _of_some(own[chosen], outcomes, data.log, log, models, of_videos, of_viewers, drawn, hard, most, stream)
            )
    if not parts:
        return Examples(*(np.zeros(0) for _ in range(5)))  # type: ignore[arg-type]
    columns = [np.concatenate([part[column] for part in parts]) for column in range(4)]
    pairs, videos, features, values = columns
    order = np.argsort(pairs, kind="stable")
    return Examples(
        outcomes.viewers[pairs[order]], videos[order], features[order], outcomes.labels[pairs[order]], values[order]
    )


def _by_viewers(viewers: Integers) -> list[npt.NDArray[np.int64]]:
    """Places of pairs in order of viewer, cut so that each part has all pairs of at most so many viewers."""
    starts = np.flatnonzero(np.r_[True, np.diff(viewers) != 0])[::VIEWERS_AT_ONCE]
    return np.split(np.arange(len(viewers)), starts[1:])


def _of_some(
    pairs: Integers,
    outcomes: Outcomes,
    whole: ActLog,
    log: ActLog,
    models: Sequence[Model],
    of_videos: VideoFacts,
    of_viewers: ViewerFacts,
    drawn: int,
    hard: float,
    most: int,
    stream: np.random.Generator,
) -> tuple[Integers, Integers, Float32, Float32]:
    """(pairs, videos, features, values) of the pairs of some viewers."""
    some, row = np.unique(outcomes.viewers[pairs], return_inverse=True)
    scores = [np.asarray(model.score(log, some)) for model in models]
    seen, ever = had(log, some), had(whole, some)
    ranked = [ranks(score, seen) for score in scores]
    scored = [standard(score) for score in scores]
    near = candidates(ranked, seen, most) if ranked else np.ones(ever.shape, bool)
    videos = np.empty((len(pairs), 1 + drawn), np.int64)
    videos[:, 0] = outcomes.videos[pairs]
    from_near = stream.random((len(pairs), drawn)) < hard
    place = stream.random((len(pairs), drawn))
    for one in range(len(some)):
        mine = np.flatnonzero(row == one)
        free = np.flatnonzero(~ever[one])
        close = np.flatnonzero(~ever[one] & near[one])
        if not len(free):
            # Who had everything has nothing to be told apart from: the pair stands against itself, and is passed over.
            videos[mine, 1:] = videos[mine, :1]
            continue
        close = close if len(close) else free
        picked = np.where(
            from_near[mine],
            close[(place[mine] * len(close)).astype(np.int64)],
            free[(place[mine] * len(free)).astype(np.int64)],
        )
        videos[mine, 1:] = picked
    rows, columns = np.repeat(row, 1 + drawn), videos.ravel()
    features = block(
        [score[rows, columns] for score in scored],
        [rank[rows, columns] for rank in ranked],
        some[rows],
        columns,
        np.repeat(outcomes.at[pairs], 1 + drawn),
        of_videos,
        of_viewers,
    )
    shaped = features.reshape(len(pairs), 1 + drawn, -1)
    return pairs, videos, shaped, outcomes.values[pairs]


def had(log: ActLog, viewers: Integers) -> npt.NDArray[np.bool_]:
    """bool [len(viewers), n_videos]: what each had, whatever it said."""
    found = np.zeros((len(viewers), log.n_videos), bool)
    for row, viewer in enumerate(viewers):
        found[row, log.videos[log.starts[viewer] : log.starts[viewer + 1]]] = True
    return found
