"""A video in quarantine is in no feed, search or list of neighbours; released, it is in all of them again."""

from __future__ import annotations

import numpy as np

from ranker.events import Event
from ranker.recommend import recommend
from ranker.search import search
from ranker.similar import similar
from store.administration import Actor, Administration
from store.errors import NotFoundError
from store.event_log import EventLog
from tests.ranker.builders import NOON, World, video_id

ANA = Actor("ana", "cli")


def test_quarantine_hides_a_video_everywhere_until_it_is_released(world: World) -> None:
    administration = Administration(world.catalogue)
    bad, good, other = (world.publish(name, "cooking") for name in ("bad", "good", "other"))
    world.table.refresh()

    def shown() -> dict[str, set[str]]:
        world.table.refresh()
        feed = recommend([], world.table, 10, NOON)
        found = search(world.table, "cooking", np.ones(384, np.float32) / np.sqrt(np.float32(384)), 10)
        near = similar(world.table, other, 10)
        return {
            "feed": {item.as_json()["video"] for item in feed},
            "search": {item.as_json()["video"] for item in found},
            "similar": {item.as_json()["video"] for item in near},
        }

    administration.quarantine(bad, [], ANA, "a complaint")
    # The search's index of phrases is made while it is hidden, and must find it again later.
    assert shown() == {"feed": {good, other}, "search": {good, other}, "similar": {good}}
    assert bad not in world.table
    assert len(world.table) == 2
    try:
        similar(world.table, bad, 10)
    except NotFoundError as error:
        assert error.code == "video.unknown"
    else:
        raise AssertionError("neighbours of a hidden video")

    administration.release(bad, ANA)
    assert shown() == {"feed": {bad, good, other}, "search": {bad, good, other}, "similar": {bad, good}}
    lexical = {
        item.as_json()["video"]: item.as_json()["terms"]["lexical"]
        for item in search(world.table, "cooking", np.ones(384, np.float32) / np.sqrt(np.float32(384)), 10)
    }
    assert lexical[bad] == lexical[good] > 0

    administration.quarantine(good, [], ANA)
    assert shown()["feed"] == {bad, other}


def test_what_was_watched_in_quarantine_says_nothing(world: World) -> None:
    bad, _ = (world.publish(name, "cooking") for name in ("bad", "good"))
    Administration(world.catalogue).quarantine(bad, [], ANA)
    event = Event.checked(user="u", video=bad, kind="like", watched_seconds=None)
    from ranker.events import record

    record(world.catalogue, event)
    world.table.refresh()
    items = recommend(EventLog(world.catalogue).of("u"), world.table, 10, NOON)
    assert bad not in {item.as_json()["video"] for item in items}
    assert all(reason.get("video") != bad for item in items for reason in item.as_json()["reasons"])


def test_being_set_aside_and_released_changes_no_feed(tastes: World) -> None:
    events = tastes.happens("ana", "cooking 0", "like")
    before = recommend(events, tastes.table, 20, NOON)
    administration = Administration(tastes.catalogue)
    for _ in range(3):
        administration.quarantine(video_id("cooking 1"), [], ANA)
        tastes.table.refresh()
        administration.release(video_id("cooking 1"), ANA)
        tastes.table.refresh()
    after = recommend(events, tastes.table, 20, NOON)
    assert [(item.video, item.terms["tags"]) for item in after] == [(item.video, item.terms["tags"]) for item in before]
