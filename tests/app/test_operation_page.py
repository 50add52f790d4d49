"""The page `/operations`: jobs of training, trained rankers, model sets and dead letters, and what its buttons do."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from app.operations import ReelSense
from app.ranker_models import champion_of
from app.ranker_training import train_ranker
from app.training_jobs import row_of
from app.training_worker import KIND
from ranker.video_table import VideoTable
from store.batch_jobs import BatchJob, BatchJobs
from store.catalogue import StoredEvent, Video
from store.dead_letters import DeadLetters
from store.errors import InputError
from store.local_objects import LocalObjects
from store.records import MediaInfo, Metadata
from store.settings import load_settings
from tests.ranker import builders
from tests.ranker.builders import NOON, World, two_tastes, video_id

HOSTILE = "</td><script>alert('title')</script>"
MEDIA = MediaInfo(container="mp4", bytes=1, duration=1.0, width=2, height=2, video_codec="h264")


@pytest.fixture
def reelsense(tmp_path: Path) -> Iterator[ReelSense]:
    found = ReelSense(load_settings(data=tmp_path))
    yield found
    found.catalogue.close()


@pytest.fixture
def client(reelsense: ReelSense) -> TestClient:
    return TestClient(create_api(reelsense.settings), base_url="http://127.0.0.1:8787")


def section(client: TestClient, name: str) -> str:
    """The words of a section of the page, without its tags."""
    answer = client.get("/operations/live")
    assert answer.status_code == 200
    found = re.search(rf'<section id="{name}".*?</section>', answer.text, re.DOTALL)
    assert found is not None
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[0])))


def test_a_training_shows_how_far_it_is_and_can_be_cancelled(client: TestClient, reelsense: ReelSense) -> None:
    jobs = BatchJobs(reelsense.catalogue)
    asked = jobs.create(KIND, {"model": "sasrec"}, "carla")
    running = jobs.claim(asked.id, "host:1")
    assert running is not None
    jobs.beat(running, {"done": 5, "most": 20, "judged": 0.1234})
    words = section(client, "jobs")
    assert all(part in words for part in ("sasrec", "running", "5 of 20", "NDCG@10 0.1234", "by carla", "at most"))
    answer = client.post(f"/operations/training/{asked.id}/cancel", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/operations#jobs")
    assert jobs.job(asked.id).state == "cancelled"
    assert "training.cancel" in section(client, "audit")
    again = client.post(f"/operations/training/{asked.id}/cancel")
    assert again.status_code == 422
    assert "job.wrong_state" in again.text


def test_remaining_time_goes_by_what_the_attempt_took() -> None:
    job = BatchJob(
        id="a", kind=KIND, request={"model": "m"}, state="running", created_by="x", created_at=0.0,
        started_at=time.time() - 30, progress={"done": 3, "most": 12},
    )  # fmt: skip
    assert row_of(job)["remaining_seconds"] == pytest.approx(90, abs=1)
    for changes in ({"progress": {}}, {"progress": {"done": 0, "most": 12}}, {"state": "done"}, {"started_at": None}):
        assert row_of(job.model_copy(update=changes))["remaining_seconds"] is None


def test_training_without_a_broker_says_so(client: TestClient, reelsense: ReelSense) -> None:
    answer = client.post("/operations/training", data={"model": "ease"})
    assert answer.status_code == 422
    assert "stack.not_running" in answer.text
    assert BatchJobs(reelsense.catalogue).jobs() == []
    assert "ranker.no_such_model" in client.post("/operations/training", data={"model": "<b>"}).text


def liked(viewer: int, number: int) -> StoredEvent:
    return StoredEvent(
        id=f"{viewer} {number}",
        user_id=f"viewer {viewer}",
        video_id=video_id(f"cars {number}"),
        kind="like",
        watched_seconds=None,
        at=NOON - 1000 + 10 * number + viewer,
    )


def test_trained_rankers_are_promoted_and_rolled_back(
    client: TestClient, reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = reelsense.graph.versions["published"]
    monkeypatch.setattr(builders, "VERSION", version)
    objects = LocalObjects(reelsense.settings.objects_directory())
    two_tastes(World(objects, reelsense.catalogue, VideoTable(objects, reelsense.catalogue, version)))
    acts = [(viewer, number) for viewer in range(12) for number in range(6)]
    reelsense.event_log.add([liked(viewer, number) for viewer, number in acts])
    first = train_ranker(reelsense, "popularity")["ranker"]
    second = train_ranker(reelsense, "item_knn")["ranker"]
    assert first in section(client, "models")
    refused = client.post("/operations/rankers/promote", data={"ranker": first})
    assert refused.status_code == 422
    assert "ranker.not_better" in refused.text, "popularity cannot beat itself"
    reelsense.catalogue.choose({"ranker": first, "ranker.previous": "none"})
    assert re.search(rf"{re.escape(first)} +champion", section(client, "models"))
    assert re.search(rf"{re.escape(second)} +challenger", section(client, "models"))
    assert "Serve no trained ranker" in section(client, "models")
    assert client.post("/operations/rankers/rollback", follow_redirects=False).status_code == 303
    assert champion_of(reelsense) is None
    assert "ranker.rollback" in section(client, "audit")
    quality = client.get("/quality").text
    assert first in quality
    assert second in quality


def test_a_model_set_is_planned_before_it_is_started(client: TestClient, reelsense: ReelSense) -> None:
    assert "The set starter is served" in section(client, "models")
    assert "Nothing would change" in client.post("/operations/models/plan", data={"model_set": "starter"}).text
    put_video(reelsense)
    wish = {"model_set": "starter", "setting": "frames=3"}
    planned = client.post("/operations/models/plan", data=wish).text
    assert "vision" in planned
    assert 'value="frames=3"' in planned
    assert reelsense.graph.jobs.jobs() == []
    for wrong, code in (
        ({"model_set": "<nothing>"}, "model.unknown"),
        ({"model_set": "starter", "setting": "frames"}, "settings.invalid"),
        ({"model_set": "starter", "setting": "frames=<b>"}, "settings.invalid"),
    ):
        answer = client.post("/operations/models/plan", data=wrong)
        assert answer.status_code == 422
        assert code in answer.text
    assert client.post("/operations/models/start", data=wish, follow_redirects=False).status_code == 303
    assert [job.overrides for job in reelsense.graph.jobs.jobs()] == [{"model_set": "starter", "frames": 3}]
    refused = client.post("/operations/models/rollback")
    assert refused.status_code == 422
    assert "job.wrong_state" in refused.text


def put_video(reelsense: ReelSense) -> None:
    reelsense.catalogue.put_video(
        Video(
            id="ab" * 16,
            revision="r",
            file_name="a.mp4",
            metadata=Metadata(title=HOSTILE),
            media=MEDIA,
            uploaded_at=1.0,
        )
    )


def dead_letter(reelsense: ReelSense) -> str:
    """One video whose frames failed, all of whose words are hostile; the letter's id."""
    put_video(reelsense)
    key = reelsense.graph.key(reelsense.catalogue.video("ab" * 16), "frames")
    reelsense.graph.enqueue([key])
    reelsense.catalogue.claim(key, "host/1", 30.0)
    letters = DeadLetters(reelsense.catalogue)
    letters.note([key], ["last line " + HOSTILE], "in decode")
    reelsense.catalogue.fail(key, InputError("media.no_frames", HOSTILE), "Traceback " + HOSTILE, dead=False)
    return letters.letters()[0].id


def test_a_dead_letter_tells_all_and_is_dropped(client: TestClient, reelsense: ReelSense) -> None:
    letter = dead_letter(reelsense)
    page = client.get(f"/operations/letters/{letter}").text
    for text in (page, client.get("/operations").text):
        assert "<script>alert" not in text
        assert html.escape(HOSTILE, quote=False).replace("'", "&#39;") in text
    assert "Traceback" in page
    assert "last line" in page
    refused = client.post(f"/operations/letters/{letter}/replay")
    assert "stack.not_running" in refused.text, "a replay without a broker would be lost"
    assert client.post(f"/operations/letters/{letter}/drop", follow_redirects=False).status_code == 303
    assert client.get(f"/operations/letters/{letter}").status_code == 404
    assert "dead.drop" in section(client, "audit")
