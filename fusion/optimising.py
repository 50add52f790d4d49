"""How far each step of training goes: the rates of what there is to learn, over the steps.

A step of Adam is as long as its rate, whatever the size of what it changes, and a projection of wide embeddings has
tiny entries: their rate is in units of the entries that training begins with (with one rate for all, a few steps of
1e-4 turned the projection of 1280 features into noise).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn

from fusion.network import AttentionNetwork


class Rates(Protocol):
    """What a training's configuration says of its steps; see `fusion.training.TrainingConfig` for each."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def projection_rate(self) -> float: ...
    @property
    def scalar_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def projection_decay(self) -> float: ...
    @property
    def warm_up(self) -> float: ...


def rate_at(step: int, rates: Rates) -> float:
    """Share of the peak learning rate: up in a line, down in half a cosine (Loshchilov & Hutter 2017)."""
    rising = rates.warm_up * rates.steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, rates.steps - rising)))


def optimiser_of(network: AttentionNetwork, rates: Rates, heads: Iterable[nn.Parameter] = ()) -> torch.optim.AdamW:
    """Projections pulled back to their beginning, matrices of the attention to zero, all that is not a matrix free.

    Each group's `peak` is its rate at the end of the warm-up. `heads` are parameters beside the network's own.
    """
    matrices, scalars, rest = [], [], []
    groups = []
    for name, parameter in network.named_parameters():
        if name.startswith("projections."):
            # The root mean square of a random projection's entries, and of what it gives.
            size = 1 / math.sqrt(parameter.numel()) if parameter.ndim > 1 else 1 / math.sqrt(len(parameter))
            groups.append(([parameter], rates.projection_rate * size, rates.projection_decay / size))
        elif name in ("prior", "beta", "fullness", "coherence"):
            scalars.append(parameter)
        elif parameter.ndim > 1 and name not in ("queries", "modality"):
            matrices.append(parameter)
        else:
            rest.append(parameter)
    groups += [
        (matrices, rates.learning_rate, rates.weight_decay),
        (scalars, rates.scalar_rate, 0.0),
        (rest, rates.learning_rate, 0.0),
        (list(heads), rates.learning_rate, 0.0),
    ]
    return torch.optim.AdamW(
        [{"params": found, "lr": rate, "peak": rate, "weight_decay": decay} for found, rate, decay in groups],
        betas=(0.9, 0.98),
        eps=1e-10,
        foreach=False,
    )
