"""Deleting a video: everything of it goes, also what a worker writes that was in the middle of a stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from store.catalogue import Video
from store.deletions import _OF_VIDEOS, Deletions
from store.errors import NotFoundError
from store.own_tables import transaction
from store.settings import load_settings
from tests import clips
from tests.workers.test_graph import House
from workers import extraction, stages
from workers.deleting import delete_video


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(load_settings(data=tmp_path / "data"))


@pytest.fixture
def video(house: House, tmp_path: Path) -> Video:
    return house.add(clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=None), title="A clip")


def run_frames(house: House, video: Video) -> None:
    """The one stage that loads no model."""
    house.graph.run(house.graph.key(video, "frames"), extraction.Encoders(house.settings))


def left(house: House, video: Video) -> dict[str, int]:
    """What there still is of a video: rows by table, and objects."""
    found = {}
    with transaction(house.catalogue) as connection:
        for table, name in _OF_VIDEOS:
            query = sa.select(sa.func.count()).select_from(table).where(table.c[name] == video.id)
            found[table.name] = connection.execute(query).scalar() or 0
    objects = [item.key for folder in ("sources/", "artifacts/") for item in house.objects.list(folder)]
    found["objects"] = sum(video.id in key for key in objects)
    return {name: count for name, count in found.items() if count}


def test_a_video_goes_everywhere(house: House, video: Video) -> None:
    run_frames(house, video)
    house.objects.put(f"artifacts/published/an-old-version/{video.id}-{'0' * 16}", b"x")
    house.catalogue.publish(video.id, "an-old-version", "0" * 16)
    old = house.graph.key(video, "published").model_copy(update={"version": "an-old-version", "revision": "0" * 16})
    house.catalogue.finish(old, 1.0)
    other = house.add(clips.test_pattern(house.settings.data / "b.mp4", seconds=1.2, tone_hz=None))
    before = left(house, other)
    proof = delete_video(house.graph, video.id[:8], "ana")
    assert proof["video"] == video.id
    assert proof["found"] == []
    assert proof["removed"]["objects"] == {"source": 3, "artifacts": 2}
    assert left(house, video) == {}
    assert left(house, other) == before
    with pytest.raises(NotFoundError):
        delete_video(house.graph, video.id, "ana")


def test_a_stage_that_ran_meanwhile_leaves_nothing(house: House, video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = extraction.compute

    def slow(*arguments: object) -> object:
        computed = compute(*arguments)  # type: ignore[arg-type]
        delete_video(house.graph, video.id, "ana")
        return computed

    monkeypatch.setattr(extraction, "compute", slow)
    run_frames(house, video)
    assert left(house, video) == {}
    # Messages that are still on their way end quietly.
    monkeypatch.undo()
    while house.sent:
        assert house.graph.run(house.sent.pop(), extraction.Encoders(house.settings)) is None
    assert left(house, video) == {}
    house.graph.reconcile()
    assert house.sent == []


def test_a_stage_whose_needs_were_deleted_leaves_nothing(
    house: House, video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = extraction.compute

    def late(*arguments: object) -> object:
        delete_video(house.graph, video.id, "ana")
        return compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(extraction, "compute", late)
    run_frames(house, video)
    assert left(house, video) == {}
    assert Deletions(house.catalogue).highest() >= 1


def test_the_same_bytes_may_come_again(house: House, video: Video, tmp_path: Path) -> None:
    delete_video(house.graph, video.id, "ana")
    house.sent.clear()
    again = house.add(tmp_path / "a.mp4", title="Once more")
    assert again.id == video.id
    assert [key.stage for key in house.sent] == [stage.name for stage in stages.STAGES if not stage.needs]
    run_frames(house, again)
    assert house.graph.has(house.graph.key(again, "frames"))
