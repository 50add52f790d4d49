"""The score of a video for a viewer, as named terms that add up to it.

    score = interest_long + interest_recent + interest + negative_interest + tags + negative_tags + followed_creator
            + region + language + refusal + small_creator + freshness + source_* + diversity + rules

An interest term is `weight * confidence * cosine(sum of what was watched, video)`; confidence is `mass / (mass + half)`
and grows with how much was watched, so one short view does not decide a feed. `interest` is the same for the one of the
viewer's several interests that suits the video best. A negative term only ever takes away; `refusal` is
`ranker.refusals`. `diversity` and `rules` are 0 here: they depend on what else is shown, and are set where the list is
made; so are `source_*` (`ranker.found`). All other terms of a video depend on the viewer and on that video alone (and,
for tags and creators, on how rare they are), never on the other candidates. docs/feed.md has every formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from ranker.profiles import (
    LONG_HALF_LIFE_SECONDS,
    NEGATIVE_HALF_LIFE_SECONDS,
    RECENT_HALF_LIFE_SECONDS,
    Profile,
    fading,
)
from ranker.refusals import Refused, nearness, refused_of
from ranker.row_facts import facts_of, primary
from ranker.section import Section
from ranker.video_table import Snapshot

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

TERMS: tuple[str, ...] = (
    "interest_long",
    "interest_recent",
    "interest",
    "negative_interest",
    "tags",
    "negative_tags",
    "followed_creator",
    "region",
    "language",
    "refusal",
    "small_creator",
    "freshness",
    "diversity",
    "rules",
)
# Whose value each term is: its weight is multiplied by that objective's (`ranker.objectives`). Sources, too.
OBJECTIVES: dict[str, str] = {"small_creator": "creator", "freshness": "platform"}
SOURCE_OBJECTIVES: dict[str, str] = {"fresh": "creator", "trending": "platform"}
SOURCES: dict[str, float] = {
    "interest": 0.1,
    "co_watch": 0.3,
    "graph": 0.3,
    "similar_viewers": 0.2,
    "followed": 0.1,
    "trending": 0.1,
    "fresh": 0.1,
    "model": 0.3,
}


# Beyond that a score is one term alone, and sums lose what the others say.
MOST_WEIGHT = 1000.0
_N = TypeVar("_N")


class RankerConfig(Section):
    """The weights of the terms and what shapes them. Half-lives in seconds, masses in finished views."""

    interest_long: float = Field(1.0, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    interest_recent: float = Field(0.5, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    negative_interest: float = Field(0.8, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    tags: float = Field(0.4, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    negative_tags: float = Field(0.3, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    followed_creator: float = Field(0.3, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    freshness: float = Field(0.1, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    diversity: float = Field(
        0.3, ge=0, le=MOST_WEIGHT, allow_inf_nan=False, description="For viewers of unknown taste only."
    )
    interest: float = Field(
        0.5, ge=0, le=MOST_WEIGHT, allow_inf_nan=False, description="The best of several interests."
    )
    region: float = Field(0.15, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    language: float = Field(0.15, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    home: float = Field(
        0.5, ge=0, le=1, allow_inf_nan=False, description="What a region or language of the past counts beside today's."
    )
    refusal: float = Field(
        3.0, ge=0, le=MOST_WEIGHT, allow_inf_nan=False, description="What the neighbourhood of a refusal loses."
    )
    refusal_topic: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    refusal_creator: float = Field(0.9, ge=0, le=1, allow_inf_nan=False)
    refusal_look: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    refusal_sound: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    refusal_words: float = Field(1.0, ge=0, le=1, allow_inf_nan=False)
    refusal_floor: float = Field(0.4, ge=0, lt=1, allow_inf_nan=False, description="Cosine at which likeness begins.")
    refusal_floor_sound: float = Field(0.8, ge=0, lt=1, allow_inf_nan=False, description="The same for sound alone.")
    refusal_floor_words: float = Field(0.7, ge=0, lt=1, allow_inf_nan=False, description="The same for words alone.")
    refusal_half_life_seconds: float = Field(30 * 86_400.0, gt=0, allow_inf_nan=False)
    small_creator: float = Field(0.05, ge=0, le=MOST_WEIGHT, allow_inf_nan=False)
    small_creator_videos: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="So many further videos halve `small_creator`."
    )
    half_mass: float = Field(0.5, gt=0, allow_inf_nan=False, description="Mass at which confidence is one half.")
    freshness_half_life_seconds: float = Field(7 * 86_400.0, gt=0, allow_inf_nan=False)
    sources: dict[str, Annotated[float, Field(ge=0, le=MOST_WEIGHT, allow_inf_nan=False)]] = Field(
        default_factory=lambda: dict(SOURCES), description="What being found by each source adds, at most."
    )

    @field_validator("sources")
    @classmethod
    def _all_sources(cls, given: dict[str, float]) -> dict[str, float]:
        """What is not named keeps its weight; a name that no source has is a mistake."""
        return completed(given, SOURCES)


def completed(given: Mapping[str, _N], defaults: Mapping[str, _N]) -> dict[str, _N]:
    """The defaults with what is given instead. Raises ValueError for other names."""
    if unknown := sorted(given.keys() - defaults.keys()):
        raise ValueError(f"there is no source {unknown[0][:40]!r}")
    return {**defaults, **given}


@dataclass(frozen=True)
class Situation:
    """Where a request comes from, as far as it says: a region (`DE`) and a language tag, or empty."""

    region: str = ""
    language: str = ""


NOWHERE = Situation()


class Interest(Protocol):
    """One of a viewer's interests (`ranker.interests`): `vector` float64 [dim] of unit length, `mass` in finished views
    at the profile's time, weighted `tags`, and the `videos` that make it, heaviest first."""

    @property
    def vector(self) -> Float64: ...
    @property
    def mass(self) -> float: ...
    @property
    def tags(self) -> Mapping[str, float]: ...
    @property
    def videos(self) -> tuple[str, ...]: ...


def interests_of(profile: Profile) -> Sequence[Interest]:
    """The viewer's several interests; none where profiles do not hold any."""
    interests: Sequence[Interest] = getattr(profile, "interests", ())
    return interests


def shares_of(profile: Profile, name: str) -> Mapping[str, float]:
    """The shares of the profile's `regions` or `languages`; empty where profiles do not hold them."""
    shares: Mapping[str, float] = getattr(profile, name, {})
    return shares


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
    profile: Profile,
    snapshot: Snapshot,
    rows: Rows | None,
    now: float,
    config: RankerConfig,
    *,
    situation: Situation = NOWHERE,
    refused: Refused | None = None,
    exact: bool = True,
) -> dict[str, Float64]:
    """float64 [n] for each of `TERMS`, for the given rows, or (rows None) for all rows of the snapshot.

    All rows, and given ones with `exact` false, are multiplied in float32, which is enough to choose candidates (error
    about 1e-6); given rows in float64, with the same result whatever other rows are asked for. `refused` is what the
    viewer refused (`refused_of`), where the caller knows it already.
    """
    long, recent, negative = confidences(profile, now, config)
    interests = interests_of(profile)
    cosines = _cosines(profile, interests, snapshot, rows, exact)
    count = len(cosines)
    zeros = np.zeros(count)
    terms = {
        "interest_long": config.interest_long * long * cosines[:, 0],
        "interest_recent": config.interest_recent * recent * cosines[:, 1],
        "interest": zeros,
        "negative_interest": -config.negative_interest * negative * np.maximum(cosines[:, 2], 0.0),
        "tags": zeros,
        "negative_tags": zeros,
        "followed_creator": zeros,
        "region": config.region * _place(profile, snapshot, rows, "regions", situation.region, config.home),
        "language": config.language
        * _place(profile, snapshot, rows, "languages", primary(situation.language), config.home),
        "refusal": zeros,
        "small_creator": config.small_creator * small_creators(snapshot, rows, config),
        "freshness": config.freshness * _freshness(snapshot, rows, now, config),
        "diversity": zeros,
        "rules": zeros,
    }
    if interests and config.interest:
        sure = interest_confidences(profile, now, config)
        terms["interest"] = config.interest * (sure * np.maximum(cosines[:, 3:], 0.0)).max(axis=1)
    for name, weight, wanted in (
        ("tags", config.tags * long, profile.tags),
        ("negative_tags", -config.negative_tags * negative, profile.negative_tags),
    ):
        if wanted and weight:
            terms[name] = weight * _matches(snapshot, rows, wanted)
    if profile.creators:
        terms["followed_creator"] = config.followed_creator * _followed(profile, snapshot, rows)
    if config.refusal and profile.negative_mass > 0:
        known = refused_of(profile, snapshot, now, config) if refused is None else refused
        terms["refusal"] = -config.refusal * nearness(known, snapshot, rows, config, exact)
    return terms


def interest_confidences(profile: Profile, now: float, config: RankerConfig) -> Float64:
    """float64 [interests]: how sure each interest is, 0..1."""
    age = now - profile.as_of
    return np.array(
        [confidence(item.mass, age, LONG_HALF_LIFE_SECONDS, config.half_mass) for item in interests_of(profile)]
    )


def _cosines(
    profile: Profile, interests: Sequence[Interest], snapshot: Snapshot, rows: Rows | None, exact: bool
) -> Float64:
    """float64 [n, 3 + interests]: cosine with long, recent and negative interest and with each of the several; 0 where
    there is no such interest."""
    count = len(snapshot) if rows is None else len(rows)
    width = snapshot.vectors.shape[1]
    directions = [profile.long, profile.recent, profile.negative, *(item.vector for item in interests)]
    wanted = np.zeros((width, len(directions)))
    for column, total in enumerate(directions):
        norm = np.linalg.norm(total)
        if len(total) == width and norm > 0:
            wanted[:, column] = total / norm
    if not wanted.any():
        return np.zeros((count, len(directions)))
    if rows is None or not exact:
        chosen = snapshot.vectors if rows is None else snapshot.vectors[rows]
        return (chosen @ wanted.astype(np.float32)).astype(np.float64)
    # One product for each row: a product of whole matrices may round a row differently beside other rows.
    cosines: Float64 = np.matmul(snapshot.vectors[rows].astype(np.float64)[:, None, :], wanted)[:, 0, :]
    return cosines


def _place(profile: Profile, snapshot: Snapshot, rows: Rows | None, name: str, here: str, home: float) -> Float64:
    """float64 [n] in 0..1: 1 for the region (language) of the request, for others `home` times the viewer's share."""
    shares = {key: home * share for key, share in shares_of(profile, name).items()}
    if name == "languages":
        shares = {primary(key): share for key, share in shares.items()}
    if here:
        shares[here] = 1.0
    count = len(snapshot) if rows is None else len(rows)
    if not shares:
        return np.zeros(count)
    facts = facts_of(snapshot)
    known = facts.region_numbers if name == "regions" else facts.language_numbers
    numbers = facts.regions if name == "regions" else facts.languages
    numbers = numbers[:count] if rows is None else numbers[rows]
    found = np.zeros(count)
    for key, share in sorted(shares.items()):
        if (number := known.get(key)) is not None:
            found[numbers == number] = share
    return found


# How many videos each creator has: counted once for each snapshot.
_COUNTS: WeakKeyDictionary[Snapshot, Float64] = WeakKeyDictionary()


def small_creators(snapshot: Snapshot, rows: Rows | None, config: RankerConfig) -> Float64:
    """float64 [n]: h / (h + further videos of the creator), h = `small_creator_videos`; 0 for an unnamed creator."""
    counts = _COUNTS.get(snapshot)
    if counts is None:
        counts = np.bincount(snapshot.creators[snapshot.alive], minlength=len(snapshot.creator_numbers)).astype(
            np.float64
        )
        _COUNTS[snapshot] = counts
    half = config.small_creator_videos
    values = half / (half + np.maximum(counts - 1.0, 0.0))
    if (unnamed := snapshot.creator_numbers.get("")) is not None:
        values[unnamed] = 0.0
    found: Float64 = values[snapshot.creators if rows is None else snapshot.creators[rows]]
    return found


def _freshness(snapshot: Snapshot, rows: Rows | None, now: float, config: RankerConfig) -> Float64:
    published = snapshot.published_at if rows is None else snapshot.published_at[rows]
    fresh: Float64 = np.exp2(-np.maximum(now - published, 0.0) / config.freshness_half_life_seconds)
    return fresh


def _matches(snapshot: Snapshot, rows: Rows | None, wanted: Mapping[str, float]) -> Float64:
    if rows is None:
        return snapshot.tags.matches(wanted, len(snapshot))
    return facts_of(snapshot).matches(rows, wanted)


def _followed(profile: Profile, snapshot: Snapshot, rows: Rows | None) -> Float64:
    numbers = [snapshot.creator_numbers[name] for name in sorted(profile.creators) if name in snapshot.creator_numbers]
    creators = snapshot.creators if rows is None else snapshot.creators[rows]
    return np.isin(creators, numbers).astype(np.float64)
