"""Bayesian personalised ranking of matrix factors: Rendle et al. 2009.

    score(u, i) = bias_i + p_u . q_i          loss = -log sigmoid(score(u, i) - score(u, j)), i had by u and j not

The loss is the paper's. What differs: triples are learnt in large batches by AdamW, because on one thread a step of a
thousand triples costs hardly more than a step of one; and j is the highest scored of `draws` videos drawn evenly
(Zhang et al. 2013, dynamic negative sampling), as most single draws are far below i already and teach nothing.

A viewer who was not in training is folded in from the videos in the log (`factors.folded_in`); one who was keeps what
was learnt of him, whatever he did since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ranker.models.factors import Factors, fingerprint, folded_in, watched
from ranker.models.learning import LearningConfig, Rows, learn, seed_of, shuffled
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData


class BprConfig(LearningConfig):
    """`epochs` are passes over all pairs of a viewer and a video."""

    epochs: int = Field(200, ge=1)
    batch: int = Field(8192, ge=1)
    learning_rate: float = Field(0.01, gt=0, allow_inf_nan=False)
    evaluate_every: int = Field(5, ge=1)
    patience: int = Field(4, ge=1)
    dim: int = Field(64, ge=1)
    draws: int = Field(4, ge=1, description="Videos drawn for a triple, of which the highest scored is learnt from.")
    l2: float = Field(0.02, ge=0, allow_inf_nan=False, description="On the squared vectors of each triple.")
    l2_bias: float = Field(0.0, ge=0, allow_inf_nan=False, description="On the squared biases of each triple.")


class _Network(nn.Module):
    def __init__(self, n_viewers: int, n_videos: int, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.viewers = nn.Parameter(0.1 * torch.randn(n_viewers, dim, generator=generator))
        self.videos = nn.Parameter(0.1 * torch.randn(n_videos, dim, generator=generator))
        self.bias = nn.Parameter(torch.zeros(n_videos))


class Bpr:
    """Matrix factors with the BPR loss."""

    name: ClassVar[str] = "bpr"

    def __init__(self, **settings: Any) -> None:
        self.config = BprConfig(**settings)
        self._factors: Factors

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """Learn from all pairs with a value above 0. See `Model.fit`."""
        check_fit(data)
        chosen, asked, log = self.config, run or Run(), data.log
        positives = log.binary.tocoo()
        viewers, videos = positives.row.astype(np.int64), positives.col.astype(np.int64)
        keys = viewers * log.n_videos + videos
        candidates = torch.from_numpy(np.flatnonzero(data.seen_videos))
        network = _Network(log.n_viewers, log.n_videos, chosen.dim, seed_of(chosen.seed))

        def loss_of(rows: Rows) -> Tensor:
            drawn = candidates[torch.randint(len(candidates), (len(rows), chosen.draws))]
            own = network.viewers[torch.from_numpy(viewers[rows])]
            return _loss(
                network, own, torch.from_numpy(videos[rows]), drawn, _had(keys, viewers[rows], drawn, log), chosen
            )

        def judge() -> float:
            self._take(network, data)
            assert asked.judge is not None
            return asked.judge(self)

        facts = learn(
            network,
            loss_of,
            lambda epoch: shuffled(len(keys), chosen.seed, epoch),
            chosen,
            asked,
            None if asked.judge is None else judge,
            (self.name, fingerprint(log)),
        )
        self._take(network, data)
        return facts

    def _take(self, network: _Network, data: TrainingData) -> None:
        own, videos, bias = (one.detach().numpy().copy() for one in (network.viewers, network.videos, network.bias))
        had = np.diff(data.log.binary.indptr) > 0
        own[~had] = 0
        history = watched(data.log, np.arange(data.log.n_viewers))
        memory = folded_in(own[had], videos, history[had])
        self._factors = Factors(own, videos, memory, bias, data.seen_videos)

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """See `Model.score`. Videos without an act in training get the lowest score of the others."""
        return self._factors.score(viewers, self._factors.strangers(log, viewers), log.n_videos)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """The viewer's factor (for a new viewer: each watched video) and the video's bias."""
        return self._factors.explain(viewer, self._factors.strangers(log, np.array([viewer], np.int64)), video)

    def arrays(self) -> Arrays:
        """See `Model.arrays`."""
        return self._factors.arrays()

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Model.from_arrays`."""
        made = cls(**config)
        made._factors = Factors.from_arrays(arrays)
        return made


def _loss(network: _Network, own: Tensor, videos: Tensor, drawn: Tensor, had: Tensor, chosen: BprConfig) -> Tensor:
    """Summed loss of triples. `own` [n, dim]; `videos` int64 [n]; `drawn` int64 [n, draws] and `had` bool, likewise."""
    with torch.no_grad():
        scores = torch.einsum("nd,nmd->nm", own, network.videos[drawn]) + network.bias[drawn]
        highest = scores.masked_fill(had, -torch.inf).argmax(dim=1, keepdim=True)
    others = drawn.gather(1, highest)[:, 0]
    # Where the viewer had all that was drawn the triple counts nothing.
    counts = (~had.gather(1, highest)[:, 0]).float()
    good, bad = network.videos[videos], network.videos[others]
    good_bias, bad_bias = network.bias[videos], network.bias[others]
    margin = (own * (good - bad)).sum(dim=1) + good_bias - bad_bias
    size = (own.square() + good.square() + bad.square()).sum(dim=1)
    penalty = chosen.l2 * size + chosen.l2_bias * (good_bias.square() + bad_bias.square())
    return (counts * (penalty - logsigmoid(margin))).sum()


def _had(keys: Integers, viewers: Integers, drawn: Tensor, log: ActLog) -> Tensor:
    """bool [n, draws]: which of the drawn videos the viewer had; `keys` are those of all pairs, in order."""
    asked = viewers[:, None] * log.n_videos + drawn.numpy()
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return torch.from_numpy(keys[place] == asked)
