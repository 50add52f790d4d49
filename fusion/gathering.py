"""One process or several under torchrun: which rows of a batch are this process's, and how results come together.

Every process knows the whole batch, computes the views and vectors of its own rows, gathers the others' vectors, and
takes the loss over all of them. The gradient of that loss by its own vectors is exact, so the sum of the processes'
gradients is the gradient that one process would have found: in-batch negatives are not lost by splitting the batch.
Only the order of additions differs, which moves a trained vector by less than 1e-3 (a test holds it to that).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Crew:
    """This process among those that train together: its number and how many they are."""

    rank: int = 0
    size: int = 1

    def own(self, rows: Sequence[T]) -> list[T]:
        """The rows that this process computes: every `size`-th."""
        return list(rows[self.rank :: self.size])

    def gathered(self, own: Tensor, count: int) -> Tensor:
        """[count, ...]: all rows of a batch of `count`, where `own` holds this process's. Gradients flow into `own`."""
        if self.size == 1:
            return own
        most = -(-count // self.size)
        padded = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])]).contiguous()
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded.detach())
        parts[self.rank] = padded
        return torch.stack(parts, dim=1).reshape(self.size * most, *own.shape[1:])[:count]

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by the sum over the processes."""
        if self.size == 1:
            return
        known = [parameter for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in known if parameter.grad is not None])
        distributed.all_reduce(flat)
        first = 0
        for parameter in known:
            last = first + parameter.numel()
            parameter.grad = flat[first:last].reshape(parameter.shape).clone()
            first = last

    def agreed(self, value: float) -> float:
        """The first process's value: what is decided by rounding must be decided once."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(told, src=0)
        return float(told)


@contextlib.contextmanager
def crew() -> Iterator[Crew]:
    """The processes that torchrun started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if distributed.is_available() and distributed.is_initialized():
        yield Crew(distributed.get_rank(), distributed.get_world_size())
    elif size > 1:
        distributed.init_process_group("gloo")
        try:
            yield Crew(distributed.get_rank(), distributed.get_world_size())
        finally:
            distributed.destroy_process_group()
    else:
        yield Crew()
