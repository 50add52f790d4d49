"""What the For You page shows: a viewer's next videos as cards, each with its explanation, and how the list answered to
what the viewer just did."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.explaining import explained
from app.feed_changes import because, compare, sentence
from ranker.events import QUICK_SKIP_SECONDS, QUICK_SKIP_SHARE
from store.errors import InputError

if TYPE_CHECKING:
    from app.operations import ReelSense

# So many are loaded at a time: a phone shows one, and what is not shown yet changes with what is done.
CARDS = 6
MOST_CARDS = 20
SHOWN_VIEWERS = 12
SHOWN_TOPICS = 24


@dataclass(frozen=True)
class Asked:
    """What the page has when it asks for more: the ids that it plays or has played (`passed`), those that wait below
    (`before`, as they stood), and the last act, its kind and its video."""

    passed: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    kind: str = ""
    video: str = ""


def cards(reelsense: ReelSense, user: str, count: int = CARDS, asked: Asked | None = None) -> dict[str, Any]:
    """The next videos for a viewer: `cards`, and, where the page had some already, `answer`: the sentence that says what
    changed. Raises `request.invalid`."""
    if not 1 <= count <= MOST_CARDS:
        raise InputError("request.invalid", f"The cards must be 1 to {MOST_CARDS}, got {count}.")
    asked = asked or Asked()
    # Those that are on the page already come again where nothing was done with them yet.
    feed = reelsense.recommend(user, min(count + len(asked.passed), 10 * MOST_CARDS))
    passed = set(asked.passed)
    items = [item for item in feed["items"] if item["video"] not in passed][:count]
    answer = compare(asked.before, [item["video"] for item in items])
    table = reelsense.table
    found = []
    for item in items:
        row = table.snapshot.row(item["video"])
        duration = 0.0 if row is None else row.duration
        found.append(
            {
                "id": item["video"],
                "title": item["title"],
                "creator": "" if row is None else row.creator,
                "duration": duration,
                # Who leaves before that has skipped it, as `ranker.events.value` sees it.
                "quick": round(min(QUICK_SKIP_SHARE * duration, QUICK_SKIP_SECONDS), 2),
                "language": "" if row is None else row.language or "",
                "tags": [] if row is None else sorted(row.tags, key=lambda tag: (-row.tags[tag], tag))[:4],
                "change": answer.changes[item["video"]],
                "why": explained(table, item),
                # Of a form: sent twice, it is one event.
                "act": secrets.token_hex(16),
            }
        )
    return {
        "user": user,
        "cards": found,
        "wanted": count,
        "answer": _answered(reelsense, asked, found),
        "left_out": feed["left_out"],
    }


def _answered(reelsense: ReelSense, asked: Asked, found: Sequence[dict[str, Any]]) -> str:
    if not asked.before and not asked.kind:
        return ""
    snapshot = reelsense.table.snapshot
    titles = {video: row.title for video in (*asked.before, asked.video) if (row := snapshot.row(video)) is not None}
    titles |= {card["id"]: card["title"] for card in found}
    done = because(asked.kind, titles.get(asked.video, "")) if asked.video in titles else ""
    return sentence(compare(asked.before, [card["id"] for card in found]), titles, done)


def beginning(reelsense: ReelSense) -> dict[str, Any]:
    """What somebody chooses from who has not said who they are: viewers who were here last, and topics."""
    from store.known_viewers import latest_viewers

    return {
        "viewers": latest_viewers(reelsense.catalogue, SHOWN_VIEWERS),
        "topics": reelsense.table.snapshot.tags.commonest(SHOWN_TOPICS),
    }
