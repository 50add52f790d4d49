"""A viewer's profile on the command line: the document of `reelsense profile --json` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.tables import SHORT_ID, console, table

BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN_TAGS = 12
SHOWN_VIDEOS = 3
SHOWN_EVENTS = 10


def show_profile(document: dict[str, Any]) -> None:
    """Interests and dislikes, tags by kind, habits, and the last events."""
    out = console()
    out.print(f"{document['user']}: {document['events']} events, {len(document['seen'])} videos seen", markup=False)
    out.print(_interests("likes", document["interests"]))
    if document["dislikes"]:
        out.print(_interests("avoids", document["dislikes"]))
    if document.get("picks"):
        picked = [(entry["title"] or entry["pick"], entry["mass"]) for entry in document["picks"]]
        out.print(table("picked", ("topic or video", "weight"), picked))
    kinds = [(kind, _shared(tags)) for kind, tags in document["tags_by_kind"].items() if tags]
    if document["negative_tags"]:
        kinds.append(("avoided", _shared(document["negative_tags"])))
    if kinds:
        out.print(table("tags", ("kind", "weights"), kinds))
    habits = [("hours (UTC)", f"0h {sparkline(document['hours'])} 23h")] if any(document["hours"]) else []
    for name in ("regions", "languages", "devices", "systems", "networks"):
        if document[name]:
            habits.append((name, _percent(document[name])))
    if document["creators"]:
        habits.append(("follows", ", ".join(document["creators"])))
    if habits:
        out.print(table("habits", ("", ""), habits))
    latest = [
        (datetime.fromtimestamp(entry["at"], UTC).strftime("%Y-%m-%d %H:%M"), _called(entry), f"{entry['value']:+.2f}")
        for entry in document["history"][:SHOWN_EVENTS]
    ]
    out.print(table("latest", ("at (UTC)", "video", "value"), latest))
    if "over_time" in document and document["over_time"]["at"]:
        out.print(_over_time(document["over_time"]))


def sparkline(values: Sequence[float]) -> str:
    """A line of blocks as high as the values (not negative) are beside the largest of them."""
    most = max(values, default=0.0)
    if not most > 0:
        return BLOCKS[0] * len(values)
    return "".join(BLOCKS[round(value / most * (len(BLOCKS) - 1))] for value in values)


def _interests(title: str, interests: Sequence[Mapping[str, Any]]) -> Any:
    rows = [
        (
            interest["mass"],
            ", ".join(list(interest["tags"])[:SHOWN_TAGS]),
            "; ".join(_called(video) for video in interest["videos"][:SHOWN_VIDEOS]),
            len(interest["videos"]) + interest["more_videos"],
        )
        for interest in interests
    ]
    return table(title, ("weight", "tags", "heaviest videos", "videos"), rows)


def _called(entry: Mapping[str, Any]) -> str:
    return str(entry["title"] or entry["video"][:SHORT_ID])


def _shared(tags: Mapping[str, float]) -> str:
    return ", ".join(f"{tag} {weight:.2g}" for tag, weight in list(tags.items())[:SHOWN_TAGS])


def _percent(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(shares.items())[:SHOWN_TAGS])


def _over_time(document: Mapping[str, Any]) -> Any:
    rows = [
        (", ".join(interest["tags"]), sparkline(interest["mass"]), interest["mass"][-1])
        for interest in document["interests"]
    ]
    rows.append(("other", sparkline(document["other"]), document["other"][-1]))
    first, last = (datetime.fromtimestamp(document["at"][end], UTC).strftime("%Y-%m-%d") for end in (0, -1))
    return table(f"over time, {first} to {last}", ("interest", "mass", "now"), rows)
