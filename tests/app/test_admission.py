"""Back-pressure: no more than the settings say, whoever asks and however many at once, and a word when to come back."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.admission import Admission, BusyError
from app.api import create_api
from app.intaking import began
from store.api_keys import ApiKeys
from store.catalogue import Catalogue, RunKey
from store.settings import Settings, load_settings
from store.upload_ledger import UploadLedger
from tests import clips
from tests.app.serving import TUS, UPLOADS, creation, ledger, piece


def settings(data: Path, **intake: int) -> Settings:
    return load_settings(data=data, limits={"bytes": 100_000}, intake={"retry_seconds": 7} | intake)


def client_of(chosen: Settings) -> TestClient:
    return TestClient(create_api(chosen), base_url="http://127.0.0.1")


def refused(answer: Any, code: str, status: int = 429) -> int:
    """The seconds of Retry-After; fails when the answer is another."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return int(answer.headers["retry-after"])


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    return clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=None).read_bytes()


def test_uploads_in_progress(tmp_path: Path) -> None:
    with client_of(settings(tmp_path, user_uploads=2)) as client:
        wheres = [client.post(UPLOADS, headers=creation(10)).headers["location"] for _ in range(2)]
        assert refused(client.post(UPLOADS, headers=creation(10)), "intake.too_many_uploads") == 7
        form = client.post("/api/v1/videos", files={"file": ("a", b"x")})
        assert refused(form, "intake.too_many_uploads") == 7
        # What is in progress goes on, and its end makes room.
        assert client.patch(wheres[0], headers=piece(0), content=b"x").status_code == 204
        assert client.delete(wheres[0], headers=TUS).status_code == 204
        assert client.post(UPLOADS, headers=creation(10)).status_code == 201


def test_bytes_under_way(tmp_path: Path) -> None:
    with client_of(settings(tmp_path, user_bytes=150_000)) as client:
        where = client.post(UPLOADS, headers=creation(90_000)).headers["location"]
        refused(client.post(UPLOADS, headers=creation(60_001)), "intake.too_many_bytes")
        # A length that comes later counts as the longest.
        refused(client.post(UPLOADS, headers=TUS | {"Upload-Defer-Length": "1"}), "intake.too_many_bytes")
        assert client.post(UPLOADS, headers=creation(60_000)).status_code == 201
        assert client.delete(where, headers=TUS).status_code == 204
        refused(client.post(UPLOADS, headers=TUS | {"Upload-Defer-Length": "1"}), "intake.too_many_bytes")
        assert client.post(UPLOADS, headers=creation(90_000)).status_code == 201


def test_counts_survive_a_restart(tmp_path: Path) -> None:
    chosen = settings(tmp_path, uploads=1)
    with client_of(chosen) as client:
        where = client.post(UPLOADS, headers=creation(10)).headers["location"]
    with client_of(chosen) as client:
        refused(client.post(UPLOADS, headers=creation(10)), "intake.too_many_uploads")
        assert client.head(where, headers=TUS).status_code == 200
        client.delete(where, headers=TUS)
        assert client.post(UPLOADS, headers=creation(10)).status_code == 201


def test_one_users_limit_is_not_anothers(tmp_path: Path) -> None:
    chosen = settings(tmp_path, user_uploads=1, uploads=2)
    keys = ApiKeys(Catalogue(chosen.database_url()))
    ana, bo, cy = ({"Authorization": f"Bearer {keys.create(name, ['upload'])[1]}"} for name in ("ana", "bo", "cy"))
    with client_of(chosen) as client:
        assert client.post(UPLOADS, headers=creation(10) | ana).status_code == 201
        answer = client.post(UPLOADS, headers=creation(10) | ana)
        refused(answer, "intake.too_many_uploads")
        assert answer.json()["title"].startswith("You have")
        assert client.post(UPLOADS, headers=creation(10) | bo).status_code == 201
        answer = client.post(UPLOADS, headers=creation(10) | cy)
        refused(answer, "intake.too_many_uploads")
        assert answer.json()["title"].startswith("There are")


def test_videos_that_wait(tmp_path: Path, clip: bytes) -> None:
    """The queue counts whoever filled it; its end makes room again."""
    data = tmp_path / "data"
    chosen = settings(data, waiting=2)
    catalogue = Catalogue(chosen.database_url())
    waiting = [RunKey(video_id=f"{number:032x}", stage="frames", version="v", revision="") for number in range(2)]
    for key in waiting:
        catalogue.mark_queued(key)
    with client_of(chosen) as client:
        assert refused(client.post(UPLOADS, headers=creation(10)), "intake.queue_full") == 21
        catalogue.claim(waiting[0], "worker", 30)
        refused(client.post(UPLOADS, headers=creation(10)), "intake.queue_full")
        catalogue.finish(waiting[0], 1.0)
        answer = client.post("/api/v1/videos", files={"file": ("a.mp4", clip)})
        assert answer.status_code == 202
        refused(client.post(UPLOADS, headers=creation(10)), "intake.queue_full")


def test_videos_of_one_user_that_wait(tmp_path: Path, clip: bytes) -> None:
    with client_of(settings(tmp_path / "data", user_waiting=1)) as client:
        assert client.post("/api/v1/videos", files={"file": ("a.mp4", clip)}).status_code == 202
        answer = client.post(UPLOADS, headers=creation(10))
        refused(answer, "intake.queue_full")
        assert answer.json()["title"].startswith("You have 1 videos")


def test_before_the_disk_fills(tmp_path: Path) -> None:
    """Refused is what would leave too little, counting what others announced and have not sent."""
    free = shutil.disk_usage(tmp_path).free
    chosen = settings(tmp_path, free_bytes=free + 2**30)
    with client_of(chosen) as client:
        assert refused(client.post(UPLOADS, headers=creation(10)), "intake.disk_full", 507) == 42
        assert refused(client.post("/api/v1/videos", files={"file": ("a", b"x")}), "intake.disk_full", 507) == 42
        assert ledger(tmp_path).all() == []


def test_the_disk_counts_promises(tmp_path: Path) -> None:
    large = 10 * 2**40
    chosen = load_settings(data=tmp_path, limits={"bytes": large}, intake={"user_bytes": large, "bytes": large})
    (tmp_path / "uploads").mkdir()
    gate = Admission(chosen, UploadLedger(Catalogue(chosen.database_url())), tmp_path / "uploads")
    free = shutil.disk_usage(tmp_path).free
    third = (free - chosen.intake.free_bytes) // 3
    assert third > 0, "this test needs a disk with room"
    gate.admit(began("ana", "tus", third, large))
    with pytest.raises(BusyError) as caught:
        gate.admit(began("bo", "tus", third, large))
    assert caught.value.code == "intake.disk_full"
    # An S3 store is elsewhere: there each counts once.
    away = Admission(chosen.model_copy(update={"objects": "s3://b"}), gate.ledger, gate.folder)
    away.admit(began("bo", "tus", third // 2, large))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Admission]:
    chosen = settings(tmp_path, uploads=5)
    (tmp_path / "uploads").mkdir()
    catalogue = Catalogue(chosen.database_url())
    yield Admission(chosen, UploadLedger(catalogue), tmp_path / "uploads")
    catalogue.close()


def test_a_hundred_at_once_do_not_get_past_a_limit_together(gate: Admission) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(25)

    def ask() -> None:
        start.wait()
        for _ in range(4):
            try:
                gate.admit(began("ana", "tus", 10, 100))
                outcomes.append("in")
            except BusyError as error:
                outcomes.append(error.code)

    threads = [threading.Thread(target=ask) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in"] * 5 + ["intake.too_many_uploads"] * 95
    assert gate.ledger.load().uploads == 5


def test_looking_is_quick_beside_many_ended_uploads(gate: Admission) -> None:
    """What has ended does not make admission slower: it is a count over what is under way."""
    for number in range(300):
        upload = began("ana", "tus", 10, 100)
        gate.ledger.open(upload, lambda *_: None)
        gate.ledger.received(upload.id, 10)
        gate.ledger.finish(upload.id, f"{number:032x}", "new", None)
    began_at = time.process_time()
    for _ in range(20):
        gate.ledger.load("ana")
    assert time.process_time() - began_at < 1.0
    assert gate.ledger.load() == gate.ledger.load("ana")
