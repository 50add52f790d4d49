"""Administration over HTTP, on a real broker without workers: routes, the page, and who may not."""

from __future__ import annotations

import html.parser
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.access import COOKIE, Access
from app.admin_access import AdminAccess
from app.admin_routes import admin_routes
from app.api import create_api
from app.operation_pages import operation_pages
from app.operations import ReelSense
from app.reembed_routes import reembed_routes
from app.site import Site
from store.api_keys import ApiKeys
from store.catalogue import Video
from store.errors import InputError, ReelsenseError
from store.records import MediaInfo, Metadata
from store.settings import Settings, load_settings
from tests.store.servers import free_port
from tests.workers.test_brokers import valkey

MEDIA = MediaInfo(container="mp4", bytes=1, duration=1.0, width=2, height=2, video_codec="h264")
VIDEO = "ab" * 16


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with valkey(tmp_path) as url:
        yield load_settings(data=tmp_path / "data", broker=url)


@pytest.fixture
def reelsense(settings: Settings) -> ReelSense:
    """One video of which three runs wait."""
    reelsense = ReelSense(settings)
    reelsense.catalogue.put_video(
        Video(id=VIDEO, revision="r", file_name="a.mp4", metadata=Metadata(), media=MEDIA, uploaded_at=1.0)
    )
    video = reelsense.catalogue.video(VIDEO)
    reelsense.graph.enqueue([reelsense.graph.key(video, stage) for stage in ("frames", "audio", "transcript")])
    return reelsense


@pytest.fixture
def client(settings: Settings, reelsense: ReelSense) -> TestClient:
    assert reelsense.catalogue.videos()
    return TestClient(create_api(settings), base_url="http://127.0.0.1:8787")


def test_queues_are_seen_paused_purged_and_restored(client: TestClient) -> None:
    rows = {row["name"]: row for row in client.get("/api/v1/queues").json()["queues"]}
    assert {"name", "depth", "paused", "oldest_seconds"} <= rows["audio"].keys()
    assert (rows["audio"]["depth"], rows["audio"]["messages"], rows["audio"]["paused"]) == (1, 1, False)
    assert rows["audio"]["oldest_seconds"] >= 0
    assert rows["audio"]["in_per_minute"] == 0.2
    assert rows["vision"]["oldest_seconds"] is None
    paused = client.post("/api/v1/queues/audio/pause", json={"reason": "disk"}).json()
    assert (paused["paused"], paused["changed"], paused["not_told"]) == (True, True, None)
    assert client.get("/api/v1/queues/audio").json()["pause"]["reason"] == "disk"
    dry = client.post("/api/v1/queues/audio/purge?dry_run=true").json()
    done = client.post("/api/v1/queues/audio/purge").json()
    assert dry | {"dry_run": False} == done
    assert (done["runs"], done["messages"]) == (1, 1)
    row = client.get("/api/v1/queues/audio").json()
    assert (row["depth"], row["messages"]) == (0, 0)
    assert [item["code"] for item in row["failures"]] == ["stage.cancelled"]
    assert client.post("/api/v1/queues/audio/restore").json() == {
        "name": "audio", "stages": ["audio"], "runs": 1, "sent": 0,
    }  # fmt: skip
    assert client.post("/api/v1/queues/audio/resume").json()["sent"] == 1
    row = client.get("/api/v1/queues/audio").json()
    assert (row["depth"], row["messages"], row["paused"]) == (1, 1, False)
    actions = [entry["action"] for entry in client.get("/api/v1/audit").json()["audit"]]
    assert actions == ["queue.resume", "queue.restore", "queue.purge", "queue.pause"]
    assert {(entry["who"], entry["via"]) for entry in client.get("/api/v1/audit").json()["audit"]} == {
        ("local", "http")
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/queues/nothing", 404, "queue.unknown"),
        ("POST", "/queues/nothing/pause", 404, "queue.unknown"),
        ("POST", "/queues/%2e%2e/purge", 404, None),
        ("POST", "/workers/nobody/drain", 404, "worker.unknown"),
        ("POST", "/videos/ffffffff/cancel", 404, "video.unknown"),
        ("GET", "/videos/ffffffff/timeline", 404, "video.unknown"),
        ("POST", "/dead/reasons/nothing/internal/replay", 404, "queue.unknown"),
    ],
)
def test_what_does_not_exist_changes_nothing(
    client: TestClient, method: str, path: str, status: int, code: str | None
) -> None:
    answer = client.request(method, f"/api/v1{path}")
    assert answer.status_code == status
    assert code is None or answer.json()["code"] == code
    assert client.get("/api/v1/audit").json() == {"audit": []}


def test_numbers_out_of_range_are_refused(client: TestClient) -> None:
    assert client.post("/api/v1/workers/scale", json={"least": 3, "most": 2}).json()["code"] == "request.invalid"
    assert client.post("/api/v1/workers/scale", json={"least": -1}).json()["code"] == "request.invalid"
    assert client.post("/api/v1/queues/audio/pause", json={"reason": "x" * 501}).status_code == 422
    assert client.get("/api/v1/audit?k=0").status_code == 422
    assert client.post("/api/v1/workers/scale", json={"least": 1, "most": 4}).json() == {
        "least": 1, "most": 4, "stack": None,
    }  # fmt: skip


def test_a_stage_that_runs_is_busy(client: TestClient, reelsense: ReelSense) -> None:
    key = reelsense.graph.key(reelsense.catalogue.video(VIDEO), "audio")
    reelsense.catalogue.claim(key, "elsewhere/1", 30)
    answer = client.post("/api/v1/queues/audio/purge")
    assert (answer.status_code, answer.json()["code"]) == (409, "queue.busy")
    assert client.get("/api/v1/queues/audio").json()["under_way"][0]["worker"] == "elsewhere/1"
    held = client.get("/api/v1/workers").json()["held_by_others"]
    assert [(run["video"], run["stage"]) for run in held] == [(VIDEO, "audio")]


def test_a_video_is_cancelled_retried_set_aside_and_released(client: TestClient, reelsense: ReelSense) -> None:
    base = f"/api/v1/videos/{VIDEO[:8]}"
    assert client.post(f"{base}/prioritise").json() == {"video": VIDEO, "prioritised": True, "changed": True}
    assert client.post(f"{base}/cancel").json()["cancelled"] == 11
    assert client.get("/api/v1/videos").json()["videos"][0]["error"]["code"] == "video.cancelled"
    assert client.post(f"{base}/retry").json() == {"video": VIDEO, "state": "waiting", "error": None}
    aside = client.post(f"{base}/quarantine", json={"reason": "a complaint"}).json()
    assert (aside["quarantined"], aside["reason"], aside["who"]) == (True, "a complaint", "local")
    for verb in ("prioritise", "cancel", "retry"):
        answer = client.post(f"{base}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "video.quarantined")
        assert "reelsense videos release" in answer.json()["detail"]
    seen = client.get("/api/v1/videos").json()["videos"][0]
    assert (seen["state"], seen["error"]["code"]) == ("failed", "video.quarantined")
    reelsense.graph.retry(reelsense.catalogue.video(VIDEO))  # an upload of the same file again
    reelsense.graph.reconcile()
    assert {run.state for run in reelsense.catalogue.runs()} == {"failed"}
    assert client.post(f"{base}/release").json()["changed"]
    assert client.get("/api/v1/videos").json()["videos"][0]["state"] == "waiting"
    timeline = client.get(f"{base}/timeline").json()
    assert [row["what"] for row in timeline["administered"]] == [
        "video.prioritise", "video.cancel", "video.retry", "video.quarantine", "video.release",
    ]  # fmt: skip
    assert timeline["events"][0]["what"] == "queued"
    assert timeline["bytes"]["audio"] is None


def test_failures_are_grouped_and_replayed(client: TestClient, reelsense: ReelSense) -> None:
    key = reelsense.graph.key(reelsense.catalogue.video(VIDEO), "audio")
    reelsense.catalogue.fail(key, InputError("media.unreadable", "torn"))
    row = client.get("/api/v1/dead/reasons").json()["failures"][0]
    assert (row["stage"], row["code"], row["runs"], row["message"]) == ("audio", "media.unreadable", 1, "torn")
    assert client.post("/api/v1/dead/reasons/audio/media.unreadable/replay").json()["runs"] == 1
    assert client.get("/api/v1/dead/reasons").json() == {"failures": []}
    assert client.get("/api/v1/queues/audio").json()["depth"] == 1
    stale = key.model_copy(update={"version": "0" * 16})
    reelsense.catalogue.fail(stale, InputError("media.unreadable", "torn"))
    assert client.post("/api/v1/dead/reasons/audio/media.unreadable/replay").json()["runs"] == 0, "of no version now"


def test_a_pause_holds_without_a_broker_and_says_so(tmp_path: Path) -> None:
    away = load_settings(data=tmp_path, broker=f"redis://127.0.0.1:{free_port()}/0")
    client = TestClient(create_api(away), base_url="http://127.0.0.1:8787")
    answer = client.post("/api/v1/queues/audio/pause").json()
    assert (answer["paused"], answer["told"], answer["not_told"]) == (True, 0, "broker.unavailable")
    listed = client.get("/api/v1/queues").json()
    assert listed["broker"] == "broker.unavailable"
    assert {row["name"] for row in listed["queues"] if row["paused"]} == {"audio"}
    assert all(row["messages"] is None for row in listed["queues"])
    assert client.get("/api/v1/workers").json()["workers"] == []


# --- the page -------------------------------------------------------------------------------------------------------


class Read(html.parser.HTMLParser):
    """What a page holds: its forms' addresses, what it loads, and its labels."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.named = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            assert given["method"] == "post"
            self.forms.append(given["action"] or "")
        if tag in ("script", "link", "img"):
            self.loaded.append(given.get("src") or given.get("href") or "")
        if given.get("id"):
            self.ids.append(given["id"] or "")
        assert not any(name.startswith("on") or name == "style" for name in given), "nothing inline"


def test_the_page_shows_all_and_its_forms_work_without_script(client: TestClient, reelsense: ReelSense) -> None:
    key = reelsense.graph.key(reelsense.catalogue.video(VIDEO), "transcript")
    reelsense.catalogue.fail(key, InputError("media.unreadable", "<script>alert(1)</script>"))
    answer = client.get("/operations")
    assert answer.status_code == 200
    page = Read(answer.text)
    assert "<script>alert" not in answer.text
    assert {path.partition("?")[0] for path in page.loaded if "operations" in path} == {
        "/assets/operations.css",
        "/assets/operations.js",
    }
    assert len(page.ids) == len(set(page.ids))
    assert "default-src 'self';" in answer.headers["content-security-policy"]
    for asset in page.loaded:
        assert client.get(asset).status_code == 200
    assert client.get("/operations/..%2fapi.py").status_code == 404
    assert client.get("/operations/live.html").status_code == 404
    assert "/operations/queues/audio/pause" in page.forms
    form = {"origin": "http://127.0.0.1:8787", "sec-fetch-site": "same-origin"}
    after = client.post("/operations/queues/audio/pause", headers=form, follow_redirects=False)
    assert (after.status_code, after.headers["location"]) == (303, "/operations#queues")
    page = Read(client.get("/operations/live").text)
    assert "/operations/queues/audio/resume" in page.forms
    assert "/operations/queues/audio/pause" not in page.forms
    for path in page.forms:
        if "replay" in path or "resume" in path:
            assert client.post(path, headers=form).status_code == 200
    assert client.post("/operations/scale", data={"number": "3"}, headers=form).status_code == 200
    answer = client.post("/operations/scale", data={"number": "many"}, headers=form)
    assert answer.status_code == 422
    assert "request.invalid" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
    log = client.get("/api/v1/audit").json()["audit"]
    assert {(entry["action"], entry["via"]) for entry in log} == {
        ("queue.pause", "page"), ("queue.resume", "page"), ("dead.replay", "page"), ("workers.scale", "page"),
    }  # fmt: skip
    gone = client.post("/operations/workers/nobody/drain", headers=form)
    assert gone.status_code == 422
    assert "worker.unknown" in gone.text


@pytest.mark.parametrize("path", ["/operations/queues/audio/pause", "/api/v1/queues/audio/pause", "/key"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_a_page_of_another_site_changes_nothing(client: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = client.post(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "request.cross_site")
    assert client.get("/api/v1/audit").json() == {"audit": []}


def guarded(reelsense: ReelSense) -> tuple[TestClient, str]:
    """The same routes once there is a key, and that key."""
    _, secret = ApiKeys(reelsense.catalogue).create("ana", ["admin"])
    api = FastAPI()
    access = Access(reelsense)
    site = Site(reelsense, access)
    api.add_exception_handler(ReelsenseError, site.problem)
    admin = AdminAccess(lambda authorization: access.caller(authorization, "admin").user)
    api.include_router(admin_routes(reelsense, admin), prefix="/api/v1")
    api.include_router(reembed_routes(reelsense, admin), prefix="/api/v1")
    api.include_router(operation_pages(site, admin))
    api.include_router(site.key_routes())
    return TestClient(api, base_url="http://127.0.0.1:8787"), secret


def test_every_route_asks_who_it_is(reelsense: ReelSense) -> None:
    client, secret = guarded(reelsense)
    paths = client.get("/openapi.json").json()["paths"]
    assert len(paths) >= 15
    for path, methods in paths.items():
        for method in methods:
            filled = path.format(
                name="audio", video=VIDEO, stage="audio", code="internal", letter="0" * 12, job="0", what="pause"
            )
            body = {"processes": 1} if filled.endswith("pool") else None
            assert client.request(method, filled, json=body).status_code == 401, filled
    assert reelsense.graph.administration.audit(10) == []
    right = {"authorization": f"Bearer {secret}"}
    assert client.post("/api/v1/queues/audio/pause", headers=right).status_code == 200
    assert reelsense.graph.administration.audit(1)[0].who == secret.split("_")[1]


def test_jobs_over_http_and_on_the_page(client: TestClient, reelsense: ReelSense) -> None:
    plan = client.post("/api/v1/jobs", json={"settings": {"frames": "8"}, "dry_run": True}).json()
    assert plan["videos"] == 1
    assert {"frames", "vision", "fused", "published"} <= set(plan["stages"])
    assert "transcript" not in plan["stages"]
    assert client.get("/api/v1/jobs").json() == {"jobs": []}
    job = client.post("/api/v1/jobs", json={"settings": {"frames": "8"}}).json()["job"]
    again = client.post("/api/v1/jobs", json={"settings": {"frames": "8"}})
    assert (again.status_code, again.json()["code"]) == (409, "job.overlaps")
    early = client.post(f"/api/v1/jobs/{job}/switch")
    assert early.status_code == 409, early.text
    page = client.get("/operations").text
    assert f"/operations/jobs/{job}/pause" in page
    assert client.post(f"/operations/jobs/{job}/pause", follow_redirects=False).status_code == 303
    assert client.get(f"/api/v1/jobs/{job}").json()["state"] == "paused"
    assert f"/operations/jobs/{job}/resume" in client.get("/operations").text
    assert client.post(f"/api/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    actions = [entry.action for entry in reelsense.graph.administration.audit(10)]
    assert actions == ["reembed.cancel", "reembed.pause", "reembed.start"]


def test_a_browser_enters_a_key_once(reelsense: ReelSense) -> None:
    client, secret = guarded(reelsense)
    refused = client.get("/operations?x=1")
    assert refused.status_code == 401
    assert Read(refused.text).forms == ["/key"]
    assert 'name="then" value="/operations?x=1"' in refused.text
    assert client.post("/operations/queues/audio/pause").status_code == 401
    assert client.post("/key", data={"key": "wrong"}).status_code == 401
    entered = client.post("/key", data={"key": secret, "then": "/operations"}, follow_redirects=False)
    assert entered.headers["location"] == "/operations"
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={secret};")
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/;"))
    assert client.get("/operations").status_code == 200
    assert client.post("/operations/queues/audio/pause").status_code == 200
    assert client.get("/api/v1/queues").status_code == 200, "pages ask the API for more"
    assert client.post("/key/leave", follow_redirects=False).headers["location"] == "/key"
    assert client.get("/operations").status_code == 401
