"""The score of a video for a viewer, as named terms that add up to it.

    score = interest_long + interest_recent + negative_interest + tags + negative_tags + followed_creator + freshness
            + diversity

An interest term is `weight * confidence * cosine(sum of what was watched, video)`; confidence is `mass / (mass + half)`
and grows with how much was watched, so one short view does not decide a feed. A negative term only ever takes away.
`diversity` is 0 here: it depends on what else is shown, and is set where the list is made. All other terms of a video
depend on the viewer and on that video alone (and, for tags, on how rare they are), never on the other candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ranker import tag_index
from ranker.profiles import (
    LONG_HALF_LIFE_SECONDS,
    NEGATIVE_HALF_LIFE_SECONDS,
    RECENT_HALF_LIFE_SECONDS,
    Profile,
    fading,
)
from ranker.video_table import Snapshot

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

TERMS: tuple[str, ...] = (
    "interest_long",
    "interest_recent",
    "negative_interest",
    "tags",
    "negative_tags",
    "followed_creator",
    "freshness",
    "diversity",
)


class RankerConfig(BaseModel):
    """The weights of the terms and what shapes them. Half-lives in seconds, masses in finished views."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    interest_long: float = Field(1.0, ge=0, allow_inf_nan=False)
    interest_recent: float = Field(0.5, ge=0, allow_inf_nan=False)
    negative_interest: float = Field(0.8, ge=0, allow_inf_nan=False)
    tags: float = Field(0.4, ge=0, allow_inf_nan=False)
    negative_tags: float = Field(0.3, ge=0, allow_inf_nan=False)
    followed_creator: float = Field(0.3, ge=0, allow_inf_nan=False)
    freshness: float = Field(0.1, ge=0, allow_inf_nan=False)
    diversity: float = Field(0.3, ge=0, allow_inf_nan=False, description="For viewers of unknown taste only.")
    half_mass: float = Field(0.5, gt=0, allow_inf_nan=False, description="Mass at which confidence is one half.")
    freshness_half_life_seconds: float = Field(7 * 86_400.0, gt=0, allow_inf_nan=False)


def confidence(mass: float, age_seconds: float, half_life_seconds: float, half_mass: float) -> float:
    """0..1, how sure an interest of this mass is after `age_seconds` without events."""
    left = mass * fading(max(age_seconds, 0.0), half_life_seconds)
    return left / (left + half_mass)


def confidences(profile: Profile, now: float, config: RankerConfig) -> tuple[float, float, float]:
    """(long, recent, negative), each 0..1, at the time `now`."""
    age = now - profile.as_of
    return (
        confidence(profile.long_mass, age, LONG_HALF_LIFE_SECONDS, config.half_mass),
        confidence(profile.recent_mass, age, RECENT_HALF_LIFE_SECONDS, config.half_mass),
        confidence(profile.negative_mass, age, NEGATIVE_HALF_LIFE_SECONDS, config.half_mass),
    )


def score_terms(
    profile: Profile, snapshot: Snapshot, rows: Rows | None, now: float, config: RankerConfig
) -> dict[str, Float64]:
    """float64 [n] for each of `TERMS`, for the given rows, or (rows None) for all rows of the snapshot.

    All rows are multiplied in float32, which is enough to choose candidates (error about 1e-6); given rows in float64,
    with the same result whatever other rows are asked for.
    """
    long, recent, negative = confidences(profile, now, config)
    cosines = _cosines(profile, snapshot, rows)
    count = len(cosines)
    zeros = np.zeros(count)
    terms = {
        "interest_long": config.interest_long * long * cosines[:, 0],
        "interest_recent": config.interest_recent * recent * cosines[:, 1],
        "negative_interest": -config.negative_interest * negative * np.maximum(cosines[:, 2], 0.0),
        "tags": zeros,
        "negative_tags": zeros,
        "followed_creator": zeros,
        "freshness": config.freshness * _freshness(snapshot, rows, now, config),
        "diversity": zeros,
    }
    for name, weight, wanted in (
        ("tags", config.tags * long, profile.tags),
        ("negative_tags", -config.negative_tags * negative, profile.negative_tags),
    ):
        if wanted and weight:
            terms[name] = weight * _matches(snapshot, rows, wanted)
    if profile.creators:
        terms["followed_creator"] = config.followed_creator * _followed(profile, snapshot, rows)
    return terms


def _cosines(profile: Profile, snapshot: Snapshot, rows: Rows | None) -> Float64:
    """float64 [n, 3]: cosine with long, recent and negative interest; 0 where there is no such interest."""
    count = len(snapshot) if rows is None else len(rows)
    width = snapshot.vectors.shape[1]
    wanted = np.zeros((width, 3))
    for column, total in enumerate((profile.long, profile.recent, profile.negative)):
        norm = np.linalg.norm(total)
        if len(total) == width and norm > 0:
            wanted[:, column] = total / norm
    if not wanted.any():
        return np.zeros((count, 3))
    if rows is None:
        return (snapshot.vectors @ wanted.astype(np.float32)).astype(np.float64)
    # einsum sums each row by itself; a matrix product may round a row differently beside other rows.
    chosen = snapshot.vectors[rows].astype(np.float64)
    cosines: Float64 = np.einsum("nd,dc->nc", chosen, wanted, optimize=False)
    return cosines


def _freshness(snapshot: Snapshot, rows: Rows | None, now: float, config: RankerConfig) -> Float64:
    published = snapshot.published_at if rows is None else snapshot.published_at[rows]
    fresh: Float64 = np.exp2(-np.maximum(now - published, 0.0) / config.freshness_half_life_seconds)
    return fresh


def _matches(snapshot: Snapshot, rows: Rows | None, wanted: Mapping[str, float]) -> Float64:
    index = snapshot.tags
    if rows is None:
        return index.matches(wanted, len(snapshot))
    norm = tag_index.length(wanted)
    sums = [sum(tag_index.shares(wanted, norm, snapshot.rows[row].tags, index).values()) for row in rows]
    return np.array(sums, np.float64)


def _followed(profile: Profile, snapshot: Snapshot, rows: Rows | None) -> Float64:
    numbers = [snapshot.creator_numbers[name] for name in sorted(profile.creators) if name in snapshot.creator_numbers]
    creators = snapshot.creators if rows is None else snapshot.creators[rows]
    return np.isin(creators, numbers).astype(np.float64)
