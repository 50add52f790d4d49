"""What was deleted leaves every feed, search and list of neighbours at once, and comes back when published anew."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ranker.recommend import recommend
from ranker.search import search
from ranker.similar import similar
from ranker.video_table import VideoTable
from store.deletions import Deletions
from store.errors import NotFoundError
from store.vector_segments import VectorSegments
from tests.ranker.builders import NOON, VERSION, World, video_id
from workers import vector_indexer
from workers.vector_indexer import VectorIndexer

WORDS = np.ones(384, np.float32) / np.sqrt(np.float32(384))


def shown(world: World, beside: str) -> dict[str, set[str]]:
    world.table.refresh()
    return {
        "feed": {item.as_json()["video"] for item in recommend([], world.table, 10, NOON)},
        "search": {item.as_json()["video"] for item in search(world.table, "cooking", WORDS, 10)},
        "similar": {item.as_json()["video"] for item in similar(world.table, beside, 10)},
    }


def test_a_deleted_video_is_nowhere_and_comes_back_with_its_bytes(world: World) -> None:
    gone, stays, other = (world.publish(name, "cooking") for name in ("gone", "stays", "other"))
    assert gone in shown(world, other)["feed"]
    snapshot = world.table.snapshot
    Deletions(world.catalogue).remove(gone, "ana")
    assert shown(world, other) == {"feed": {stays, other}, "search": {stays, other}, "similar": {stays}}
    # Who reads an earlier snapshot reads it to its end.
    assert snapshot.row_of[gone] == 0
    with pytest.raises(NotFoundError):
        world.table.get(gone)
    # One that starts now never knew it.
    assert gone not in VideoTable(world.objects, world.catalogue, VERSION).ids
    for _ in range(2):
        assert world.publish("gone", "cooking") == gone
        assert gone in shown(world, other)["similar"]
        rarity = world.table.snapshot.tags.rarity("cooking")
        assert rarity == pytest.approx(np.log1p(1) / np.log1p(3))  # three carry it, whatever went and came
        Deletions(world.catalogue).remove(gone, "ana")
        assert gone not in shown(world, other)["feed"]


def test_deleting_what_is_in_quarantine_leaves_nothing_behind(world: World) -> None:
    from store.administration import Actor, Administration

    bad, good = (world.publish(name, "cooking") for name in ("bad", "good"))
    world.table.refresh()
    Administration(world.catalogue).quarantine(bad, [], Actor("ana", "cli"))
    world.table.refresh()
    Deletions(world.catalogue).remove(bad, "ana")
    for _ in range(2):
        world.table.refresh()
        assert world.table.ids == [good]
    assert world.table.unreadable == {}
    assert Administration(world.catalogue).quarantined() == {}


def test_rows_leave_the_segments_of_the_vector_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_indexer, "LEAST_ROWS", 2)
    names = [f"video {n}" for n in range(5)]
    for name in names:
        world.publish(name, "cooking")
    indexer = VectorIndexer(world.objects, world.catalogue, VERSION)
    indexer.step(time.time() + 3600)
    segments = VectorSegments(world.objects, VERSION)

    def held() -> set[str]:
        return {row.id for segment in segments.readable() for row in segment.rows}

    assert held() == {video_id(name) for name in names}
    for count, name in enumerate(("video 0", "video 2", "video 4"), start=1):
        gone = Deletions(world.catalogue).remove(video_id(name), "ana")
        assert segments.remove({row.sequence for row in gone.publications}) == 1
        assert len(held()) == 5 - count
        assert video_id(name) not in held()
        assert set(VideoTable(world.objects, world.catalogue, VERSION).ids) == set()  # not before a refresh
    table = VideoTable(world.objects, world.catalogue, VERSION)
    table.refresh()
    assert set(table.ids) == held() == {video_id("video 1"), video_id("video 3")}
