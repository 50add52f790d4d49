"""A viewer's profile as JSON for people: interests with their tags and videos, and all else that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ranker.interests import Interest
from ranker.profiles import NOTHING, Profile
from ranker.video_table import VideoTable

SHOWN_TAGS = 50
SHOWN_HISTORY = 50
SHOWN_VIDEOS = 10
SHOWN_SHARES = 20
SHOWN_BY_KIND = 20
# What is seen in a video stands in its artifact, which is read for so many videos.
READ_VIDEOS = 20


def describe(profile: Profile, table: VideoTable) -> dict[str, Any]:
    """The profile as JSON for people: counts, strongest tags, what was seen, what weighs most, who is followed.

    `videos` without a title are gone from the table, or in quarantine.
    """
    parts = zip(profile.contributions, profile.contributions.weights().tolist(), strict=True)
    order = sorted(parts, key=lambda item: (-item[1][0], item[0]))[:SHOWN_TAGS]
    return {
        "as_of": profile.as_of,
        "events": profile.events,
        "counts": dict(sorted(profile.counts.items())),
        "seen": sorted(profile.seen),
        "creators": sorted(profile.creators),
        "tags": _strongest(profile.tags),
        "tags_by_kind": _by_kind(profile, table, [name for name, _ in order]),
        "negative_tags": _strongest(profile.negative_tags),
        "interest": {
            "long": profile.long_mass,
            "recent": profile.recent_mass,
            "negative": profile.negative_mass,
        },
        "interests": [_interest(interest, table) for interest in profile.interests],
        "dislikes": [_interest(interest, table) for interest in profile.dislikes],
        "hours": [round(share, 6) for share in profile.hours],
        "regions": _shares(profile.regions),
        "languages": _shares(profile.languages),
        "devices": _shares(profile.devices),
        "systems": _shares(profile.systems),
        "networks": _shares(profile.networks),
        "history": [
            {"video": video, "title": _title(video, table), "at": at, "value": round(worth, 6)}
            for video, at, worth in profile.history[:SHOWN_HISTORY]
        ],
        "videos": [
            {
                "video": name,
                "title": _title(name, table),
                "long": long,
                "recent": recent,
                "negative": negative,
                "act": profile.contributions[name].act or None,
            }
            for name, (long, recent, negative) in order
        ],
    }


def _interest(interest: Interest, table: VideoTable) -> dict[str, Any]:
    return {
        "mass": interest.mass,
        "tags": _strongest(interest.tags),
        "videos": [{"video": name, "title": _title(name, table)} for name in interest.videos[:SHOWN_VIDEOS]],
        "more_videos": max(0, len(interest.videos) - SHOWN_VIDEOS),
    }


def _by_kind(profile: Profile, table: VideoTable, heaviest: Sequence[str]) -> dict[str, dict[str, float]]:
    """The tags as `labels` (seen), `sounds` (kinds and moods of music) and `words` (all others: written, said, or known
    by no read video to be seen), and the `creators` of what was watched, each strongest first."""
    seen: set[str] = set()
    for name in heaviest[:READ_VIDEOS]:
        video = table.find(name)
        for phrase in () if video is None else video.attributes.phrases:
            if phrase.source == "label":
                seen.update(_plain(part) for part in (phrase.text, *phrase.text.split(",")))
    kinds: dict[str, dict[str, float]] = {"labels": {}, "sounds": {}, "words": {}, "creators": {}}
    for tag, weight in profile.tags.items():
        kind = "labels" if tag in seen else "sounds" if tag.endswith(" music") else "words"
        kinds[kind][tag] = weight
    creators = kinds["creators"]
    for name, (weight, _, _) in zip(profile.contributions, profile.contributions.weights().tolist(), strict=True):
        row = table.snapshot.row(name)
        if row is not None and row.creator and weight > 0:
            creators[row.creator] = creators.get(row.creator, 0.0) + weight
    return {kind: _strongest(tags, SHOWN_BY_KIND) for kind, tags in kinds.items()}


def _plain(name: str) -> str:
    # As `workers.publication.tags_of` writes tags.
    return " ".join(name.casefold().replace("_", " ").split())


def _title(video: str, table: VideoTable) -> str:
    row = table.snapshot.row(video)
    return "" if row is None else row.title


def _shares(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 6) for name, share in list(shares.items())[:SHOWN_SHARES]}


def _strongest(tags: Mapping[str, float], most: int = SHOWN_TAGS) -> dict[str, float]:
    order = sorted(
        ((tag, weight) for tag, weight in tags.items() if weight > NOTHING), key=lambda item: (-item[1], item[0])
    )
    return {tag: round(weight, 6) for tag, weight in order[:most]}
