"""What a viewer's profile learnt from each event: what it said, of what, and how much of that is left."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from ranker.events import value
from ranker.interests_over_time import belonging
from ranker.profiles import (
    LONG_HALF_LIFE_SECONDS,
    NEGATIVE_HALF_LIFE_SECONDS,
    Profile,
    fading,
    watched_of,
)
from ranker.video_table import VideoTable
from store.catalogue import StoredEvent

SHOWN_TAGS = 5


def learnt(events: Sequence[StoredEvent], table: VideoTable, profile: Profile, most: int) -> list[dict[str, Any]]:
    """The viewer's latest `most` events, the newest first, each as JSON.

    `value` is what the act is worth (`ranker.events.value`, by the profile's own scale); above 0 it speaks for the
    video, below 0 against. `left` is what has not faded by the profile's time. `tags` is what it added to the
    weight of each tag (below 0: of the tags that are avoided); `interest` the number of the interest of today
    that its video belongs to, or None; `follows` a creator followed by it. A video that is not published teaches
    nothing: its `title` is empty, `known` false.
    """
    latest = heapq.nlargest(most, events, key=lambda event: (event.at, event.sequence))
    interests = belonging(profile, latest, table)
    return [_said(event, table, profile, interests) for event in latest]


def _said(event: StoredEvent, table: VideoTable, profile: Profile, interests: Mapping[str, int]) -> dict[str, Any]:
    snapshot = table.snapshot
    video, row = watched_of(snapshot, event.video_id), snapshot.row(event.video_id)
    scale = profile.scale
    worth = value(event, None if video is None else video.duration, scale.norms, scale.habit)
    half_life = LONG_HALF_LIFE_SECONDS if worth >= 0 else NEGATIVE_HALF_LIFE_SECONDS
    number = interests[event.video_id]
    strongest = (
        [] if video is None else heapq.nlargest(SHOWN_TAGS, video.tags.items(), key=lambda tag: (tag[1], tag[0]))
    )
    return {
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "video": event.video_id,
        "title": "" if row is None else row.title,
        "known": row is not None,
        "duration": None if row is None else row.duration,
        "watched_seconds": event.watched_seconds,
        "loops": event.loops,
        "value": round(worth, 6),
        "left": round(worth * fading(max(profile.as_of - event.at, 0.0), half_life), 6) if video else 0.0,
        "tags": {tag: round(worth * share, 6) for tag, share in strongest if worth and share > 0},
        "interest": number if worth > 0 and number < len(profile.interests) else None,
        "follows": video.creator if video is not None and event.kind == "follow" else "",
    }
