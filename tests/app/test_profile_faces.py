"""The profile over HTTP and on the command line: one document, true at once in every process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.api import create_api
from app.cli import app
from app.forgetting import forget
from app.operations import ReelSense
from ranker.video_table import VideoTable
from store.local_objects import LocalObjects
from store.settings import Settings, load_settings
from tests.ranker import builders
from tests.ranker.builders import World, two_tastes, video_id


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data=tmp_path / "data")


@pytest.fixture
def world(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An installation that serves four published videos."""
    reelsense = ReelSense(settings)
    version = reelsense.graph.versions["published"]
    monkeypatch.setattr(builders, "VERSION", version)
    objects = LocalObjects(settings.objects_directory())
    world = World(objects, reelsense.catalogue, VideoTable(objects, reelsense.catalogue, version))
    two_tastes(world, each=2)
    assert set(reelsense.table.ids) == set(world.table.ids)
    yield world
    reelsense.catalogue.close()


def act(client: TestClient, video: str, kind: str, at: float | None = None) -> None:
    answer = client.post("/api/v1/events", json={"user": "ana", "video": video_id(video), "kind": kind, "at": at})
    assert answer.status_code == 201


@pytest.mark.usefixtures("world")
def test_every_process_and_face_says_the_same_at_once(settings: Settings) -> None:
    with (
        TestClient(create_api(settings), base_url="http://127.0.0.1") as here,
        TestClient(create_api(settings), base_url="http://127.0.0.1") as there,
    ):
        act(here, "cooking 0", "like", time.time() - 9 * 86_400)
        path = "/api/v1/viewers/ana/profile"
        assert there.get(path).json()["events"] == 1
        for video, kind in (("cooking 1", "share"), ("cars 0", "like"), ("cars 1", "not_interested")):
            act(here, video, kind)
            documents = [client.get(path).json() for client in (here, there)]
            assert documents[0] == documents[1]
            assert documents[0]["history"][0]["video"] == video_id(video)
        assert [next(iter(interest["tags"])) for interest in documents[0]["interests"]] == ["cooking", "cars"]
        assert documents[0]["dislikes"][0]["videos"][0]["title"] == "cars 1"
        assert "over_time" not in documents[0]
        drawn = there.get(f"{path}?points=7").json()["over_time"]
        assert [len(interest["mass"]) for interest in drawn["interests"]] == [7, 7]
        assert there.get(f"{path}?points=1").status_code == 422
        seen = {video_id(name) for name in ("cooking 0", "cooking 1", "cars 0", "cars 1")}
        feed = there.get("/api/v1/viewers/ana/feed").json()["items"]
        assert seen.isdisjoint(item["video"] for item in feed)
        printed = CliRunner().invoke(app, ["profile", "ana", "--json", "--data", str(settings.data)])
        # Built anew from all events: the same within rounding.
        document = json.loads(printed.stdout)
        assert document.keys() == documents[0].keys()
        for name in ("user", "events", "counts", "seen", "creators", "history", "as_of"):
            assert document[name] == documents[0][name]
        assert [one["mass"] for one in document["interests"]] == pytest.approx(
            [one["mass"] for one in documents[0]["interests"]]
        )
    shown = CliRunner().invoke(app, ["profile", "ana", "--points", "5", "--data", str(settings.data)])
    assert shown.exit_code == 0
    for part in ("likes", "avoids", "hours (UTC)", "over time", "cooking 0"):
        assert part in shown.stdout
    refused = CliRunner().invoke(app, ["profile", "ana", "--points", "1", "--data", str(settings.data)])
    assert refused.exit_code != 0


@pytest.mark.usefixtures("world")
def test_picks_survive_their_request_fade_and_are_forgotten(settings: Settings) -> None:
    feed, profile, picks = (f"/api/v1/viewers/new/{name}" for name in ("feed", "profile", "picks"))
    with (
        TestClient(create_api(settings), base_url="http://127.0.0.1") as here,
        TestClient(create_api(settings), base_url="http://127.0.0.1") as there,
    ):

        def first() -> str:
            return str(there.get(feed).json()["items"][0]["title"])

        def masses() -> list[tuple[str, float]]:
            return [(one["pick"], one["mass"]) for one in there.get(profile).json()["picks"]]

        assert there.get(profile).status_code == 404
        for topic in ("cooking", "cars"):
            answer = here.post(picks, json={"pick": [f" {topic.upper()}"], "unpick": ["cooking"]})
            assert (answer.status_code, [one["pick"] for one in answer.json()["picks"]]) == (200, [topic])
            assert first().startswith(topic)
        said = [reason["text"] for item in there.get(feed).json()["items"][:2] for reason in item["reasons"]]
        assert "Suits what you picked: cars." in said
        here.post(picks, json={"pick": ["nothing is about it"]})
        assert masses() == [("cars", 2.0), ("nothing is about it", 0.0)]
        assert there.get(profile).json()["events"] == 0
        assert there.get(f"{profile}?points=5").json()["over_time"]["interests"] == []
        # Three finished views, for or against, halve them.
        for kind in ("favourite", "like", "report"):
            here.post("/api/v1/events", json={"user": "new", "video": video_id("cooking 0"), "kind": kind})
        ((_, left), _) = masses()
        assert 0.5 < left < 1.0
        for wrong in ([""], ["a\x00"], ["x" * 101], ["x"] * 51):
            assert here.post(picks, json={"pick": wrong}).status_code == 422
        assert here.post(picks, json={"picks": []}).status_code == 422
    run = CliRunner()
    command = ["profile", "new", "--data", str(settings.data)]
    change = ["--pick", video_id("cars 0"), "--unpick", "nothing is about it"]
    shown = run.invoke(app, [*command, *change, "--points", "5"])
    assert shown.exit_code == 0
    assert "picked" in shown.stdout
    assert "cars 0" in shown.stdout
    forgotten = forget(ReelSense(settings), "new")
    assert (forgotten["removed"]["database/picks"], forgotten["found"]) == (2, {})
    assert run.invoke(app, [*command, "--json"]).exit_code == 1


@pytest.mark.usefixtures("world")
def test_the_picks_of_a_viewer_without_events_are_shown(settings: Settings) -> None:
    shown = CliRunner().invoke(app, ["profile", "new", "--pick", "cars", "--points", "5", "--data", str(settings.data)])
    assert shown.exit_code == 0, shown.output
    assert "cars" in shown.stdout
