"""The profile for people: JSON, and the tables of the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.profile_tables import BLOCKS, show_profile, sparkline
from ranker.interests_over_time import profile_over_time
from ranker.profile_view import describe
from ranker.profiles import build
from store.administration import Actor, Administration
from store.event_log import EventLog
from store.records import Phrase
from tests.ranker.builders import NOON, World, video_id


@pytest.fixture
def viewed(world: World) -> World:
    label = Phrase(source="label", text="wok, kitchenware", start=0.0, end=20.0, weight=0.8)
    tags = {"wok": 0.8, "kitchenware": 0.8, "dinner": 1.0, "happy music": 0.4}
    world.publish("soup", "cooking", tags=tags, creator="chef", phrases=[label])
    world.publish("bread", "cooking", tags={"dinner": 0.5}, creator="baker")
    world.publish("[bold]race\x1b[31m", "cars", tags={"cars": 1.0}, creator="driver")
    world.table.refresh()
    return world


def described(world: World) -> dict[str, Any]:
    world.happens("ana", "soup", "share", at=NOON - 7200)
    world.happens("ana", "bread", "follow", at=NOON - 3600)
    events = world.happens("ana", "[bold]race\x1b[31m", "not_interested")
    events = [event.model_copy(update={"region": "DE", "device": "Pixel 9"}) for event in events]
    profile = build(events, world.table)
    return {
        "user": "ana",
        **describe(profile, world.table),
        "over_time": profile_over_time(events, world.table, 8),
    }


def test_the_document_says_all_that_is_known(viewed: World) -> None:
    document = described(viewed)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    (interest,) = document["interests"]
    assert [video["title"] for video in interest["videos"]] == ["bread", "soup"]
    assert next(iter(interest["tags"])) == "dinner"
    assert [video["video"] for video in document["dislikes"][0]["videos"]] == [video_id("[bold]race\x1b[31m")]
    kinds = document["tags_by_kind"]
    assert list(kinds["labels"]) == ["kitchenware", "wok"]
    assert list(kinds["sounds"]) == ["happy music"]
    assert list(kinds["words"]) == ["dinner"]
    assert set(kinds["creators"]) == {"baker", "chef"}
    assert document["creators"] == ["baker"]
    assert document["regions"] == {"DE": 1.0}
    assert document["devices"] == {"Pixel 9": 1.0}
    assert [entry["title"] for entry in document["history"]] == ["[bold]race\x1b[31m", "bread", "soup"]
    assert sum(document["hours"]) == pytest.approx(1.0, abs=1e-5)


def test_a_deleted_video_stays_in_the_history_without_a_title(viewed: World) -> None:
    described(viewed)
    Administration(viewed.catalogue).quarantine(video_id("soup"), [], Actor("ada", "cli"))
    viewed.table.refresh()
    document = describe(build(EventLog(viewed.catalogue).of("ana"), viewed.table), viewed.table)
    assert [entry["title"] for entry in document["history"]] == ["[bold]race\x1b[31m", "bread", ""]
    assert video_id("soup") in document["seen"]
    assert [video["title"] for video in document["interests"][0]["videos"]] == ["bread"]


def test_people_see_it_and_titles_style_nothing(viewed: World, capsys: pytest.CaptureFixture[str]) -> None:
    show_profile(described(viewed))
    shown = capsys.readouterr().out
    for part in ("ana: 3 events, 3 videos seen", "bread; soup", "kitchenware", "DE 100 %", "over time", "[bold]race"):
        assert part in shown
    assert "\x1b" not in shown


def test_a_profile_of_refusals_alone_is_shown(viewed: World, capsys: pytest.CaptureFixture[str]) -> None:
    events = viewed.happens("ben", "soup", "report")
    show_profile({"user": "ben", **describe(build(events, viewed.table), viewed.table)})
    assert "avoids" in capsys.readouterr().out


def test_sparklines() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == BLOCKS[0] + BLOCKS[4] + BLOCKS[7]
    assert sparkline([0.0, 0.0]) == BLOCKS[0] * 2
    assert sparkline([]) == ""
