"""The network of the two towers: a viewer as several interests, a video as an id and as what it looks and sounds like.

The viewer tower has no rows of viewers. A viewer is his history: weights w_j of the videos he had. Each of K interests
pays attention to it (ComiRec-SA, Cen et al. 2020, section 3.2: the logit of a video hangs on the video and the
interest alone, so that all viewers' interests are a few products of matrices):

    e_kj = exp(a_k(j)),    c_k = n^(1 - power) * sum_j w_j e_kj x_j / sum_j w_j e_kj

with n = sum_j w_j and x_j what the id of a watched video says. In the space of each modality m the same attention gives
h_km, the mean direction of what was watched, and the direction that is looked for is q_km = unit(h_km + A_m c_k).

The video tower is y_v (its id) and unit vectors k_m(v), a linear map of each modality. The score of an interest is

    s_k(u, v) = <c_k, y_v> + t(u) * sum_m a_km(u, v) <q_km, k_m(v)>
    a_km(u, v) = has_m(v) exp(l_km(u)) / sum_m' has_m'(v) exp(l_km'(u))

so the weight of a modality is the viewer's own, and goes to the others where a video lacks it. g is one number for
videos whose id is known and 1 for new ones, whose content has to say all. Both sums are inner
products with a fixed vector per video ([has_m k_m] and [has_m]), which is why all videos are scored by two products of
matrices. The interests are joined by s = sum_k p_k s_k + b_v, p = softmax_k(choice * s_k): the interest that fits best
speaks, softly (a maximum in the limit), and the parts of a score still add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# The widest logit of attention to history: exp(8) is 3000 times as much as exp(0).
WIDEST = 8.0


@dataclass(frozen=True, eq=False)
class Videos:
    """The video tower's output for all n videos: `watched` [n, dim] (x), `ids` [n, dim] (y), `bias` [n], `worth` [n]
    (g), `keys` by modality [n, width], unit or zero, `has` [n, modalities] of 0 and 1."""

    watched: Tensor
    ids: Tensor
    bias: Tensor
    worth: Tensor
    keys: tuple[Tensor, ...]
    has: Tensor

    def only(self, places: Tensor) -> Videos:
        """The same of some videos."""
        keys = tuple(key[places] for key in self.keys)
        return Videos(
            self.watched[places], self.ids[places], self.bias[places], self.worth[places], keys, self.has[places]
        )


@dataclass(frozen=True, eq=False)
class Viewers:
    """The viewer tower's output for b viewers: `ids` [b, K, dim] (c), `looks` by modality [b, K, width] (q, unit),
    `logits` [b, K, modalities] (l), `strength` [b] (t)."""

    ids: Tensor
    looks: tuple[Tensor, ...]
    logits: Tensor
    strength: Tensor


@dataclass(frozen=True, eq=False)
class Parts:
    """A score taken apart, all [b, K, n] or [b, K, n, modalities]: `ids` <c, y>, `weights` a, `content` what each
    modality adds, `chosen` p."""

    ids: Tensor
    weights: Tensor
    content: Tensor
    chosen: Tensor


class TowerNetwork(nn.Module):
    """Both towers. `features` by modality [n, any] (rows of zeros: missing); `known` [n] tells which videos have an id
    that was learnt."""

    known: Tensor
    present: Tensor

    def __init__(
        self,
        features: Mapping[str, Tensor],
        known: Tensor,
        *,
        dim: int,
        width: int,
        interests: int,
        power: float,
        choice: float,
        uniform: bool,
    ) -> None:
        super().__init__()
        n = len(known)
        self.modalities = tuple(sorted(features))
        self.power, self.choice, self.uniform = power, choice, uniform
        self.smoothing: Tensor | None = None
        self.register_buffer("known", known.float())
        self.register_buffer("present", torch.zeros(n, len(self.modalities)))
        self.watched = nn.Parameter(0.05 * torch.randn(n, dim))
        self.ids = nn.Parameter(0.05 * torch.randn(n, dim))
        self.bias = nn.Parameter(torch.zeros(n))
        # What a video without an id has for a bias.
        self.newcomer = nn.Parameter(torch.zeros(()))
        self.attention = nn.Parameter(0.1 * torch.randn(interests, dim))
        # n ** (power of history) and the strength of content: exp(first + second * log(1 + n)).
        self.strength = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.worth = nn.Parameter(torch.zeros(()))
        maps: dict[str, nn.Linear] = {}
        looks: dict[str, nn.Linear] = {}
        self.attend = nn.ParameterDict()
        for place, name in enumerate(self.modalities):
            rows = features[name].float()
            self.register_buffer(f"features_{name}", rows)
            self.present[:, place] = (rows != 0).any(dim=1).float()
            here = min(width, rows.shape[1])
            maps[name] = nn.Linear(rows.shape[1], here)
            looks[name] = nn.Linear(dim, here)
            self.attend[name] = nn.Parameter(0.1 * torch.randn(interests, here))
        # A ModuleDict is a mapping of what was put in, which its type does not say.
        self.maps: Mapping[str, nn.Linear] = nn.ModuleDict(maps)  # type: ignore[assignment]
        self.looks: Mapping[str, nn.Linear] = nn.ModuleDict(looks)  # type: ignore[assignment]
        # The logit of a modality: how much of one mind the history is in it, and whose history it is.
        self.agreement = nn.Parameter(torch.zeros(len(self.modalities)))
        self.taste = nn.Linear(dim, max(1, len(self.modalities)))
        # The first interest starts as all of the history alike, the others as chance has it, so that they come apart.
        with torch.no_grad():
            for queries in (self.attention, *self.attend.values()):
                queries[0] = 0
        for layer in [*looks.values(), self.taste]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def videos(self, dropped: Tensor | None = None) -> Videos:
        """All videos; `dropped` [n] of 0 and 1 takes ids away, as if the video were new (item dropout)."""
        known = self.known if dropped is None else self.known * (1 - dropped)
        watched, ids = self.watched * known[:, None], self.ids * known[:, None]
        if self.smoothing is not None:
            # A video is also what those who had it had besides; one without an id lends none and borrows none.
            watched = watched + known[:, None] * torch.sparse.mm(self.smoothing, watched)
            ids = ids + known[:, None] * torch.sparse.mm(self.smoothing, ids)
        keys = tuple(
            functional.normalize(self.maps[name](self.get_buffer(f"features_{name}")), dim=1)
            * self.present[:, place, None]
            for place, name in enumerate(self.modalities)
        )
        bias = self.bias * known + self.newcomer * (1 - known)
        return Videos(watched, ids, bias, torch.exp(self.worth * known), keys, self.present)

    def interest(self, videos: Videos) -> Tensor:
        """[n, K]: e, how much each interest attends to each video in anybody's history."""
        logits = functional.normalize(videos.watched, dim=1) @ self.attention.T
        for name, key in zip(self.modalities, videos.keys, strict=True):
            logits = logits + key @ self.attend[name].T
        return torch.exp(WIDEST * torch.tanh(logits / WIDEST))

    def viewers(self, history: Tensor, videos: Videos) -> Viewers:
        """From `history`, sparse [b, n] of weights above 0. Who has none is looked at by the biases alone."""
        attention = self.interest(videos)
        table = torch.cat([videos.watched, *videos.keys], dim=1)
        size = torch.sparse.mm(history, torch.ones(len(table), 1))
        mass = torch.sparse.mm(history, attention).clamp_min(1e-9)
        # One product for all interests: [n, K * (dim + widths)].
        wide = (attention[:, :, None] * table[:, None]).flatten(1)
        means = torch.sparse.mm(history, wide).view(len(mass), *attention.shape[1:], -1) / mass[:, :, None]
        split = torch.split(means, [videos.watched.shape[1], *(key.shape[1] for key in videos.keys)], dim=2)
        ids = split[0]
        ids = ids * (size.clamp_min(1e-9) ** (1 - self.power))[:, :, None] if self.power != 1 else ids
        direction = functional.normalize(ids, dim=2)
        looks = tuple(
            functional.normalize(mean + self.looks[name](direction), dim=2)
            for name, mean in zip(self.modalities, split[1:], strict=True)
        )
        if self.uniform or not self.modalities:
            logits = torch.zeros(*ids.shape[:2], len(self.modalities))
        else:
            agree = torch.stack([mean.norm(dim=2) for mean in split[1:]], dim=2)
            logits = self.taste(direction) + self.agreement * agree
        strength = torch.exp(self.strength[0] + self.strength[1] * torch.log1p(size[:, 0]))
        return Viewers(ids, looks, logits, strength)

    def score(self, viewers: Viewers, videos: Videos) -> Tensor:
        """[b, n]."""
        each = viewers.ids @ videos.ids.T
        if self.modalities:
            weights = torch.exp(viewers.logits - viewers.logits.amax(dim=2, keepdim=True))
            asked = torch.cat([weights[:, :, m, None] * look for m, look in enumerate(viewers.looks)], dim=2)
            above = asked @ torch.cat(videos.keys, dim=1).T
            below = weights @ videos.has.T
            each = each + viewers.strength[:, None, None] * videos.worth * above / below.clamp_min(1e-9)
        if each.shape[1] == 1:
            return each[:, 0] + videos.bias
        chosen = torch.softmax(self.choice * each, dim=1)
        return (chosen * each).sum(dim=1) + videos.bias

    def parts(self, viewers: Viewers, videos: Videos) -> Parts:
        """The same, taken apart."""
        ids = viewers.ids @ videos.ids.T
        weights = torch.exp(viewers.logits - viewers.logits.amax(dim=2, keepdim=True))[:, :, None] * videos.has
        weights = weights / weights.sum(dim=3, keepdim=True).clamp_min(1e-9)
        alike = [look @ key.T for look, key in zip(viewers.looks, videos.keys, strict=True)]
        content = torch.zeros_like(weights)
        if alike:
            strength = viewers.strength[:, None, None, None] * videos.worth[:, None]
            content = strength * weights * torch.stack(alike, dim=3)
        return Parts(ids, weights, content, torch.softmax(self.choice * (ids + content.sum(dim=3)), dim=1))

    @torch.no_grad()
    def settle(self) -> None:
        """Write the smoothing into the ids, for good: what is served needs no graph."""
        found = self.videos()
        self.watched.copy_(found.watched)
        self.ids.copy_(found.ids)
        self.smoothing = None
