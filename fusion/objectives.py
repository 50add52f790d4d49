"""What training asks of the network. Nobody has labelled a video; the videos label each other.

- **Parts**: the vectors of two parts of a video agree, and differ from those of all other videos in the batch (InfoNCE,
  van den Oord et al. 2018; both ways, as in CLIP, Radford et al. 2021). Modalities are left out of the parts at random
  (modality dropout), so this also asks that a video without sound be found by one with it.
- **Agreement**: what one modality alone says in one part agrees with what another says in the other.
- **Masked modality**: from the other modalities of one part, a linear head foretells the masked one of the other.
- **Engagement**: videos finished by the same people agree. The wrong answers in a batch are drawn by how often they are
  right ones, so popular videos would be punished for being popular; subtracting the logarithm of that probability
  undoes it (logQ correction, Bengio & Senecal 2003; Yi et al. 2019).

Agreement and the masked modality count little: a few dozen videos cannot teach what sound goes with what picture, and
at a tenth of the whole they had the projections forget what they knew (on real clips, MRR .87 instead of .91).

All have label smoothing (Szegedy et al. 2016), in which videos of the same group have no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fusion.network import AttentionNetwork, Projected, TokenBatch, pooled


class ObjectiveConfig(BaseModel):
    """What each objective counts, and how sharply vectors are told apart."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    parts: float = Field(1.0, ge=0)
    agreement: float = Field(0.02, ge=0)
    masked: float = Field(0.02, ge=0)
    engagement: float = Field(1.0, ge=0)
    temperature: float = Field(0.05, gt=0, le=10)
    smoothing: float = Field(0.02, ge=0, lt=1)


class Heads(nn.Module):
    """One linear head for each modality, which foretells it from the others. Not part of the trained fusion."""

    def __init__(self, network: AttentionNetwork) -> None:
        super().__init__()
        dim = network.config.dim
        self.heads = nn.ParameterList(nn.Parameter(torch.eye(dim)) for _ in network.config.modalities)

    def forward(self, vectors: Tensor, number: int) -> Tensor:
        return nn.functional.normalize(vectors @ self.heads[number], dim=1, eps=1e-8)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network makes of views, a row each: `vectors` [n, dim] as attended; by modality what it alone says
    `alone` [n, M, dim] and what the others foretell of it `foretold` [n, M, dim] (zeros where there is nothing)."""

    vectors: Tensor
    alone: Tensor
    foretold: Tensor


def seen(network: AttentionNetwork, heads: Heads, batch: TokenBatch, attended: Tensor, config: ObjectiveConfig) -> Seen:
    """Run the network over views. `attended` bool [n, M]: the modalities that are not dropped."""
    tokens = network.project(batch)
    by_modality = torch.zeros(len(tokens.spans), tokens.given.shape[1], dtype=torch.bool, device=tokens.given.device)
    for number, span in enumerate(tokens.spans):
        by_modality[number, span] = True
    vectors = _attended(network, tokens, attended.to(by_modality.dtype).float() @ by_modality.float() > 0)
    blank = torch.zeros_like(vectors)
    alone, foretold = [], []
    for number in range(len(tokens.spans)):
        if config.agreement or config.masked:
            alone.append(_attended(network, tokens, by_modality[number].expand_as(tokens.given)))
        else:
            alone.append(blank)
        if config.masked and len(tokens.spans) > 1:
            others = _attended(network, tokens, ~by_modality[number].expand_as(tokens.given))
            foretold.append(heads(others, number))
        else:
            foretold.append(blank)
    return Seen(vectors, torch.stack(alone, dim=1), torch.stack(foretold, dim=1))


def _attended(network: AttentionNetwork, tokens: Projected, kept: Tensor) -> Tensor:
    return pooled(network.weights(tokens, kept), tokens.values)


def contrastive(
    one: Tensor,
    other: Tensor,
    apart: Tensor,
    config: ObjectiveConfig,
    log_q: Tensor | None = None,
    both: bool = True,
    asked: Tensor | None = None,
) -> Tensor:
    """How badly row i of `one` [n, dim] finds row i of `other` among all of `other`, on average, and the other way.

    `apart` bool [n, n]: which pairs are of different videos. `log_q` [n]: logarithm of how likely each row of `other`
    is to be in a batch. Rows without length in either take no part; without two rows that do, the loss is 0. `asked`
    bool [n]: the rows that are averaged over; the others are wrong answers alone.
    """
    present = (one.detach().abs().amax(dim=1) > 0) & (other.detach().abs().amax(dim=1) > 0)
    if int(present.sum()) < 2:
        return (one.sum() + other.sum()) * 0.0
    scores = one[present] @ other[present].T / config.temperature
    right = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    allowed = apart[present][:, present] | right
    counted = present[present] if asked is None else asked[present]
    if not counted.any():
        return (one.sum() + other.sum()) * 0.0
    losses = [
        _smoothed(scores if log_q is None else scores - log_q[present], allowed, config.smoothing)[counted].mean()
    ]
    if both:
        losses.append(_smoothed(scores.T, allowed.T, config.smoothing)[counted].mean())
    return torch.stack(losses).mean()


def _smoothed(scores: Tensor, allowed: Tensor, smoothing: float) -> Tensor:
    """[n]: cross-entropy of the right answers on the diagonal, `smoothing` of it spread evenly over what is allowed."""
    log_share = torch.where(allowed, scores, -math.inf).log_softmax(dim=1)
    even = torch.where(allowed, log_share, 0.0).sum(dim=1) / allowed.sum(dim=1)
    return -((1 - smoothing) * log_share.diagonal() + smoothing * even)


def objective(
    first: Seen,
    second: Seen,
    apart: Tensor,
    config: ObjectiveConfig,
    partners: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    asked: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss over a batch of two views for each video, and its parts by name.

    `partners`: of the videos that have any, their vectors, those of a video finished by the same people, the logarithm
    of how likely each of these is drawn, and which pairs are apart. `asked`: see `contrastive`.
    """
    losses: dict[str, Tensor] = {}
    counts: Mapping[str, float] = {
        "parts": config.parts,
        "agreement": config.agreement,
        "masked": config.masked,
        "engagement": config.engagement,
    }
    if config.parts:
        losses["parts"] = contrastive(first.vectors, second.vectors, apart, config, asked=asked)
    modalities = first.alone.shape[1]
    pairs = [(one, other) for one in range(modalities) for other in range(modalities) if one != other]
    if config.agreement and pairs:
        found = [
            contrastive(first.alone[:, one], second.alone[:, other], apart, config, asked=asked) for one, other in pairs
        ]
        losses["agreement"] = torch.stack(found).mean()
    if config.masked and modalities > 1:
        found = []
        for one, other in ((first, second), (second, first)):
            for number in range(modalities):
                target = other.alone[:, number].detach()
                found.append(contrastive(one.foretold[:, number], target, apart, config, both=False, asked=asked))
        losses["masked"] = torch.stack(found).mean()
    if partners is not None and config.engagement:
        vectors, theirs, log_q, their_apart = partners
        losses["engagement"] = contrastive(vectors, theirs, their_apart, config, log_q, both=False)
    total = torch.stack([counts[name] * loss for name, loss in losses.items()]).sum()
    return total, {name: float(loss.detach()) for name, loss in losses.items()}
