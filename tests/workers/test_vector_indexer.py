"""The vector table on object storage, on a directory and two real S3 servers: what is lost is read elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ranker.video_table import VideoTable
from store.administration import Actor, Administration
from store.artifacts import artifact_key
from store.catalogue import Catalogue
from store.errors import PassingError
from store.objects import ObjectStore, open_objects
from store.publications import published_between
from store.settings import load_settings
from store.vector_segments import Segment, VectorSegments
from tests.ranker.builders import VERSION, World, video_id
from tests.store.servers import ACCESS_KEY, SECRET_KEY, moto_s3, new_database, rclone_s3
from workers import vector_indexer
from workers.vector_indexer import VectorIndexer

LATER = time.time() + 3600


class Counted:
    """An object store that counts what is read of artifacts."""

    def __init__(self, objects: ObjectStore) -> None:
        self.inner = objects
        self.artifacts = 0

    def get(self, key: str) -> bytes:
        self.artifacts += key.startswith("artifacts/")
        return self.inner.get(key)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


@pytest.fixture(scope="module", params=["directory", "rclone", "moto", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp(request.param)
    """Three stores; "postgresql" is a directory again, beside the other database."""
    if request.param in ("directory", "postgresql"):
        yield open_objects(load_settings(data=folder))
        return
    with (rclone_s3 if request.param == "rclone" else moto_s3)(folder) as url:
        yield open_objects(
            load_settings(
                data=folder,
                objects="s3://bucket",
                s3_endpoint=url,
                s3_access_key=ACCESS_KEY,
                s3_secret_key=SECRET_KEY,
            )
        )


@pytest.fixture
def small(
    store: ObjectStore, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """An empty catalogue over each store, with segments of at most four rows that are merged by twos."""
    for key in [item.key for folder in ("vectors/", "artifacts/") for item in store.list(folder)]:
        store.delete(key)
    monkeypatch.setattr(vector_indexer, "LEAST_ROWS", 2)
    monkeypatch.setattr(vector_indexer, "WRITTEN_ROWS", 2)
    monkeypatch.setattr(vector_indexer, "MOST_ROWS", 4)
    monkeypatch.setattr(vector_indexer, "MERGED", 2)
    url = f"sqlite:///{tmp_path / 'catalogue.sqlite3'}"
    if request.node.callspec.params["store"] == "postgresql":
        url = new_database(request.getfixturevalue("postgresql"))
    catalogue = Catalogue(url)
    yield World(store, catalogue, VideoTable(store, catalogue, VERSION))  # type: ignore[arg-type]
    catalogue.close()


def indexer(world: World) -> VectorIndexer:
    return VectorIndexer(world.objects, world.catalogue, VERSION)


def settle(one: VectorIndexer, at: float = LATER) -> None:
    """Passes until nothing is done any more."""
    for _ in range(40):
        if one.step(at) == vector_indexer.Pass():
            return
    raise AssertionError("the indexer does not come to rest")


def started(world: World) -> tuple[VideoTable, int]:
    """A new table, and how many artifacts it read to start."""
    counted = Counted(world.objects)
    table = VideoTable(counted, world.catalogue, VERSION)  # type: ignore[arg-type]
    table.refresh()
    return table, counted.artifacts


def assert_same(world: World, table: VideoTable) -> None:
    """As a table that has never seen a segment."""
    world.table.refresh()
    assert table.ids == world.table.ids
    assert np.array_equal(table.vectors, world.table.vectors)
    for name in table.ids:
        assert table.snapshot.row(name) == world.table.snapshot.row(name)
    assert (
        table.snapshot.tags.matches({"cooking": 1.0}, 1).tolist()
        == world.table.snapshot.tags.matches({"cooking": 1.0}, 1).tolist()
    )


def test_a_table_starts_from_segments_and_follows_the_rest(small: World) -> None:
    small.table._started = True  # the one to compare with reads artifacts alone
    for number in range(7):
        small.publish(f"video {number}", "cooking", title=f"title {number}", tags={"cooking": 0.5, f"tag {number}": 1})
    one = indexer(small)
    settle(one)
    table, read = started(small)
    assert read == 1  # the seventh is too few for a segment
    assert_same(small, table)
    new = small.publish("new", "cars")
    assert table.refresh() == 1
    assert table.ids[-1] == new
    assert_same(small, table)


def test_small_segments_are_merged_and_deleted_later(small: World) -> None:
    small.table._started = True
    for number in range(4):
        small.publish(f"video {number}", "cars")
    one = indexer(small)
    settle(one)
    assert [(span.first, span.last) for span in one.segments.spans()] == [(1, 4), (1, 2), (3, 4)]
    one.step(LATER + vector_indexer.GRACE_SECONDS + 1)
    assert [(span.first, span.last) for span in one.segments.spans()] == [(1, 4)]
    table, read = started(small)
    assert read == 0
    assert_same(small, table)


def test_what_is_young_is_left_alone(small: World) -> None:
    for number in range(4):
        small.publish(f"video {number}", "cars")
    one = indexer(small)
    one.step(time.time())
    assert one.segments.spans() == []


@pytest.mark.parametrize("damage", ["missing", "garbage", "half", "flipped", "another"])
def test_a_lost_or_damaged_segment_costs_reads_and_nothing_else(small: World, damage: str) -> None:
    small.table._started = True
    for number in range(4):
        small.publish(f"video {number}", "cars")
    one = indexer(small)
    one.step(LATER)
    one.step(LATER)
    spans = one.segments.spans()
    for span in spans:
        if (span.first, span.last) == (1, 4):
            one.segments.delete(span)
    keys = [one.segments.key(span) for span in one.segments.spans()]
    assert len(keys) == 2
    data = small.objects.get(keys[0])
    if damage == "missing":
        small.objects.delete(keys[0])
    elif damage == "garbage":
        small.objects.put(keys[0], b"no segment")
    elif damage == "half":
        small.objects.put(keys[0], data[: len(data) // 2])
    elif damage == "flipped":
        small.objects.put(keys[0], data[:-9] + bytes([data[-9] ^ 64]) + data[-8:])
    else:
        small.objects.put(keys[0], small.objects.get(keys[1]))
    table, read = started(small)
    assert read == 2
    assert_same(small, table)
    settle(indexer(small))
    table, read = started(small)
    assert read == 0
    assert_same(small, table)


def test_replaced_revisions_and_quarantine_hold(small: World) -> None:
    small.table._started = True
    administration = Administration(small.catalogue)
    for number in range(3):
        small.publish(f"video {number}", "cars", title="old")
    small.publish("video 0", "cars", title="new", revision="b" * 16)
    settle(indexer(small))
    bad = video_id("video 1")
    administration.quarantine(bad, [], Actor("ana", "cli"), "a complaint")
    table, read = started(small)
    assert read == 0
    assert bad not in table
    row = table.snapshot.row(video_id("video 0"))
    assert row is not None
    assert row.title == "new"
    assert_same(small, table)
    administration.release(bad, Actor("ana", "cli"))
    table.refresh()
    assert bad in table
    # An earlier revision comes back: it has a later sequence, so the segments' row for it is not believed any more.
    small.catalogue.publish(video_id("video 0"), VERSION, "a" * 16)
    table, _ = started(small)
    row = table.snapshot.row(video_id("video 0"))
    assert row is not None
    assert row.title == "old"


def test_segments_of_another_catalogue_are_not_believed(small: World, tmp_path: Path) -> None:
    """The database was lost and made again: its sequences begin anew, in another order."""
    for number in range(4):
        small.publish(f"video {number}", "cars")
    settle(indexer(small))
    catalogue = Catalogue(f"sqlite:///{tmp_path / 'again.sqlite3'}")
    for number in (3, 1, 0, 2):
        catalogue.publish(video_id(f"video {number}"), VERSION, "a" * 16)
    again = World(small.objects, catalogue, VideoTable(small.objects, catalogue, VERSION))
    again.table._started = True
    table, read = started(again)
    assert read == 3  # one has kept its place
    assert_same(again, table)
    one = indexer(again)
    settle(one)
    table, read = started(again)
    assert read == 0
    assert_same(again, table)


def test_an_unreadable_artifact_is_left_out_until_it_is_mended(small: World) -> None:
    ids = [small.publish(f"video {number}", "cars") for number in range(4)]
    key = artifact_key("published", VERSION, ids[1], "a" * 16)
    data = small.objects.get(key)
    small.objects.put(key, b"damaged")
    one = indexer(small)
    for _ in range(10):
        one.step(LATER)
    table, _ = started(small)
    assert table.unreadable == {ids[1]: "store.artifact_damaged"}
    small.objects.put(key, data)
    settle(one)
    table, read = started(small)
    # The fourth alone is too few for a segment.
    assert (table.ids, read, table.unreadable) == (ids, 1, {})


def test_two_indexers_do_no_harm(small: World) -> None:
    small.table._started = True
    first, second = indexer(small), indexer(small)
    for number in range(5):
        small.publish(f"video {number}", "cars")
        first.step(LATER)
        second.step(LATER)
    settle(first)
    settle(second)
    table, _ = started(small)
    assert_same(small, table)


def test_the_same_rows_are_the_same_bytes_and_bad_ones_are_refused(small: World) -> None:
    for number in range(2):
        small.publish(f"video {number}", "cars")
    segments = VectorSegments(small.objects, VERSION)
    published = published_between(small.catalogue, VERSION, 0)
    segment = segments.gather(published)
    assert segment is not None
    data = segment.to_bytes()
    again = Segment.from_bytes(data)
    assert again.rows == segment.rows
    assert np.array_equal(again.vectors, segment.vectors)
    assert again.to_bytes() == data
    with pytest.raises(ValueError, match="NaN"):
        Segment(segment.rows, segment.vectors * np.float32(np.nan))
    with pytest.raises(ValueError, match="order"):
        Segment(segment.rows[::-1], segment.vectors)
    with pytest.raises(ValueError, match="rows"):
        Segment(segment.rows[:1], segment.vectors)
    with pytest.raises(PassingError) as caught:
        Segment.from_bytes(data.replace(b"video 1", b"video 9"))
    assert caught.value.code == "store.artifact_damaged"
