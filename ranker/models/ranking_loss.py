"""Losses over all videos at once, and sparse sums, for models that know viewers and videos as vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ranker.interactions import Sparse


class _SparseSum(torch.autograd.Function):
    """A constant sparse matrix times a dense one. scipy's product costs a fraction of torch's on one thread, and the
    gradient is the same product turned."""

    @staticmethod
    def forward(context: Any, matrix: Sparse, dense: Tensor) -> Tensor:
        context.matrix = matrix
        return torch.from_numpy(np.asarray(matrix @ dense.detach().numpy(), np.float32))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, torch.from_numpy(np.asarray(context.matrix.T @ gradient.contiguous().numpy(), np.float32))


def sparse_sum(matrix: Sparse, dense: Tensor) -> Tensor:
    """float32 [rows, dim]: `matrix` (scipy, float32 [rows, n]) times `dense` [n, dim], with gradients for `dense`."""
    found: Tensor = _SparseSum.apply(matrix, dense)  # type: ignore[no-untyped-call]
    return found


def softmax_loss(
    vectors: Tensor, videos: Tensor, bias: Tensor, targets: Sparse, seen: npt.NDArray[np.bool_], most: int
) -> Tensor:
    """Sum over viewers and what they had of -log softmax(score), the multinomial likelihood (Liang et al. 2018).

    `vectors` [n, dim]; `videos` [n_videos, dim]; `bias` [n_videos]; `targets` CSR [n, n_videos], the weight of each
    video that a viewer had; `seen` bool [n_videos]: the videos that compete. Where these are more than `most`, so many
    of them are drawn anew from torch's generator, and stand for all (sampled softmax, uniform).
    """
    places = np.flatnonzero(seen)
    if len(places) <= most:
        scores = vectors @ videos.T + bias
        total = torch.logsumexp(scores + torch.from_numpy(np.where(seen, 0, -np.inf).astype(np.float32)), dim=1)
        wanted = torch.from_numpy(targets.toarray())
        return (wanted.sum(dim=1) * total).sum() - (wanted * scores).sum()
    drawn = torch.from_numpy(places)[torch.randint(len(places), (most,))]
    others = torch.logsumexp(vectors @ videos[drawn].T + bias[drawn], dim=1) + math.log(len(places) / most)
    rows = torch.from_numpy(np.repeat(np.arange(targets.shape[0]), np.diff(targets.indptr)))
    columns = torch.from_numpy(targets.indices.astype(np.int64))
    right = (vectors[rows] * videos[columns]).sum(dim=1) + bias[columns]
    return (torch.from_numpy(targets.data) * (torch.logaddexp(others[rows], right) - right)).sum()
