"""Rankers in the product: what they are trained on, how they are served, switched and forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.operations import ReelSense
from app.ranker_training import training_data_of
from ranker.events import KINDS
from ranker.video_table import VideoTable
from store.catalogue import StoredEvent
from store.local_objects import LocalObjects
from store.settings import load_settings
from tests.ranker import builders
from tests.ranker.builders import NOON, World, two_tastes, video_id


def act(user: str, name: str, kind: str = "like", at: float = NOON - 60, watched: float | None = None) -> StoredEvent:
    return StoredEvent(
        id=f"{user} {name} {kind} {at}",
        user_id=user,
        video_id=video_id(name),
        kind=kind,
        watched_seconds=watched,
        at=at,
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The videos of an installation, made by hand in the version that it serves."""
    reelsense = ReelSense(load_settings(data=tmp_path))
    version = reelsense.graph.versions["published"]
    monkeypatch.setattr(builders, "VERSION", version)
    objects = LocalObjects(reelsense.settings.objects_directory())
    yield World(objects, reelsense.catalogue, VideoTable(objects, reelsense.catalogue, version))
    reelsense.catalogue.close()


@pytest.fixture
def reelsense(world: World, tmp_path: Path) -> ReelSense:
    two_tastes(world)
    return ReelSense(load_settings(data=tmp_path))


def test_the_training_data_are_the_acts_by_number_and_what_the_videos_are(reelsense: ReelSense, world: World) -> None:
    world.publish("silent", "cooking", quiet=("audio",), duration=40.0)
    log = reelsense.event_log
    log.add([act("ben", "cars 1", at=NOON - 5), act("ben", "cars 0", "view", NOON - 9, watched=5.0)])
    log.add([act("ana", "silent", "skip"), act("ana", "gone"), act("zoe", "gone")])
    found = training_data_of(reelsense)
    assert found.viewer_ids == ("ana", "ben"), "zoe did nothing with any video that is there"
    assert list(found.video_ids) == sorted(found.video_ids)
    assert len(found.video_ids) == 14
    acts = found.data.log
    assert [found.viewer_ids[number] for number in acts.viewers] == ["ana", "ben", "ben"]
    assert [found.video_ids[number] for number in acts.videos] == [
        video_id(name) for name in ("silent", "cars 0", "cars 1")
    ]
    assert acts.at.tolist() == [NOON - 60, NOON - 9, NOON - 5]
    assert [KINDS[kind] for kind in acts.kinds] == ["skip", "view", "like"]
    assert acts.watched[1] == pytest.approx(0.25)
    assert np.isnan(acts.watched[[0, 2]]).all()
    assert acts.values[0] == pytest.approx(-0.5)
    assert 0 < acts.values[1] < acts.values[2] == 1.0
    content = found.data.content
    assert set(content.features) == {"fused", "vision", "audio", "text"}
    place = found.video_ids.index(video_id("cars 0"))
    row = reelsense.table.snapshot.row_of[video_id("cars 0")]
    np.testing.assert_array_equal(content.features["fused"][place], reelsense.table.snapshot.vectors[row])
    for features in content.features.values():
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-5)
    other = found.video_ids.index(video_id("cooking 0"))
    same = found.video_ids.index(video_id("cars 1"))
    vision = content.features["vision"]
    assert vision[place] @ vision[same] > 0.5 > vision[place] @ vision[other]
    assert content.tags is not None
    named = {content.tag_names[column]: weight for column, weight in zip(*_cells(content.tags, place), strict=True)}
    assert named == {"cars": 1.0, "road": 0.5}


def _cells(tags: object, row: int) -> tuple[list[int], list[float]]:
    own = tags[row]  # type: ignore[index]
    return own.indices.tolist(), own.data.tolist()


def test_an_empty_installation_has_empty_training_data(tmp_path: Path) -> None:
    found = training_data_of(ReelSense(load_settings(data=tmp_path)))
    assert (len(found.data.log), found.video_ids, found.viewer_ids) == (0, (), ())
    assert found.data.content.tag_names == ()
