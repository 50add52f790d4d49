"""Feeds as every face makes them: profile, sources, scores and reasons over one database."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from app.feeds import Feed, Feeds
from ranker.candidates import Candidates, Request
from ranker.found import QUOTAS
from ranker.objectives import Ranking, parse
from ranker.profile_cache import ProfileCache
from store.catalogue import StoredEvent
from store.errors import InputError
from store.event_log import EventLog
from tests.ranker.builders import NOON, World, two_tastes, video_id


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    two_tastes(world)
    world.table.refresh()
    return world


def feeds_of(world: World, ranking: Ranking | None = None) -> Feeds:
    """As another process would have it."""

    def table() -> object:
        world.table.refresh()
        return world.table

    return Feeds(world.catalogue, ProfileCache(world.catalogue), table, lambda: ranking or Ranking())  # type: ignore[arg-type]


def act(user: str, name: str, kind: str = "like", at: float = NOON - 60, **where: str) -> StoredEvent:
    return StoredEvent(
        id=f"{user} {name} {kind} {at}", user_id=user, video_id=video_id(name), kind=kind, watched_seconds=None, at=at,
        **where,
    )  # fmt: skip


def titles(world: World, feed: Feed) -> list[str]:
    rows = world.table.snapshot
    return [rows.rows[rows.row_of[item.video]].title for item in feed.items]


def test_every_process_comes_to_the_same_feed_and_the_terms_add_up(world: World) -> None:
    log = EventLog(world.catalogue)
    log.add([act(f"viewer {n}", f"cooking {place}") for n in range(5) for place in range(3)])
    log.add([act("ana", "cooking 0"), act("ana", "cars 0", "skip")])
    here = feeds_of(world).make("ana", 8, NOON)
    there = feeds_of(world).make("ana", 8, NOON)
    assert [(item.video, item.score) for item in here.items] == [(item.video, item.score) for item in there.items]
    assert here.left_out == {}
    for item in here.items:
        assert item.score == math.fsum(item.terms.values())
        assert item.reasons
    assert titles(world, here)[0].startswith("cooking")
    found = {source["source"] for item in here.items for source in item.sources}
    assert {"interest", "co_watch", "graph", "trending"} <= found
    assert "catalogue" not in found
    assert any(term.startswith("source_") for item in here.items for term in item.terms)


def test_an_event_counts_in_the_next_feed_whoever_took_it(world: World) -> None:
    here, log = feeds_of(world), EventLog(world.catalogue)
    log.add([act("ana", "cars 0")])
    assert titles(world, here.make("ana", 3, NOON))[0].startswith("cars")
    log.add([act("ana", "cars 1", "not_interested", NOON - 1)])
    after = titles(world, here.make("ana", 5, NOON))
    assert not [title for title in after[:5] if title.startswith("cars")]


def test_a_new_video_is_in_the_next_feed(world: World) -> None:
    here = feeds_of(world)
    EventLog(world.catalogue).add([act("ana", "cooking 0")])
    before = titles(world, here.make("ana", 20, NOON))
    world.publish("cooking new", "cooking", tags={"cooking": 1.0})
    assert "cooking new" not in before
    assert "cooking new" in titles(world, here.make("ana", 20, NOON))


def test_who_is_new_starts_from_where_others_are_and_from_what_is_picked(world: World) -> None:
    log = EventLog(world.catalogue)
    for n in range(30):
        log.add([act(f"french {n}", f"cooking {n % 6}", region="FR"), act(f"german {n}", f"cars {n % 6}", region="DE")])
    here = feeds_of(world)
    french, german = here.make("new", 4, NOON, region="FR"), here.make("newer", 4, NOON, region="DE")
    assert titles(world, french)[0].startswith("cooking")
    assert titles(world, german)[0].startswith("cars")
    said = [reason["text"] for item in french.items for reason in item.reasons]
    assert any(text.startswith("Viewers near you often watch videos about cooking") for text in said), said
    assert not any(text.startswith(("You watch", "Your taste")) for text in said)
    picked = here.make("picker", 4, NOON, region="FR", picks=["cars", video_id("cars 1"), "no such topic"])
    assert titles(world, picked)[0].startswith("cars")
    said = [reason["text"] for item in picked.items[:2] for reason in item.reasons]
    assert {"Suits what you picked: cars.", "You picked videos about cars and road."} <= set(said), said
    assert not any("near you" in text for text in said), said


def test_the_region_of_the_last_event_counts_where_the_request_says_none(world: World) -> None:
    log = EventLog(world.catalogue)
    log.add([act("ana", "cooking 0", at=NOON - 90, region="FR"), act("ana", "cooking 1", at=NOON - 60, region="JP")])
    assert log.last_place("ana") == ("JP", "")
    assert log.last_place("nobody") == ("", "")


def test_a_late_or_broken_source_spoils_nothing(world: World) -> None:
    class Late:
        name = "graph"

        def find(self, request: Request, quota: int) -> Candidates:  # noqa: ARG002
            time.sleep(0.4)
            raise AssertionError("nobody waits for this")

    class Broken:
        name = "co_watch"

        def find(self, request: Request, quota: int) -> Candidates:  # noqa: ARG002
            raise ZeroDivisionError

    here = feeds_of(world, parse(b"[recall]\nseconds = 0.2\n"))
    here._sources = [Late() if s.name == "graph" else Broken() if s.name == "co_watch" else s for s in here._sources]
    EventLog(world.catalogue).add([act("ana", "cooking 0")])
    feed = here.make("ana", 5, NOON)
    assert len(feed.items) == 5
    assert dict(feed.left_out) == {"graph": "recall.late", "co_watch": "recall.failed"}


def test_a_source_without_a_quota_is_not_asked(world: World) -> None:
    EventLog(world.catalogue).add([act("ana", "cooking 0")])
    none = "\n".join(f"{name} = 0" for name in QUOTAS if name != "trending")
    feed = feeds_of(world, parse(f"[recall.quotas]\n{none}\n".encode())).make("ana", 5, NOON)
    assert {source["source"] for item in feed.items for source in item.sources} <= {"trending"}
    assert len(feed.items) == 5


@pytest.mark.parametrize(("k", "now"), [(0, NOON), (-1, NOON), (5, math.nan), (5, math.inf)])
def test_nonsense_is_refused(world: World, k: int, now: float) -> None:
    with pytest.raises(InputError) as refused:
        feeds_of(world).make("ana", k, now)
    assert refused.value.code == "request.invalid"


def test_all_seen_and_nothing_there_and_more_than_there_are(tmp_path: Path, world: World) -> None:
    names = [row.title for row in world.table.snapshot.rows]
    assert len(feeds_of(world).make("nobody", 10_000, NOON).items) == len(names)
    EventLog(world.catalogue).add([act("ana", name) for name in names])
    assert feeds_of(world).make("ana", 10, NOON).items == []
    assert feeds_of(World.at(tmp_path / "empty")).make("ana", 10, NOON).items == []
