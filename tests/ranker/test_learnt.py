"""What was learnt from each event is what the profile holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranker.learnt import learnt
from ranker.profiles import LONG_HALF_LIFE_SECONDS, build
from store.catalogue import StoredEvent
from tests.ranker.builders import NOON, World, two_tastes, video_id


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.at(tmp_path)
    two_tastes(world, each=3)
    world.table.refresh()
    return world


def test_the_sum_of_what_is_left_is_the_profile(world: World) -> None:
    world.happens("ana", "cooking 0", "like", at=NOON - LONG_HALF_LIFE_SECONDS)
    world.happens("ana", "cooking 1", "view", 20.0, at=NOON - 60)
    world.happens("ana", "cars 0", "not_interested", at=NOON - 30)
    events = world.happens("ana", "cars 1", "follow", at=NOON)
    profile = build(events, world.table)
    said = learnt(events, world.table, profile, 10)
    assert [one["kind"] for one in said] == ["follow", "not_interested", "view", "like"]
    assert sum(one["left"] for one in said if one["value"] > 0) == pytest.approx(profile.long_mass, abs=1e-5)
    assert -sum(one["left"] for one in said if one["value"] < 0) == pytest.approx(profile.negative_mass, abs=1e-5)
    assert said[3]["left"] == pytest.approx(said[3]["value"] / 2)
    assert said[1]["tags"] == {"cars": -2.0, "road": -1.0}
    assert said[1]["interest"] is None
    for one in said:
        if one["interest"] is not None:
            assert one["title"].split()[0] in profile.interests[one["interest"]].tags


def test_the_newest_come_first_and_what_is_unknown_teaches_nothing(world: World) -> None:
    events = world.happens("ana", "cooking 0", "like", at=NOON)
    world.enter("unready")
    lost = events[0].model_copy(
        update={"id": "x", "video_id": video_id("unready"), "at": NOON + 1, "sequence": 99, "kind": "share"}
    )
    assert isinstance(lost, StoredEvent)
    said = learnt([*events, lost], world.table, build([*events, lost], world.table), 1)
    assert len(said) == 1
    assert (said[0]["known"], said[0]["left"], said[0]["tags"], said[0]["title"]) == (False, 0.0, {}, "")
