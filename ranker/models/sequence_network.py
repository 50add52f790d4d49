"""The networks of the sequence models: acts in, a state after each of them out, and scores of videos from states.

    x_p = video + dropout of (time since the act before + watched share + kind + stars + place in the window)
    h   = the states after a causal Transformer (pre-norm; Kang and McAuley 2018, "Self-Attentive Sequential
          Recommendation", with the softmax over all videos of Klenitskiy and Vasilev 2023 in place of its single
          negatives) or after a GRU (Hidasi et al. 2016, "Session-based Recommendations with Recurrent Neural Networks")
    score_i = norm(h) . o_i + b_i

With vectors by number, o_i is the video's input vector (tied weights). With vectors of content both are projections of
what the video is, each its own, and so is b_i: nothing in them is of one video alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.models.learning import seed_of
from ranker.models.training_data import ActLog
from ranker.models.transitions import first_vectors
from ranker.models.watch_sequences import KIND_BUCKETS, SHARE_BUCKETS, STAR_BUCKETS, TIME_BUCKETS, Windows

SMALL = 0.02
# What is drawn, beside the seed.
OF_NETWORK, OF_VIDEOS, OF_MARKS = 0, 1, 2


class NumberedVideos(nn.Module):
    """A vector and a bias for each of n videos; rows n and n + 1 are the mark and the video that is not known."""

    def __init__(self, first: Tensor, marks: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.cat([first, marks]))
        self.biases = nn.Parameter(torch.zeros(len(first)))

    def inputs(self) -> Tensor:
        """[n + 2, dim]."""
        return self.vectors

    def outputs(self, some: Tensor) -> tuple[Tensor, Tensor]:
        """(vectors [k, dim], biases [k]) of videos by number."""
        return self.vectors[some], self.biases[some]


class DescribedVideos(nn.Module):
    """Vectors of n videos projected from what they are, `features` float32 [n, f]; the mark and the video that is not
    known have vectors of their own."""

    features: Tensor

    def __init__(self, features: Tensor, dim: int, marks: Tensor, hidden: int) -> None:
        super().__init__()
        self.register_buffer("features", features)
        width = features.shape[1]
        self.of_inputs, self.of_outputs = _projection(width, hidden, dim), _projection(width, hidden, dim + 1)
        self.marks = nn.Parameter(marks)

    def inputs(self) -> Tensor:
        """[n + 2, dim]."""
        return torch.cat([self.of_inputs(self.features), self.marks])

    def outputs(self, some: Tensor) -> tuple[Tensor, Tensor]:
        """(vectors [k, dim], biases [k]) of videos by number."""
        found = self.of_outputs(self.features[some])
        return found[:, :-1], found[:, -1]


def _projection(width: int, hidden: int, dim: int) -> nn.Module:
    if not hidden:
        return nn.Linear(width, dim)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """Causal multi-head attention and a feed-forward layer, each normed before and added to what was there."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_looks, self.norm_thinks = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, dim] to the same."""
        b, t, dim = x.shape
        parts = self.query_key_value(self.norm_looks(x)).view(b, t, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        x = x + self._dropped(self.out(seen.transpose(1, 2).reshape(b, t, dim)))
        return x + self._dropped(self.narrow(self._dropped(functional.gelu(self.wide(self.norm_thinks(x))))))

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class Transformer(nn.Module):
    """Blocks over vectors with their place in the window. [b, t, dim] to the same, t at most `context`."""

    def __init__(self, dim: int, blocks: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.places = nn.Parameter(SMALL * torch.randn(context, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(blocks))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = functional.dropout(x + self.places[: x.shape[1]], self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return x


class Recurrent(nn.Module):
    """A GRU. [b, t, dim] to the same."""

    def __init__(self, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, dim, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.gru(functional.dropout(x, self.dropout, self.training))[0]
        return states


class SequenceNetwork(nn.Module):
    """Videos, what is known of acts, and a body that reads them in order."""

    def __init__(
        self,
        videos: NumberedVideos | DescribedVideos,
        body: nn.Module,
        dim: int,
        dropout: float,
        times: bool,
        acts: bool,
    ) -> None:
        super().__init__()
        self.videos, self.body, self.norm, self.dropout = videos, body, nn.LayerNorm(dim), dropout
        sizes = ({"gaps": TIME_BUCKETS} if times else {}) | (
            {"shares": SHARE_BUCKETS, "kinds": KIND_BUCKETS, "stars": STAR_BUCKETS} if acts else {}
        )
        self.acts = nn.ParameterDict({name: SMALL * torch.randn(size, dim) for name, size in sizes.items()})

    def states(self, windows: Windows) -> Tensor:
        """[windows, steps, dim], normed: what is known after each step's input."""
        x = functional.embedding(torch.from_numpy(windows.videos), self.videos.inputs())
        for name, table in self.acts.items():
            x = x + functional.embedding(torch.from_numpy(getattr(windows, name)), table)
        normed: Tensor = self.norm(self.body(x))
        return functional.dropout(normed, self.dropout, self.training)


def marks_of(dim: int, seed: int) -> Tensor:
    """float32 [2, dim]: what the vectors of the mark and of the video that is not known begin with."""
    return 0.1 * torch.randn(2, dim, generator=torch.Generator().manual_seed(seed_of(seed, OF_MARKS)))


def first_of(log: ActLog, dim: int, seed: int, most_near: int) -> Tensor:
    """float32 [n_videos, dim]: what the vectors of videos begin with. By what is watched near what, where that is asked
    for and there are at most `most_near` videos with acts; at random elsewhere, and where it says nothing."""
    drawn = 0.1 * torch.randn(log.n_videos, dim, generator=torch.Generator().manual_seed(seed_of(seed, OF_VIDEOS)))
    near = first_vectors(log, dim, most_near) if most_near else None
    if near is None:
        return drawn
    found = torch.from_numpy(near)
    # What has no direction yet learns none: a little of chance for what closed form leaves at zero.
    return torch.where(found == 0, 0.1 * drawn, found)
