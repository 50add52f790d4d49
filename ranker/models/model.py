"""The one interface of all models that rank, and their names.

A model is fitted to a `TrainingData`, then scores all videos for viewers from what they did until now: the log that is
given when it is asked, which may hold later acts, and other viewers, than training did. Rows below the number of
viewers in training are the same people; others are new, and what a model does for them stands in its docstring.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from ranker.models.training_data import ActLog, Float32, Float64, Integers, TrainingData
from store.errors import InputError, ModelError

Arrays = dict[str, npt.NDArray[Any]]
# What validation says of a model that scores viewers (rows of the log) so: NDCG@10, higher is better.
Judge = Callable[["Model"], float]


@dataclass(frozen=True)
class Progress:
    """Where a run of training stands: `done` of at most `most` steps or epochs; `loss` and `judged` are the last ones
    known."""

    done: int
    most: int
    loss: float | None = None
    judged: float | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """What a run of training may do besides learning. `judge`: early stopping goes by it, and the best of what it saw
    is kept; without one all epochs are run. `checkpoint`: where a run that was stopped goes on from, and where it
    writes to."""

    judge: Judge | None = None
    progress: Callable[[Progress], None] | None = None
    checkpoint: Path | None = None

    def tell(self, done: int, most: int, loss: float | None = None, judged: float | None = None) -> None:
        """Pass progress on."""
        if self.progress is not None:
            self.progress(Progress(done, most, loss, judged))


@dataclass(frozen=True)
class Reason:
    """One part of a score. `kind`: video, modality, tag, viewer, factor, popularity, ...; `name`: which (a number as
    text for videos and tags, as the model knows no ids); `share`: what it adds to the score."""

    kind: str
    name: str
    share: float


class Model(Protocol):
    """Ranks videos. `name` as in results and settings; `config` all that decides a run besides the data."""

    name: ClassVar[str]

    @property
    def config(self) -> BaseModel: ...

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Learn, and say how it went (epochs, losses, what fell back), for the card. Same data, config and thread
        count: same model. Raises `ranker.too_few_events`, `ranker.not_finite`, `ranker.training_failed`."""
        ...

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos], higher is better, finite; seen videos are scored like all others."""
        ...

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """Parts that sum to the score (within rounding), largest first."""
        ...

    def arrays(self) -> Arrays:
        """All that was learnt, by name: no objects, no pickles."""
        ...

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The same model again. Raises `ranker.bad_model` for what does not fit together."""
        ...


# Where each model lives: loaded when it is asked for, as some of them load torch.
MODELS: dict[str, str] = {
    "popularity": "ranker.models.popularity:Popularity",
    "item_knn": "ranker.models.item_knn:ItemKnn",
    "p3alpha": "ranker.models.p3alpha:P3Alpha",
    "walk": "ranker.models.walk:Walk",
    "als": "ranker.models.als:Als",
    "ease": "ranker.models.ease:Ease",
    "bpr": "ranker.models.bpr:Bpr",
    "svdpp": "ranker.models.svdpp:SvdPlusPlus",
    "lightgcn": "ranker.models.lightgcn:LightGcn",
    "content": "ranker.models.content:ContentCosine",
    "content_map": "ranker.models.content_map:ContentMap",
    "knowledge_graph": "ranker.models.knowledge_graph:KnowledgeGraph",
    "fm": "ranker.models.fm:FactorisationMachine",
    "two_tower": "ranker.models.two_tower:TwoTower",
    "gru": "ranker.models.gru:Gru",
    "sasrec": "ranker.models.sasrec:SasRec",
    "sasrec_content": "ranker.models.sasrec:SasRecContent",
    "multitask": "ranker.models.multitask:MultiTask",
    "hybrid": "ranker.models.hybrid:Hybrid",
}


def model_class(name: str) -> type[Model]:
    """The class of a model by its name. Raises `ranker.no_such_model`."""
    if name not in MODELS:
        raise InputError("ranker.no_such_model", f"There is no model {name[:40]!r}.", hint=f"One of {sorted(MODELS)}.")
    module, _, found = MODELS[name].partition(":")
    return cast(type[Model], getattr(importlib.import_module(module), found))


def make_model(name: str, settings: Mapping[str, Any] | None = None) -> Model:
    """An unfitted model. Raises `ranker.no_such_model`, and `request.invalid` for settings that it does not have."""
    found: Any = model_class(name)
    try:
        return cast(Model, found(**(settings or {})))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError("request.invalid", f"{name}: {where}: {first['msg']}.") from None


def recall(model: Model, log: ActLog, viewer: int, most: int) -> tuple[Integers, Float64]:
    """The `most` best videos that the viewer did not have, best first, ties by the lower number, with their scores."""
    scores = model.score(log, np.array([viewer], np.int64))[0].astype(np.float64)
    scores[log.videos[log.starts[viewer] : log.starts[viewer + 1]]] = -np.inf
    order = np.argsort(-scores, kind="stable")[: max(most, 0)].astype(np.int64)
    order = order[np.isfinite(scores[order])]
    return order, scores[order]


def check_fit(data: TrainingData, least_acts: int = 2) -> None:
    """Raises `ranker.too_few_events` where there is nothing to learn from, and `ranker.not_finite` for features that
    are no numbers."""
    if int((data.log.values > 0).sum()) < least_acts:
        raise InputError(
            "ranker.too_few_events",
            f"There are {int((data.log.values > 0).sum())} acts to learn from, and {least_acts} at least are needed.",
            hint="Take in more events first.",
        )
    for name, features in data.content.features.items():
        if features.shape[0] != data.log.n_videos:
            raise ValueError(f"{features.shape[0]} rows of {name} for {data.log.n_videos} videos")
        if not np.isfinite(features).all():
            raise ModelError("ranker.not_finite", f"The features of {name} hold numbers that are not finite.")
