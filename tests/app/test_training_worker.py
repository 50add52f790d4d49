"""Training as a batch job: done by a worker, watched, cancelled, and handed on when the worker dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import training_worker
from app.cli import app
from app.operations import ReelSense
from app.ranker_models import champion_of
from app.training_worker import KIND, run_job
from ranker.video_table import VideoTable
from store.batch_jobs import BatchJob, BatchJobs
from store.errors import InputError
from store.local_objects import LocalObjects
from store.settings import load_settings
from tests.app.commands import free_port, stack
from tests.app.test_ranker_training import crowd
from tests.ranker import builders
from tests.ranker.builders import World, two_tastes

BPR = {"epochs": 3, "dim": 4, "evaluate_every": 1}


@pytest.fixture
def reelsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReelSense]:
    found = ReelSense(load_settings(data=tmp_path))
    version = found.graph.versions["published"]
    monkeypatch.setattr(builders, "VERSION", version)
    objects = LocalObjects(found.settings.objects_directory())
    two_tastes(World(objects, found.catalogue, VideoTable(objects, found.catalogue, version)))
    crowd(found)
    yield found
    found.catalogue.close()


def asked(reelsense: ReelSense, model: str = "bpr", **request: object) -> BatchJob:
    return BatchJobs(reelsense.catalogue).create(KIND, {"model": model, **request}, "somebody")


def test_a_job_is_done_and_tells_how_far_it_came_and_what_came_of_it(reelsense: ReelSense) -> None:
    jobs = BatchJobs(reelsense.catalogue)
    job = asked(reelsense, settings=BPR)
    assert jobs.any_open()
    run_job(reelsense.settings, job.id)
    done = jobs.job(job.id[:6])
    assert (done.state, done.attempts, done.error_code) == ("done", 1, None)
    assert (done.progress["done"], done.progress["most"]) == (3, 3)
    assert done.result["ranker"].startswith("bpr/")
    assert not jobs.any_open()
    run_job(reelsense.settings, job.id)
    assert jobs.job(job.id) == done, "a message that comes twice does nothing"
    shown = CliRunner().invoke(app, ["jobs", "show", job.id[:6], "--data", str(reelsense.settings.data)])
    assert "3/3" in shown.stdout
    assert done.result["ranker"] in shown.stdout


def test_a_job_may_promote_and_says_when_it_does_not(reelsense: ReelSense) -> None:
    jobs = BatchJobs(reelsense.catalogue)
    good = asked(reelsense, "ease", settings={"regularisation": 100.0}, promote=True)
    run_job(reelsense.settings, good.id)
    assert champion_of(reelsense) == jobs.job(good.id).result["ranker"]
    bad = asked(reelsense, "popularity", promote=True)
    run_job(reelsense.settings, bad.id)
    done = jobs.job(bad.id)
    assert done.state == "done"
    assert "not better" in done.result["not_promoted"]
    assert champion_of(reelsense) == jobs.job(good.id).result["ranker"]


def test_what_fails_says_why_and_the_worker_lives_on(reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = BatchJobs(reelsense.catalogue)
    for request, code in (({"nosuch": 1}, "request.invalid"), ({"regularisation": 1e400}, "request.invalid")):
        job = asked(reelsense, "ease", settings=request)
        run_job(reelsense.settings, job.id)
        assert (jobs.job(job.id).state, jobs.job(job.id).error_code) == ("failed", code)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by a model")

    monkeypatch.setattr(ReelSense, "train_ranker", broken)
    job = asked(reelsense)
    run_job(reelsense.settings, job.id)
    assert jobs.job(job.id).error_code == "ranker.training_failed"
    assert "by a model" in (jobs.job(job.id).error_message or "")


def test_a_cancelled_job_stops_at_its_next_step_and_keeps_its_checkpoint(
    reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_worker, "TELL_SECONDS", 0.02)
    monkeypatch.setattr(training_worker, "BEAT_SECONDS", 0.02)
    jobs = BatchJobs(reelsense.catalogue)
    job = asked(reelsense, settings=BPR | {"epochs": 100_000, "patience": 100_000})
    before = signal.getsignal(signal.SIGUSR2)

    def cancel() -> None:
        while not jobs.job(job.id).progress:
            time.sleep(0.02)
        jobs.cancel(job.id)

    thread = threading.Thread(target=cancel)
    thread.start()
    run_job(reelsense.settings, job.id)
    thread.join()
    assert jobs.job(job.id).state == "cancelled"
    assert signal.getsignal(signal.SIGUSR2) == before
    assert (reelsense.settings.data / "training" / "ranker-bpr.safetensors").exists()
    with pytest.raises(InputError) as refused:
        jobs.cancel(job.id)
    assert refused.value.code == "job.wrong_state"


def test_a_job_of_a_worker_that_fell_silent_is_anothers_and_the_first_one_is_told(reelsense: ReelSense) -> None:
    jobs = BatchJobs(reelsense.catalogue)
    job = asked(reelsense)
    first = jobs.claim(job.id, "first")
    assert first is not None
    assert jobs.claim(job.id, "second") is None
    assert jobs.beat(first, {"done": 1, "most": 9})
    assert jobs.abandoned(60.0) == []
    assert [again.id for again in jobs.abandoned(-1.0)] == [job.id]
    second = jobs.claim(job.id, "second")
    assert second is not None
    assert second.attempts == 2
    assert not jobs.beat(first)
    assert not jobs.finish(first, {})
    assert not jobs.release(first)
    assert jobs.release(second)
    assert jobs.job(job.id).attempts == 1, "what is handed back does not count"


def test_a_job_that_kills_its_workers_is_given_up(reelsense: ReelSense) -> None:
    jobs = BatchJobs(reelsense.catalogue)
    job = asked(reelsense)
    for _ in range(reelsense.settings.limits.attempts):
        assert jobs.claim(job.id, "dies") is not None
        jobs.abandoned(-1.0)
    run_job(reelsense.settings, job.id)
    assert jobs.job(job.id).error_code == "ranker.training_failed"


def test_without_workers_or_with_nonsense_nothing_is_queued(reelsense: ReelSense) -> None:
    data = ["--data", str(reelsense.settings.data)]
    for arguments, code in (
        (["--model", "ease"], "stack.not_running"),
        (["--model", "nosuch"], "ranker.no_such_model"),
        (["--model", "ease", "--set", "nosuch=1"], "request.invalid"),
    ):
        done = CliRunner().invoke(app, ["train", "ranker", *arguments, "--job", *data])
        assert done.exit_code == 1
        assert code in done.stderr
    assert BatchJobs(reelsense.catalogue).jobs() == []


@pytest.mark.slow
def test_a_running_stack_trains_and_a_killed_trainer_goes_on(reelsense: ReelSense) -> None:
    """Real broker, real Celery worker, killed while it trains."""
    data = reelsense.settings.data
    jobs = BatchJobs(reelsense.catalogue)
    submit = [sys.executable, "-m", "app.cli", "train", "ranker", "--model", "bpr", "--job", "--promote", "--json"]
    submit += ["--data", str(data), "--set", "dim=4", "--set", "epochs=3000", "--set", "patience=3000"]
    with stack(data, REELSENSE_WORKERS="1"):
        done = subprocess.run(submit, capture_output=True, check=True, timeout=120)
        job = json.loads(done.stdout)["id"]
        first = until(lambda: (found := jobs.job(job)).progress.get("done", 0) > 20 and found, 120)
        os.kill(int(str(first.worker).rpartition(":")[2]), signal.SIGKILL)
        jobs.abandoned(0.0)
        second = until(lambda: (found := jobs.job(job)).attempts == 2 and found.progress and found, 120)
        assert second.worker != first.worker
        other = json.loads(subprocess.run(submit, capture_output=True, check=True, timeout=120).stdout)["id"]
        jobs.cancel(job)
        until(lambda: jobs.job(other).state == "running", 60)
        jobs.cancel(other)


def until(ask, seconds: float):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ("bpr", "dim=4"),
        ("svdpp", "dim=4"),
        ("lightgcn", "dim=4"),
        ("two_tower", "dim=8"),
        ("sasrec", "dim=8"),
        ("gru", "dim=8"),
    ],
    ids=lambda given: given[0],
)
def test_two_processes_of_torchrun_train_the_same_ranker_as_one(reelsense: ReelSense, given: tuple[str, str]) -> None:
    name, size = given
    told: list[dict[str, object]] = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), "-m", "app.cli", "train", "ranker"]
        command += ["--model", name, "--seed", "1", "--set", "epochs=4", "--set", size, "--set", "shards=2"]
        ran = subprocess.run(
            [*command, "--json", "--data", str(reelsense.settings.data)],
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode()[-3000:]
        told.append(json.loads(ran.stdout))  # one document: the other process prints none
    assert [document["card"]["processes"] for document in told] == [1, 2]  # type: ignore[index]
    assert told[0]["ranker"] == told[1]["ranker"], "bit for bit"
