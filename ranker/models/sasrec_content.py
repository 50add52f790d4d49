"""SASRec over what videos are: vectors of content go in and come out, so that videos that nobody watched are ranked.

Inputs and outputs are each a projection of all features of a video, every modality at unit length, in the manner of
UniSRec (Hou et al., KDD 2022, "Towards Universal Sequence Representation Learning for Recommender Systems").
Training's softmax is over the videos that were watched: what nobody could watch yet is not taught to be bad. The linear
part (`transitions`) is what each watched video says of every other, as a ridge regression on the features predicts it.

Who was not in training is scored by his log like everybody else, who has none by what anybody begins with. A video with
neither features nor acts in training, or that came after it, gets the lowest score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from ranker.models.learning import seed_of
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.sequence_network import OF_NETWORK, DescribedVideos, SequenceNetwork, Transformer, marks_of
from ranker.models.sequence_ranker import SequenceConfig, SequenceRanker, stored, transitions_of
from ranker.models.training_data import ActLog, Content, Float32, Integers, TrainingData
from ranker.models.transitions import TransitionsConfig, by_content
from store.errors import InputError


class SasRecContentConfig(SequenceConfig):
    """`dim` is a multiple of `heads`. The linear part counts more than the network, and fades less, than where videos
    have vectors of their own: for new videos lasting taste says more than what was watched last."""

    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(1.0, ge=0, allow_inf_nan=False)
    dim: int = Field(32, ge=1, le=4096)
    linear_weight: float = Field(16.0, ge=0, allow_inf_nan=False)
    linear: TransitionsConfig = TransitionsConfig(rank=100.0, follow=0.0)
    blocks: int = Field(1, ge=1, le=24)
    heads: int = Field(2, ge=1, le=64)
    hidden: int = Field(128, ge=0, le=8192, description="Hidden width of the projections of features; 0: linear.")
    map_regularisation: float = Field(30.0, gt=0, allow_inf_nan=False, description="Of the linear part's regression.")

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"`dim` must be a multiple of `heads`, got {self.dim} and {self.heads}")
        return self


class SasRecContent:
    """A causal Transformer over the content of watched videos."""

    name: ClassVar[str] = "sasrec_content"

    def __init__(self, **settings: Any) -> None:
        self.config = SasRecContentConfig(**settings)
        self._ranker: SequenceRanker

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """See `Model.fit`. Raises `ranker.training_failed` where videos have no features and no tags."""
        check_fit(data)
        features = features_of(data.content, data.log.n_videos)
        described = np.asarray((features != 0).any(axis=1))
        if not described.any():
            raise InputError(
                "ranker.training_failed",
                "No video has features or tags, and this model knows videos by nothing else.",
                hint="Train sasrec or gru, which know videos by number.",
            )
        self._ranker = SequenceRanker(
            self.config,
            _network(self.config, torch.from_numpy(features)),
            by_content(transitions_of(data, self.config), features.astype(np.float64), self.config.map_regularisation),
            np.flatnonzero(described | data.seen_videos).astype(np.int64),
            described,
        )
        return self._ranker.train(
            data, run or Run(), self, (hashlib.sha256(features.tobytes()).hexdigest(), features.shape)
        )

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

        def network_of(n: int) -> SequenceNetwork:
            width = int(arrays["network.videos.features"].shape[1])
            return _network(made.config, torch.zeros(n, width))

        made._ranker = stored(made.config, arrays, network_of)
        return made


def features_of(content: Content, n_videos: int) -> Float32:
    """float32 [n_videos, f]: all modalities side by side in order of name, each at unit length; the tags, where there
    is no other feature."""
    parts = [content.features[name] for name in sorted(content.features)]
    if not parts and content.tags is not None:
        parts = [np.asarray(content.tags.toarray(), np.float32)]
    if not parts:
        return np.zeros((n_videos, 1), np.float32)
    lengths = [np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in parts]
    return np.hstack([part / length for part, length in zip(parts, lengths, strict=True)]).astype(np.float32)


def _network(config: SasRecContentConfig, features: torch.Tensor) -> SequenceNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, OF_NETWORK))
        body = Transformer(config.dim, config.blocks, config.heads, config.context, config.dropout)
        videos = DescribedVideos(features, config.dim, marks_of(config.dim, config.seed), config.hidden)
        return SequenceNetwork(videos, body, config.dim, config.dropout, config.times, config.acts)
