"""Re-embedding jobs over a real store and database with real encoders: planned, fed, compared, switched, rolled back.

No broker here: what is sent is collected, and a test plays the worker and the feeder by turns.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.catalogue import RunKey, Video
from store.errors import ReelsenseError
from store.jobs import Job
from store.settings import Settings, load_settings
from tests import clips
from tests.workers.test_graph import House
from workers import extraction, garbage, reembedding
from workers.feeder import Feeder
from workers.reembedding import Request

pytestmark = pytest.mark.models
COUNT = 3
FEWER_FRAMES = Request(overrides={"frames": 2})
ANEW = ["frames", "vision", "appearance", "screen", "text", "topics", "fused", "published"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> extraction.Encoders:
    return extraction.Encoders(load_settings(data=tmp_path_factory.mktemp("encoders")))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, encoders: extraction.Encoders) -> Path:
    """The folder of an installation in which a few clips are ready. Tests copy it."""
    folder = tmp_path_factory.mktemp("done")
    house = House(load_settings(data=folder / "data"))
    for number in range(COUNT):
        clip = clips.test_pattern(folder / f"{number}.mp4", seconds=1.0 + number / 5, tone_hz=220.0 * (1 + number))
        house.add(clip, title=f"Pattern {number}", region=("DE", "FR")[number % 2])
    house.drain(encoders)
    house.catalogue.close()
    return folder


class JobHouse(House):
    """An installation with a feeder."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.said: list[str] = []
        self.feeder = Feeder(self.graph, dict, self.said.append)

    def job(self) -> Job:
        """The only job."""
        (job,) = self.graph.jobs.jobs()
        return job

    def play(self, encoders: extraction.Encoders, until: tuple[str, ...], turns: int = 60) -> list[str]:
        """Feed and work by turns until the job is in one of these states; the stages that ran."""
        ran: list[str] = []
        for _ in range(turns):
            self.feeder.feed()
            ran += self.drain(encoders)
            self.feeder._counted.clear()
            if self.job().state in until:
                return ran
        raise AssertionError(f"still {self.job().state} after {turns} turns: {self.said}")

    def attempts(self, stage: str, version: str) -> list[int]:
        """How often each run of a stage in a version was attempted."""
        return [run.attempts for run in self.catalogue.runs() if (run.stage, run.version) == (stage, version)]


@pytest.fixture
def house(done: Path, tmp_path: Path) -> Iterator[JobHouse]:
    shutil.copytree(done / "data", tmp_path / "data")
    house = JobHouse(load_settings(data=tmp_path / "data"))
    yield house
    house.catalogue.close()


def test_a_plan_names_what_must_run_and_changes_nothing(house: JobHouse) -> None:
    document = reembedding.plan_job(house.graph, FEWER_FRAMES).document
    assert list(document["stages"]) == ANEW
    assert document["videos"] == COUNT
    assert {(entry["runs"], entry["there"]) for entry in document["stages"].values()} == {(COUNT, 0)}
    assert document["unchanged"] == ["audio", "transcript", "speakers"]
    uploads = sum(video.media.bytes for video in house.catalogue.videos())
    assert document["bytes"] > uploads, "the uploads once, and artifacts"
    assert document["hours"] > 0
    assert house.graph.jobs.jobs() == []


def test_a_filter_bounds_the_plan(house: JobHouse) -> None:
    document = reembedding.plan_job(house.graph, Request(overrides={"frames": 2}, where="region = 'fr'")).document
    assert document["videos"] == 1


def test_a_job_runs_is_compared_and_is_served_in_one_step(house: JobHouse, encoders: extraction.Encoders) -> None:
    old = dict(house.graph.versions)
    job = reembedding.start(house.graph, FEWER_FRAMES, "ana")
    assert (job.state, job.stages) == ("planned", ANEW)
    ran = house.play(encoders, ("complete",))
    assert Counter(ran) == Counter(dict.fromkeys(ANEW, COUNT)), "each stage that changed, once a video, nothing else"
    assert dict(house.graph.versions) == old, "the old version is served until somebody switches"
    assert house.job().canary["complaints"] == []
    switched, census = reembedding.switch(house.graph, house.job(), "ana")
    assert (switched.state, census["lacking"], census["gone"]) == ("switched", 0, 0)
    new = dict(house.graph.versions)
    assert {name for name in old if old[name] != new[name]} == set(ANEW)
    assert house.graph.plans[0].settings.frames == 2
    video = house.catalogue.videos()[0]
    assert len(house.graph.artifact(house.graph.key(video, "frames")).attributes["seconds"]) <= 2
    assert house.graph.states(house.catalogue.videos())[video.id][0] == "ready"
    assert house.graph.reconcile().sent == []
    rolled, _ = reembedding.rollback(house.graph, None, "ana")
    assert rolled.state == "rolled_back"
    assert dict(house.graph.versions) == old
    assert [entry["what"] for entry in rolled.history if entry["who"] == "ana"] == ["start", "switch", "rollback"]


def test_nothing_to_do_is_said(house: JobHouse) -> None:
    for request in (Request(("vision",), "starter"), Request(overrides={"frames": 24}), Request()):
        with pytest.raises(ReelsenseError) as caught:
            reembedding.start(house.graph, request, "ana")
        assert caught.value.code == "job.nothing_to_do"
        assert reembedding.plan_job(house.graph, request).document["stages"] == {}
