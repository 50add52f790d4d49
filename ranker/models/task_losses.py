"""What the heads of `ranker.models.multitask` are taught by.

    head k:   L_k = cross-entropy (squared error for the watch quantile)
                    + pairwise * sum over pairs of one viewer of  gap * softplus(-(z_better - z_worse))
    all:      sum of w_k L_k                                              fixed weights, or
              sum of exp(-s_k) L_k + n_k s_k / 2                          s_k = log of the task's variance, learnt
                                                                          (Kendall et al., CVPR 2018; half the first
                                                                          term for a regression)
    against:  + adversarial * the same at embeddings moved by epsilon g / |g|, g the loss's gradient there

The last term is the fast gradient method (Goodfellow et al., ICLR 2015) in its form of length epsilon instead of sign,
on embeddings and not on inputs, as in adversarial personalised ranking (He et al., SIGIR 2018) and AMR (Tang et al.,
TKDE 2020): a ranking must not hang on the last digit of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def smoothed(labels: Tensor, smoothing: float) -> Tensor:
    """Labels of 0 and 1 drawn towards one half: y (1 - s) + s / 2 (Szegedy et al. 2016)."""
    return labels * (1 - smoothing) + smoothing / 2


def pointwise(logits: Tensor, labels: Tensor, smoothing: float, regression: bool) -> tuple[Tensor, Tensor]:
    """(summed loss, how many) over float32 [...] logits and labels; where a label is nan there is none."""
    known = torch.isfinite(labels)
    wanted, given = labels[known], logits[known]
    if regression:
        loss = (torch.sigmoid(given) - wanted).square().sum()
    else:
        loss = functional.binary_cross_entropy_with_logits(given, smoothed(wanted, smoothing), reduction="sum")
    return loss, known.sum()


def pairwise(logits: Tensor, others: Tensor, gaps: Tensor) -> Tensor:
    """Summed loss of pairs, float32 [...] each. `gaps` above 0: by how much the first is better; below 0: the second;
    0 or nan: nothing is known (RankNet, Burges et al. 2005, weighted by the gap)."""
    weight = torch.nan_to_num(gaps).abs()
    return (weight * functional.softplus(-(logits - others) * torch.sign(torch.nan_to_num(gaps)))).sum()


def combined(
    losses: list[Tensor],
    counts: list[Tensor],
    weights: list[float],
    regressions: list[bool],
    log_variance: Tensor | None,
) -> Tensor:
    """One loss from the summed loss of each task; by fixed weights where no `log_variance` float32 [tasks] is given."""
    total = losses[0].new_zeros(())
    for place, (loss, count, weight) in enumerate(zip(losses, counts, weights, strict=True)):
        if log_variance is None:
            total = total + weight * loss
            continue
        variance = log_variance[place]
        total = total + torch.exp(-variance) * loss * (0.5 if regressions[place] else 1.0) + count * variance / 2
    return total


def with_adversary(loss_at: Callable[[Tensor], Tensor], embedded: Tensor, epsilon: float, weight: float) -> Tensor:
    """The loss at `embedded`, float32 [..., parts, dim], plus `weight` times that at its worst neighbour: each part of
    each example moved by `epsilon` in the direction of its gradient."""
    loss = loss_at(embedded)
    (slope,) = torch.autograd.grad(loss, embedded, retain_graph=True)
    length = slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    worst = embedded + epsilon * (slope / length).detach()
    return loss + weight * loss_at(worst)
