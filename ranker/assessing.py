"""All that is said of one fitted model on what was held back: `reelsense evaluate` and bench.learning report this.

Right is measured by `ranker.evaluation`, what lists are worth besides by `ranker.list_qualities`, for all viewers and
for parts of them, and chances and stars, of models that give any, by `ranker.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranker import list_qualities, metrics
from ranker.evaluation import Float64, Lists, Measured, Scorer, groups, interval, listed, measure, measure_lists
from ranker.models.model import Model
from ranker.models.training_data import ActLog, Integers, TrainingData
from store.errors import InputError

CUTOFFS = (10, 20)
MAIN = ("ndcg@10", "recall@10", "ndcg@20", "recall@20")
SHORT = 10


@dataclass(frozen=True, eq=False)
class Assessed:
    """`measured`: of each viewer who has anything to be found; `beyond`: what the lists of ten are worth besides, None
    where a figure needs content that there is not; `groups`: means of `MAIN` of parts of the viewers (`light`, `heavy`,
    `few_events`) and of what is held back on videos without acts in training (`unseen_videos`)."""

    measured: Measured
    beyond: dict[str, float | None]
    groups: dict[str, dict[str, float]]

    def row(self) -> dict[str, Any]:
        """As one flat row: means, the interval of NDCG@10, the rest."""
        low, high = interval(self.measured.each["ndcg@10"])
        return {
            "viewers": len(self.measured.viewers),
            **self.measured.means(),
            "low": None if np.isnan(low) else round(low, 4),
            "high": None if np.isnan(high) else round(high, 4),
            "beyond": self.beyond,
            "groups": self.groups,
        }


def assessed(
    model: Model,
    data: TrainingData,
    test: ActLog,
    *,
    seen: Any,
    history: ActLog | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
) -> Assessed:
    """Of a model fitted to `data`, on `test`. What is `seen` (sparse [viewers, videos]: training and validation) is not
    ranked; `history` is the log that the model is asked with (training, unless it is given). Videos are compared by the
    first of their features."""
    log, held, asked = data.log, test.binary, history or data.log
    viewers: Integers = np.flatnonzero(np.diff(held.indptr)).astype(np.int64)
    score: Scorer = lambda some: model.score(asked, some)  # noqa: E731
    lists = listed(score, viewers, seen, max(cutoffs))
    found = measure_lists(lists, held, cutoffs)
    parts = {}
    for name, flags in groups(np.diff(log.starts)[viewers]).items():
        if flags.any():
            means = {key: round(float(found.each[key][flags].mean()), 4) for key in MAIN}
            parts[name] = {"viewers": int(flags.sum())} | means
    unseen = held.multiply(~data.seen_videos[None, :]).tocsr()
    unseen.eliminate_zeros()
    if unseen.nnz:
        means = measure(score, unseen, seen, cutoffs).means()
        parts["unseen_videos"] = {"viewers": int((np.diff(unseen.indptr) > 0).sum())} | {
            key: means[key] for key in MAIN
        }
    return Assessed(found, _beyond(lists.first(SHORT), data, held, seen), parts)


def _beyond(lists: Lists, data: TrainingData, held: Any, seen: Any) -> dict[str, float | None]:
    had = data.log.binary
    counts = np.asarray(had.sum(axis=0), np.float32).ravel()
    popular = listed(lambda some: np.tile(counts, (len(some), 1)), lists.viewers, seen, SHORT)
    features, tags = data.content.features, data.content.tags
    first = next(iter(features.values()), None)
    return {
        f"coverage@{SHORT}": round(list_qualities.coverage(lists), 4),
        f"gini@{SHORT}": round(list_qualities.gini(lists), 4),
        f"novelty@{SHORT}": list_qualities.mean(list_qualities.novelty(lists, had)),
        f"serendipity@{SHORT}": list_qualities.mean(list_qualities.serendipity(lists, popular, held)),
        f"variety@{SHORT}": None if first is None else list_qualities.mean(list_qualities.variety(lists, first)),
        f"miscalibration@{SHORT}": None
        if tags is None
        else list_qualities.mean(list_qualities.miscalibration(lists, had, tags)),
    }


def stars(model: Model, history: ActLog, test: ActLog) -> dict[str, float]:
    """RMSE and MAE over the stars in `test`, of a model that was fitted to stars; nothing of others."""
    predict = getattr(model, "predict_ratings", None)
    rated = np.flatnonzero(np.isfinite(test.ratings))
    if predict is None or not len(rated):
        return {}
    try:
        predicted: Float64 = np.asarray(predict(history, test.viewers[rated], test.videos[rated]), np.float64)
    except InputError as error:
        # A model that can be fitted to stars, and was fitted to rank.
        if error.code != "request.invalid":
            raise
        return {}
    given = test.ratings[rated]
    return {"rmse": round(metrics.rmse(given, predicted), 4), "mae": round(metrics.mae(given, predicted), 4)}


def heads(model: Model, history: ActLog, acts: ActLog) -> dict[str, dict[str, Any]]:
    """AUC, accuracy, log loss and calibration error of each head, over `acts` (refusals too); of models that have
    heads. That of `view` is left out: whoever acted on a video viewed it."""
    predict = getattr(model, "predict", None)
    if predict is None or not len(acts):
        return {}
    from ranker.models.task_outcomes import BINARY, HEADS, outcomes_of

    found = outcomes_of(acts)
    chances = predict(history, found.viewers, found.videos)
    rows = {}
    for place, head in enumerate(HEADS):
        known = np.isfinite(found.labels[:, place])
        if head in chances and head in BINARY and head != "view" and known.any():
            rows[head] = metrics.of_head(found.labels[known, place], chances[head][known])
    return rows
