"""Two towers: who watches and what is watched, one inner product apart, with attention to what the viewer goes by.

The towers and the form of the score are in `tower_network`. A viewer is his history, so anybody with one act is scored,
in training or not; one without any gets what the biases say. A video without acts in training has no id and is scored
from its content alone; training takes ids away at random so that this works (item dropout: DropoutNet, Volkovs et al.
2017, section 4).

Learning: a part of a viewer's history is held back and found again from the rest, among all videos or among those that
others in the batch hold back. In the latter case a video is a rival as often as it is popular, so log q, q its chance
to be in the batch, is taken off its logit (Yi et al. 2019, "Sampling-bias-corrected neural modeling", equation 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ranker.models.learning import learn, shuffled
from ranker.models.model import Arrays, Reason, Run, check_fit
from ranker.models.tower_training import (
    HeldBack,
    TwoTowerConfig,
    begin,
    calibrate,
    history_of,
    network_of,
    sparse_tensor,
)
from ranker.models.training_data import ActLog, Content, Float32, Float64, Integers, TrainingData
from store.errors import ModelError

if TYPE_CHECKING:
    from ranker.models.tower_network import Parts, TowerNetwork, Videos

BATCH = 256
# How many watched videos an explanation names.
NAMED = 3
# The arrays with a row for each video, beside the features.
PER_VIDEO = ("known", "present", "watched", "ids", "bias")


@dataclass(frozen=True)
class Match:
    """Why a video fits: `interest` that speaks most for it and its `share` of the choice; `watched`, the videos that
    this interest attends to most, heaviest first, with weights that sum to at most 1; `weights` of the modalities,
    which sum to 1 (all 0 for a video that has none)."""

    interest: int
    share: float
    watched: tuple[tuple[int, float], ...]
    weights: Mapping[str, float]


class TwoTower:
    """The model; `tower_network` says what is computed."""

    name: ClassVar[str] = "two_tower"

    def __init__(self, **settings: Any) -> None:
        self.config = TwoTowerConfig(**settings)
        self._network: TowerNetwork | None = None
        self._videos: Videos | None = None

    def fit(self, data: TrainingData, run: Run | None = None) -> dict[str, Any]:
        """See `Model.fit`. Modalities in which no video has anything are left out, and named in the facts."""
        import torch

        check_fit(data)
        config, run, log = self.config, run or Run(), data.log
        held = HeldBack(log, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network, left_out = begin(data, config)
            calibrate(network, held, config)

            def judge() -> float:
                self._use(network)
                return run.judge(self) if run.judge is not None else 0.0

            facts = learn(
                network,
                lambda rows: held.loss(network, held.viewers[rows]),
                lambda epoch: shuffled(len(held.viewers), config.seed, epoch),
                config,
                run,
                judge if run.judge is not None else None,
                [self.name, held.mark, *network.modalities],
            )
        network.settle()
        self._use(network)
        return facts | {"modalities": list(network.modalities), "left_out": left_out}

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """See `Model.score`. Raises `ranker.bad_model` for a log of another number of videos: `extended` adds some."""
        import torch

        network, videos = self._fitted(log)
        history = history_of(log, self.config.half_rank)
        found = np.empty((len(viewers), log.n_videos), np.float32)
        with torch.no_grad():
            for start in range(0, len(viewers), BATCH):
                some = viewers[start : start + BATCH]
                asked = network.viewers(sparse_tensor(history[some]), videos)
                found[start : start + len(some)] = network.score(asked, videos).numpy()
        return found

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """What each modality adds; what the ids of the watched videos add, the strongest `NAMED` by name and the rest
        together; and the bias: how popular the video is beyond all that."""
        network, videos = self._fitted(log)
        watched, weights, parts = self._look(log, viewer, video)
        chosen = parts.chosen[0, :, 0].numpy()
        added = chosen @ parts.content[0, :, 0].numpy()
        reasons = [
            Reason("modality", name, float(added[place]))
            for place, name in enumerate(network.modalities)
            if videos.has[video, place]
        ]
        # <c_k, y> is a sum over what was watched; its factor is what the size of the history does to c.
        agreed = videos.watched[watched].numpy() @ videos.ids[video].numpy()
        size = float(history_of(log, self.config.half_rank)[[viewer]].sum()) if len(watched) else 0.0
        each = (chosen @ weights) * agreed * size ** (1 - self.config.power)
        order = np.argsort(-np.abs(each), kind="stable")
        named = [place for place in order[:NAMED] if each[place]]
        reasons += [Reason("video", str(int(watched[place])), float(each[place])) for place in named]
        reasons.append(Reason("factor", "watched", float(chosen @ parts.ids[0, :, 0].numpy() - each[named].sum())))
        reasons.append(Reason("popularity", "bias", float(videos.bias[video])))
        return sorted(reasons, key=lambda reason: -abs(reason.share))

    def match(self, log: ActLog, viewer: int, video: int) -> Match:
        """Which of the viewer's interests a video meets, and by which modalities."""
        network, _ = self._fitted(log)
        watched, weights, parts = self._look(log, viewer, video)
        chosen = parts.chosen[0, :, 0].numpy()
        interest = int(chosen.argmax())
        heaviest = np.argsort(-weights[interest], kind="stable")[:NAMED]
        return Match(
            interest,
            float(chosen[interest]),
            tuple((int(watched[place]), float(weights[interest, place])) for place in heaviest),
            dict(zip(network.modalities, map(float, parts.weights[0, interest, 0]), strict=True)),
        )

    def extended(self, content: Content, n_videos: int) -> TwoTower:
        """The same model with videos that came after training, rows from the old number to `n_videos` - 1 of
        `content`: they have no ids, and are served from their content at once."""
        arrays = self.arrays()
        old = len(arrays["known"])
        if n_videos < old:
            raise ValueError(f"{n_videos} videos are fewer than the {old} that the model has")
        for name, rows in arrays.items():
            if name.startswith("features_"):
                given = content.features.get(name.removeprefix("features_"))
                more = np.zeros((n_videos - old, rows.shape[1]), np.float32) if given is None else given[old:n_videos]
                if more.shape != (n_videos - old, rows.shape[1]) or not np.isfinite(more).all():
                    raise ModelError("ranker.not_finite", f"New rows of {name} are not finite, or not of its shape.")
                arrays[name] = np.concatenate([rows, more.astype(np.float32)])
            elif name in PER_VIDEO:
                arrays[name] = np.concatenate([rows, np.zeros((n_videos - old, *rows.shape[1:]), rows.dtype)])
        return TwoTower.from_arrays(self.config.model_dump(), arrays)

    def arrays(self) -> Arrays:
        """The network's tensors by name, the features that it was given among them."""
        network, _ = self._fitted()
        return {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Model.from_arrays`."""
        import torch

        model = cls(**config)
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        prefix = "features_"
        features = {name.removeprefix(prefix): rows for name, rows in tensors.items() if name.startswith(prefix)}
        try:
            network = network_of(features, tensors["known"], model.config)
            # What a video has is read off its features, which may have grown.
            tensors["present"] = network.present
            network.load_state_dict(tensors)
        except (KeyError, RuntimeError, IndexError) as error:
            raise ModelError("ranker.bad_model", f"The towers do not fit together ({type(error).__name__}).") from error
        model._use(network.eval())
        return model

    def _look(self, log: ActLog, viewer: int, video: int) -> tuple[Integers, Float64, Parts]:
        """(what was watched [h], how much each interest attends to it [K, h], the score's parts)."""
        import torch

        network, videos = self._fitted(log)
        history = history_of(log, self.config.half_rank)[[viewer]]
        with torch.no_grad():
            parts = network.parts(
                network.viewers(sparse_tensor(history), videos), videos.only(torch.tensor([video], dtype=torch.int64))
            )
            weights = network.interest(videos)[history.indices].numpy().astype(np.float64).T * history.data
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
        return history.indices.astype(np.int64), weights / total, parts

    def _use(self, network: TowerNetwork) -> None:
        import torch

        with torch.no_grad():
            self._network, self._videos = network, network.videos()

    def _fitted(self, log: ActLog | None = None) -> tuple[TowerNetwork, Videos]:
        if self._network is None or self._videos is None:
            raise ModelError("ranker.bad_model", "The towers have not been fitted.")
        n = len(self._videos.bias)
        if log is not None and log.n_videos != n:
            raise ModelError("ranker.bad_model", f"The towers know {n} videos, and {log.n_videos} are asked about.")
        return self._network, self._videos
