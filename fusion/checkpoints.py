"""A run of training on disk: weights, the optimiser's state and the best network so far, as one safetensors file.

Nothing is pickled, and no generator's state is kept, because training uses none. The file is written aside and renamed,
so a kill leaves the last whole checkpoint.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from store.errors import ModelError

FORMAT = 1
ENTRY = "reelsense"


@dataclass(eq=False)
class State:
    """All that a run needs to go on. `identity` names the run; `waited` counts the looks without gain."""

    identity: str
    network: nn.Module
    heads: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    waited: int = 0
    best_loss: float = float("inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def keep_best(self) -> None:
        """Remember the network as it is."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}


def save_state(path: Path, state: State) -> None:
    """Write the checkpoint, whole or not at all."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"heads.{name}": tensor for name, tensor in state.heads.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for place, values in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{place}.{name}": torch.as_tensor(value) for name, value in values.items()}
    facts = {
        "format": FORMAT,
        "identity": state.identity,
        "step": state.step,
        "waited": state.waited,
        "best_loss": state.best_loss,
        "history": state.history,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            str(aside),
            metadata={ENTRY: json.dumps(facts, sort_keys=True)},
        )
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def load_state(path: Path, state: State) -> None:
    """Bring a run to where its checkpoint was written. Raises `fusion.bad_checkpoint`, and leaves no half-loaded run
    behind: whoever gets the error starts anew."""
    try:
        # Read whole and not mapped: a file that shrinks while it is mapped kills the process.
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][ENTRY])
        tensors: dict[str, Tensor] = load(data)
        same = facts["format"] == FORMAT and facts["identity"] == state.identity
    except Exception as error:
        raise _bad(path, f"it cannot be read: {type(error).__name__}") from error
    if not same:
        raise _bad(path, "it is of another run: other videos, other settings or another version")
    try:
        state.network.load_state_dict(_under(tensors, "network"))
        state.heads.load_state_dict(_under(tensors, "heads"))
        state.best = _under(tensors, "best")
        described = state.optimiser.state_dict()
        described["state"] = {}
        for name, tensor in _under(tensors, "optimiser").items():
            place, _, key = name.partition(".")
            described["state"].setdefault(int(place), {})[key] = tensor
        state.optimiser.load_state_dict(described)
        state.step, state.waited = int(facts["step"]), int(facts["waited"])
        state.best_loss, state.history = float(facts["best_loss"]), list(facts["history"])
    except Exception as error:
        raise _bad(path, f"it does not fit: {type(error).__name__}") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def _bad(path: Path, why: str) -> ModelError:
    return ModelError(
        "fusion.bad_checkpoint",
        f"The checkpoint {path.name} cannot be gone on from: {why}.",
        hint="Remove it to train from the beginning.",
    )
