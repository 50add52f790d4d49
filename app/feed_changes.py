"""How a feed answered: what is new in the list that waits, what moved and what left it, and a sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SAID = 3
LONGEST_TITLE = 40

ACTS: Mapping[str, str] = {
    "view": "You watched",
    "finish": "You finished",
    "skip": "You skipped",
    "like": "You liked",
    "comment": "You commented on",
    "favourite": "You marked as a favourite",
    "repost": "You reposted",
    "share": "You shared",
    "follow": "You follow the creator of",
    "not_interested": "You are not interested in",
    "report": "You reported",
}


@dataclass(frozen=True)
class Change:
    """What became of one video of the list: `new` (it stands where others stood), `up` or `down` by so many `places`,
    `same`, or `more` (the list goes on with it)."""

    kind: Literal["new", "up", "down", "same", "more"]
    places: int = 0


@dataclass(frozen=True)
class Answer:
    """The change of each video of the new list, by id, and the ids that are no longer in it."""

    changes: Mapping[str, Change]
    gone: tuple[str, ...]


def compare(before: Sequence[str], after: Sequence[str]) -> Answer:
    """The new list beside the one that waited before. Ids in each are different from one another."""
    places = {video: place for place, video in enumerate(before)}
    changes = {}
    for place, video in enumerate(after):
        was = places.get(video)
        if was is None:
            changes[video] = Change("new" if place < len(before) else "more")
        elif was == place:
            changes[video] = Change("same")
        else:
            changes[video] = Change("up" if place < was else "down", abs(was - place))
    return Answer(changes, tuple(video for video in before if video not in changes))


def because(kind: str, title: str) -> str:
    """What was done, as the beginning of a sentence; empty for what is no act."""
    said = ACTS.get(kind)
    return f"{said} {_called(title)}" if said else ""


def sentence(answer: Answer, titles: Mapping[str, str], done: str) -> str:
    """What the feed made of what was `done` (`because`), as one sentence for people. `titles` by id; a video without
    one is only counted."""
    parts = []
    changed = {
        kind: [video for video, change in answer.changes.items() if change.kind == kind] for kind in ("new", "up")
    }
    if changed["new"]:
        verb = "is" if len(changed["new"]) == 1 else "are"
        parts.append(f"{_listed(changed['new'], titles)} {verb} new here")
    if changed["up"]:
        parts.append(f"{_listed(changed['up'], titles)} moved up")
    if answer.gone:
        parts.append(f"{_listed(answer.gone, titles)} left")
    told = "; ".join(parts) if parts else "what comes next stays as it is"
    return f"{done}: {told}." if done else f"{told[0].upper()}{told[1:]}."


def _listed(videos: Sequence[str], titles: Mapping[str, str]) -> str:
    named = [_called(titles[video]) for video in videos if titles.get(video)][:SAID]
    more = len(videos) - len(named)
    if more:
        named.append(f"{more} more" if named else f"{more} {'video' if more == 1 else 'videos'}")
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def _called(title: str) -> str:
    return f"“{title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + '…'}”"
