"""A personal random walk over viewers, videos and tags (`ranker.walks` with two kinds of nodes between videos).

From a watched video the walker goes to somebody who liked it or, with the chance `tag_weight`, to one of its tags, and
on to another video of that viewer or tag; twice, if `second` is above 0 (PageRank cut off after two rounds, as in
Jamali and Ester 2009). A tag many videos carry says less: its chance of being taken falls by (how many)^`rarity`.

A new video is reached by its tags. A graph of tags alone is noise beside one in which viewers say which tags matter
(on MovieLens-100K new videos come out of it at chance): that is why both are walked together. Without tags it is the
walk of `ranker.models.walk`, and `fit` says so. Viewers without training are scored by their log, those without history
by popularity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse
from ranker.models.histories import (
    by_popularity,
    completed,
    histories,
    interactions_of,
    packed,
    popularity_of,
    trained_on,
    unpacked,
)
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData
from ranker.models.walk import WalkModelConfig, arrivals, walked
from ranker.walks import VIEWER, WalkConfig, Walks
from store.errors import ModelError

TAG = "tag"


class KnowledgeGraphConfig(WalkModelConfig):
    """`tag_weight`: how much a walker leaves through tags beside 1 through viewers; `rarity` of tags, see above."""

    tag_weight: float = Field(0.3, ge=0, allow_inf_nan=False)
    rarity: float = Field(0.5, ge=0, allow_inf_nan=False)


class KnowledgeGraph:
    """`cells`: CSR float32 [n_viewers, n_videos]; `tags`: CSR float32 [n_videos, n_tags]; `tag_names`."""

    name: ClassVar[str] = "knowledge_graph"

    def __init__(self, **settings: Any) -> None:
        self.config = KnowledgeGraphConfig(**settings)
        self._grow(sparse.csr_matrix((0, 0), dtype=np.float32), sparse.csr_matrix((0, 0), dtype=np.float32), ())

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Raises `ranker.too_few_events` and `ranker.not_finite`."""
        check_fit(data)
        n_videos, tags = data.log.n_videos, data.content.tags
        if tags is not None and not np.isfinite(tags.data).all():
            raise ModelError("ranker.not_finite", "The weights of tags hold numbers that are not finite.")
        given = sparse.csr_matrix((n_videos, 0), dtype=np.float32) if tags is None else tags.tocsr()
        self._grow(trained_on(data.log, self.config), given, data.content.tag_names)
        return {"edges": int(self.cells.nnz + self.tags.nnz), "fell_back": "no tags" if not given.nnz else ""}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]."""
        rows = histories(log, viewers, self.config, len(self.popular))
        return completed(walked(self.walks, rows), np.diff(rows.indptr) == 0, self.popular, log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By what the walk arrives through: all other viewers together, and each tag."""
        row = histories(log, np.array([viewer]), self.config, len(self.popular))
        if not row.nnz:
            return by_popularity(self.popular, video)
        return arrivals(self.walks, row, video) if video < len(self.popular) else []

    def arrays(self) -> Arrays:
        """`cells`, `tags` and `tag_names` (JSON in UTF-8)."""
        names = np.frombuffer(json.dumps(self.tag_names).encode(), np.uint8)
        return packed("cells", self.cells) | packed("tags", self.tags) | {"tag_names": names}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        cells, tags = unpacked("cells", arrays), unpacked("tags", arrays)
        names = tuple(str(name) for name in json.loads(arrays["tag_names"].tobytes()))
        if tags.shape[0] != cells.shape[1] or (names and len(names) != tags.shape[1]):
            raise ModelError("ranker.bad_model", f"Tags of {tags.shape} do not fit {cells.shape[1]} videos.")
        model._grow(cells, tags, names)
        return model

    def _grow(self, cells: Sparse, tags: Sparse, names: tuple[str, ...]) -> None:
        self.cells, self.tags, self.tag_names = cells, tags, names
        self.popular = popularity_of(cells)
        weighted = tags.astype(np.float64).tocsr()
        carried = np.bincount(weighted.indices, minlength=tags.shape[1])
        weighted.data /= carried[weighted.indices] ** self.config.rarity
        wanted = WalkConfig(
            alpha=self.config.alpha,
            beta=self.config.beta,
            second=self.config.second,
            weights={VIEWER: 1.0, TAG: self.config.tag_weight},
        )
        self.walks = Walks(interactions_of(cells), {TAG: weighted}, wanted, {TAG: names})
        # A video without acts is taken for as liked as the usual one, else `beta` would put it above all others.
        liked = self.walks.liked
        if liked.any():
            self.walks.liked = np.where(liked > 0, liked, liked[liked > 0].mean())
