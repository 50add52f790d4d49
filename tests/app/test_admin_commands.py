"""Administration by command on the real embedded stack: what is paused stays paused, drained workers stay away until
somebody scales, and every decision is recorded."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
import time
from pathlib import Path

import pytest

from app.administration import Administrator
from app.operations import ReelSense
from app.scaling import Scaling, worker_name
from app.stack import connected, running
from store.administration import Actor, Administration
from store.catalogue import Catalogue, RunKey
from store.settings import load_settings
from store.worker_registry import WorkerRegistry
from tests import clips
from tests.app.commands import descendants, reelsense, stack, until

ANA = Actor("ana", "cli")


def errors(answer_stdout: str) -> str:
    return str(json.loads(answer_stdout)["error"]["code"])


def test_mistakes_are_answers(tmp_path: Path) -> None:
    """Without a stack, a broker, or anything at all."""
    for arguments, code in (
        (("queue", "pause", "visoin"), "queue.unknown"),
        (("workers", "drain", "worker-9"), "worker.unknown"),
        (("workers", "autoscale", "4", "2"), "request.invalid"),
    ):
        answer = reelsense(*arguments, "--json", "--data", tmp_path)
        assert (answer.status, errors(answer.stdout)) == (1, code), arguments
    answer = reelsense("queue", "pause", "vision", "--reason", "no disk", "--json", "--data", tmp_path)
    assert answer.json == {
        "name": "vision", "paused": True, "changed": True, "running": 0, "told": 0, "not_told": "stack.not_running",
    }  # fmt: skip
    seen = reelsense("queue", "ls", "--data", tmp_path)
    assert f"paused by {pwd.getpwuid(os.getuid()).pw_name}: no disk" in seen.stdout
    entries = reelsense("audit", "ls", "--json", "--data", tmp_path).json["audit"]
    assert [(entry["action"], entry["subject"], entry["via"]) for entry in entries] == [
        ("queue.pause", "vision", "cli")
    ]


@pytest.mark.stack
@pytest.mark.models
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc to find what to kill")
@pytest.mark.slow
def test_one_video_under_administration(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = load_settings(data=data)
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=None)
    catalogue = Catalogue(settings.database_url())
    registry = WorkerRegistry(catalogue)

    def by_ana() -> Administrator:
        info = running(settings)
        return Administrator(ReelSense(connected(settings, info) if info else settings), ANA)

    def workers() -> dict[str, str]:
        return {row.name.partition("@")[0]: row.state for row in registry.workers()}

    def state(stage: str) -> str:
        return next((run.state for run in catalogue.runs() if run.stage == stage), "missing")

    def feed() -> list[str]:
        return [item["video"] for item in ReelSense(settings).recommend("ana", 5)["items"]]

    by_ana().pause("frames")
    assert by_ana().scale(1)["stack"] is None
    with stack(data, REELSENSE_SWEEP_SECONDS="1") as up:
        until(lambda: workers() == {"worker-1": "working"}, 90, "no worker, or too many")
        added = reelsense("add", clip, "--json", "--data", data).json["videos"][0]["id"]
        until(lambda: state("audio") == "done", 90, "the other stages do not run")
        assert state("frames") == "queued"
        # The broker dies, and comes back with what it had; the pause is none of its business.
        broker = next(pid for pid, line in descendants(up.pid).items() if "valkey-server" in line)
        os.kill(broker, signal.SIGKILL)
        until(
            lambda: any("valkey-server" in line for pid, line in descendants(up.pid).items() if pid != broker),
            60,
            "no broker came back",
        )
        assert state("frames") == "queued"
        row = by_ana().queue("frames")
        assert (row["depth"], row["paused"]) == (1, True)
        assert row["oldest_seconds"] > 0
        seen = by_ana().workers()["workers"]
        assert [(item["state"], item["model_set"], item["threads"]) for item in seen] == [("working", "starter", 1)]
        assert seen[0]["memory_bytes"] > 10**7
        assert "frames" not in seen[0]["queues"]
        assert "audio" in seen[0]["queues"]

        drained = reelsense("workers", "drain", "worker-1", "--json", "--data", data)
        assert drained.json["state"] == "draining"
        until(lambda: workers() == {"worker-1": "drained"}, 60, "it does not leave")
        assert by_ana().resume("frames")["changed"]
        time.sleep(2)
        assert not [line for line in descendants(up.pid).values() if "workers.worker" in line], "it was started again"
        assert state("frames") == "queued"
        assert by_ana().scale(2)["stack"] == up.pid
        until(lambda: workers() == {"worker-1": "working", "worker-2": "working"}, 90, "they do not come back")
        until(lambda: state("published") == "done", 240, "not published")
        assert feed() == [added]
        by_ana().quarantine(added, "test")
        assert feed() == []
        assert by_ana().release(added)["changed"]
        assert feed() == [added]
        by_ana().scale(1)
        until(lambda: workers() == {"worker-1": "working"}, 60, "one too many")
    assert running(settings) is None
    assert {run.attempts for run in catalogue.runs()} == {1}
    told = reelsense("timeline", added[:12], "--json", "--data", data).json
    of_frames = [event["what"] for event in told["events"] if event["stage"] == "frames"]
    assert of_frames == ["queued", "started", "done"]
    assert all(size > 0 for size in told["bytes"].values())
    log = [entry["action"] for entry in by_ana().audit(50)["audit"]]
    assert log[::-1] == [
        "queue.pause", "workers.scale", "workers.drain", "queue.resume", "workers.scale", "video.quarantine",
        "video.release", "workers.scale",
    ]  # fmt: skip


def test_autoscaling_follows_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is turned instead of waited for; everything else is real."""
    clock = [1000.0]
    monkeypatch.setattr("app.scaling.time.monotonic", lambda: clock[0])
    settings = load_settings(data=tmp_path)
    catalogue = Catalogue(settings.database_url())
    administration = Administration(catalogue)
    scaling = Scaling(settings, administration)

    def wanted(seconds: int) -> int:
        for _ in range(seconds):
            clock[0] += 1.0
            scaling.wanted()
        return len(scaling.wanted())

    assert wanted(2) == settings.workers == 2
    administration.scale(1, 4, ANA)
    keys = [RunKey(video_id=f"{number:032x}", stage="audio", version="v", revision="") for number in range(10)]
    for key in keys:
        catalogue.mark_queued(key)
    administration.pause("audio", ANA)
    assert wanted(60) == 1, "what is paused needs nobody"
    administration.resume("audio", ANA)
    assert wanted(2) == 2
    assert wanted(30) == 4
    administration.drain(worker_name(2), ANA)
    assert wanted(2) == 3
    assert 2 not in scaling.wanted()
    administration.scale(1, 3, ANA)
    assert wanted(2) == 3
    for key in keys:
        catalogue.finish(key, 1.0)
    assert wanted(25) == 3
    assert wanted(10) == 2
    assert wanted(60) == 1
    administration.scale_by_settings(ANA)
    assert wanted(2) == settings.workers
