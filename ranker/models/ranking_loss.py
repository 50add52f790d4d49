"""Losses over all videos at once, and sparse sums, for models that know viewers and videos as vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ranker.interactions import Sparse
from ranker.models.training_data import Integers

# Far below any score, and finite: a viewer with nothing to compete must not bring about a nan.
ABSENT = -1e9


class _SparseSum(torch.autograd.Function):
    """A constant sparse matrix times a dense one. scipy's product costs a fraction of torch's on one thread, and the
    gradient is the same product turned."""

    @staticmethod
    def forward(context: Any, matrix: Sparse, dense: Tensor) -> Tensor:
        context.matrix = matrix
        return torch.from_numpy(np.asarray(matrix @ dense.detach().numpy(), np.float32))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, torch.from_numpy(np.asarray(context.matrix.T @ gradient.contiguous().numpy(), np.float32))


def sparse_sum(matrix: Sparse, dense: Tensor) -> Tensor:
    """float32 [rows, dim]: `matrix` (scipy, float32 [rows, n]) times `dense` [n, dim], with gradients for `dense`."""
    found: Tensor = _SparseSum.apply(matrix, dense)
    return found


def softmax_loss(
    vectors: Tensor,
    videos: Tensor,
    bias: Tensor,
    targets: Sparse,
    seen: npt.NDArray[np.bool_],
    most: int,
    given: Sparse | None = None,
) -> Tensor:
    """Sum over viewers and what they had of -log softmax(score), the multinomial likelihood (Liang et al. 2018).

    `vectors` [n, dim]; `videos` [n_videos, dim]; `bias` [n_videos]; `targets` CSR [n, n_videos], the weight of each
    video to be found; `given` CSR [n, n_videos], above 0 for what the viewer had besides: it is no wrong answer and
    does not compete (on MovieLens-100K NDCG@10 is .26 when it does and .27 when not). `seen` bool [n_videos]: the
    videos that compete. Where these are more than `most`, so many of them are drawn anew from torch's generator, and
    stand for all (sampled softmax, uniform).
    """
    places = np.flatnonzero(seen)
    if len(places) <= most:
        scores = vectors @ videos.T + bias
        total = torch.logsumexp(scores.masked_fill(_absent(~seen, given, None), ABSENT), dim=1)
        wanted = torch.from_numpy(targets.toarray())
        return (wanted.sum(dim=1) * total).sum() - (wanted * scores).sum()
    drawn = np.sort(places[torch.randint(len(places), (most,)).numpy()])
    scores = vectors @ videos[torch.from_numpy(drawn)].T + bias[torch.from_numpy(drawn)]
    absent = _absent(np.zeros(most, bool), given, drawn)
    others = torch.logsumexp(scores.masked_fill(absent, ABSENT), dim=1) + math.log(len(places) / most)
    rows = torch.from_numpy(np.repeat(np.arange(targets.shape[0]), np.diff(targets.indptr)))
    columns = torch.from_numpy(targets.indices.astype(np.int64))
    right = (vectors[rows] * videos[columns]).sum(dim=1) + bias[columns]
    return (torch.from_numpy(targets.data) * (torch.logaddexp(others[rows], right) - right)).sum()


def _absent(never: npt.NDArray[np.bool_], given: Sparse | None, columns: Integers | None) -> Tensor:
    """bool [n or 1, videos that compete]: those that do not."""
    found = torch.from_numpy(never)[None, :]
    if given is None:
        return found
    return found | torch.from_numpy((given if columns is None else given[:, columns]).toarray() > 0)
