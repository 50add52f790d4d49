"""Attention over the tokens of all modalities, sensible without any training.

What it computes, for tokens t of the modalities m that a video has:

    x_t   = the token's embedding, at unit length
    v_t   = x_t P_m                       into the joint space (`fusion.projection`)
    c_t   = the cosine of x_t and the mean of its modality's tokens, weighted by salience
    w_t   = softmax over all tokens of  log prior_m + log mean salience_m + log share_t
    share = softmax within the modality of  log salience_t + c_t / temperature
    vector = sum of w_t v_t, at unit length

Why: with no training there are no learned queries, so attention goes by what is known without them. *Between*
modalities: how much each can be trusted to tell videos apart (the prior), and how much there is of it in this video
(mean salience: a mostly silent sound track gets little). *Within* a modality: how much there is in the token, and how
well it stands for the rest, as in LexRank's centrality (Erkan & Radev 2004); a lone odd frame counts less than one of
many alike. The mean and not the sum of salience, and a centrality that counts the token itself, make the result the
same when all tokens of a modality are repeated: a long video of the same is the same, and twenty frames do not outvote
one title. A modality without tokens takes no part in the softmax; it is never filled with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from fusion.projection import projection
from store.errors import InputError, ModelError
from store.records import MODALITIES, AttendedToken, Float32, FusedAttributes, Modality, Tokens

Float64 = npt.NDArray[np.float64]

# Below this length a sum of unit vectors is rounding error, not a direction.
NO_DIRECTION = 1e-5


class ModalityPriors(BaseModel):
    """How much of the attention each modality gets when all are present and full; only their ratios count.

    Set by what each was worth alone in content-only retrieval of videos: words and pictures well above sound.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    vision: float = Field(0.45, gt=0, allow_inf_nan=False)
    audio: float = Field(0.15, gt=0, allow_inf_nan=False)
    text: float = Field(0.4, gt=0, allow_inf_nan=False)


class FusionConfig(BaseModel):
    """What decides a fused vector besides the tokens. Part of the version of the `fused` stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dim: int = Field(256, ge=2, le=4096, description="Width of the joint space; a power of two.")
    priors: ModalityPriors = Field(default_factory=ModalityPriors)
    centrality_temperature: float = Field(
        0.5, gt=0, allow_inf_nan=False, description="Lower: typical tokens take more."
    )
    seed: int = Field(0, ge=0, description="Chooses the random projections.")


@dataclass(frozen=True, eq=False)
class Fused:
    """One video as one vector, and the attention that made it.

    `vector` float32 [dim], unit length; `weights` float32 [n_tokens], not negative, summing to one; `token_vectors`
    float32 [n_tokens, dim], the projected tokens before weighting, each of about unit length (zeros for a token without
    direction). All in the order of `attributes.tokens`: vision, audio, text, each as it was given.
    `vector` is `weights @ token_vectors` at unit length.
    """

    vector: Float32
    weights: Float32
    token_vectors: Float32
    attributes: FusedAttributes

    def __post_init__(self) -> None:
        shape = (len(self.attributes.tokens), len(self.vector))
        if self.token_vectors.shape != shape or self.weights.shape != shape[:1]:
            raise ValueError(f"expected token_vectors {shape}, got {self.token_vectors.shape} and {self.weights.shape}")

    def __repr__(self) -> str:
        return f"Fused(vector={self.vector.shape}, tokens={self.token_vectors.shape}, {self.attributes.attention})"


@dataclass(frozen=True, eq=False)
class _Part:
    """One modality on its way: projected tokens, shares of the tokens within it, and its mass between modalities."""

    vectors: Float32
    shares: Float64
    mass: float


def fuse(tokens: Mapping[Modality, Tokens], sources: Mapping[Modality, Sequence[str]], config: FusionConfig) -> Fused:
    """Fuse a video's tokens (embeddings [n, width] of any width for each modality) into one vector.

    `sources` names where each token comes from (`frame`, `title`, `transcript`, ...), one per token. The order in which
    the modalities are given is of no account. Errors: `fusion.no_tokens` when no token has both a direction and
    salience, `fusion.not_finite`; ValueError when `sources` and `tokens` do not fit.
    """
    given = [modality for modality in MODALITIES if modality in tokens and len(tokens[modality])]
    for modality in given:
        if len(sources.get(modality, ())) != len(tokens[modality]):
            raise ValueError(f"{modality}: {len(tokens[modality])} tokens, {len(sources.get(modality, ()))} sources")
        _check_finite(modality, tokens[modality])
    parts = {modality: _part(modality, tokens[modality], config) for modality in given}
    masses = np.array([parts[modality].mass for modality in given], np.float64)
    if not masses.sum() > 0:
        raise InputError(
            "fusion.no_tokens",
            "The video shows nothing, says nothing and sounds like nothing: there is not one token to fuse.",
        )
    masses /= masses.sum()
    vectors = np.concatenate([parts[modality].vectors for modality in given])
    shares = [mass * parts[modality].shares for modality, mass in zip(given, masses, strict=True)]
    weights = np.concatenate(shares).astype(np.float32)
    summed = weighted_sum(weights, vectors)
    if np.linalg.norm(summed) < NO_DIRECTION:
        weights = leaning(weights, vectors)
        summed = weighted_sum(weights, vectors)
    vector = (summed / np.linalg.norm(summed)).astype(np.float32)
    return Fused(vector, weights, vectors, attributes_of(tokens, sources, given, weights))


def _check_finite(modality: Modality, tokens: Tokens) -> None:
    for name in ("embeddings", "salience", "start_seconds", "end_seconds"):
        if not np.isfinite(getattr(tokens, name)).all():
            raise ModelError("fusion.not_finite", f"The {name} of {modality} tokens hold NaN or infinity.")


def _part(modality: Modality, tokens: Tokens, config: FusionConfig) -> _Part:
    embeddings = tokens.embeddings.astype(np.float64)
    # By the largest entry first: squares of what float32 can hold may leave float64's precise range.
    scale = np.abs(embeddings).max(axis=1, keepdims=True, initial=0.0)
    embeddings = np.divide(embeddings, scale, out=np.zeros_like(embeddings), where=scale > 0)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions = np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 0)
    matrix = projection(modality, embeddings.shape[1], config.dim, config.seed)
    vectors = (directions @ matrix.astype(np.float64)).astype(np.float32)
    # A direction that the projection loses cannot be attended to.
    seen = np.linalg.norm(vectors, axis=1) > NO_DIRECTION
    salience = np.where(seen, np.clip(tokens.salience.astype(np.float64), 0.0, 1.0), 0.0)
    prior: float = getattr(config.priors, modality)
    if not salience.any():
        return _Part(vectors, np.zeros(len(tokens)), 0.0)
    mean = salience @ directions
    length = float(np.linalg.norm(mean))
    centrality = directions @ mean / length if length > NO_DIRECTION * salience.sum() else np.zeros(len(tokens))
    shares = salience * np.exp((centrality - centrality.max()) / config.centrality_temperature)
    return _Part(vectors, shares / shares.sum(), prior * float(salience.mean()))


def weighted_sum(weights: Float32, vectors: Float32) -> Float64:
    """float64 [dim]: the sum of `vectors` [n, dim] by `weights` [n], before it is brought to unit length."""
    summed: Float64 = weights.astype(np.float64) @ vectors.astype(np.float64)
    return summed


def leaning(weights: Float32, vectors: Float32) -> Float32:
    """Weights that lean half-way to the strongest token, for tokens that cancel each other out: their sum is then that
    token's direction. Among equals the choice depends on the vectors, not on their order."""
    strongest = np.flatnonzero(weights >= weights.max() * (1 - 1e-6))
    chosen = min(strongest, key=lambda index: vectors[index].tolist())
    leaning = weights * np.float32(0.5)
    leaning[chosen] += np.float32(0.5)
    return leaning


def attributes_of(
    tokens: Mapping[Modality, Tokens],
    sources: Mapping[Modality, Sequence[str]],
    given: Sequence[Modality],
    weights: Float32,
) -> FusedAttributes:
    """What the record says: every token of the modalities `given`, in their order, and the weight of each modality."""
    attended: list[AttendedToken] = []
    attention: dict[Modality, float] = {}
    for modality in given:
        part = tokens[modality]
        first = len(attended)
        for source, start, end in zip(sources[modality], part.start_seconds, part.end_seconds, strict=True):
            attended.append(AttendedToken(modality=modality, source=source, start=float(start), end=float(end)))
        attention[modality] = float(weights[first : len(attended)].sum(dtype=np.float64))
    return FusedAttributes(attention=attention, tokens=attended)
