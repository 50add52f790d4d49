"""The attention network: tokens of any modalities in, a weight and a vector for each token out.

For tokens t of the modalities m that a video has:

    x_t   = the token's embedding, its root mean square brought to one (RMSNorm, Zhang & Sennrich 2019)
    v_t   = x_t (S_m + R_m) + s_m + b_m, at unit length         the value: a place in the joint space
    h_t   = v_t K + modality embedding + time embedding         the key's side, `width` wide
    q     = a few learnt query tokens, which look at all h_t and are looked at by all h_t, `layers` times
    share = softmax within the modality of  log salience_t + beta c_t + u(h_t)
    mass  = softmax over the modalities of
            prior_m + f_m log mean salience_m - k_m log |sum of share_t v_t| + g(sum of share_t h_t)
    w_t   = mass_m share_t
    vector = sum of w_t v_t, at unit length

Information passes between modalities through the queries alone: they are the bottleneck of MBT (Nagrani et al. 2021,
"Attention Bottlenecks for Multimodal Fusion") and the latents of Perceiver (Jaegle et al. 2021). It decides the
*weights* and never touches the *values*, so a token's weight is exactly its part in the vector: explanations are true
by construction. c_t is the cosine of v_t and the salience-weighted mean of its modality, as in `fusion.attention`. f
and k say how much a half-empty modality, and one that contradicts itself, gives way. Where training begins, u, g, f
and beta are zero and k is one: tokens share by salience, and each modality has its prior's part of the vector,
however diverse its tokens. On real clips that start finds more than the training-free attention (`bench.fusion`),
which the network *is* with f at one, k at zero and beta at two. S_m is the training-free projection, or a whitening
of the catalogue, with s_m for its mean (see `fusion.starts`). Training learns the residuals R_m and b_m, and weight
decay pulls them back to where they began.

As there, softmax within a modality first and the mean (not the sum) of salience between modalities make the result the
same when all tokens are repeated. A modality that is missing, or that has no salience, takes no part in any softmax.

Importing this module imports torch: only `fusion.trained` and `fusion.training` do, when they are called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from fusion.projection import projection

# Below this length a projected embedding, or a sum of unit vectors, is rounding error and no direction.
NO_DIRECTION = 1e-5
SHARE_BANDS = 6  # sinusoids of the place in the video: 1, 2, 4, ... half turns over its duration
SECOND_BANDS = 8  # sinusoids of the time in seconds: waves of 2, 4, 8, ... seconds
TIME_FEATURES = 2 * (SHARE_BANDS + SECOND_BANDS) + 2


class NetworkConfig(BaseModel):
    """The shape of the network. Together with the weights it decides every fused vector."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    widths: dict[str, int] = Field(description="Width of the embeddings of each modality.")
    priors: dict[str, float] = Field(default_factory=dict, description="Where their masses begin; 1 if absent.")
    dim: int = Field(256, ge=2, le=4096, description="Width of the joint space; a power of two.")
    width: int = Field(64, ge=4, le=1024, description="Width of the attention that decides the weights.")
    heads: int = Field(4, ge=1, le=32, description="Heads of that attention.")
    layers: int = Field(1, ge=0, le=12, description="Rounds in which queries and tokens look at each other.")
    queries: int = Field(4, ge=1, le=64, description="Query tokens: the bottleneck between modalities.")
    centrality: float = Field(0.0, ge=0, le=20, description="Where beta begins: how much typical tokens take.")
    fullness: float = Field(0.0, ge=0, le=4, description="Where f begins: how far a half-empty modality gives way.")
    coherence: float = Field(1.0, ge=0, le=1, description="Where k begins; 1: diverse modalities count like others.")
    token_limit: int = Field(256, ge=1, le=65_536, description="Most tokens of one modality that are attended to.")
    seed: int = Field(0, ge=0, description="Chooses the projections and weights that training begins with.")

    @field_validator("widths")
    @classmethod
    def _widths_make_sense(cls, widths: dict[str, int]) -> dict[str, int]:
        if not widths or any(not name or not 1 <= width <= 65_536 for name, width in widths.items()):
            raise ValueError("`widths` needs at least one modality, and widths of 1 to 65536")
        return dict(sorted(widths.items()))

    @field_validator("priors")
    @classmethod
    def _priors_are_positive(cls, priors: dict[str, float]) -> dict[str, float]:
        if any(not (prior > 0 and math.isfinite(prior)) for prior in priors.values()):
            raise ValueError("`priors` must be positive")
        return dict(sorted(priors.items()))

    @model_validator(mode="after")
    def _parts_fit(self) -> NetworkConfig:
        if self.dim & (self.dim - 1):
            raise ValueError(f"`dim` must be a power of two, got {self.dim}")
        if self.width % self.heads:
            raise ValueError(f"`width` must be a multiple of `heads`, got {self.width} and {self.heads}")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities by name, in the order in which the network lays tokens out."""
        return tuple(self.widths)


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Padded tokens of several videos, laid out modality after modality in the order of `config.modalities`.

    `embeddings` by modality float32 [videos, n_m, width_m] (n_m may be 0). Along the axis of all tokens, T = sum n_m:
    `salience` float32 [videos, T] in 0..1, `given` bool [videos, T] (false for padding), `start`, `end` float32
    [videos, T] in seconds, `duration` float32 [videos] in seconds.
    """

    embeddings: Mapping[str, Tensor]
    salience: Tensor
    given: Tensor
    start: Tensor
    end: Tensor
    duration: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        """The same on a device."""
        return TokenBatch(
            {name: part.to(device) for name, part in self.embeddings.items()},
            *(tensor.to(device) for tensor in (self.salience, self.given, self.start, self.end, self.duration)),
        )


@dataclass(frozen=True, eq=False)
class Projected:
    """Tokens in the joint space: `values` [videos, T, dim], of unit length or zero, `salience` [videos, T], 0 for
    padding and for tokens without direction, and `given` [videos, T]; `keys` [videos, T, width]."""

    values: Tensor
    salience: Tensor
    given: Tensor
    keys: Tensor
    spans: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Start:
    """Where the projection of a modality begins: x `matrix` [width, dim] + `shift` [dim]."""

    matrix: Tensor
    shift: Tensor


class _Projection(nn.Module):
    """x (start + residual) + shift + bias: begins at `start` and `shift`, and weight decay pulls it back there."""

    start: Tensor
    shift: Tensor

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.register_buffer("start", start.matrix.clone())
        self.register_buffer("shift", start.shift.clone())
        self.residual = nn.Parameter(torch.zeros_like(start.matrix))
        self.bias = nn.Parameter(torch.zeros_like(start.shift))

    def forward(self, rows: Tensor) -> Tensor:
        moved: Tensor = rows @ (self.start + self.residual) + (self.shift + self.bias)
        return moved


class _Look(nn.Module):
    """Multi-head attention of `these` to `those`, and a small feed-forward layer, each added to what was there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_these, self.norm_those, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, these: Tensor, those: Tensor, bias: Tensor | None) -> Tensor:
        """`these` [videos, n, width], `those` [videos, m, width], `bias` [videos, m] added to every score of theirs."""
        videos, count, width = these.shape
        query, key, value = (
            layer(part).reshape(videos, -1, self.heads, width // self.heads).transpose(1, 2)
            for layer, part in (
                (self.query, self.norm_these(these)),
                (self.key, self.norm_those(those)),
                (self.value, self.norm_those(those)),
            )
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.heads)
        if bias is not None:
            scores = scores + bias[:, None, None, :]
        seen = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(videos, count, width)
        these = these + self.out(seen)
        changed: Tensor = these + self.narrow(functional.gelu(self.wide(self.norm(these))))
        return changed


class AttentionNetwork(nn.Module):
    """The network of the module's docstring. It holds no randomness: the same batch gives the same weights."""

    def __init__(self, config: NetworkConfig, starts: Mapping[str, Start] | None = None) -> None:
        """`starts`: by modality the projection that training begins with, the training-free random one where none is
        given."""
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        begins = {name: random_start(name, width, config) for name, width in config.widths.items()} | dict(starts or {})
        self.projections = nn.ModuleList(_Projection(begins[name]) for name in config.modalities)
        names = config.modalities
        self.to_keys = nn.Linear(config.dim, config.width)
        self.time = nn.Linear(TIME_FEATURES, config.width)
        self.modality = nn.Parameter(torch.zeros(len(names), config.width))
        self.queries = nn.Parameter(torch.zeros(config.queries, config.width))
        self.gather = nn.ModuleList(_Look(config.width, config.heads) for _ in range(config.layers))
        self.spread = nn.ModuleList(_Look(config.width, config.heads) for _ in range(config.layers))
        self.token_norm, self.modality_norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.token_score, self.modality_score = nn.Linear(config.width, 1), nn.Linear(config.width, 1)
        self.prior = nn.Parameter(torch.tensor([math.log(config.priors.get(name, 1.0)) for name in names]))
        self.beta = nn.Parameter(torch.full((len(names),), config.centrality))
        self.fullness = nn.Parameter(torch.full((len(names),), config.fullness))
        self.coherence = nn.Parameter(torch.full((len(names),), config.coherence))
        self._begin(generator)

    def _begin(self, generator: torch.Generator) -> None:
        """Weights from the config's own seed, whatever else has drawn random numbers; scores begin at zero."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.weight.normal_(0.0, 1 / math.sqrt(module.in_features), generator=generator)
                    module.bias.zero_()
            self.modality.normal_(0.0, 0.5, generator=generator)
            self.queries.normal_(0.0, 0.5, generator=generator)
            for score in (self.token_score, self.modality_score):
                score.weight.zero_()

    def project(self, batch: TokenBatch) -> Projected:
        """Values and keys of all tokens. Each depends on its own token, and on the video's duration, alone."""
        counts = [batch.embeddings[name].shape[1] for name in self.config.modalities]
        values, directed = [], []
        for name, projection_of in zip(self.config.modalities, self.projections, strict=True):
            rows = _rms_normalised(batch.embeddings[name])
            projected = projection_of(rows)
            length = torch.linalg.vector_norm(projected, dim=2, keepdim=True)
            has_direction = rows.any(dim=2, keepdim=True) & (length > NO_DIRECTION)
            values.append(torch.where(has_direction, projected / length.clamp_min(NO_DIRECTION), 0.0))
            directed.append(has_direction[..., 0])
        spans = _spans(counts)
        joint = torch.cat(values, dim=1)
        usable = torch.cat(directed, dim=1) & batch.given
        place = torch.cat([torch.full((count,), number) for number, count in enumerate(counts)]).to(joint.device)
        keys = self.to_keys(joint) + self.modality[place.long()] + self.time(_time_features(batch))
        salience = torch.where(usable, batch.salience.clamp(0.0, 1.0), 0.0)
        return Projected(joint, salience, batch.given, keys, spans)

    def weights(self, tokens: Projected, kept: Tensor | None = None) -> Tensor:
        """float32 [videos, T]: the attention paid to each token, not negative, summing to one for each video.

        `kept` bool [videos, T] leaves tokens out as if they had never been given. A video without one token that has
        both direction and salience gets zeros throughout.
        """
        given = tokens.given if kept is None else tokens.given & kept
        salience = torch.where(given, tokens.salience, 0.0)
        attended = salience > 0
        log_salience = torch.where(attended, salience, 1.0).log()
        counts = torch.cat(
            [
                given[:, span].sum(1, keepdim=True).clamp_min(1).expand(-1, span.stop - span.start)
                for span in tokens.spans
            ],
            dim=1,
        )
        # The same for a repeated token as for one: what is looked at is the mean of a modality, not its sum.
        bias = torch.where(attended, log_salience - counts.to(salience.dtype).log(), -math.inf)
        bias = torch.where(attended.any(dim=1, keepdim=True), bias, 0.0)
        keys = tokens.keys
        queries = self.queries.expand(len(keys), -1, -1)
        for gather, spread in zip(self.gather, self.spread, strict=True):
            queries = gather(queries, keys, bias)
            keys = spread(keys, queries, None)
        scores = self.token_score(self.token_norm(keys))[..., 0]
        shares, masses = [], []
        for number, span in enumerate(tokens.spans):
            inside, values = salience[:, span], tokens.values[:, span]
            mean = functional.normalize((inside[..., None] * values).sum(dim=1), dim=1, eps=NO_DIRECTION)
            central = (values @ mean[..., None])[..., 0]
            present = attended[:, span].any(dim=1)
            logits = log_salience[:, span] + self.beta[number] * central + scores[:, span]
            logits = torch.where(attended[:, span], logits, -math.inf)
            share = torch.where(present[:, None], logits, 0.0).softmax(dim=1) * present[:, None]
            share = torch.where(attended[:, span], share, 0.0)
            summary = self.modality_norm((share[..., None] * keys[:, span]).sum(dim=1))
            fullness = inside.sum(dim=1) / given[:, span].sum(dim=1).clamp_min(1)
            coherent = torch.linalg.vector_norm((share[..., None] * values).sum(dim=1), dim=1)
            mass = (
                self.prior[number]
                + self.fullness[number] * fullness.clamp_min(1e-20).log()
                - self.coherence[number] * coherent.clamp_min(1e-3).log()
                + self.modality_score(summary)[:, 0]
            )
            shares.append(share)
            masses.append(torch.where(present, mass, -math.inf))
        mass = torch.stack(masses, dim=1)
        some = attended.any(dim=1, keepdim=True)
        mass = torch.where(some, mass, 0.0).softmax(dim=1) * some
        return torch.cat([share * mass[:, number, None] for number, share in enumerate(shares)], dim=1)

    def forward(self, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [videos, dim] of unit length, weights [videos, T] and values [videos, T, dim]."""
        tokens = self.project(batch)
        weights = self.weights(tokens)
        return pooled(weights, tokens.values), weights, tokens.values


def pooled(weights: Tensor, values: Tensor) -> Tensor:
    """[videos, dim] of unit length: the sum of `values` [videos, T, dim] by `weights` [videos, T]. Zeros stay zeros."""
    return functional.normalize((weights[:, None, :] @ values)[:, 0], dim=1, eps=1e-8)


def random_start(name: str, width: int, config: NetworkConfig) -> Start:
    """The training-free projection, scaled for rows whose root mean square is one."""
    matrix = torch.from_numpy(projection(name, width, config.dim, config.seed).copy()) / math.sqrt(width)
    return Start(matrix, torch.zeros(config.dim))


def _rms_normalised(embeddings: Tensor) -> Tensor:
    """Rows with a root mean square of one; rows of zeros stay zeros."""
    # By the largest entry first, as in `fusion.attention`: squares of what float32 holds may overflow it.
    scaled = embeddings / embeddings.abs().amax(dim=2, keepdim=True).clamp_min(1e-30)
    return scaled / scaled.square().mean(dim=2, keepdim=True).sqrt().clamp_min(1e-12)


def _spans(counts: Sequence[int]) -> tuple[slice, ...]:
    ends = [sum(counts[: place + 1]) for place in range(len(counts))]
    return tuple(slice(end - count, end) for count, end in zip(counts, ends, strict=True))


def _time_features(batch: TokenBatch) -> Tensor:
    """[videos, T, TIME_FEATURES]: the token's middle as share of the duration and in seconds, as sinusoids, and how
    long it lasts, both as share and in the logarithm of seconds."""
    duration = batch.duration[:, None].clamp_min(1e-3)
    middle = (batch.start + batch.end) / 2
    share = (middle / duration).clamp(0.0, 1.0)
    halves = math.pi * 2.0 ** torch.arange(SHARE_BANDS, device=share.device)
    waves = math.pi * 0.5 ** torch.arange(SECOND_BANDS, device=share.device)
    # Sinusoids of times beyond a day would be noise.
    angles = torch.cat([share[..., None] * halves, middle.clamp(-86_400.0, 86_400.0)[..., None] * waves], dim=2)
    lasts = (batch.end - batch.start).clamp(0.0, 86_400.0)
    lengths = torch.stack([(lasts / duration).clamp(0.0, 1.0), lasts.log1p() / 4], dim=2)
    return torch.cat([angles.sin(), angles.cos(), lengths], dim=2)
