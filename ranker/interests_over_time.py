"""How the present interests of a viewer grew and faded: for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ranker.events import Event, value
from ranker.interests import LEAST_COSINE
from ranker.profiles import LONG_HALF_LIFE_SECONDS, Profile, build, video_of, watched_of
from ranker.video_table import VideoTable
from store.catalogue import StoredEvent
from store.errors import InputError

MOST_POINTS = 1000
NAMING_TAGS = 3


def profile_over_time(
    events: Sequence[Event | StoredEvent], table: VideoTable, points: int, profile: Profile | None = None
) -> dict[str, Any]:
    """The mass of each of the interests of today at `points` moments, evenly from the first event to the last.

    JSON: `at` (seconds since the epoch), `interests` (each `tags`, and `mass` at each moment), `other` (what is liked
    but belongs to none of them). At the last moment masses are those of the profile. Raises `request.invalid`.
    """
    if not 2 <= points <= MOST_POINTS:
        raise InputError("request.invalid", f"The points must be 2 to {MOST_POINTS}, got {points}.")
    today = build(events, table) if profile is None else profile
    if not events:
        return {"at": [], "interests": [], "other": []}
    at = np.linspace(min(event.at for event in events), max(event.at for event in events), points)
    masses = np.zeros((len(today.interests) + 1, points))
    homes = belonging(today, events, table)
    for event in events:
        watched = watched_of(table.snapshot, video_of(event))
        worth = 0.0 if watched is None else value(event, watched.duration, today.scale.norms, today.scale.habit)
        if worth > 0:
            ages = at - event.at
            left = np.exp2(-np.maximum(ages, 0.0) / LONG_HALF_LIFE_SECONDS)
            masses[homes[video_of(event)]] += np.where(ages >= 0, worth * left, 0.0)
    rounded = np.round(masses, 6).tolist()
    return {
        "at": at.tolist(),
        "interests": [
            {"tags": list(interest.tags)[:NAMING_TAGS], "mass": rounded[number]}
            for number, interest in enumerate(today.interests)
        ],
        "other": rounded[-1],
    }


def belonging(profile: Profile, events: Sequence[Event | StoredEvent], table: VideoTable) -> dict[str, int]:
    """The number of each video's interest: the one it is in, else the nearest if it is near; the last is none."""
    none = len(profile.interests)
    found = {video: number for number, interest in enumerate(profile.interests) for video in interest.videos}
    for video in {video_of(event) for event in events} - found.keys():
        watched = watched_of(table.snapshot, video)
        # A video that is among the clustered ones and in none of the heaviest interests is in an interest of its own.
        if watched is None or video in profile.liked or not none:
            found[video] = none
            continue
        cosines = [float(interest.vector @ watched.vector) for interest in profile.interests]
        nearest = int(np.argmax(cosines))
        found[video] = nearest if cosines[nearest] >= LEAST_COSINE else none
    return found
