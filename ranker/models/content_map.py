"""Content mapped into the space of taste: what a new video's factors would be, told from what it is.

Cosine alone takes all of an encoder's directions for equally important; viewers do not. The factors of watched videos
(implicit ALS, `ranker.models.als`) say what matters, and a map from content to factors carries it over to videos that
nobody has watched (Gantner et al. 2010, "Learning attribute-to-feature mappings for cold-start recommendations").

    y(i) = M' f_i,    M = (F' D F + ridge * mean(D) I)^-1 F' D Y         over watched videos, D = diag(acts^weighting)
    score(u, i) = x_u . y(i)  +  closeness * scale * nearness of i to the history of u  (`ranker.models.content`)

Every video is scored by what it is, watched or not, so that nothing in a viewer's list depends on how old a video is.
Where no `ridge` is given it is the one that tells each watched video best from all the others (leave-one-out in closed
form, by the hat matrix): the map is fitted to serve videos it has not seen. On thin data (TikTok: nine acts a video)
little of the factors can be told by a linear map, and what remains is closeness, which needs little learning: `scale`
is the spread of the mapped scores, so that `closeness` is in the same units everywhere.

Viewers without training are solved from their log; who has no history is ranked by popularity, new videos last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ranker.models.als import Als, AlsConfig
from ranker.models.content import ContentConfig, ContentCosine
from ranker.models.content_features import FeatureConfig, weight_of
from ranker.models.histories import HistoryConfig, by_popularity, histories, trained_on
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.training_data import ActLog, Float32, Float64, Integers, TrainingData
from store.errors import ModelError

RIDGES = tuple(float(10.0**power) for power in np.arange(-2, 4.1, 0.5))
BIAS = "bias"


class ContentMapConfig(HistoryConfig, FeatureConfig):
    """`factors`, `regularisation`, `confidence`, `scaling`, `sweeps`, `seed` as in `AlsConfig`, `sharpness` of the
    nearness as in `ContentConfig`; `ridge`, in watched videos of mean weight (None: chosen by leave-one-out);
    `weighting`: power of a video's acts by which it counts in the map; `mapping`: what the mapped factors count (0:
    closeness alone); `closeness`: what nearness to the history counts beside them."""

    factors: int = Field(32, ge=1)
    regularisation: float = Field(10.0, gt=0, allow_inf_nan=False)
    confidence: float = Field(0.0, ge=0, allow_inf_nan=False)
    scaling: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    sweeps: int = Field(15, ge=1)
    seed: int = Field(0, ge=0)
    sharpness: float = Field(0.0, ge=0, le=50, allow_inf_nan=False)
    ridge: float | None = Field(None, gt=0, allow_inf_nan=False)
    weighting: float = Field(0.0, ge=0, allow_inf_nan=False)
    mapping: float = Field(1.0, ge=0, allow_inf_nan=False)
    closeness: float = Field(0.0, ge=0, allow_inf_nan=False)


class ContentMap:
    """`als` and `cosine` as fitted; `maps`: {modality: float32 [dim, factors]}, and `bias` [1, factors]."""

    name: ClassVar[str] = "content_map"

    def __init__(self, **settings: Any) -> None:
        self.config = ContentMapConfig(**settings)
        chosen = self.config.model_dump()
        self.als = Als(**{name: chosen[name] for name in AlsConfig.model_fields})
        self.cosine = ContentCosine(**{name: chosen[name] for name in ContentConfig.model_fields})
        self.maps: dict[str, Float32] = {}
        self.scale = 0.0

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Raises `ranker.too_few_events`, `ranker.not_finite` and `ranker.training_failed` (no features)."""
        check_fit(data)
        self.cosine.fit(data)
        self.als.fit(data, run)
        matrix = trained_on(data.log, self.config)
        watched = np.flatnonzero(self.als.popular)
        acts = np.bincount(matrix.indices, minlength=matrix.shape[1])[watched].astype(np.float64)
        rows = self._rows()[watched]
        chosen, found = _ridge_map(
            rows, self.als.videos[watched].astype(np.float64), acts**self.config.weighting, self.config.ridge
        )
        start = 0
        for name, features in self.cosine.features.items():
            weight = np.sqrt(weight_of(self.config, self.cosine.features)[name])
            self.maps[name] = np.asarray(found[start : start + features.shape[1]] * weight, np.float32)
            start += features.shape[1]
        self.maps[BIAS] = np.asarray(found[start:], np.float32)
        some = np.flatnonzero(np.diff(matrix.indptr))[:256].astype(np.int64)
        mapped = self.als.factors_of(data.log, some) @ self._mapped().T
        # Less each viewer's own mean: what all videos share ranks none.
        self.scale = float((mapped - mapped.mean(axis=1, keepdims=True)).std())
        return {"ridge": chosen, "modalities": sorted(self.cosine.features), "scale": self.scale}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """float32 [len(viewers), n_videos]."""
        scores = np.zeros((len(viewers), log.n_videos), np.float32)
        known = min(log.n_videos, len(self.als.popular))
        rows = histories(log, viewers, self.config, len(self.als.popular))
        mapped = self.als.factors_of(log, viewers) @ self._mapped().T
        scores[:, :known] = np.float32(self.config.mapping) * mapped[:, :known]
        if self.config.closeness:
            scores += np.float32(self.config.closeness * self._unit()) * self.cosine.score(log, viewers)
        empty = np.diff(rows.indptr) == 0
        scores[empty] = 0
        scores[empty, :known] = self.als.popular[:known]
        return scores

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """What each modality adds by the map, what all videos have (`bias`), and by which watched video it is near."""
        row = histories(log, np.array([viewer]), self.config, len(self.als.popular))
        if not row.nnz:
            return by_popularity(self.als.popular, video)
        if video >= len(self.als.popular):
            return []
        own = self.als.factors_of(log, np.array([viewer]))[0] * self.config.mapping
        found = [
            Reason("modality", name, float((features[video] @ self.maps[name]) @ own))
            for name, features in self.cosine.features.items()
        ]
        found.append(Reason("factor", BIAS, float(self.maps[BIAS][0] @ own)))
        if self.config.closeness:
            share = self.config.closeness * self._unit()
            near = self.cosine.explain(log, viewer, video)
            found += [Reason(one.kind, one.name, share * one.share) for one in near]
        return sorted((one for one in found if one.share), key=lambda one: (-one.share, one.kind, one.name))

    def arrays(self) -> Arrays:
        """What ALS and the cosine learnt, `map.MODALITY`, `map.bias` and `scale`."""
        return (
            {f"als.{name}": array for name, array in self.als.arrays().items()}
            | {f"cosine.{name}": array for name, array in self.cosine.arrays().items()}
            | {f"map.{name}": array for name, array in self.maps.items()}
            | {"scale": np.array([self.scale], np.float64)}
        )

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises `ranker.bad_model`."""
        model = cls(**config)
        model.als = Als.from_arrays(model.als.config.model_dump(), _under(arrays, "als"))
        model.cosine = ContentCosine.from_arrays(model.cosine.config.model_dump(), _under(arrays, "cosine"))
        model.maps = {name: np.asarray(array, np.float32) for name, array in _under(arrays, "map").items()}
        wanted = {name: (rows.shape[1], model.config.factors) for name, rows in model.cosine.features.items()}
        wanted[BIAS] = (1, model.config.factors)
        if {name: array.shape for name, array in model.maps.items()} != wanted:
            raise ModelError("ranker.bad_model", "The maps of the stored model do not fit its features.")
        if len(model.cosine.popular) != len(model.als.popular):
            raise ModelError("ranker.bad_model", "The parts of the stored model are of different videos.")
        model.scale = float(arrays["scale"][0])
        return model

    def _rows(self) -> Float64:
        """float64 [n_videos, dims + 1]: all modalities beside each other by their weights, and a 1 at the end."""
        weights = weight_of(self.config, self.cosine.features)
        columns = [np.sqrt(weights[name]) * rows.astype(np.float64) for name, rows in self.cosine.features.items()]
        return np.column_stack([*columns, np.ones(len(self.als.popular))])

    def _mapped(self) -> Float64:
        """float64 [n_videos, factors]."""
        found = np.tile(self.maps[BIAS].astype(np.float64), (len(self.als.popular), 1))
        for name, rows in self.cosine.features.items():
            found += rows @ self.maps[name]
        return found

    def _unit(self) -> float:
        """What one of closeness is worth: the spread of mapped scores, or 1 where these do not count."""
        return self.scale if self.config.mapping else 1.0


def _ridge_map(rows: Float64, wanted: Float64, weight: Float64, ridge: float | None) -> tuple[float, Float64]:
    """(the ridge, float64 [dims, factors]): weighted ridge regression; the last column, the bias, is not shrunk by
    more than a thousandth of the others."""
    root = np.sqrt(weight)[:, None]
    scaled, target = rows * root, wanted * root
    penalty = np.ones(rows.shape[1])
    penalty[-1] = 1e-3
    # Divided by the penalty's root the problem is an ordinary ridge, which one decomposition solves for every ridge.
    values, vectors = np.linalg.eigh((scaled / np.sqrt(penalty)).T @ (scaled / np.sqrt(penalty)))
    values = np.maximum(values, 0)
    turned = (scaled / np.sqrt(penalty)) @ vectors
    right = turned.T @ target
    candidates = RIDGES if ridge is None else (ridge,)
    best: tuple[float, float] | None = None
    for one in candidates:
        shrunk = 1 / (values + one * weight.mean())
        if len(candidates) > 1:
            residual = target - turned @ (shrunk[:, None] * right)
            leverage = np.einsum("ij,j,ij->i", turned, shrunk, turned)
            error = float(np.square(residual / np.maximum(1 - leverage, 1e-6)[:, None]).sum())
        else:
            error = 0.0
        if best is None or error < best[0]:
            best = error, one
    if best is None:
        raise AssertionError("there is always a candidate")
    found = vectors @ (right / (values + best[1] * weight.mean())[:, None])
    return best[1], np.asarray(found / np.sqrt(penalty)[:, None], np.float64)


def _under(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(prefix + ".")}
