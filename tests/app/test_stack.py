"""The embedded stack on a real broker with real workers, real encoders and real deaths."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from app.stack import running
from store.catalogue import Catalogue
from store.objects import open_objects
from store.settings import load_settings
from tests import clips
from tests.app.commands import descendants, reelsense, stack, until
from workers.stages import STAGES

pytestmark = [
    pytest.mark.models,
    pytest.mark.stack,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc to find what to kill"),
]
CLIPS = 6


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("batch")
    return [
        clips.test_pattern(folder / f"clip {number}.mp4", seconds=1.0 + number / 4, tone_hz=220.0 * (number + 1))
        for number in range(CLIPS)
    ]


def artifacts(data: Path) -> dict[str, bytes]:
    objects = open_objects(load_settings(data=data))
    return {item.key: objects.get(item.key) for item in objects.list("artifacts/")}


def publications(data: Path) -> Counter[str]:
    """How often each video stands in the catalogue's table of publications."""
    import sqlalchemy as sa

    from store.catalogue import publications as table

    catalogue = Catalogue(load_settings(data=data).database_url())
    with catalogue.engine.begin() as connection:
        return Counter(connection.execute(sa.select(table.c.video_id)).scalars())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, batch: list[Path]) -> Path:
    """The batch through one worker that nobody disturbs."""
    data = tmp_path_factory.mktemp("one worker")
    answer = reelsense("add", *batch, "--wait", "--json", "--data", data, REELSENSE_WORKERS="1")
    assert answer.status == 0, answer.stdout + answer.stderr
    assert [item["state"] for item in answer.json["videos"]] == ["ready"] * CLIPS
    return data


@pytest.mark.slow
def test_two_workers_make_the_same_artifacts_as_one(undisturbed: Path, batch: list[Path], tmp_path: Path) -> None:
    answer = reelsense("add", *batch, "--wait", "--json", "--data", tmp_path, REELSENSE_WORKERS="2")
    assert answer.status == 0, answer.stdout + answer.stderr
    assert artifacts(tmp_path) == artifacts(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_real_clips_by_one_worker_and_by_two(
    shared_media: Path, media_index: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    names = sorted(
        (name for name in media_index if name.startswith("good/")), key=lambda name: int(media_index[name]["bytes"])
    )
    files = [shared_media / name for name in names if float(media_index[name]["duration_s"] or 99) <= 30][:20]
    assert len(files) == 20
    assert any(media_index[f"good/{file.name}"]["has_speech"] == "yes" for file in files)
    found = []
    for workers in ("1", "2"):
        data = tmp_path / workers
        answer = reelsense("add", *files, "--wait", "--json", "--data", data, REELSENSE_WORKERS=workers, timeout=900)
        assert answer.status == 0, answer.stdout + answer.stderr
        found.append(artifacts(data))
    assert len(found[0]) == 20 * len(STAGES)
    assert found[0] == found[1]


def test_a_temporary_stack_leaves_nothing_running(undisturbed: Path) -> None:
    settings = load_settings(data=undisturbed)
    assert running(settings) is None
    mine = str(undisturbed)
    alive = [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _reads(entry / "environ", mine)
    ]
    assert alive == []


def _reads(file: Path, text: str) -> bool:
    with contextlib.suppress(OSError):
        return text.encode() in file.read_bytes()
    return False


@pytest.mark.slow
def test_killed_worker_and_killed_broker_lose_nothing(undisturbed: Path, batch: list[Path], tmp_path: Path) -> None:
    """kill -9 of a worker in the middle of a batch, then of the broker: every video is published once."""
    data = tmp_path / "data"
    with stack(data, REELSENSE_SWEEP_SECONDS="1", REELSENSE_LEASE_SECONDS="4") as up:
        answer = reelsense("add", *batch, "--json", "--data", data)
        assert answer.status == 0, answer.stderr
        catalogue = Catalogue(load_settings(data=data).database_url())

        def busy() -> bool:
            return any(run.state == "running" for run in catalogue.runs())

        until(busy, 60, "no worker began")
        workers = [pid for pid, line in descendants(up.pid).items() if "workers.worker" in line]
        assert len(workers) >= 2
        for pid in workers[:2]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: sum(run.state == "done" for run in catalogue.runs()) >= 3, 120, "no worker came back")
        brokers = [pid for pid, line in descendants(up.pid).items() if "valkey-server" in line]
        assert len(brokers) == 1
        os.kill(brokers[0], signal.SIGKILL)
        until(
            lambda: any("valkey-server" in line for pid, line in descendants(up.pid).items() if pid not in brokers),
            90,
            "the broker did not come back",
        )
        answer = reelsense("reconcile", "--wait", "--json", "--data", data)
        assert answer.status == 0, answer.stdout + answer.stderr
        assert Counter(answer.json["states"].values()) == {"ready": CLIPS}
    assert artifacts(data) == artifacts(undisturbed)
    assert list(publications(data).values()) == [1] * CLIPS


def test_the_stack_dies_whole(tmp_path: Path) -> None:
    """kill -9 of the stack itself leaves no broker and no worker behind, and the next one starts."""
    with stack(tmp_path) as up:
        below = list(descendants(up.pid))
        assert len(below) >= 3
        up.kill()
        up.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), 30, "parts of a dead stack live on")
    with stack(tmp_path):
        assert running(load_settings(data=tmp_path)) is not None


def test_one_data_directory_has_one_stack(tmp_path: Path) -> None:
    with stack(tmp_path):
        second = reelsense("up", "--json", "--data", tmp_path, "--port", "0")
        assert second.status == 1
        assert second.json["error"]["code"] == "stack.already_running"


@pytest.mark.slow
def test_what_was_added_without_a_stack_is_processed_by_the_next(batch: list[Path], tmp_path: Path) -> None:
    answer = reelsense("add", batch[0], "--json", "--data", tmp_path)
    assert answer.status == 0
    assert answer.json["videos"][0]["state"] == "waiting"
    started = time.monotonic()
    answer = reelsense("reconcile", "--wait", "--json", "--data", tmp_path)
    assert list(answer.json["states"].values()) == ["ready"], f"after {time.monotonic() - started:.0f} seconds"
