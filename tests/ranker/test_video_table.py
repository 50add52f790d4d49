"""The table follows what is published, without a restart, and one bad artifact hides one video."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ranker.video_table import VideoTable
from store.artifacts import artifact_key
from store.errors import NotFoundError
from tests.ranker.builders import VERSION, World, video_id
from tests.store.servers import new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty catalogue in either database."""
    postgresql = request.param == "postgresql"
    world = World.at(tmp_path, new_database(request.getfixturevalue("postgresql")) if postgresql else "")
    yield world
    world.catalogue.close()


def test_new_publications_appear_at_the_next_refresh(world: World) -> None:
    table = world.table
    assert table.refresh() == 0
    assert len(table) == 0
    assert table.ids == []
    first = world.publish("one", "cooking")
    assert first not in table
    assert table.refresh() == 1
    assert table.ids == [first]
    second = world.publish("two", "cars")
    assert table.refresh() == 1
    assert table.refresh() == 0
    assert table.ids == [first, second]
    assert table.vectors.shape == (2, 256)
    assert np.array_equal(table.vectors[1], table.get(second).vector)
    row = table.snapshot.row(second)
    assert row is not None
    assert (row.title, row.tags, row.duration) == ("two", {"cars": 1.0}, 20.0)


def test_a_whole_artifact_comes_back_as_it_was_published(world: World) -> None:
    artifact = world.artifact("one", "cooking")
    world.enter("one")
    world.put(artifact)
    world.catalogue.publish(artifact.video_id, VERSION, artifact.revision)
    world.table.refresh()
    video = world.table.get(artifact.video_id)
    for name in ("vector", "weights", "token_vectors", "phrase_embeddings"):
        assert np.array_equal(getattr(video, name), artifact.arrays[name])
    assert video.attributes.model_dump(mode="json") == artifact.attributes


def test_a_later_revision_replaces_the_earlier(world: World) -> None:
    world.publish("other", "cars")
    old = world.publish("one", "cooking", title="old words")
    world.table.refresh()
    before = world.table.snapshot
    assert world.publish("one", "cooking", title="new words", revision="b" * 16) == old
    assert world.table.refresh() == 1
    assert len(world.table) == 2
    assert sorted(world.table.ids) == sorted([old, video_id("other")])
    row = world.table.snapshot.row(old)
    assert row is not None
    assert row.title == world.table.get(old).attributes.title == "new words"
    # Who still holds the earlier snapshot sees what it saw.
    assert [before.rows[place].title for place in np.flatnonzero(before.alive).tolist()] == ["other", "old words"]


def test_a_new_table_reads_only_the_latest_revision_as_alive(world: World) -> None:
    one = world.publish("one", "cooking", title="old words")
    world.publish("one", "cooking", title="new words", revision="b" * 16)
    fresh = VideoTable(world.objects, world.catalogue, VERSION)
    fresh.refresh()
    assert fresh.ids == [one]
    assert fresh.get(one).attributes.title == "new words"


def test_other_versions_do_not_mix_in(world: World) -> None:
    artifact = replace(world.artifact("one", "cooking"), version="f" * 16)
    world.enter("one")
    world.put(artifact)
    world.catalogue.publish(artifact.video_id, "f" * 16, artifact.revision)
    assert world.table.refresh() == 0


@pytest.mark.parametrize("damage", ["missing", "garbage", "half", "not unit", "wrong width", "no tokens"])
def test_one_bad_artifact_hides_one_video_until_it_is_mended(world: World, damage: str) -> None:
    good = world.publish("good", "cars")
    world.table.refresh()
    artifact = world.artifact("bad", "cooking")
    world.enter("bad")
    key = world.put(artifact)
    data = world.objects.get(key)
    if damage == "missing":
        world.objects.delete(key)
    elif damage == "garbage":
        world.objects.put(key, b"not an artifact")
    elif damage == "half":
        world.objects.put(key, data[: len(data) // 2])
    elif damage == "not unit":
        world.put(replace(artifact, arrays=artifact.arrays | {"vector": artifact.arrays["vector"] * 2}))
    elif damage == "wrong width":
        vector = artifact.arrays["vector"][:128]
        narrow = {"vector": vector / np.linalg.norm(vector), "token_vectors": artifact.arrays["token_vectors"][:, :128]}
        world.put(replace(artifact, arrays=artifact.arrays | narrow))
    else:
        world.put(replace(artifact, arrays={"vector": artifact.arrays["vector"]}))
    world.catalogue.publish(artifact.video_id, VERSION, artifact.revision)
    later = world.publish("later", "cars")
    assert world.table.refresh() == 1
    assert world.table.ids == [good, later]
    code = "store.missing" if damage == "missing" else "store.artifact_damaged"
    assert world.table.unreadable == {artifact.video_id: code}
    world.put(artifact)
    assert world.table.refresh() == 1
    assert sorted(world.table.ids) == sorted([good, later, artifact.video_id])
    assert world.table.unreadable == {}


def test_get_of_an_unpublished_video_is_an_error_and_find_is_none(world: World) -> None:
    with pytest.raises(NotFoundError) as raised:
        world.table.get(video_id("nobody"))
    assert raised.value.code == "video.unknown"
    assert world.table.find(video_id("nobody")) is None
    one = world.publish("one", "cars")
    world.table.refresh()
    world.objects.delete(artifact_key("published", VERSION, one, "a" * 16))
    assert world.table.find(one) is None


def test_many_videos_keep_their_vectors_while_the_table_grows(world: World) -> None:
    names = [f"video {number}" for number in range(150)]
    snapshots = []
    for start in range(0, 150, 50):
        for name in names[start : start + 50]:
            world.publish(name, "cars")
        world.table.refresh()
        snapshots.append(world.table.snapshot)
    assert world.table.ids == [video_id(name) for name in names]
    assert [len(snapshot) for snapshot in snapshots] == [50, 100, 150]
    for snapshot in snapshots:
        assert np.array_equal(snapshot.vectors, world.table.vectors[: len(snapshot)])


def test_two_threads_may_refresh_at_once(world: World) -> None:
    ids = [world.publish(f"video {number}", "cars") for number in range(30)]
    threads = [threading.Thread(target=world.table.refresh) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.table.ids == ids


def test_a_snapshot_names_its_own_rows_and_filters(world: World) -> None:
    one = world.publish("one", "cooking")
    other = world.publish("other", "cars")
    world.table.refresh()
    before = world.table.snapshot
    place = before.row_of[one]
    world.publish("one", "cooking", revision="b" * 16)
    late = world.publish("late", "cars")
    world.table.refresh()
    after = world.table.snapshot
    # The earlier one still names the earlier row, and does not know what came later.
    assert before.row_of[one] == place != after.row_of[one]
    assert late not in before.row_of
    assert set(before.row_of) == {one, other}
    assert len(after.row_of) == 3
    assert after.allowed(languages=["en"]).tolist() == after.alive.tolist()
    assert not after.allowed(languages=["de"]).any()
    assert not after.allowed(regions=["DE"]).any()
    newest = after.allowed(published_after=float(after.published_at[-2]))
    assert np.flatnonzero(newest).tolist() == [len(after) - 1]
    rows, cosines = after.index.search(after.vectors[place : place + 1], 3)
    assert place not in rows[0]
    assert set(rows[0].tolist()) == set(np.flatnonzero(after.alive).tolist())
    assert (np.diff(cosines[0]) <= 0).all()
