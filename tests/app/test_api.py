"""The HTTP API: the same operations, problem details with the same codes, loopback only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from store.settings import load_settings
from tests import clips


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    api = create_api(load_settings(data=tmp_path / "data", limits={"bytes": 200_000}))
    with TestClient(api, base_url="http://127.0.0.1") as client:
        yield client


def test_an_upload_is_stored_and_listed(client: TestClient, tmp_path: Path) -> None:
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=None)
    answer = client.post(
        "/api/v1/videos", files={"file": ("../../etc/pass\nwd.mp4", clip.read_bytes())}, data={"tags": "one, two"}
    )
    assert answer.status_code == 202
    video = answer.json()["id"]
    listed = client.get("/api/v1/videos").json()["videos"]
    assert [item["id"] for item in listed] == [video]
    shown = client.get(f"/api/v1/videos/{video}").json()
    assert shown["metadata"]["tags"] == ["one", "two"]
    assert "/" not in shown["file_name"]
    assert list(tmp_path.rglob("pass*")) == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/videos/ffffffff", 404, "video.unknown"),
        ("/api/v1/videos/ffffffff/similar", 404, "video.unknown"),
        ("/api/v1/viewers/nobody/profile", 404, "user.unknown"),
        ("/health/ready", 503, "stack.not_running"),
    ],
)
def test_errors_are_problem_details(client: TestClient, path: str, status: int, code: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"], answer.status_code) == (status, code, status)
    assert problem["title"]


def test_bad_uploads_are_refused(client: TestClient) -> None:
    for content, status, code in (
        (b"", 422, "media.empty"),
        (b"text", 422, "media.not_media"),
        (b"x" * 300_000, 413, "media.too_large"),
    ):
        answer = client.post("/api/v1/videos", files={"file": ("a.mp4", content)})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/api/v1/videos").json() == {"videos": [], "next": None}


def test_events_are_checked(client: TestClient) -> None:
    answer = client.post("/api/v1/events", json={"user": "ana", "video": "ffffffff", "kind": "view"})
    assert answer.status_code == 404
    assert client.post("/api/v1/events", json={"user": "ana"}).status_code == 422
    assert client.get("/api/v1/viewers/ana/feed").json()["items"] == []
    assert client.get("/api/v1/viewers/ana/feed?k=0").status_code == 422


def test_live(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}


# In place of serving for ever, what is set while it serves; in a process of its own, as it configures logging.
_WHILE_SERVING = """
import json, sys, uvicorn
from threadpoolctl import threadpool_info
pools = lambda *_, **__: print(json.dumps([p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]))
uvicorn.run = pools
from app.api import main
main()
"""


def test_the_server_multiplies_with_one_thread(tmp_path: Path) -> None:
    environment = os.environ | {"REELSENSE_DATA": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", _WHILE_SERVING], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout)) == {1}
