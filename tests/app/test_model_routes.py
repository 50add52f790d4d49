"""Models, trained rankers, jobs that train, and the deletion of videos over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from app.operations import ReelSense
from store.administration import Administration
from store.api_keys import ApiKeys
from store.artifacts import learnt_model_key, source_key
from store.batch_jobs import BatchJobs
from store.settings import load_settings
from tests.app.commands import reelsense as command
from tests.app.test_http_manners import enter


@pytest.fixture
def house(tmp_path: Path) -> ReelSense:
    return ReelSense(load_settings(data=tmp_path))


@pytest.fixture
def client(house: ReelSense) -> Iterator[TestClient]:
    with TestClient(create_api(house.settings), base_url="http://127.0.0.1") as client:
        yield client


def roles(client: TestClient) -> dict[str, str]:
    return {row["version"]: row["role"] for row in client.get("/api/v1/models").json()["learnt"]["topics"]}


def test_a_learnt_model_is_brought_in_and_taken_back(client: TestClient, house: ReelSense) -> None:
    for version in ("one", "two"):
        house.objects.put(learnt_model_key("topics", version), b"x")
    house.objects.put(learnt_model_key("topics", "two.md"), b"a card")
    house.catalogue.choose({"topics": "one"})
    assert roles(client) == {"one": "served", "two": "kept"}
    assert client.post("/api/v1/models/topics/promote", json={"version": "one"}).json()["code"] == "request.invalid"
    assert client.post("/api/v1/models/topics/promote", json={"version": "no"}).json()["code"] == "model.unknown"
    assert client.post("/api/v1/models/topics/rollback").json()["code"] == "model.unknown"
    # A video that is not whole yet: the served model serves on.
    enter(house, "one", 1.0)
    brought = client.post("/api/v1/models/topics/promote", json={"version": "two"}).json()
    assert brought == {"model": "topics", "served": "one", "next": "two", "previous": "one"}
    assert roles(client)["two"] == "next"
    assert client.post("/api/v1/models/topics/rollback").json()["next"] is None
    assert roles(client)["two"] == "kept"
    # Nothing has to be made: served at once.
    video = house.catalogue.videos()[0]
    client.delete(f"/api/v1/videos/{video.id}")
    assert client.post("/api/v1/models/topics/promote", json={"version": "two"}).json()["served"] == "two"
    assert roles(client) == {"one": "previous", "two": "served"}
    assert client.post("/api/v1/models/topics/rollback").json()["served"] == "one"
    actions = [entry.action for entry in Administration(house.catalogue).audit(10)]
    assert actions == ["model.promote", "model.promote", "video.delete", "model.rollback", "model.promote"]


def test_rankers_over_http(client: TestClient) -> None:
    assert client.get("/api/v1/rankers").json() == {"champion": None, "models": []}
    for path, body in (("promote", {"ranker": "bpr"}), ("rollback", None)):
        answer = client.post(f"/api/v1/rankers/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "ranker.no_such_model")


def test_jobs_that_train(client: TestClient, house: ReelSense) -> None:
    jobs = BatchJobs(house.catalogue)
    first = jobs.create("train ranker", {"model": "bpr"}, "ana")
    jobs.create("train ranker", {"model": "sasrec"}, "ana")
    assert [row["request"]["model"] for row in client.get("/api/v1/training").json()["jobs"]] == ["sasrec", "bpr"]
    assert len(client.get("/api/v1/training?limit=1").json()["jobs"]) == 1
    assert client.get(f"/api/v1/training/{first.id}").json()["state"] == "queued"
    assert client.post(f"/api/v1/training/{first.id}/cancel").json()["state"] == "cancelled"
    again = client.post(f"/api/v1/training/{first.id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job.wrong_state")
    assert client.get("/api/v1/training/ffff").json()["code"] == "job.unknown"
    for body, code in (
        ({"model": "no-such"}, "ranker.no_such_model"),
        ({"model": "bpr", "settings": {"no_such": "1"}}, "request.invalid"),
        ({"model": "bpr", "settings": {"": "1"}}, "settings.invalid"),
        ({"model": "bpr", "more": 1}, "request.invalid"),
        ({"model": "bpr"}, "stack.not_running"),
    ):
        answer = client.post("/api/v1/training", json=body)
        assert (answer.status_code < 500, answer.json()["code"]) == (True, code), answer.text


def test_deleting_a_video_is_for_administrators(client: TestClient, house: ReelSense) -> None:
    video = enter(house, "one", 1.0)
    house.objects.put(source_key(video), b"bytes")
    keys = ApiKeys(house.catalogue)
    secrets = {scope: keys.create(scope, [scope])[1] for scope in ("read", "upload", "recommend", "admin")}
    for scope in ("read", "upload", "recommend"):
        answer = client.delete(f"/api/v1/videos/{video}", headers={"Authorization": f"Bearer {secrets[scope]}"})
        assert (answer.status_code, answer.json()["code"]) == (403, "access.scope_missing")
    headers = {"Authorization": f"Bearer {secrets['admin']}"}
    # Who plays it has the part that is being sent, and gets no other.
    with client.stream("GET", f"/api/v1/videos/{video}/media", headers=headers) as playing:
        proof = client.delete(f"/api/v1/videos/{video}", headers=headers).json()
        assert playing.read() == b"bytes"
    assert proof == {"video": video, "removed": {"rows": {"videos": 1}, "objects": {"source": 1}}, "found": []}
    answer = client.get(f"/api/v1/videos/{video}/media", headers=headers | {"Range": "bytes=2-"})
    assert (answer.status_code, answer.json()["code"]) == (404, "video.unknown")
    assert client.delete(f"/api/v1/videos/{video}", headers=headers).status_code == 404


def test_the_command_deletes_as_the_api_does(house: ReelSense) -> None:
    video = enter(house, "one", 1.0)
    house.objects.put(learnt_model_key("topics", "one"), b"x")
    assert command("learnt", "ls", "--data", house.settings.data, "--json").json == {
        "learnt": {"topics": [{"version": "one", "role": "kept", "bytes": 1}], "fusion": []}
    }
    assert command("learnt", "rollback", "fusion", "--data", house.settings.data).stderr.startswith("model.unknown")
    done = command("videos", "delete", video[:8], "--data", house.settings.data, "--json")
    assert done.json == {"video": video, "removed": {"rows": {"videos": 1}, "objects": {}}, "found": []}
    again = command("videos", "delete", video[:8], "--data", house.settings.data)
    assert again.status == 1
    assert "video.unknown" in again.stderr
