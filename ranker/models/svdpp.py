"""SVD++: a viewer is his own factor and the sum of what he watched (Koren 2008, equation 15).

    vector_u = p_u + |N(u)|^-1/2 sum over j in N(u) of y_j
    ranking:   score(u, i) = bias_i + vector_u . q_i                       softmax over all videos
    ratings:   score(u, i) = mean + bias_u + bias_i + vector_u . q_i       squared error of the stars that were given

By predicted stars the paper's model ranks worse than popularity does, for stars say nothing of who would watch: the
implicit sum stays, and `loss: "ranking"` learns it by the softmax loss (`ranking_loss.softmax_loss`). In ranking, a
share of each history is left out in a step and is what the rest of it must find (`hide`, as in denoising autoencoders,
Wu et al. 2016): otherwise y_i learns to find i itself, which a feed never shows again.

N(u) is what the log holds when scores are asked for, with a value above 0, so later acts count at once; of a viewer who
was not in training it is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy import sparse  # type: ignore[import-untyped]
from torch import Tensor, nn

from ranker.interactions import Sparse
from ranker.models.factors import Factors, fingerprint, largest_first, remembered
from ranker.models.learning import LearningConfig, Rows, learn, seed_of, shuffled
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.ranking_loss import softmax_loss, sparse_sum
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData
from store.errors import InputError


class SvdPlusPlusConfig(LearningConfig):
    """A batch is one of viewers; `epochs` are passes over them."""

    epochs: int = Field(200, ge=1)
    batch: int = Field(256, ge=1)
    learning_rate: float = Field(0.01, gt=0, allow_inf_nan=False)
    evaluate_every: int = Field(5, ge=1)
    patience: int = Field(4, ge=1)
    loss: Literal["ranking", "ratings"] = "ranking"
    dim: int = Field(64, ge=1)
    l2: float = Field(0.03, ge=0, allow_inf_nan=False, description="On squared q and y, for each act that uses them.")
    l2_own: float = Field(0.03, ge=0, allow_inf_nan=False, description="The same on the viewers' own factors p.")
    l2_bias: float = Field(0.02, ge=0, allow_inf_nan=False, description="Ratings: the same on biases.")
    hide: float = Field(0.5, ge=0, lt=1, description="Share of a history that a step leaves out and asks for.")
    heavy: float = Field(1.0, ge=0, le=1, description="Ranking: a viewer of n videos counts n to this power.")
    half_rank: float | None = Field(None, gt=0, description="Scores: a video r places back counts exp(-r / half_rank).")
    most_candidates: int = Field(20_000, ge=1, description="Videos in a softmax; of more, so many are drawn.")


class _Network(nn.Module):
    def __init__(self, n_viewers: int, n_videos: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.viewers = nn.Parameter(0.05 * torch.randn(n_viewers, dim, generator=generator))
        self.videos = nn.Parameter(0.05 * torch.randn(n_videos, dim, generator=generator))
        self.memory = nn.Parameter(0.05 * torch.randn(n_videos, dim, generator=generator))
        self.bias = nn.Parameter(torch.zeros(n_videos))
        self.viewer_bias = nn.Parameter(torch.zeros(n_viewers))


class SvdPlusPlus:
    """Factors and an implicit sum, for ranking or for ratings."""

    name: ClassVar[str] = "svdpp"

    def __init__(self, **settings: Any) -> None:
        self.config = SvdPlusPlusConfig(**settings)
        self._factors: Factors
        self._viewer_bias: Float32
        # Mean, lowest and highest of the stars in training.
        self._stars: Float32

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Learn from all pairs with a value above 0, or from all stars. See `Model.fit`."""
        check_fit(data)
        chosen, asked, log = self.config, run or Run(), data.log
        network = _Network(log.n_viewers, log.n_videos, chosen.dim, seed_of(chosen.seed))
        self._stars = np.zeros(3, np.float32)
        if chosen.loss == "ranking":
            learners = np.flatnonzero(np.diff(log.binary.indptr)).astype(np.int64)
            network.viewer_bias.requires_grad_(False)
            loss_of = _ranking(network, data, learners, chosen)
        else:
            given = ~np.isnan(log.ratings)
            if int(given.sum()) < 2:
                raise InputError(
                    "ranker.too_few_events", "Fewer than two acts hold ratings.", hint="Learn by the ranking loss."
                )
            stars = log.ratings[given].astype(np.float64)
            self._stars = np.array([stars.mean(), stars.min(), stars.max()], np.float32)
            learners = np.unique(log.viewers[given])
            loss_of = _ratings(network, log, learners, float(self._stars[0]), chosen)

        def judge() -> float:
            self._take(network, data)
            assert asked.judge is not None
            return asked.judge(self)

        facts = learn(
            network,
            loss_of,
            lambda epoch: shuffled(len(learners), chosen.seed, epoch),
            chosen,
            asked,
            None if asked.judge is None else judge,
            (self.name, fingerprint(log)),
        )
        self._take(network, data)
        return facts

    def _take(self, network: _Network, data: TrainingData) -> None:
        own, videos, memory, bias, viewer_bias = (
            one.detach().numpy().copy()
            for one in (network.viewers, network.videos, network.memory, network.bias, network.viewer_bias)
        )
        had = np.diff(data.log.binary.indptr) > 0
        own[~had] = 0
        viewer_bias[~had] = 0
        memory[~data.seen_videos] = 0
        self._factors = Factors(own, videos, memory, bias, data.seen_videos)
        self._viewer_bias = viewer_bias

    def _weights(self, log: ActLog, viewers: Integers) -> Sparse:
        return remembered(log, viewers, self.config.half_rank)

    def _offset(self, viewers: Integers) -> Float32:
        """float32 [len(viewers)]: what all scores of a viewer have in common."""
        inside = viewers < len(self._viewer_bias)
        found = np.where(inside, self._viewer_bias[np.where(inside, viewers, 0)], 0) + self._stars[0]
        return np.asarray(found, np.float32)

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """See `Model.score`; predicted stars with `loss: "ratings"`. Videos without an act in training get the lowest
        score of the others."""
        found = self._factors.score(viewers, self._weights(log, viewers), log.n_videos)
        return np.asarray(found + self._offset(viewers)[:, None], np.float32)

    def predict_ratings(self, log: ActLog, viewers: Integers, videos: Integers) -> Float32:
        """float32 [n]: the stars that each viewer would give to the video in the same place, within the range of those
        in training. A video or a viewer without an act in training counts as an average one.

        Raises `request.invalid` for a model that was not fitted to ratings."""
        if self.config.loss != "ratings":
            raise InputError("request.invalid", "This model was fitted to rank.", hint='Fit it with loss "ratings".')
        factors = self._factors
        people, place = np.unique(viewers, return_inverse=True)
        weights = self._weights(log, people)[:, : len(factors.videos)]
        vectors = factors.own_of(people) + weights @ factors.memory
        known = (videos < len(factors.videos)) & factors.seen[np.minimum(videos, len(factors.seen) - 1)]
        rows = np.where(known, videos, 0)
        found = self._offset(viewers) + known * (
            factors.bias[rows] + np.einsum("nd,nd->n", vectors[place], factors.videos[rows])
        )
        return np.asarray(np.clip(found, self._stars[1], self._stars[2]), np.float32)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """Each watched video (its y), the viewer's own factor, the video's bias; of stars their mean and the viewer's
        bias too."""
        one = np.array([viewer], np.int64)
        reasons = self._factors.explain(viewer, self._weights(log, one), video)
        reasons.append(Reason("viewer", "bias", float(self._offset(one)[0] - self._stars[0])))
        reasons.append(Reason("ratings", "mean", float(self._stars[0])))
        return largest_first(reasons)

    def arrays(self) -> Arrays:
        """See `Model.arrays`."""
        return self._factors.arrays() | {"viewer_bias": self._viewer_bias, "stars": self._stars}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Model.from_arrays`."""
        made = cls(**config)
        made._factors = Factors.from_arrays(arrays)
        made._viewer_bias = np.asarray(arrays["viewer_bias"], np.float32)
        made._stars = np.asarray(arrays["stars"], np.float32)
        return made


def _ranking(network: _Network, data: TrainingData, learners: Integers, chosen: SvdPlusPlusConfig) -> Any:
    binary = data.log.binary
    of_videos = torch.from_numpy(np.asarray(binary.sum(axis=0), np.float32).ravel())

    def loss_of(rows: Rows) -> Tensor:
        some = learners[rows]
        history, targets = binary[some], binary[some]
        if chosen.hide:
            hidden = torch.rand(history.nnz).numpy() < chosen.hide
            history.data = (~hidden).astype(np.float32)
            targets.data = hidden.astype(np.float32)
        counts = np.maximum(np.asarray(targets.sum(axis=1)).ravel(), 1)
        targets = (sparse.diags((counts ** (chosen.heavy - 1)).astype(np.float32)) @ targets).tocsr()
        targets.eliminate_zeros()
        vectors = network.viewers[torch.from_numpy(some)]
        number = torch.from_numpy(np.diff(history.indptr).astype(np.float32))
        size = chosen.l2_own * (number * vectors.square().sum(dim=1)).sum()
        vectors = vectors + sparse_sum(_mean_root(history), network.memory)
        found = softmax_loss(
            vectors,
            network.videos,
            network.bias,
            targets,
            data.seen_videos,
            chosen.most_candidates,
            history if chosen.hide else None,
        )
        whole = (of_videos * (network.videos.square() + network.memory.square()).sum(dim=1)).sum()
        return found + size + chosen.l2 * (len(rows) / len(learners)) * whole

    return loss_of


def _ratings(network: _Network, log: ActLog, learners: Integers, mean: float, chosen: SvdPlusPlusConfig) -> Any:
    given = np.flatnonzero(~np.isnan(log.ratings))
    starts = np.searchsorted(log.viewers[given], np.arange(log.n_viewers + 1))
    history = _mean_root(log.binary)

    def loss_of(rows: Rows) -> Tensor:
        some = learners[rows]
        counts = starts[some + 1] - starts[some]
        # Places of all their ratings: each viewer's first one, and on from there.
        ends = np.cumsum(counts)
        steps = np.arange(int(ends[-1])) - np.repeat(ends - counts, counts)
        acts = given[np.repeat(starts[some], counts) + steps]
        place = torch.from_numpy(np.repeat(np.arange(len(some)), counts))
        people, videos = torch.from_numpy(some), torch.from_numpy(log.videos[acts])
        own, own_bias = network.viewers[people], network.viewer_bias[people]
        vectors = own + sparse_sum(history[some], network.memory)
        factors, biases = network.videos[videos], network.bias[videos]
        predicted = mean + own_bias[place] + biases + (vectors[place] * factors).sum(dim=1)
        error = (torch.from_numpy(log.ratings[acts]) - predicted).square().sum()
        number = torch.from_numpy(counts.astype(np.float32))
        # As in the paper each rating pays for all that it used.
        size = (number * (own.square().sum(dim=1) * chosen.l2_own + own_bias.square() * chosen.l2_bias)).sum()
        size = size + chosen.l2 * factors.square().sum() + chosen.l2_bias * biases.square().sum()
        memory = network.memory[torch.from_numpy(history[some].indices.astype(np.int64))]
        return error + size + chosen.l2 * memory.square().sum()

    return loss_of


def _mean_root(history: Sparse) -> Sparse:
    """CSR float32: rows of 0 and 1, times one by the root of their sums."""
    counts = np.asarray(history.sum(axis=1)).ravel()
    return (sparse.diags((1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)) @ history).tocsr()
