"""Fresh and little-shown videos: which of them to try on whom, so that each finds its audience with few impressions.

Thompson sampling (Thompson 1933; Chapelle and Li 2011). How well a video does is a chance theta in 0..1 with a Beta
posterior; its prior is what nearby videos did, as a new video is most likely as good as those that look and sound
alike:

    theta_j ~ Beta(strength * m_j + liked_j,  strength * (1 - m_j) + shown_j - liked_j)
    m_j     = rates of known videos, weighted by exp(sharpness * cosine) and by how often they were shown
    score   = theta_j * exp(sharpness * cosine(viewer's interest, audience_j))

`audience_j` is where its audience lies: at its own vector to begin with (`own` likes' worth), drawn towards the
interests of those who liked it as they turn up. What was shown often without success sinks for everybody; what was
never shown is uncertain, so it keeps its chance. The draw is seeded by viewer and hour: the same request gives the
same feed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from store.artifacts import digest

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
HOUR_SECONDS = 3600.0
KNOWN_BLOCK = 2048


class ExplorationConfig(BaseModel):
    """`fresh_seconds`: younger videos are explored, as are those shown less than `enough` times; neither once `found`
    likes say that the audience is found, for then the other sources know whom to show it to. `strength`: how many
    impressions the prior is worth; `prior_mean` where nothing nearby is known. `own`: how many likes a video's own
    vector is worth as a guess of where its audience lies. `pool`: of the newest at most so many are weighed for one
    request. Before all of these come those that were published less than `first_seconds` ago and shown less than
    `first_shown` times, on whom they suit best, so that a new video is in somebody's feed at once. `sharpness` and
    `strength` were chosen with bench/exploration.py, on ten other seeds than those it reports."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fresh_seconds: float = Field(3 * 86_400.0, gt=0, allow_inf_nan=False)
    enough: int = Field(50, ge=1)
    found: float = Field(20.0, gt=0, allow_inf_nan=False)
    strength: float = Field(10.0, gt=0, allow_inf_nan=False)
    prior_mean: float = Field(0.3, gt=0, lt=1)
    sharpness: float = Field(16.0, ge=0, allow_inf_nan=False)
    own: float = Field(1.0, gt=0, allow_inf_nan=False)
    pool: int = Field(1000, ge=1)
    first_seconds: float = Field(3600.0, ge=0, allow_inf_nan=False)
    first_shown: int = Field(10, ge=0)


class Tallies:
    """How often each video was shown, and how much of that was liked: folded event by event."""

    def __init__(self) -> None:
        self.shown: dict[str, int] = {}
        self.liked: dict[str, float] = {}

    def add(self, video: str, value: float) -> None:
        """One act is one impression; it was liked by its value, 0..1 (`ranker.events.value`, cut off)."""
        self.shown[video] = self.shown.get(video, 0) + 1
        self.liked[video] = self.liked.get(video, 0.0) + min(max(value, 0.0), 1.0)

    def of(self, videos: Sequence[str]) -> tuple[Float64, Float64]:
        """(shown, liked), float64 [n] each."""
        shown = np.array([self.shown.get(video, 0) for video in videos], np.float64)
        return shown, np.array([self.liked.get(video, 0.0) for video in videos], np.float64)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Beta posteriors: float64 [n] each, above 0."""

    alpha: Float64
    beta: Float64

    @property
    def mean(self) -> Float64:
        """What is expected of each, 0..1."""
        return self.alpha / (self.alpha + self.beta)

    def draw(self, stream: np.random.Generator) -> Float64:
        """One theta for each."""
        return stream.beta(self.alpha, self.beta)


def posterior(shown: Float64, liked: Float64, prior: Float64, config: ExplorationConfig) -> Posterior:
    """From impressions, likes and prior means (each float64 [n])."""
    # Just inside 0..1: Beta needs both sides above 0, and nothing is certain.
    mean = np.clip(prior, 1e-3, 1 - 1e-3)
    return Posterior(config.strength * mean + liked, config.strength * (1 - mean) + np.maximum(shown - liked, 0))


def prior_means(vectors: Float32, known: Float32, shown: Float64, liked: Float64, config: ExplorationConfig) -> Float64:
    """float64 [n]: what videos near to `vectors` [n, dim] did. `known` [m, dim] unit, their impressions and likes
    [m]."""
    if not len(known) or not len(vectors):
        return np.full(len(vectors), config.prior_mean)
    top = np.zeros(len(vectors))
    below = np.zeros(len(vectors))
    for start in range(0, len(known), KNOWN_BLOCK):
        part = slice(start, start + KNOWN_BLOCK)
        # Down by e^sharpness, so that no weight is above 1 and far videos say next to nothing.
        near = np.exp(config.sharpness * (vectors.astype(np.float64) @ known[part].T - 1.0))
        top += near @ liked[part]
        below += near @ shown[part]
    # `strength` impressions of the general mean at a distance of cosine 0 keep the ratio sound far from everything.
    general = config.strength * float(np.exp(-config.sharpness))
    found: Float64 = (top + general * config.prior_mean) / (below + general)
    return found


def audiences(vectors: Float32, likers: Mapping[int, Float64], config: ExplorationConfig) -> Float64:
    """float64 [n, dim] unit: each video's own vector, drawn towards the interests of those who liked it. `likers`:
    the sum of their unit interest vectors, by place in `vectors`."""
    drawn = config.own * vectors.astype(np.float64)
    for place, total in likers.items():
        drawn[place] += total
    return unit(drawn)


def fits(interests: Float64, masses: Float64, wanted: Float64, config: ExplorationConfig) -> Float64:
    """float64 [n]: exp(sharpness * cosine) of each row of `wanted` [n, dim] with a viewer's nearest interest, less by e
    where that interest is of little mass; 1 for a viewer of unknown taste."""
    if not len(interests) or not masses.sum() > 0 or not len(wanted):
        return np.ones(len(wanted))
    share = masses / masses.max()
    found: Float64 = (np.exp(config.sharpness * (wanted @ unit(interests).T)) * share).max(axis=1)
    return found


def stream_of(viewer: str, now: float, salt: str = "") -> np.random.Generator:
    """Random numbers that are the same for one viewer within one hour of the clock."""
    seed = int(digest([viewer, int(now // HOUR_SECONDS), salt], 16), 16)
    return np.random.Generator(np.random.PCG64(seed))


def unit(rows: Float64) -> Float64:
    """Rows at length 1; a row of zeros stays."""
    found: Float64 = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return found
