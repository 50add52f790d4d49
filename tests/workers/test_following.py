"""Real workers follow what administrators decide, over both brokers: a pause holds over the death of everything, a
drained worker leaves when its task is done, a prioritised video goes first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from store.administration import Actor, Administration
from store.artifacts import source_key
from store.catalogue import Catalogue, Video
from store.records import Metadata
from store.settings import Settings, load_settings
from store.worker_registry import WorkerRegistry
from tests import clips
from tests.conftest import ROOT
from tests.workers.test_brokers import rabbitmq, valkey
from workers.celery_app import create_app, open_graph, queue_depths
from workers.graph import Graph
from workers.probe import probe

pytestmark = pytest.mark.stack
ANA = Actor("ana", "cli")
RUNS = 30


@contextlib.contextmanager
def worker(settings: Settings, name: str = "one") -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the cheapest stage alone: it loads no model."""
    log = settings.data / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.worker", "--name", name, "--queues", "frames"],
            cwd=ROOT,
            env=os.environ | settings.environment(),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def until(true: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=0.4, tone_hz=None)


def add_many(settings: Settings, graph: Graph, clip: Path, count: int) -> list[Video]:
    """Uploads that differ in the bytes behind the film, as if each had passed the probe."""
    media = probe(clip, settings.limits)
    videos = []
    for number in range(count):
        data = clip.read_bytes() + number.to_bytes(4, "big") + b"free" + bytes(4)
        name = hashlib.sha256(data).hexdigest()[:32]
        graph.objects.put(source_key(name), data)
        video = Video(
            id=name, revision="r", file_name="a.mp4", metadata=Metadata(title=str(number)), media=media,
            uploaded_at=time.time(),
        )  # fmt: skip
        graph.catalogue.put_video(video)
        videos.append(graph.catalogue.video(name))
    return videos


class Site:
    """An installation on a broker of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app: Celery = create_app(settings)
        self.graph = open_graph(self.app)
        self.catalogue: Catalogue = self.graph.catalogue
        self.administration: Administration = self.graph.administration

    def states(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for run in self.catalogue.runs():
            if run.stage == "frames":
                counts[run.state] = counts.get(run.state, 0) + 1
        return counts

    def swept(self) -> dict[str, int]:
        """The same after a sweep: what the killed worker held is found."""
        self.graph.reconcile(queue_depths(self.app), resend_after=3.0)
        return self.states()

    def said(self, name: str = "one") -> str:
        return f"{self.states()} {(self.settings.data / f'{name}.log').read_text()[-3000:]}"


@pytest.fixture(params=["valkey", "rabbitmq"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with (valkey if request.param == "valkey" else rabbitmq)(tmp_path) as url:
        yield Site(load_settings(data=tmp_path / "data", broker=url))


def test_a_pause_holds_and_loses_nothing(site: Site, clip: Path) -> None:
    videos = add_many(site.settings, site.graph, clip, RUNS)
    site.administration.pause("frames", ANA)
    site.graph.enqueue([site.graph.key(video, "frames") for video in videos])
    assert queue_depths(site.app)["frames"] == RUNS
    with worker(site.settings) as process:
        registry = WorkerRegistry(site.catalogue)
        until(lambda: len(registry.workers()) == 1, 60, site.said)
        time.sleep(2.5)
        assert site.states() == {"queued": RUNS}
        assert registry.workers()[0].queues == []
        process.kill()
    # A second one that starts later, and a sweep: nothing is sent again, and nothing starts.
    before = queue_depths(site.app)["frames"]
    sent = site.graph.reconcile(queue_depths(site.app), resend_after=0.0).sent
    assert {key.stage for key in sent} == {"audio", "transcript", "speakers"}
    assert queue_depths(site.app)["frames"] == before
    with worker(site.settings):
        until(lambda: registry.workers()[0].seen_at > time.time() - 2, 60, site.said)
        time.sleep(1.0)
        assert site.states() == {"queued": RUNS}
        site.administration.resume("frames", ANA)
        site.app.control.broadcast("follow_administration")
        for key in site.administration.take_unsent(["frames"], 100):
            site.graph.send(key)
        until(lambda: site.swept() == {"done": RUNS}, 60, site.said)
    runs = [run for run in site.catalogue.runs() if run.stage == "frames"]
    assert {run.attempts for run in runs} == {1}
    assert queue_depths(site.app)["frames"] == 0
    assert WorkerRegistry(site.catalogue).workers() == [], "one that left as it should is not listed"


@pytest.mark.slow
@pytest.mark.parametrize("site", ["valkey", pytest.param("rabbitmq", marks=pytest.mark.slow)], indirect=True)
def test_a_drained_worker_finishes_and_leaves_and_a_prioritised_video_goes_first(site: Site, clip: Path) -> None:
    videos = add_many(site.settings, site.graph, clip, 12)
    site.administration.pause("frames", ANA)
    for video in videos:
        site.graph.enqueue([site.graph.key(video, "frames")])
    site.administration.prioritise(videos[-1].id, ANA)
    with worker(site.settings) as process:
        registry = WorkerRegistry(site.catalogue)
        until(lambda: len(registry.workers()) == 1, 60, site.said)
        name = registry.workers()[0].name
        assert registry.workers()[0].memory_bytes > 10**7
        for processes in (2, 1):
            site.administration.set_pool(name, processes, ANA)
            site.app.control.broadcast("follow_administration")
            until(lambda: len(registry.workers()[0].children) == processes, 60, site.said)  # noqa: B023
        site.administration.resume("frames", ANA)
        site.app.control.broadcast("follow_administration")
        until(lambda: site.states().get("done", 0) >= 2, 60, site.said)
        site.administration.drain(name, ANA)
        site.app.control.broadcast("follow_administration", destination=[name])
        assert process.wait(30) == 0
    assert [(row.name, row.state) for row in registry.workers()] == [(name, "drained")]
    left = site.states()
    assert set(left) == {"done", "queued"}, left
    runs = sorted((run for run in site.catalogue.runs() if run.state == "done"), key=lambda run: run.started_at or 0)
    assert runs[0].video_id == videos[-1].id
    with worker(site.settings, "two"):
        until(lambda: site.states() == {"done": 12}, 60, lambda: site.said("two"))
    assert {run.attempts for run in site.catalogue.runs() if run.stage == "frames"} == {1}
    assert queue_depths(site.app)["frames"] == 0
