"""The loop in which models of torch learn: seeds, early stopping, checkpoints, several processes.

All that is drawn in an epoch is drawn from (seed, epoch), and within a step from (seed, epoch, step, shard): a run that
was stopped goes on as if it had not been. A batch is computed in `shards`, each by itself; under torchrun the processes
share them out and sum the gradients, so that the result does not depend on how many processes there are, only on how
many shards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load, save_file
from torch import Tensor, nn

from ranker.models.model import Run
from store.errors import ModelError

ENTRY = "reelsense"
FORMAT = 1
Rows = npt.NDArray[np.int64]


class LearningConfig(BaseModel):
    """How a network is trained, whatever it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = Field(0, ge=0)
    epochs: int = Field(50, ge=1, description="Most passes over the examples.")
    batch: int = Field(1024, ge=1, description="Examples in a step.")
    shards: int = Field(1, ge=1, description="Parts that a batch is computed in; a multiple of the processes.")
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="Of AdamW.")
    clip: float = Field(5.0, gt=0, description="Longest gradient.")
    evaluate_every: int = Field(1, ge=1, description="Epochs between two looks at validation.")
    patience: int = Field(5, ge=1, description="Looks without gain after which training ends.")


@dataclass(eq=False)
class State:
    """Where a run stands. `best` is the network at its best look."""

    epoch: int = 0
    waited: int = 0
    judged: float = -float("inf")
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)


def learn(
    network: nn.Module,
    loss_of: Callable[[Rows], Tensor],
    examples: Callable[[int], Rows],
    config: LearningConfig,
    run: Run,
    judge: Callable[[], float] | None = None,
    identity: Sequence[Any] = (),
) -> dict[str, Any]:
    """Train `network` in place, and leave it as it was at its best look (at the end, without a judge), in eval mode.

    `examples(epoch)` gives the numbers of the examples of an epoch, in the order in which they are to be learnt;
    `loss_of(rows)` the *sum* of the losses of some of them. `identity` tells this run from all others (the data, the
    settings of the network): a checkpoint of another one is refused.

    Returns facts for the card. Raises `ranker.not_finite`, `ranker.bad_checkpoint`, and whatever `loss_of` raises.
    """
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if config.shards % processes:
        raise ModelError(
            "ranker.training_failed",
            f"{processes} processes cannot share out {config.shards} shards evenly.",
            hint="Set shards to a multiple of the number of processes.",
        )
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False
    )
    state = State()
    mark = hashlib.sha256(
        json.dumps([FORMAT, config.model_dump(), list(identity)], sort_keys=True, default=str).encode()
    ).hexdigest()
    if run.checkpoint is not None and run.checkpoint.exists():
        _load(run.checkpoint, mark, network, optimiser, state)
    resumed = state.epoch
    while state.epoch < config.epochs and state.waited < config.patience:
        network.train()
        total, count = 0.0, 0
        order = examples(state.epoch)
        for step, start in enumerate(range(0, len(order), config.batch)):
            rows = order[start : start + config.batch]
            optimiser.zero_grad(set_to_none=True)
            total += _step(network, loss_of, rows, (config.seed, state.epoch, step), config.shards, rank, processes)
            count += len(rows)
            nn.utils.clip_grad_norm_(network.parameters(), config.clip, foreach=False)
            optimiser.step()
        state.epoch += 1
        loss = total / max(count, 1)
        state.losses.append(round(loss, 6))
        if not np.isfinite(loss):
            raise ModelError(
                "ranker.not_finite",
                f"The loss of epoch {state.epoch} is not a finite number.",
                hint="Train with a lower learning rate.",
            )
        judged = None
        if judge is not None and (state.epoch % config.evaluate_every == 0 or state.epoch == config.epochs):
            network.eval()
            with torch.no_grad():
                judged = judge()
            if judged > state.judged:
                state.judged, state.best_epoch, state.waited = judged, state.epoch, 0
                state.best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            else:
                state.waited += 1
        run.tell(state.epoch, config.epochs, loss, judged)
        if run.checkpoint is not None and rank == 0:
            _save(run.checkpoint, mark, network, optimiser, state)
    if state.best:
        network.load_state_dict(state.best)
    network.eval()
    return {
        "epochs": state.epoch,
        "best_epoch": state.best_epoch or state.epoch,
        "resumed_at": resumed,
        "losses": state.losses,
        "validation": None if judge is None else round(state.judged, 6),
        "stopped_early": state.waited >= config.patience,
    }


def _step(
    network: nn.Module,
    loss_of: Callable[[Rows], Tensor],
    rows: Rows,
    place: tuple[int, ...],
    shards: int,
    rank: int,
    processes: int,
) -> float:
    """Gradients of the mean loss of a batch, whoever computes its shards; returns the summed loss."""
    total = torch.zeros(1, dtype=torch.float64)
    for shard in range(rank, shards, processes):
        part = rows[shard::shards]
        if not len(part):
            continue
        # Dropout and negatives draw from torch's own generator: the same for a shard wherever it is computed.
        torch.manual_seed(seed_of(*place, shard))
        loss = loss_of(part)
        (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach().double()
    if processes > 1:
        import torch.distributed as dist

        for parameter in network.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
        dist.all_reduce(total)
    return float(total)


def seed_of(*numbers: int | str) -> int:
    """A seed of 63 bits from several numbers; nearby ones give unlike seeds."""
    return int.from_bytes(hashlib.sha256(json.dumps(numbers).encode()).digest()[:8], "big") >> 1


def shuffled(n: int, seed: int, epoch: int) -> Rows:
    """int64 [n]: 0..n-1 in the order of an epoch."""
    return np.random.Generator(np.random.PCG64(seed_of(seed, epoch))).permutation(n).astype(np.int64)


def parts(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` of `n` things."""
    yield from (slice(start, min(start + size, n)) for start in range(0, n, size))


def _save(path: Path, mark: str, network: nn.Module, optimiser: torch.optim.Optimizer, state: State) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for place, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{place}.{name}": torch.as_tensor(value) for name, value in values.items()}
    facts = {
        "mark": mark,
        "epoch": state.epoch,
        "waited": state.waited,
        "judged": state.judged if np.isfinite(state.judged) else None,
        "best_epoch": state.best_epoch,
        "losses": state.losses,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(kept, str(aside), metadata={ENTRY: json.dumps(facts, sort_keys=True)})
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _load(path: Path, mark: str, network: nn.Module, optimiser: torch.optim.Optimizer, state: State) -> None:
    try:
        # Read whole and not mapped: a file that shrinks while it is mapped kills the process.
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][ENTRY])
        tensors: dict[str, Tensor] = load(data)
        same = facts["mark"] == mark
    except Exception as error:
        raise _bad(path, f"it cannot be read ({type(error).__name__})") from error
    if not same:
        raise _bad(path, "it is of another run: other events, other settings or another version")
    try:
        network.load_state_dict(_under(tensors, "network"))
        described = optimiser.state_dict()
        described["state"] = {}
        for name, tensor in _under(tensors, "optimiser").items():
            place, _, key = name.partition(".")
            described["state"].setdefault(int(place), {})[key] = tensor
        optimiser.load_state_dict(described)
        state.best = _under(tensors, "best")
        state.epoch, state.waited = int(facts["epoch"]), int(facts["waited"])
        state.judged = -float("inf") if facts["judged"] is None else float(facts["judged"])
        state.best_epoch, state.losses = int(facts["best_epoch"]), [float(loss) for loss in facts["losses"]]
    except Exception as error:
        raise _bad(path, f"it does not fit ({type(error).__name__})") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def _bad(path: Path, why: str) -> ModelError:
    return ModelError(
        "ranker.bad_checkpoint",
        f"The checkpoint {path.name} cannot be gone on from: {why}.",
        hint="Remove it to train from the beginning.",
    )
