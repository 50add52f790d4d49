"""How a sequence network is trained, scores, explains itself and is stored: what the sequence models have in common.

    score(u, i) = network_i - mean over candidates of network  +  linear_weight * transitions_i

The candidates are the videos that may be said: with vectors by number those that training saw, with vectors of content
all of them. The two parts are fitted each by itself, and early stopping goes by their sum: fitted together, the linear
part, which saw the same steps, would leave the network little to learn. A video that is no candidate gets the lowest
score of the row. A viewer without acts gets what anybody begins with, as training saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ranker.models.learning import LearningConfig, Rows, learn
from ranker.models.model import Arrays, Model, Reason, Run
from ranker.models.sequence_network import SequenceNetwork, first_of
from ranker.models.training_data import ActLog, Float32, Integers, TrainingData
from ranker.models.transitions import Transitions, TransitionsConfig, fitted, left_out
from ranker.models.watch_sequences import Sequences, acts_of, cut, fingerprint, newest, windows_of, without_each
from store.errors import ModelError

VIEWERS_AT_ONCE = 256


class SequenceConfig(LearningConfig):
    """What all sequence models can be told. A batch is one of windows."""

    epochs: int = Field(8, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0, allow_inf_nan=False)
    patience: int = Field(3, ge=1)
    dim: int = Field(64, ge=1, le=4096)
    context: int = Field(50, ge=1, le=4096, description="Newest steps that are looked at; steps of a window.")
    dropout: float = Field(0.3, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    times: bool = Field(True, description="Whether the time between acts goes in.")
    acts: bool = Field(True, description="Whether watched shares, kinds and stars go in.")
    begin_near: bool = Field(True, description="Whether vectors of videos begin with what is watched near what.")
    linear_weight: float = Field(0.25, ge=0, allow_inf_nan=False, description="What the transitions count; 0: none.")
    linear: TransitionsConfig = TransitionsConfig()
    most_candidates: int = Field(20_000, ge=2, description="Videos in a softmax; of more, so many are drawn.")


class SequenceRanker:
    """`network`; `candidates`: int64 [k], in order, which videos it can say; `known`: bool [n], which ones it knows the
    vectors of, as inputs."""

    def __init__(
        self,
        config: SequenceConfig,
        network: SequenceNetwork,
        transitions: Transitions,
        candidates: Integers,
        known: npt.NDArray[np.bool_],
    ) -> None:
        self.config, self.network, self.transitions = config, network, transitions
        self.candidates, self.known = candidates, known

    def train(self, data: TrainingData, run: Run, model: Model, identity: tuple[Any, ...] = ()) -> dict[str, Any]:
        """Learn all steps of all viewers. `model`: the owner, for the judge. Returns facts for the card."""
        config, log = self.config, data.log
        sequences = Sequences.of(log, self.known)
        said = np.flatnonzero(data.seen_videos).astype(np.int64)
        column = np.full(len(self.known), -1, np.int64)
        column[said] = np.arange(len(said))
        counts = np.bincount(column[log.videos[log.values > 0]], minlength=len(said)).astype(np.float64)
        drawn_from = torch.from_numpy(counts / counts.sum()) if len(said) > config.most_candidates else None
        of_a_window = max(int(sequences.right.sum()) / max(len(cut(sequences, config.context, config.seed, 0)), 1), 1.0)
        numbers = torch.from_numpy(said)

        def loss_of(rows: Rows) -> Tensor:
            windows = windows_of(sequences, rows, config.context)
            learnt = torch.from_numpy(windows.learnt)
            states = self.network.states(windows)[learnt]
            targets = torch.from_numpy(column[windows.targets[windows.learnt]])
            if drawn_from is None:
                vectors, biases = self.network.videos.outputs(numbers)
                logits = states @ vectors.T + biases
                loss = functional.cross_entropy(
                    logits, targets, reduction="sum", label_smoothing=config.label_smoothing
                )
            else:
                loss = self._sampled(states, targets, numbers, drawn_from)
            return loss / of_a_window

        def judge() -> float:
            assert run.judge is not None
            return run.judge(model)

        facts = learn(
            self.network,
            loss_of,
            lambda epoch: cut(sequences, config.context, config.seed, epoch),
            config,
            run,
            judge if run.judge is not None else None,
            (model.name, config.model_dump(), fingerprint(log), *identity),
        )
        left = config.linear_weight > 0 and not len(self.transitions.places)
        return facts | ({"left_out": "transitions: too many videos"} if left else {})

    def _sampled(self, states: Tensor, targets: Tensor, numbers: Tensor, chances: Tensor) -> Tensor:
        """Softmax over the target and videos drawn by how often they were watched, each less the logarithm of how often
        it is drawn (Bengio and Senecal 2008): without that, what is watched much is punished for it."""
        draws = self.config.most_candidates - 1
        drawn = torch.multinomial(chances, draws, replacement=True)
        expected = torch.log(chances * draws).float()
        vectors, biases = self.network.videos.outputs(numbers[drawn])
        others = states @ vectors.T + biases - expected[drawn]
        others = others.masked_fill(targets[:, None] == drawn[None, :], -torch.inf)
        vectors, biases = self.network.videos.outputs(numbers[targets])
        own = (states * vectors).sum(dim=1) + biases - expected[targets]
        return (torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own).sum()

    def score(self, log: ActLog, viewers: Integers) -> Float32:
        """See `Model.score`."""
        scores, n = np.zeros((len(viewers), log.n_videos), np.float32), len(self.known)
        numbers = torch.from_numpy(self.candidates)
        inside = self.candidates[self.candidates < log.n_videos]
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            vectors, biases = self.network.videos.outputs(numbers)
            for start in range(0, len(viewers), VIEWERS_AT_ONCE):
                own = acts_of(log, viewers[start : start + VIEWERS_AT_ONCE])
                some = np.arange(own.n_viewers)
                windows = newest(Sequences.of(own, self.known), some, self.config.context)
                states = self.network.states(windows)[torch.arange(len(some)), torch.from_numpy(windows.last)]
                logits = states @ vectors.T + biases
                found = np.zeros((len(some), n), np.float32)
                found[:, self.candidates] = (logits - logits.mean(dim=1, keepdim=True)).numpy()
                if len(self.transitions.places):
                    found += np.float32(self.config.linear_weight) * self.transitions.score(own, some)
                rows = slice(start, start + len(some))
                scores[rows] = found[:, inside].min(axis=1, keepdims=True)
                scores[rows, inside] = found[:, inside]
        self.network.train(training)
        return scores

    def explain(self, log: ActLog, viewer: int, video: int) -> list[Reason]:
        """By watched video: what the score would lose if the viewer had not had it. `together` is the rest: what acts
        say only with each other, and how the video ranks for anybody."""
        own = acts_of(log, np.array([viewer], np.int64))
        whole = float(self.score(own, np.zeros(1, np.int64))[0, video])
        reach = np.unique(own.videos[-self.config.context :])
        if not len(reach):
            return [Reason("popularity", "", whole)]
        if video not in self.candidates:
            return [Reason("floor", "", whole)]
        variants = self.score(without_each(own, reach), np.arange(len(reach)))[:, video]
        shares = whole - variants.astype(np.float64)
        reasons = [Reason("video", str(one), float(share)) for one, share in zip(reach, shares, strict=True) if share]
        reasons.append(Reason("together", "", whole - sum(reason.share for reason in reasons)))
        return sorted(reasons, key=lambda reason: -reason.share)

    def arrays(self) -> Arrays:
        """See `Model.arrays`."""
        found = {f"network.{name}": part.detach().numpy().copy() for name, part in self.network.state_dict().items()}
        return found | {
            "candidates": self.candidates,
            "known": self.known,
            "transitions.places": self.transitions.places,
            "transitions.weights": self.transitions.weights,
        }


def transitions_of(data: TrainingData, config: SequenceConfig) -> Transitions:
    """The linear part, or nothing where it counts nothing."""
    if not config.linear_weight:
        return left_out(data.log.n_videos, config.linear.rank)
    return fitted(data.log, config.linear)


def by_number(
    data: TrainingData, config: SequenceConfig, network_of: Callable[[Tensor], SequenceNetwork]
) -> SequenceRanker:
    """An untaught ranker of videos that are known by number, which says those that training has. `network_of`: the
    network whose videos begin with the vectors float32 [n_videos, dim] that it is given."""
    first = first_of(data.log, config.dim, config.seed, config.linear.most_videos if config.begin_near else 0)
    said = np.flatnonzero(data.seen_videos).astype(np.int64)
    return SequenceRanker(config, network_of(first), transitions_of(data, config), said, data.seen_videos)


def stored(
    config: SequenceConfig, arrays: Mapping[str, npt.NDArray[Any]], network_of: Callable[[int], SequenceNetwork]
) -> SequenceRanker:
    """What `arrays` made. `network_of`: the untrained network for n videos. Raises `ranker.bad_model`."""
    try:
        known = np.asarray(arrays["known"], np.bool_)
        candidates = np.asarray(arrays["candidates"], np.int64)
        places = np.asarray(arrays["transitions.places"], np.int64)
        weights = np.asarray(arrays["transitions.weights"], np.float32)
        network = network_of(len(known))
        prefix = "network."
        parts = {name[len(prefix) :]: torch.tensor(a) for name, a in arrays.items() if name.startswith(prefix)}
        network.load_state_dict(parts)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _bad(f"its parts do not fit together ({type(error).__name__})") from error
    inside = all(not len(rows) or 0 <= rows.min() <= rows.max() < len(known) for rows in (candidates, places))
    if not inside or weights.shape != (len(places), len(known)):
        raise _bad("a place in it is no video")
    network.eval()
    return SequenceRanker(config, network, Transitions(config.linear.rank, places, weights), candidates, known)


def _bad(why: str) -> ModelError:
    return ModelError("ranker.bad_model", f"The stored model cannot be served: {why}.", hint="Train it again.")
