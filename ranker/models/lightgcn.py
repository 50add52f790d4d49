"""LightGCN: vectors of viewers and videos, averaged over their neighbours in the graph of who had what.

He et al. 2020:

    e(0) is learnt      e_u(k+1) = sum over i of e_i(k) / sqrt(|N(u)| |N(i)|), and the same the other way round
    e = mean of e(0) .. e(layers)                  score(u, i) = e_u . e_i

Layers are the paper's: no weights, no activations. What differs is the loss: softmax over all videos for each viewer
(`ranking_loss.softmax_loss`) in place of BPR's single negatives, as the layers, the dear part, are then computed once
for all pairs of a batch of viewers and not once for each few thousand pairs.

A viewer's layers above the lowest are sums over the videos he had, so they follow the log that is given when scores are
asked for. A viewer who was not in training is those sums alone: the propagated mean of his videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from ranker.interactions import Sparse
from ranker.models.factors import Factors, fingerprint, remembered
from ranker.models.learning import LearningConfig, Rows, learn, seed_of, shuffled
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.ranking_loss import softmax_loss, sparse_sum
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData


class LightGcnConfig(LearningConfig):
    """A batch is one of viewers; `epochs` are passes over them."""

    epochs: int = Field(300, ge=1)
    batch: int = Field(1024, ge=1)
    learning_rate: float = Field(0.05, gt=0, allow_inf_nan=False)
    evaluate_every: int = Field(5, ge=1)
    patience: int = Field(4, ge=1)
    dim: int = Field(64, ge=1)
    layers: int = Field(2, ge=1, le=8)
    l2: float = Field(0.01, ge=0, allow_inf_nan=False, description="On squared lowest vectors, for each act of theirs.")
    heavy: float = Field(1.0, ge=0, le=1, description="A viewer of n videos counts n to this power.")
    hide: float = Field(0.0, ge=0, lt=1, description="Share of the edges that a step leaves out, and alone asks for.")
    half_rank: float | None = Field(None, gt=0, description="Scores: a video r places back counts exp(-r / half_rank).")
    most_candidates: int = Field(20_000, ge=1, description="Videos in a softmax; of more, so many are drawn.")


class _Network(nn.Module):
    def __init__(self, n_viewers: int, n_videos: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.viewers = nn.Parameter(0.1 * torch.randn(n_viewers, dim, generator=generator))
        self.videos = nn.Parameter(0.1 * torch.randn(n_videos, dim, generator=generator))

    def propagated(self, edges: Sparse, layers: int) -> tuple[Tensor, Tensor]:
        """Mean of all layers, of viewers and of videos."""
        return _propagated(edges, self.viewers, self.videos, layers)


def _propagated(edges: Sparse, viewers: Tensor, videos: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    all_viewers, all_videos = viewers, videos
    for _ in range(layers):
        viewers, videos = sparse_sum(edges, videos), sparse_sum(edges.T, viewers)
        all_viewers, all_videos = all_viewers + viewers, all_videos + videos
    return all_viewers / (layers + 1), all_videos / (layers + 1)


class LightGcn:
    """Graph convolution without weights."""

    name: ClassVar[str] = "lightgcn"

    def __init__(self, **settings: Any) -> None:
        self.config = LightGcnConfig(**settings)
        self._factors: Factors

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Learn from all pairs with a value above 0. See `Model.fit`."""
        check_fit(data)
        chosen, asked, log = self.config, run or Run(), data.log
        counts = np.diff(log.binary.indptr)
        edges, targets = _edges(log), log.binary.copy()
        targets.data *= np.repeat(np.maximum(counts, 1).astype(np.float32) ** np.float32(chosen.heavy - 1), counts)
        learners = np.flatnonzero(counts).astype(np.int64)
        network = _Network(log.n_viewers, log.n_videos, chosen.dim, seed_of(chosen.seed))
        flat = torch.zeros(log.n_videos)
        of_viewers = counts.astype(np.float32)
        of_videos = torch.from_numpy(np.bincount(log.binary.indices, minlength=log.n_videos).astype(np.float32))

        def loss_of(rows: Rows) -> Tensor:
            some = learners[rows]
            kept, asked_for, given = edges, targets[some], None
            if chosen.hide:
                hidden = torch.rand(edges.nnz).numpy() < chosen.hide
                kept, asked_for = edges.copy(), targets.copy()
                kept.data = np.where(hidden, np.float32(0), kept.data / np.float32(1 - chosen.hide))
                asked_for.data = np.where(hidden, targets.data, np.float32(0))
                asked_for, given = asked_for[some], kept[some]
            viewers, videos = network.propagated(kept, chosen.layers)
            vectors = viewers[torch.from_numpy(some)]
            own = network.viewers[torch.from_numpy(some)].square().sum(dim=1)
            size = (torch.from_numpy(of_viewers[some]) * own).sum()
            size = size + (of_videos * network.videos.square().sum(dim=1)).sum() * (len(rows) / len(learners))
            found = softmax_loss(vectors, videos, flat, asked_for, data.seen_videos, chosen.most_candidates, given)
            return found + chosen.l2 * size

        def judge() -> float:
            self._take(network, data, edges)
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
        self._take(network, data, edges)
        return facts

    def _take(self, network: _Network, data: TrainingData, edges: Sparse) -> None:
        layers = self.config.layers
        with torch.no_grad():
            _, videos = network.propagated(edges, layers)
            # What a viewer's layers 1.. sum over: the videos' layers 0.. but the last.
            _, below = _propagated(edges, network.viewers, network.videos, layers - 1)
        counts = np.asarray(data.log.binary.sum(axis=0)).ravel()
        memory = below.numpy() * np.float32(layers / (layers + 1)) / np.sqrt(np.maximum(counts, 1))[:, None]
        own = np.asarray(network.viewers.detach().numpy() / (layers + 1), np.float32)
        own[np.diff(data.log.binary.indptr) == 0] = 0
        bias = np.zeros(len(memory), np.float32)
        self._factors = Factors(own, videos.numpy().copy(), memory.astype(np.float32), bias, data.seen_videos)

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """See `Model.score`. Videos without an act in training get the lowest score of the others."""
        return self._factors.score(viewers, remembered(log, viewers, self.config.half_rank), log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """Each watched video (what it brings by way of all layers) and the viewer's own lowest layer."""
        weights = remembered(log, np.array([viewer], np.int64), self.config.half_rank)
        return self._factors.explain(viewer, weights, video)

    def arrays(self) -> Arrays:
        """See `Model.arrays`."""
        return self._factors.arrays()

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Model.from_arrays`."""
        made = cls(**config)
        made._factors = Factors.from_arrays(arrays)
        return made


def _edges(log: ActLog) -> Sparse:
    """CSR float32 [n_viewers, n_videos]: 1 / sqrt(|N(u)| |N(i)|) where u had i (equation 3)."""
    found = log.binary.copy()
    of_viewers, of_videos = np.diff(found.indptr), np.bincount(found.indices, minlength=log.n_videos)
    found.data = (1 / np.sqrt(np.repeat(of_viewers, of_viewers) * of_videos[found.indices])).astype(np.float32)
    return found
