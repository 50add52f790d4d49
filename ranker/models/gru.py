"""GRU4Rec: what a viewer wants next, by a recurrent network over what he watched (Hidasi et al. 2016, "Session-based
Recommendations with Recurrent Neural Networks").

What differs from the paper: softmax over all videos in place of pairs with those of the same batch, tied vectors that
begin in closed form, the time between acts, watched shares, kinds and stars beside the videos, and a linear part beside
the network (`transitions`).

Who was not in training is scored by his log like everybody else, who has none by what anybody begins with. Videos that
training did not see get the lowest score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy.typing as npt
import torch
from pydantic import Field

from ranker.models.learning import seed_of
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.sequence_network import OF_NETWORK, NumberedVideos, Recurrent, SequenceNetwork, marks_of
from ranker.models.sequence_ranker import SequenceConfig, SequenceRanker, by_number, stored
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData


class GruConfig(SequenceConfig):
    """How deep it is."""

    learning_rate: float = Field(4e-3, gt=0, allow_inf_nan=False)
    context: int = Field(30, ge=1, le=4096)
    layers: int = Field(1, ge=1, le=8)


class Gru:
    """A recurrent network over watched videos."""

    name: ClassVar[str] = "gru"

    def __init__(self, **settings: Any) -> None:
        self.config = GruConfig(**settings)
        self._ranker: SequenceRanker

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """See `Model.fit`."""
        check_fit(data)
        self._ranker = by_number(data, self.config, lambda first: _network(self.config, first))
        return self._ranker.train(data, run or Run(), self)

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """See `Model.score`."""
        return self._ranker.score(log, viewers)

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By watched video, what the score would lose without it, and what they say together."""
        return self._ranker.explain(log, viewer, video)

    def arrays(self) -> Arrays:
        """See `Model.arrays`."""
        return self._ranker.arrays()

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Model.from_arrays`."""
        made = cls(**config)
        made._ranker = stored(made.config, arrays, lambda n: _network(made.config, torch.zeros(n, made.config.dim)))
        return made


def _network(config: GruConfig, first: torch.Tensor) -> SequenceNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, OF_NETWORK))
        body = Recurrent(config.dim, config.layers, config.dropout)
        videos = NumberedVideos(first, marks_of(config.dim, config.seed))
        return SequenceNetwork(videos, body, config.dim, config.dropout, config.times, config.acts)
