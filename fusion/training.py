"""Training without labels, on the tokens that a catalogue has stored.

A run is a function of its videos, pairs and configuration: nothing is drawn from a shared generator, every view comes
from (seed, step, video). So the same run gives the same bytes on one machine, and a run that goes on from a checkpoint
gives those of one that was never stopped.

It stops early when videos that are held out stop gaining, and returns the best network seen, the one training began
with included: what training does not improve, it does not change.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fusion.batches import batch_of, check_tokens
from fusion.checkpoints import State, load_state, save_state
from fusion.gathering import Crew, crew
from fusion.network import AttentionNetwork, NetworkConfig, TokenBatch, pooled
from fusion.objectives import Heads, ObjectiveConfig, Seen, objective, seen
from fusion.optimising import optimiser_of, rate_at
from fusion.starts import StartConfig, starts_of
from fusion.trained import TrainedFusion
from fusion.views import TrainingVideo, View, ViewConfig, generator_for, one_view, two_views
from store.artifacts import digest
from store.errors import InputError, ModelError, PassingError

Pair = tuple[str, str]
LOOKS = 6  # draws of views at each look at the held-out videos


class TrainingConfig(BaseModel):
    """All that decides a run besides its videos and the network's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    seed: int = Field(0, ge=0)
    steps: int = Field(150, ge=1, description="Most steps of the optimiser.")
    batch: int = Field(128, ge=2, description="Most videos in a batch, over all processes.")
    learning_rate: float = Field(1e-3, gt=0, le=1e3, description="Of the attention, at the end of the warm-up.")
    projection_rate: float = Field(1e-4, ge=0, le=1e3, description="Of the projections, in units of their entries.")
    scalar_rate: float = Field(0.005, ge=0, le=1e3, description="Of the few numbers that weigh the modalities.")
    weight_decay: float = Field(0.01, ge=0, description="Of the attention's matrices (AdamW).")
    projection_decay: float = Field(10.0, ge=0, description="Pulls the projections back to where they began.")
    warm_up: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the rate rises.")
    clip: float = Field(1.0, gt=0, description="Longest gradient.")
    held_out: float = Field(0.15, ge=0, lt=1, description="Share of the videos that early stopping looks at.")
    evaluate_every: int = Field(15, ge=1, description="Steps between two looks at them.")
    patience: int = Field(4, ge=1, description="Looks without gain after which training ends.")
    checkpoint_every: int = Field(50, ge=1, description="Steps between two checkpoints.")
    least_videos: int = Field(8, ge=4, description="Fewer are too few to learn from.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is for GPUs alone.")
    device: Literal["cpu", "cuda"] = "cpu"
    views: ViewConfig = Field(default_factory=ViewConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    start: StartConfig = Field(default_factory=StartConfig)


@dataclass(frozen=True)
class Progress:
    """Where a run is: `loss` by objective at this step, `held_out` and `best` losses (None before the first look)."""

    step: int
    steps: int
    loss: Mapping[str, float]
    held_out: float | None
    best: float | None


@dataclass(frozen=True, eq=False)
class Training:
    """What a run gives: the fusion, and the facts of its model card (see `fusion.card`)."""

    fusion: TrainedFusion
    facts: dict[str, Any]


def train(
    videos: Mapping[str, TrainingVideo],
    network: NetworkConfig,
    config: TrainingConfig,
    *,
    pairs: Sequence[Pair] = (),
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Training:
    """Train a fusion. `pairs` are videos finished by the same people, as often as they were; others than `videos` are
    passed over. With `checkpoint`, the run is written there as it goes, and goes on from there.

    Errors: `fusion.too_few_videos`, `fusion.not_finite`, `fusion.training_failed`, `fusion.bad_checkpoint` (the
    checkpoint is of another run), `fusion.interrupted` (`stop` said so; the checkpoint is written first).
    """
    usable = _usable(videos, network)
    groups = {name: video.group or name for name, video in usable.items()}
    _enough(len(set(groups.values())), config)
    with crew() as found:
        run = _Run(usable, groups, network, config, pairs, found)
        return run.go(checkpoint, progress, stop)


def _usable(videos: Mapping[str, TrainingVideo], network: NetworkConfig) -> dict[str, TrainingVideo]:
    """The videos that have a token to learn from, by name in order."""
    found = {}
    for name in sorted(videos):
        video = videos[name]
        for tokens in (video.tokens, *video.recordings):
            check_tokens(tokens, network, whose=f"the video {name}")
        if all(
            any((part.salience > 0).any() and part.embeddings.any() for part in tokens.values() if len(part))
            for tokens in (video.tokens, *video.recordings)
        ):
            found[name] = video
    return found


def _enough(count: int, config: TrainingConfig) -> None:
    if count < config.least_videos:
        raise InputError(
            "fusion.too_few_videos",
            f"The catalogue holds {count} different videos to train a fusion on; {config.least_videos} are needed.",
            hint="Add videos, or stay with the training-free fusion, which needs none.",
        )


class _Run:
    """One run in one process."""

    def __init__(
        self,
        videos: dict[str, TrainingVideo],
        groups: dict[str, str],
        network: NetworkConfig,
        config: TrainingConfig,
        pairs: Sequence[Pair],
        own: Crew,
    ) -> None:
        self.videos, self.groups, self.config, self.crew = videos, groups, config, own
        self.held_out = _held_out(groups, config)
        self.names = [name for name in videos if name not in self.held_out]
        self.partners = _partners(pairs, set(self.names))
        self.log_q = _log_q(self.partners)
        self.device = torch.device(config.device)
        starts = starts_of([videos[name].tokens for name in self.names], network, config.start)
        self.network = AttentionNetwork(network, starts).to(self.device)
        self.heads = Heads(self.network).to(self.device)
        self.optimiser = optimiser_of(self.network, config, self.heads.parameters())
        self.identity = _identity(videos, network, config, pairs)

    def go(
        self,
        checkpoint: Path | None,
        progress: Callable[[Progress], None] | None,
        stop: Callable[[], bool] | None,
    ) -> Training:
        state = State(self.identity, self.network, self.heads, self.optimiser)
        if checkpoint is not None and checkpoint.is_file():
            load_state(checkpoint, state)
        else:
            state.best_loss = self._look()
            state.keep_best()
            state.history.append({"step": 0, "held_out": state.best_loss})
        config = self.config
        while state.step < config.steps and state.waited < config.patience:
            if self.crew.agreed(float(stop is not None and stop())):
                if checkpoint is not None:
                    self._save(checkpoint, state)
                raise PassingError(
                    "fusion.interrupted",
                    f"Training was stopped after {state.step} of {config.steps} steps.",
                    hint="Run the same command again: it goes on from the checkpoint." if checkpoint else "",
                )
            losses = self._step(state.step)
            state.step += 1
            looked = None
            if state.step % config.evaluate_every == 0 or state.step == config.steps:
                looked = self._look()
                state.history.append({"step": state.step, "held_out": looked, **losses})
                if looked < state.best_loss - 1e-4 or not self.held_out:
                    state.best_loss, state.waited = looked, 0
                    state.keep_best()
                else:
                    state.waited += 1
            if progress is not None and self.crew.rank == 0:
                progress(Progress(state.step, config.steps, losses, looked, state.best_loss))
            if checkpoint is not None and state.step % config.checkpoint_every == 0:
                self._save(checkpoint, state)
        if checkpoint is not None:
            self._save(checkpoint, state)
        self.network.load_state_dict(state.best)
        fusion = TrainedFusion.of(self.network.cpu().eval())
        return Training(fusion, self._facts(state, fusion))

    def _save(self, checkpoint: Path, state: State) -> None:
        if self.crew.rank == 0:
            save_state(checkpoint, state)

    def _step(self, step: int) -> dict[str, float]:
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate_at(step, config)
        names = self._drawn(step)
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss, parts = self._loss(names, step, self.crew)
        if not math.isfinite(self.crew.agreed(float(loss.detach()))):
            raise ModelError(
                "fusion.training_failed",
                f"The loss is not finite at step {step}.",
                hint="Train with a smaller learning rate.",
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        self.crew.sum_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        self.optimiser.step()
        return parts

    def _drawn(self, step: int) -> list[str]:
        """The videos of a step: an epoch's random order in pieces of the batch size, the incomplete last left out."""
        size = min(self.config.batch, len(self.names))
        epoch, place = divmod(step, max(1, len(self.names) // size))
        order = generator_for(self.config.seed, epoch, "order").permutation(len(self.names))
        return [self.names[index] for index in order[place * size : (place + 1) * size]]

    def _loss(
        self, names: Sequence[str], step: int, own: Crew, asked: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        views: list[tuple[View, View]] = [
            two_views(self.videos[name], generator_for(config.seed, step, name), config.views)
            for name in own.own(names)
        ]
        both = [view for pair in zip(*views, strict=True) for view in pair] if views else []
        found = self._seen(both)
        half = len(views)
        first, second = (
            Seen(*(own.gathered(part[rows], len(names)) for part in (found.vectors, found.alone, found.foretold)))
            for rows in (slice(0, half), slice(half, None))
        )
        apart = self._apart(names, names)
        partners = None if asked is not None else self._engaged(names, step, own, first)
        return objective(first, second, apart, config.objective, partners, asked)

    def _seen(self, views: Sequence[View]) -> Seen:
        batch, attended = self._batch(views)
        return seen(self.network, self.heads, batch, attended, self.config.objective)

    def _batch(self, views: Sequence[View]) -> tuple[TokenBatch, Tensor]:
        network = self.network.config
        batch = batch_of([view.tokens for view in views], network, [view.duration for view in views])
        attended = torch.tensor([[name in view.attended for name in network.modalities] for view in views])
        attended = attended.reshape(len(views), len(network.modalities))
        return batch.to(self.device), attended.to(self.device)

    def _apart(self, rows: Sequence[str | None], columns: Sequence[str | None]) -> Tensor:
        """bool [rows, columns]: which are different videos."""
        one = np.array([self.groups.get(name or "", "") for name in rows], dtype=object)
        other = np.array([self.groups.get(name or "", "") for name in columns], dtype=object)
        return torch.from_numpy((one[:, None] != other[None, :]).astype(bool)).to(self.device)

    def _engaged(
        self, names: Sequence[str], step: int, own: Crew, first: Seen
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """What `objective` asks for of videos finished by the same people; None where there are none."""
        if not any(name in self.partners for name in names):
            return None
        config = self.config
        chosen: list[str | None] = []
        for name in names:
            found = self.partners.get(name, [])
            place = int(generator_for(config.seed, step, f"{name}/partner").integers(max(1, len(found))))
            chosen.append(found[place] if found else None)
        views = [
            one_view(self.videos[name], generator_for(config.seed, step, f"{name}/view"), config.views)
            for name in own.own(chosen)
            if name is not None
        ]
        vectors = torch.zeros(len(own.own(chosen)), self.network.config.dim, device=self.device)
        if views:
            batch, attended = self._batch(views)
            tokens = self.network.project(batch)
            kept = torch.cat(
                [
                    attended[:, number, None].expand(-1, span.stop - span.start)
                    for number, span in enumerate(tokens.spans)
                ],
                dim=1,
            )
            rows = torch.tensor([row for row, name in enumerate(own.own(chosen)) if name is not None])
            made = pooled(self.network.weights(tokens, kept), tokens.values)
            vectors = vectors.index_copy(0, rows.to(self.device), made.to(vectors.dtype))
        log_q = torch.tensor([self.log_q.get(name or "", 0.0) for name in chosen], device=self.device)
        apart = self._apart(chosen, chosen)
        for row, name in enumerate(names):
            known = set(self.partners.get(name, ())) | {name}
            for column, other in enumerate(chosen):
                if other in known:
                    apart[row, column] = False
        return first.vectors, own.gathered(vectors, len(names)), log_q, apart

    @torch.no_grad()
    def _look(self) -> float:
        """The loss over the held-out videos, in views that are the same at every look. Videos trained on stand among
        the wrong answers: a few held-out ones by themselves are too easily told apart. Without any held out: 0."""
        out = [name for name in self.videos if name in self.held_out]
        if not out:
            return 0.0
        self.network.eval()
        losses = []
        for draw in range(LOOKS):
            others = generator_for(self.config.seed, draw, "look").permutation(len(self.names))
            most = max(0, self.config.batch - len(out))
            names = out + [self.names[index] for index in others[:most]]
            asked = torch.arange(len(names), device=self.device) < len(out)
            losses.append(float(self._loss(names, -1 - draw, Crew(), asked)[0]))
        return self.crew.agreed(float(np.mean(losses)))

    def _facts(self, state: State, fusion: TrainedFusion) -> dict[str, Any]:
        modalities = self.network.config.modalities
        return {
            "version": fusion.version,
            "videos": len(self.names),
            "held_out_videos": len(self.held_out),
            "videos_with": {
                name: sum(bool(name in video.tokens and len(video.tokens[name])) for video in self.videos.values())
                for name in modalities
            },
            "recordings": sum(len(video.recordings) for video in self.videos.values()),
            "engaged_pairs": sum(len(found) for found in self.partners.values()) // 2,
            "processes": self.crew.size,
            "steps": state.step,
            "stopped_early": state.waited >= self.config.patience,
            "held_out_loss_before": state.history[0]["held_out"],
            "held_out_loss": state.best_loss,
            "history": state.history,
            "network": self.network.config.model_dump(mode="json"),
            "training": self.config.model_dump(mode="json"),
        }


def _held_out(groups: Mapping[str, str], config: TrainingConfig) -> frozenset[str]:
    """Whole groups, chosen by their names and the seed."""
    if config.held_out == 0:
        return frozenset()
    ordered = sorted(
        set(groups.values()), key=lambda group: hashlib.sha256(f"{config.seed}/held out/{group}".encode()).digest()
    )
    out = set(ordered[: max(2, round(config.held_out * len(ordered)))])
    return frozenset(name for name, group in groups.items() if group in out)


def _partners(pairs: Sequence[Pair], names: set[str]) -> dict[str, list[str]]:
    """For each video those finished by the same people, as often as they were."""
    found: dict[str, list[str]] = {}
    for one, other in pairs:
        if one != other and one in names and other in names:
            found.setdefault(one, []).append(other)
            found.setdefault(other, []).append(one)
    return {name: sorted(found[name]) for name in sorted(found)}


def _log_q(partners: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Logarithm of how likely each video is drawn as a partner, when a video that has any is drawn evenly."""
    likely: dict[str, float] = {}
    for found in partners.values():
        for name in found:
            likely[name] = likely.get(name, 0.0) + 1 / len(found) / len(partners)
    return {name: math.log(share) for name, share in likely.items()}


def _identity(
    videos: Mapping[str, TrainingVideo], network: NetworkConfig, config: TrainingConfig, pairs: Sequence[Pair]
) -> str:
    """Names a run: what it is made of, so that a checkpoint is never taken for that of another."""
    found = hashlib.sha256()
    for name, video in videos.items():
        for tokens in (video.tokens, *video.recordings):
            for modality in sorted(tokens):
                part = tokens[modality]
                found.update(f"{name}/{modality}/{part.embeddings.shape}/{video.group}".encode())
                for array in (part.embeddings, part.salience, part.start_seconds, part.end_seconds):
                    found.update(np.ascontiguousarray(array).tobytes())
    return digest(
        {
            "videos": found.hexdigest(),
            "network": network.model_dump(mode="json"),
            "training": config.model_dump(mode="json"),
            "pairs": hashlib.sha256(repr(sorted(pairs)).encode()).hexdigest(),
        },
        64,
    )
