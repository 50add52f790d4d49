"""Messages on real brokers and real workers: retries, redelivery, shutdown. Only what a stage computes is replaced, by
something that takes as long, or fails as often, as the test needs; the pool's child inherits it by the fork."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.catalogue import Run, RunKey
from store.records import Metadata
from store.settings import Settings, load_settings
from tests import clips
from tests.conftest import ROOT
from tests.workers.test_brokers import rabbitmq, valkey
from workers.celery_app import create_app, open_graph, queue_depths
from workers.graph import Graph
from workers.intake import take_in

pytestmark = [
    pytest.mark.models,
    pytest.mark.stack,
    pytest.mark.skipif(sys.platform != "linux", reason="a child is told apart from its worker by /proc"),
]

WORKER = """
import os, sys, time
from pathlib import Path
from store.errors import InputError, PassingError
from store.settings import load_settings
from workers import extraction, worker
real = extraction.compute
notes = Path(sys.argv[1])
def compute(stage, given, encoders):
    with notes.open("a") as stream:
        stream.write(f"{os.getpid()}\\n")
    calls = len(notes.read_text().split())
    exec(sys.argv[2])
    return real(stage, given, encoders)
extraction.compute = compute
worker.run(load_settings(), ["audio"], sys.argv[3])
"""


class House:
    """An installation on a broker, with one video whose `audio` waits in its queue."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.settings: Settings = load_settings(data=folder / "data", broker=broker, visibility_seconds=3)
        self.app = create_app(self.settings)
        self.graph: Graph = open_graph(self.app)
        clip = clips.test_pattern(folder / "clip.mp4", seconds=1.0, tone_hz=330.0)
        video = take_in(clip, Metadata(), self.settings, self.graph.objects, self.graph.catalogue).video
        self.key: RunKey = self.graph.key(video, "audio")
        self.notes = folder / "notes"
        self.graph.enqueue([self.key])

    @contextlib.contextmanager
    def worker(self, name: str, code: str) -> Iterator[subprocess.Popen[bytes]]:
        """A real worker on the queue `audio`, whose stages first execute `code`; `calls` counts the computations."""
        with (self.settings.data / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(self.notes), code, name],
                cwd=ROOT,
                env=os.environ | self.settings.environment(),
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def computed_by(self) -> list[int]:
        """The process of each computation, in order."""
        return [int(line) for line in self.notes.read_text().split()] if self.notes.is_file() else []

    def run(self) -> Run:
        run = self.graph.catalogue.run(self.key)
        assert run is not None
        return run

    def until(self, true: Callable[[], bool], seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            logs = "".join(log.read_text()[-1500:] for log in self.settings.data.glob("*.log"))
            assert time.monotonic() < deadline, f"{self.run()}\n{logs}"
            time.sleep(0.1)


@pytest.fixture(params=["valkey", pytest.param("rabbitmq", marks=pytest.mark.slow)])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    folder = tmp_path / request.param
    folder.mkdir()
    with (valkey if request.param == "valkey" else rabbitmq)(folder) as url:
        house = House(folder, url)
        yield house
        house.graph.catalogue.close()


@pytest.mark.slow
def test_a_passing_trouble_is_tried_again_by_the_broker_and_costs_no_attempt(house: House) -> None:
    """No sweep runs here: the retry comes by the broker, after a pause."""
    code = "if calls < 3: raise PassingError('store.unavailable', 'away')"
    started = time.monotonic()
    with house.worker("one", code):
        house.until(lambda: house.run().state == "done")
    assert time.monotonic() - started > 3.0, "there was no pause between the tries"
    assert len(house.computed_by()) == 3
    assert house.run().attempts == 1


def test_a_message_delivered_again_and_again_has_one_effect(house: House) -> None:
    """Sent three times, and redelivered by the visibility time-out while a worker is at it: computed once."""
    house.graph.send(house.key)
    house.graph.send(house.key)
    with house.worker("one", "time.sleep(9)"), house.worker("two", "time.sleep(9)"):
        house.until(lambda: house.run().state == "done")
        house.until(lambda: queue_depths(house.app)["audio"] == 0)
    assert len(house.computed_by()) == 1
    assert house.run().attempts == 1


@pytest.mark.slow
def test_a_worker_killed_whole_has_its_message_delivered_to_another(house: House) -> None:
    """kill -9 of a worker and its child: the broker delivers again, and nobody has to sweep."""
    with house.worker("one", "time.sleep(60)") as first:
        house.until(lambda: len(house.computed_by()) == 1)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with house.worker("two", ""):
            house.until(lambda: house.run().state == "done")
    assert house.run().attempts == 2
    assert len(house.computed_by()) == 2


@pytest.mark.slow
def test_a_worker_told_to_stop_finishes_what_is_short(house: House) -> None:
    with house.worker("one", "time.sleep(2); raise InputError('media.no_frames', 'to its own end')") as worker:
        house.until(lambda: len(house.computed_by()) == 1)
        worker.terminate()
        assert worker.wait(60) == 0
    assert (house.run().state, house.run().attempts) == ("failed", 1)


def test_a_worker_told_to_stop_hands_back_what_is_long(house: House) -> None:
    """In less than the ten seconds after which container engines kill; and the message waits for the next worker."""
    with house.worker("one", "time.sleep(100)") as worker:
        house.until(lambda: len(house.computed_by()) == 1)
        told = time.monotonic()
        worker.terminate()
        house.until(lambda: house.run().state == "queued")
        assert time.monotonic() - told < 10.0
        assert worker.wait(60) == 0
    assert (house.run().state, house.run().attempts) == ("queued", 0)
    assert queue_depths(house.app)["audio"] >= 1  # handed back, and perhaps restored by the broker as well
    with house.worker("two", ""):
        house.until(lambda: house.run().state == "done")
    assert house.run().attempts == 1
