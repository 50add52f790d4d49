"""What the API keeps to everywhere: cursors, ETags, requests that happen once, limits, and its own description."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from app.access import COOKIE
from app.api import create_api
from app.operations import ReelSense
from app.rate_limits import Bucket
from store.api_keys import ApiKeys
from store.catalogue import Video
from store.errors import CODES
from store.idempotency import LEASE_SECONDS, Answered, IdempotentRequests
from store.idempotency import requests as idempotent_rows
from store.own_tables import transaction
from store.records import MediaInfo, Metadata
from store.settings import load_settings
from tests.ranker.builders import video_id

ODD = ("", "a b", "ü\u202e\U0001f600", "' OR 1=1 --", "<script>alert(1)</script>", "x" * 10_000, "%00", "../../etc")


@pytest.fixture
def reelsense(tmp_path: Path) -> ReelSense:
    return ReelSense(load_settings(data=tmp_path))


@pytest.fixture
def client(reelsense: ReelSense) -> Iterator[TestClient]:
    with TestClient(create_api(reelsense.settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An API over nothing, for what changes nothing."""
    settings = load_settings(data=tmp_path_factory.mktemp("empty"))
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        yield client


def enter(reelsense: ReelSense, name: str, at: float) -> str:
    media = MediaInfo(container="mp4", bytes=1, duration=20.0, width=2, height=2, video_codec="h264")
    video = Video(
        id=video_id(name), revision="a" * 16, file_name=f"{name}.mp4", metadata=Metadata(title=name), media=media,
        uploaded_at=at,
    )  # fmt: skip
    reelsense.catalogue.put_video(video)
    return video.id


# --- pages of videos -------------------------------------------------------------------------------------------------


def test_every_video_is_on_one_page_and_no_more(client: TestClient, reelsense: ReelSense) -> None:
    # Several of one moment: only the id tells where a page ends.
    expected = [enter(reelsense, f"video {n}", 1000.0 + n // 3) for n in range(10)]
    seen: list[str] = []
    cursor = None
    while True:
        page = client.get("/api/v1/videos", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        seen += [video["id"] for video in page["videos"]]
        if cursor is None:
            enter(reelsense, "another that comes meanwhile", 5000.0)
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(expected)
    assert [reelsense.catalogue.video(video).uploaded_at for video in seen] == sorted(
        (1000.0 + n // 3 for n in range(10)), reverse=True
    )
    where = client.get("/api/v1/videos", params={"where": "title = 'video 4'"}).json()
    assert [video["title"] for video in where["videos"]] == ["video 4"]


@pytest.mark.parametrize(
    "cursor",
    [
        *ODD[1:4],
        "AAAA",
        base64.urlsafe_b64encode(b'["a", 1]').decode(),
        base64.urlsafe_b64encode(b'[NaN, "x"]').decode(),
        base64.urlsafe_b64encode(b"[" * 150).decode(),
        base64.urlsafe_b64encode(b'[1e400, "x"]').decode(),
    ],
)
def test_a_bad_cursor_is_a_problem(empty: TestClient, cursor: str) -> None:
    for words in ({}, {"q": "dog"}):
        answer = empty.get("/api/v1/videos", params={"cursor": cursor, **words})
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid"), answer.text


@pytest.mark.parametrize("video", [*ODD[1:], "ffffffff", "abc", "_" * 32, "0" * 32 + "0"])
def test_an_unknown_id_is_a_problem(empty: TestClient, video: str) -> None:
    from urllib.parse import quote

    for path in ("", "/similar", "/media", "/thumbnail", "/events", "/timeline"):
        answer = empty.get(f"/api/v1/videos/{quote(video, safe='')}{path}")
        assert answer.status_code == 404, (path, answer.text)
        assert answer.json()["code"] in ("video.unknown", "request.unknown_address")


# --- ETags -----------------------------------------------------------------------------------------------------------


def test_what_did_not_change_is_not_sent_again(client: TestClient, reelsense: ReelSense) -> None:
    first = client.get("/api/v1/videos")
    tag = first.headers["etag"]
    same = client.get("/api/v1/videos", headers={"If-None-Match": f'"x", W/{tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert "content-length" not in same.headers
    assert same.headers["cache-control"] == "private, no-cache"
    enter(reelsense, "new", 1.0)
    changed = client.get("/api/v1/videos", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert "etag" not in client.get("/api/v1/videos/ffffffff").headers


# --- once ------------------------------------------------------------------------------------------------------------


def event(video: str, **more: Any) -> dict[str, Any]:
    return {"user": "ana", "video": video, "kind": "view", "watched_seconds": 3.0, **more}


def test_a_request_with_a_key_is_done_once(client: TestClient, reelsense: ReelSense) -> None:
    video = enter(reelsense, "one", 1.0)
    headers = {"Idempotency-Key": "abc"}
    first = client.post("/api/v1/events", json=event(video), headers=headers)
    again = client.post("/api/v1/events", json=event(video), headers=headers)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(reelsense.event_log.of("ana")) == 1
    other = client.post("/api/v1/events", json=event(video, kind="like"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "request.key_reused")
    # Something else, as the same act twice in a moment is set aside whatever its key.
    another = client.post("/api/v1/events", json=event(video, kind="like"), headers={"Idempotency-Key": "abd"})
    assert another.status_code == 201
    assert len(reelsense.event_log.of("ana")) == 2
    for bad in ("", "a b", "x" * 256, "\x7f"):
        answer = client.post("/api/v1/events", json=event(video), headers={"Idempotency-Key": bad})
        assert answer.json()["code"] == "request.invalid"


def test_a_refusal_is_an_answer_and_a_failure_is_none(client: TestClient, reelsense: ReelSense) -> None:
    headers = {"Idempotency-Key": "abc"}
    video = video_id("late")
    assert client.post("/api/v1/events", json=event(video), headers=headers).status_code == 404
    enter(reelsense, "late", 1.0)
    # It was answered: a client that wants another answer asks anew.
    assert client.post("/api/v1/events", json=event(video), headers=headers).status_code == 404
    rows = IdempotentRequests(reelsense.catalogue)
    assert rows.begin("x", "same") is None
    rows.drop("x")
    assert rows.begin("x", "same") is None
    rows.finish("x", Answered(status=201, headers={}, body=b"{}"))
    rows.drop("x")  # what was answered stays
    answered = rows.begin("x", "same")
    assert answered is not None
    assert answered.status == 201


def test_two_at_once_are_done_once_and_a_dead_one_is_taken_over(reelsense: ReelSense) -> None:
    rows = IdempotentRequests(reelsense.catalogue)
    came = []

    def begin() -> None:
        try:
            came.append(rows.begin("x", "same"))
        except Exception as error:
            came.append(getattr(error, "code", error))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came, key=str) == [None, *["request.in_progress"] * 7]
    with transaction(reelsense.catalogue) as connection:
        connection.execute(idempotent_rows.update().values(begun_at=idempotent_rows.c.begun_at - LEASE_SECONDS - 1))
    assert rows.begin("x", "same") is None


def test_nobody_is_told_what_another_key_did(client: TestClient, reelsense: ReelSense) -> None:
    video = enter(reelsense, "one", 1.0)
    keys = ApiKeys(reelsense.catalogue)
    (mine, secret), (_, other) = (keys.create(name, ["recommend"]) for name in ("mine", "other"))
    headers = {"Idempotency-Key": "abc"}
    for text, status, replayed in ((secret, 201, None), (secret, 201, "true"), (other, 201, None)):
        answer = client.post("/api/v1/events", json=event(video), headers=headers | {"Authorization": f"Bearer {text}"})
        assert (answer.status_code, answer.headers.get("idempotency-replayed")) == (status, replayed)
    keys.revoke(mine.id)
    answer = client.post("/api/v1/events", json=event(video), headers=headers | {"Authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "access.key_invalid")


def test_an_upload_is_begun_once(client: TestClient) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "10", "Idempotency-Key": "up"}
    first, again = (client.post("/api/v1/uploads", headers=headers) for _ in range(2))
    assert first.headers["location"] == again.headers["location"]
    assert len(client.get("/api/v1/uploads").json()["uploads"]) == 1
    other = client.post("/api/v1/uploads", headers=headers | {"Upload-Length": "11"})
    assert other.json()["code"] == "request.key_reused"


# --- limits ----------------------------------------------------------------------------------------------------------


def test_who_asks_too_much_is_told_when_to_come_back(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path, rates={"reads": 5, "writes": 2, "refused": 3})
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        left = [client.get("/api/v1/videos").headers["ratelimit"].split(";")[1] for _ in range(5)]
        assert left == ["r=4", "r=3", "r=2", "r=1", "r=0"]
        answer = client.get("/api/v1/videos")
        assert (answer.status_code, answer.json()["code"]) == (429, "request.too_many")
        assert 1 <= int(answer.headers["retry-after"]) <= 12
        assert answer.headers["ratelimit-policy"] == '"reads";q=5;w=60'
        # Writes have a bucket of their own; the pieces of uploads and what machines ask have none.
        assert client.post("/api/v1/events", json={}).status_code == 422
        for _ in range(20):
            assert client.get("/health/live").status_code == 200
            assert client.patch("/api/v1/uploads/x").status_code != 429


def test_keys_cannot_be_tried_in_haste(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path, rates={"refused": 3})
    keys = ApiKeys(ReelSense(settings).catalogue)
    _, secret = keys.create("good", ["read"])
    good = {"Authorization": f"Bearer {secret}"}
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/api/v1/videos", headers=good).status_code == 200
        statuses = [
            client.get("/api/v1/videos", headers={"Authorization": f"Bearer rsk_{n:012x}_{'a' * 43}"}).status_code
            for n in range(6)
        ]
        assert statuses == [401, 401, 401, 429, 429, 429]
        assert client.get("/api/v1/videos", headers={"Cookie": f"{COOKIE}=x"}).status_code == 429
        assert client.get("/api/v1/videos", headers=good).status_code == 200


def test_a_bucket_fills_by_the_second() -> None:
    bucket = Bucket(60, 0.0, 100.0)
    assert bucket.wait() == 1
    bucket.fill(100.5)
    assert bucket.left == pytest.approx(0.5)
    bucket.fill(1000.0)
    assert bucket.left == 60.0


# --- the description -------------------------------------------------------------------------------------------------


def test_every_route_is_described_and_every_error_is_a_problem(empty: TestClient) -> None:
    document = empty.get("/api/openapi.json").json()
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    for route in iter_route_contexts(empty.app.routes):  # type: ignore[attr-defined]
        if route.path.startswith("/api/v1/") and getattr(route, "include_in_schema", True):
            path = route.path.replace(":path}", "}")
            for method in route.methods or ():
                assert (path, method.lower()) in described, (path, method)
    problem = document["components"]["schemas"]["Problem"]
    assert set(problem["required"]) == {"type", "title", "status", "code"}
    assert "HTTPValidationError" not in json.dumps(document)
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["responses"]["4XX"]["content"]["application/problem+json"]
            assert operation.get("summary")
            assert operation.get("description") or "health" in operation["operationId"]


def test_the_page_of_the_description_asks_nobody_else(empty: TestClient) -> None:
    page = empty.get("/api/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "/api/v1/videos/{video}/media" in page.text
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]


@pytest.mark.parametrize("text", ODD)
def test_odd_text_is_never_a_crash(empty: TestClient, text: str) -> None:
    for path, name in (
        ("/api/v1/videos", "q"), ("/api/v1/videos", "tag"), ("/api/v1/videos", "where"), ("/api/v1/videos", "state"),
        ("/api/v1/viewers/x/feed", "region"), ("/api/v1/viewers/x/feed", "pick"), ("/api/v1/dead", "stage"),
        ("/api/v1/dead", "video"), ("/api/v1/duplicates", "threshold"), ("/api/v1/audit", "about"),
    ):  # fmt: skip
        if name == "q" and text.strip():
            continue  # loads a model; the search has tests of its own
        answer = empty.get(path, params={name: text})
        assert answer.status_code < 500, (path, name, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["code"] in CODES
    answer = empty.post("/api/v1/events", json=event(text, user=text, kind=text, session=text, region=text))
    assert answer.status_code in (404, 422)
    for path in ("/api/v1/training", "/api/v1/rankers/promote", "/api/v1/models/fusion/promote", "/api/v1/jobs"):
        body = {"model": text, "ranker": text, "version": text, "settings": {text: text}, "where": text}
        for fields in (("model",), ("ranker",), ("version",), ("where",), ("model", "settings"), ("settings",)):
            answer = empty.post(path, json={name: body[name] for name in fields})
            assert 400 <= answer.status_code < 500 or answer.json()["code"] == "stack.not_running", answer.text
