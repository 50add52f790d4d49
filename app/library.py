"""The library: the catalogue's videos a page at a time, found by words, by state, by tag or by a filter.

A state is no column: it follows from a video's runs in the versions that are served. The database narrows the videos
down to those that may have the state, and each is looked at; a page ends after so many looks, full or not, and goes on
from there. So no request reads the whole catalogue, however large it is.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.operations import ReelSense, title_of
from ranker.video_table import Snapshot
from store.catalogue import Video
from store.errors import InputError, ReelsenseError
from store.filters import parse
from store.video_listing import Among, Place, videos_from

State = Literal["", "ready", "processing", "waiting", "failed"]
Order = Literal["newest", "oldest"]
STATES: tuple[State, ...] = ("", "ready", "processing", "waiting", "failed")
LOOKED_AT = 2_000
AT_ONCE = 200
# Beyond, a list of ids is too long for a query; then each video that comes is looked up in it.
MOST_IDS = 5_000
MOST_FOUND = 200
SHOWN_TAGS = 4
# A find whose best phrase is further away than this says nothing of what was asked for.
LEAST_SCORE = 0.2
_MAY_BE: Mapping[State, Among] = {
    "": "all",
    "ready": "all",
    "processing": "unfinished",
    "waiting": "unfinished",
    "failed": "troubled",
}


@dataclass(frozen=True)
class Wish:
    """What is looked for: words, a state, a tag, a filter (`store.filters`), and in which order."""

    words: str = ""
    state: State = ""
    tag: str = ""
    where: str = ""
    order: Order = "newest"


@dataclass(frozen=True)
class Card:
    """A video as the library shows it. `pictured`: whether there is a picture of it; `match`: the phrase that was
    found, with its source and its seconds."""

    id: str
    title: str
    state: str
    error: ReelsenseError | None
    duration: float | None
    uploaded_at: float
    tags: tuple[str, ...]
    pictured: bool
    attention: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    match: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Shelf:
    """A page of cards. `after` is the cursor of the next one, None at the end; `looked_at` how many videos it took."""

    cards: list[Card]
    after: str | None
    looked_at: int


def shelf(reelsense: ReelSense, wish: Wish, cursor: str | None, most: int) -> Shelf:
    """A page of what is looked for. Raises `request.invalid`, `filter.invalid`."""
    if wish.words.strip():
        return _found(reelsense, wish, cursor, most)
    after = None if cursor is None else _place(cursor)
    where = parse(wish.where)
    snapshot = reelsense.table.snapshot
    ids = None if not wish.tag else _carrying(snapshot, wish.tag)
    listed = sorted(ids) if ids is not None and len(ids) <= MOST_IDS else None
    # Where every video that comes is wanted, no more are asked for than are shown.
    at_once = AT_ONCE if wish.state or (ids is not None and listed is None) else most + 1
    wanted: list[tuple[Video, tuple[str, ReelsenseError | None]]] = []
    looked_at = 0
    while True:
        videos = videos_from(
            reelsense.catalogue,
            at_once,
            after=after,
            oldest_first=wish.order == "oldest",
            among=_MAY_BE[wish.state],
            version=reelsense.graph.versions["published"],
            ids=listed,
            where=where,
        )
        states = reelsense.graph.states(videos)
        for video in videos:
            if len(wanted) == most or looked_at == LOOKED_AT:
                assert after is not None
                return Shelf(_cards(reelsense, wanted, snapshot), _cursor([after.uploaded_at, after.id]), looked_at)
            looked_at += 1
            after = Place(video.uploaded_at, video.id)
            if (not wish.state or states[video.id][0] == wish.state) and (ids is None or video.id in ids):
                wanted.append((video, states[video.id]))
        if len(videos) < at_once:
            return Shelf(_cards(reelsense, wanted, snapshot), None, looked_at)


def cards_of(reelsense: ReelSense, ids: Sequence[str]) -> list[Card]:
    """The cards of some videos as they are by now, in the order of `ids`; those that are gone are left out."""
    videos = reelsense.catalogue.videos(ids)
    states = reelsense.graph.states(videos)
    cards = _cards(reelsense, [(video, states[video.id]) for video in videos], reelsense.table.snapshot)
    places = {video: place for place, video in enumerate(ids)}
    return sorted(cards, key=lambda card: places[card.id])


def _found(reelsense: ReelSense, wish: Wish, cursor: str | None, most: int) -> Shelf:
    """A page of what words find: the videos that say or show it, the best first. What is not published yet is found by
    its name, before all others."""
    start = 0 if cursor is None else _number(cursor)
    where = parse(wish.where)
    cards = _named(reelsense, wish) if not start and wish.state != "ready" else []
    if wish.state not in ("", "ready"):
        return Shelf(cards, None, len(cards))
    named = {card.id for card in cards}
    found = reelsense.search(wish.words.strip(), min(MOST_FOUND, start + most + 1))["items"]
    hits = [hit for hit in found if hit["score"] >= LEAST_SCORE]
    page = {hit["video"]: hit for hit in hits[start : start + most]}
    passing = set(page)
    if where is not None:
        passing = {
            video.id for video in videos_from(reelsense.catalogue, len(page) or 1, ids=sorted(page), where=where)
        }
    if wish.tag:
        passing &= _carrying(reelsense.table.snapshot, wish.tag)
    for card in cards_of(reelsense, [video for video in page if video in passing and video not in named]):
        hit = page[card.id]
        cards.append(replace(card, score=hit["score"], match=hit["match"]))
    more = len(hits) > start + most
    return Shelf(cards, _cursor([start + most]) if more else None, len(page))


def _named(reelsense: ReelSense, wish: Wish) -> list[Card]:
    """Videos that are not ready and have the words in their title, file's name or tags."""
    words = wish.words.casefold().split()
    among: Among = "troubled" if wish.state == "failed" else "unfinished"
    videos = videos_from(
        reelsense.catalogue, LOOKED_AT, among=among, version=reelsense.graph.versions["published"],
        where=parse(wish.where),
    )  # fmt: skip
    chosen = []
    for video in videos:
        said = " ".join((video.metadata.title, video.file_name, *video.metadata.tags)).casefold()
        if all(word in said for word in words):
            chosen.append(video)
    cards = cards_of(reelsense, [video.id for video in chosen[:MOST_FOUND]])
    return [card for card in cards if card.state == wish.state or (not wish.state and card.state != "ready")]


def _cards(
    reelsense: ReelSense, videos: Sequence[tuple[Video, tuple[str, ReelsenseError | None]]], snapshot: Snapshot
) -> list[Card]:
    cards = []
    for video, (state, error) in videos:
        row = snapshot.row(video.id)
        tags = _telling(row.tags, snapshot) if row is not None else video.metadata.tags
        cards.append(
            Card(
                video.id,
                title_of(video),
                state,
                error,
                row.duration if row is not None else video.media.duration,
                video.uploaded_at,
                tags[:SHOWN_TAGS],
                row is not None or reelsense.graph.has(reelsense.graph.key(video, "frames")),
                {str(name): share for name, share in row.attention.items()} if row is not None else {},
            )
        )
    return cards


def _telling(tags: Mapping[str, float], snapshot: Snapshot) -> tuple[str, ...]:
    """The tags that say most of a video: those that weigh much and that few others carry."""
    said = {tag: weight * snapshot.tags.rarity(tag) for tag, weight in tags.items()}
    return tuple(heapq.nsmallest(SHOWN_TAGS, said, key=lambda tag: (-said[tag], tag)))


def common_tags(snapshot: Snapshot, most: int) -> list[tuple[str, int]]:
    """The tags that most videos carry, and how many do; those of nearly all, or of one alone, tell nothing."""
    count = len(snapshot.row_of)
    carried = snapshot.tags.most_carried(4 * most)
    return [(tag, videos) for tag, videos in carried if 1 < videos <= max(2, 0.6 * count)][:most]


def _carrying(snapshot: Snapshot, tag: str) -> set[str]:
    """The published videos that carry a tag, be it written, seen or heard."""
    rows = snapshot.tags.rows_with(" ".join(tag.casefold().split()), len(snapshot))
    return {snapshot.ids[row] for row in rows[snapshot.alive[rows]].tolist()}


# --- cursors ---------------------------------------------------------------------------------------------------------


def _cursor(parts: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def _parts(cursor: str) -> list[Any]:
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list):
        raise _no_cursor()
    return parts


def _place(cursor: str) -> Place:
    match _parts(cursor):
        case [float(at), str(video)] if math.isfinite(at) and len(video) <= 32:
            return Place(at, video)
    raise _no_cursor()


def _number(cursor: str) -> int:
    match _parts(cursor):
        case [int(start)] if not isinstance(start, bool) and 0 <= start < MOST_FOUND:
            return start
    raise _no_cursor()


def _no_cursor() -> InputError:
    return InputError("request.invalid", "The cursor is not one of this list.", hint="Begin without one.")
