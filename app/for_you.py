"""What the For You page shows: a viewer's next videos as cards, each with its explanation, and how the list answered to
what the viewer just did."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.explaining import explained
from app.feed_changes import because, compare, sentence
from app.operations import title_of
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
    """The next videos for a viewer: `cards`, and, where the page had some already, `answer`: the sentence that says
    what changed. Raises `request.invalid`."""
    if not 1 <= count <= MOST_CARDS:
        raise InputError("request.invalid", f"The cards must be 1 to {MOST_CARDS}, got {count}.")
    asked = asked or Asked()
    # Those that are on the page already come again where nothing was done with them yet.
    feed = reelsense.recommend(user, min(count + len(asked.passed), 10 * MOST_CARDS))
    passed = set(asked.passed)
    items = [item for item in feed["items"] if item["video"] not in passed][:count]
    answer = compare(asked.before, [item["video"] for item in items])
    table = reelsense.table
    titles = titles_of(reelsense, (video for item in items for video in _named_in(item)))
    found = []
    for item in items:
        row = table.snapshot.row(item["video"])
        duration = 0.0 if row is None else row.duration
        why = _named(explained(table, item), titles)
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
                "why": why,
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


def _named_in(item: Mapping[str, Any]) -> Iterator[str]:
    """The videos that an item of a feed names: itself, those of its reasons, and those on the paths to it."""
    yield item["video"]
    for reason in item["reasons"]:
        yield from filter(None, [reason.get("video")])
        steps = (step.partition(":") for step in reason.get("path", ()))
        yield from (name for kind, _, name in steps if kind == "video")


def _named(why: dict[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    """With names for people: a video without a title is called by its file's name; the ranker knows its id alone."""
    for reason in why["reasons"]:
        for video, title in titles.items():
            reason["text"] = reason["text"].replace(f"video {video[:12]}", f"“{title}”")
    match = why["match"]
    if match is not None:
        match["title"] = titles.get(match["video"], "")
        if match["moment"] is not None:
            match["moment"]["text"] = match["moment"]["text"].replace(
                f"video {match['video'][:12]}", f"“{match['title']}”"
            )
    return why


def titles_of(reelsense: ReelSense, videos: Iterable[str]) -> dict[str, str]:
    """What to call each of these videos; one that nobody ever added, or that was deleted, has no name."""
    return {video.id: title_of(video) for video in reelsense.catalogue.videos(sorted(set(videos)))}


def _answered(reelsense: ReelSense, asked: Asked, found: Sequence[dict[str, Any]]) -> str:
    if not asked.before and not asked.kind:
        return ""
    titles = titles_of(reelsense, (*asked.before, *filter(None, [asked.video])))
    titles |= {card["id"]: card["title"] for card in found}
    done = because(asked.kind, titles[asked.video]) if titles.get(asked.video) else ""
    return sentence(compare(asked.before, [card["id"] for card in found]), titles, done)


def beginning(reelsense: ReelSense) -> dict[str, Any]:
    """What somebody chooses from who has not said who they are: viewers who were here last, and topics."""
    from store.known_viewers import latest_viewers

    return {
        "viewers": latest_viewers(reelsense.event_log, SHOWN_VIEWERS),
        "topics": topics(reelsense, SHOWN_TOPICS),
    }


def topics(reelsense: ReelSense, most: int) -> list[str]:
    """What many videos are about."""
    return [tag for tag, _ in reelsense.table.snapshot.tags.most_carried(most)]
