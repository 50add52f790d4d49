"""The network under the heads of `ranker.models.multitask`: one shared bottom, or experts with a gate for each head.

    shared bottom   h = f(x),  logit_k = t_k(h) + w_k . features               (Caruana 1997)
    mmoe            h_k = sum over experts of softmax(G_k x)_e f_e(x),
                    logit_k = t_k(h_k) + w_k . features                        (Ma et al., KDD 2018)

x holds the features, the embeddings of viewer, video and tags, and the products of viewer with video and with tags,
which no sum of them can stand for (Rendle 2010). The last term, as in Wide & Deep (Cheng et al. 2016), hands a good
input's score straight to the head. Experts are as wide together as the shared bottom, so that the two compare.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Architecture = Literal["shared_bottom", "mmoe"]
EMBEDDED = 3


class TaskNetwork(nn.Module):
    """Logits of all heads. Row `n_viewers` is the viewer nobody knows, row `n_videos` the video nobody had; in training
    each is met where chance hides who it is (`hidden_share`)."""

    def __init__(
        self,
        *,
        n_viewers: int,
        n_videos: int,
        n_features: int,
        n_buckets: int,
        n_heads: int,
        architecture: Architecture,
        dim: int,
        width: int,
        experts: int,
        tower: int,
        dropout: float,
        hidden_share: float,
        uncertainty: bool,
    ) -> None:
        super().__init__()
        self.viewer = nn.Embedding(n_viewers + 1, dim)
        self.video = nn.Embedding(n_videos + 1, dim)
        self.tag = nn.Linear(n_buckets, dim, bias=False) if n_buckets else None
        for table in (self.viewer, self.video):
            nn.init.normal_(table.weight, std=0.05)
        self.mmoe, self.hidden_share, self.n_heads = architecture == "mmoe", hidden_share, n_heads
        self.experts = experts if self.mmoe else 1
        n_inputs = n_features + (EMBEDDED + 2) * dim
        each = max(1, width // self.experts)
        self.bottom = nn.Linear(n_inputs, self.experts * each)
        self.gate = nn.Linear(n_inputs, n_heads * self.experts) if self.mmoe else None
        self.tower = nn.Parameter(torch.randn(n_heads, each, tower) * (2 / each) ** 0.5)
        self.tower_shift = nn.Parameter(torch.zeros(n_heads, tower))
        self.out = nn.Parameter(torch.randn(n_heads, tower) * tower**-0.5)
        self.wide = nn.Linear(n_features, n_heads)
        nn.init.zeros_(self.wide.weight)
        self.dropout = nn.Dropout(dropout)
        # Kendall et al. 2018: log of the variance of each task, learnt with it.
        self.log_variance = nn.Parameter(torch.zeros(n_heads)) if uncertainty else None

    def embedded(self, viewers: Tensor, videos: Tensor, tags: Tensor) -> Tensor:
        """float32 [..., 3, dim] of int64 [...] viewers and videos and float32 [..., buckets] tags."""
        if self.training and self.hidden_share:
            viewers = self._hidden(viewers, self.viewer.num_embeddings - 1)
            videos = self._hidden(videos, self.video.num_embeddings - 1)
        viewer, video = self.viewer(viewers), self.video(videos)
        tag = torch.zeros_like(video) if self.tag is None else self.tag(tags)
        return torch.stack([viewer, video, tag], dim=-2)

    def _hidden(self, places: Tensor, nobody: int) -> Tensor:
        hidden = torch.rand(places.shape, device=places.device) < self.hidden_share
        return torch.where(hidden, torch.full_like(places, nobody), places)

    def forward(self, features: Tensor, embedded: Tensor) -> Tensor:
        """float32 [..., n_heads] logits of float32 [..., n_features] and what `embedded` gave."""
        viewer, video, tag = embedded.unbind(dim=-2)
        x = torch.cat([features, viewer, video, tag, viewer * video, viewer * tag], dim=-1)
        hidden = self.dropout(torch.relu(self.bottom(x)))
        if self.gate is None:
            mixed = hidden.unsqueeze(-2).expand(*hidden.shape[:-1], self.n_heads, hidden.shape[-1])
        else:
            shares = self.gate(x).unflatten(-1, (self.n_heads, self.experts)).softmax(dim=-1)
            mixed = shares @ hidden.unflatten(-1, (self.experts, -1))
        towers = torch.einsum("...hd,hdt->...ht", mixed, self.tower) + self.tower_shift
        deep = (self.dropout(torch.relu(towers)) * self.out).sum(dim=-1)
        logits: Tensor = deep + self.wide(features)
        return logits
