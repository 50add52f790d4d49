"""Events over HTTP, against an API process of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from app.operations import ReelSense
from store.catalogue import Video
from store.event_log import EventLog
from store.records import MediaInfo, Metadata
from store.settings import load_settings
from tests.app.serving import Api, serving
from tests.store.servers import new_database

MEDIA = MediaInfo(container="mp4", bytes=1, duration=20.0, width=2, height=2, video_codec="h264")
VIDEO = "ab" * 16
NOON = 1_700_000_000.0
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReelSense]:
    database = new_database(request.getfixturevalue("postgresql")) if request.param == "postgresql" else ""
    found = ReelSense(load_settings(data=tmp_path_factory.mktemp("events") / "data", database=database))
    found.catalogue.put_video(
        Video(id=VIDEO, revision="r", file_name="a.mp4", metadata=Metadata(), media=MEDIA, uploaded_at=1.0)
    )
    yield found
    found.catalogue.close()


@pytest.fixture(scope="module")
def api(there: ReelSense) -> Iterator[Api]:
    with serving(there.settings.data, REELSENSE_DATABASE=there.settings.database) as running:
        yield running


def post(api: Api, path: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = api.ask("POST", f"/api/v1{path}", JSON, data)
    return status, json.loads(answer)


def test_a_misspelt_field_a_truth_and_a_small_region(api: Api) -> None:
    act = {"user": "odd", "video": VIDEO, "kind": "view", "at": NOON}
    for wrong in ({"wached": 1}, {"watched_seconds": -1}, {"watched_seconds": "abc"}, {"at": True}):
        status, answer = post(api, "/events", act | wrong)
        assert status == 422, answer
    status, answer = post(api, "/events", act | {"watched_seconds": 6.5, "region": "de"})
    assert (status, answer["event"]["watched_seconds"], answer["event"]["region"]) == (201, 6.5, "DE")


def test_one_event_with_all_its_fields(api: Api, there: ReelSense) -> None:
    event = {
        "user": "one", "video": VIDEO, "kind": "view", "watched": 12.5, "at": NOON, "id": "mine", "loops": 2,
        "session": "s", "device": "Pixel 9", "os": "Android 16", "network": "5g", "region": "DE", "language": "de",
    }  # fmt: skip
    status, answer = post(api, "/events", event)
    assert (status, answer["new"], answer["set_aside"]) == (201, True, None)
    [stored] = EventLog(there.catalogue).of("one")
    assert (stored.id, stored.loops, stored.session, stored.device, stored.os, stored.network, stored.region) == (
        "mine", 2, "s", "Pixel 9", "Android 16", "5g", "DE",
    )  # fmt: skip
    assert post(api, "/events", event)[1]["new"] is False
    status, answer = post(api, "/events", event | {"id": "other", "at": NOON + 0.5})
    assert (status, answer["new"], answer["set_aside"]["reason"]) == (201, False, "duplicate")
    assert post(api, "/events", event | {"session": "s" * 65})[1]["code"] == "event.invalid"


@pytest.mark.parametrize("lines", [False, True])
def test_a_batch_tells_each_line(api: Api, there: ReelSense, lines: bool) -> None:
    user = f"many{lines}"
    batch = [
        {"user": user, "video": VIDEO, "kind": "like", "at": NOON},
        {"user": user, "video": VIDEO, "kind": "view", "watched": -1, "at": NOON},
        {"user": user, "video": VIDEO, "kind": "like", "at": NOON + 0.1},
        {"user": user, "video": "0" * 32, "kind": "like", "at": NOON},
        {"user": user, "video": VIDEO, "kind": "share", "at": NOON - 900},
    ]
    body = b"\n".join(json.dumps(line).encode() for line in batch) if lines else json.dumps(batch).encode()
    status, answer = post(api, "/events/batch", body)
    assert status == 200
    assert (answer["new"], answer["known"], answer["set_aside"], answer["refused"]) == (2, 0, 1, 2)
    assert [row["line"] for row in answer["results"]] == [1, 2, 3, 4, 5]
    assert [row.get("code") or row.get("reason") or row["state"] for row in answer["results"]] == [
        "new", "event.invalid", "duplicate", "video.unknown", "new",
    ]  # fmt: skip
    assert [event.kind for event in EventLog(there.catalogue).of(user)] == ["share", "like"]
    again = post(api, "/events/batch", body)[1]
    assert (again["new"], again["known"], again["refused"]) == (0, 3, 2)


def test_a_batch_that_is_too_large_or_none_is_coded(api: Api) -> None:
    assert post(api, "/events/batch", b"nothing [")[1]["results"][0]["code"] == "event.invalid"
    assert post(api, "/events/batch", b"")[1]["code"] == "event.batch_invalid"
    status, answer = post(api, "/events/batch", b"1\n" * 10_001)
    assert (status, answer["code"]) == (422, "event.batch_invalid")
    status, answer = post(api, "/events/batch", b" " * (2**20 + 1))
    assert (status, answer["code"]) == (413, "request.too_large")


def test_a_viewer_is_forgotten_and_told_so(api: Api, there: ReelSense) -> None:
    assert post(api, "/events", {"user": "gone", "video": VIDEO, "kind": "like", "at": NOON})[0] == 201
    status, _, body = api.ask("DELETE", "/api/v1/viewers/gone")
    assert (status, json.loads(body)["removed"]) == (200, {"database/events": 1})
    status, answer = post(api, "/events", {"user": "gone", "video": VIDEO, "kind": "like", "at": NOON})
    assert (status, answer["code"]) == (422, "event.forgotten")
    assert EventLog(there.catalogue).of("gone") == []
    assert post(api, "/events", {"user": "gone", "video": VIDEO, "kind": "like"})[0] == 201, "a new start"
    status, _, body = api.ask("GET", "/api/v1/events/set-aside?k=5")
    assert (status, json.loads(body)["reasons"][0]["reason"]) == (200, "unknown_kind")
    assert b"gone" not in (there.settings.data / "api.log").read_bytes()


@pytest.mark.parametrize("user", ["a/b", "/a", "a/", "a/feed", "a/profile/feed", "a b?#%2F", "ä/日"])
def test_a_name_may_hold_a_slash_on_every_route(api: Api, user: str) -> None:
    assert post(api, "/events", {"user": user, "video": VIDEO, "kind": "like"})[0] == 201
    path = f"/api/v1/viewers/{quote(user, safe='')}"
    status, answer = post(api, f"/viewers/{quote(user, safe='')}/picks", {"pick": ["cooking"]})
    assert (status, answer["user"], answer["picks"][0]["pick"]) == (200, user, "cooking")
    for route in ("profile", "feed"):
        status, _, body = api.ask("GET", f"{path}/{route}")
        assert (status, json.loads(body)["user"]) == (200, user)
    status, _, body = api.ask("DELETE", path)
    assert (status, json.loads(body)["removed"]) == (200, {"database/events": 1, "database/picks": 1})
    assert api.ask("GET", f"{path}/profile")[0] == 404
    counted = api.ask("GET", "/metrics")[2].decode()
    routes = set(re.findall(r'route="(/api/v1/viewers[^"]*)"', counted))
    assert routes == {f"/api/v1/viewers/{{user}}{part}" for part in ("", "/profile", "/feed", "/picks")}


def test_keys_hold_the_doors(api: Api, there: ReelSense) -> None:
    from store.api_keys import ApiKeys

    keys = ApiKeys(there.catalogue)
    _, viewer = keys.create("app", ["recommend"])
    held = {"Authorization": f"Bearer {viewer}"}
    line = json.dumps([{"user": "k", "video": VIDEO, "kind": "like"}]).encode()
    assert api.ask("POST", "/api/v1/events/batch", JSON, line)[0] == 401
    assert api.ask("POST", "/api/v1/events/batch", JSON | held, line)[0] == 200
    assert api.ask("GET", "/api/v1/events/set-aside", held)[0] == 403
    assert api.ask("DELETE", "/api/v1/viewers/k", held)[0] == 403
