"""What one message makes a worker do, with the real graph and its cheapest stage; the messages are a list here."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.administration import Actor
from store.catalogue import RunKey, Video
from store.settings import load_settings
from tests import clips
from tests.workers.test_following import add_many
from tests.workers.test_graph import House
from workers.admission import run_message
from workers.extraction import Encoders

ANA = Actor("ana", "cli")


class Site(House):
    """Four uploads whose `frames` wait."""

    def __init__(self, folder: Path, clip: Path) -> None:
        super().__init__(load_settings(data=folder))
        self.encoders = Encoders(self.settings)
        self.videos = add_many(self.settings, self.graph, clip, 4)
        self.graph.enqueue([self.frames(video) for video in self.videos])

    def frames(self, video: Video) -> RunKey:
        return self.graph.key(video, "frames")

    def take(self) -> list[int]:
        """Take one message of `frames`; the numbers of the videos whose frames were made by it."""
        before = self.done()
        run_message(self.graph, self.sent.pop(0), self.encoders)
        self.sent[:] = [key for key in self.sent if key.stage == "frames"]
        return sorted(self.done() - before)

    def done(self) -> set[int]:
        return {number for number, video in enumerate(self.videos) if self.graph.has(self.frames(video))}

    def states(self) -> list[str]:
        runs = [self.catalogue.run(self.frames(video)) for video in self.videos]
        return ["missing" if run is None else run.state for run in runs]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=0.4, tone_hz=None)


@pytest.fixture
def site(tmp_path: Path, clip: Path) -> Site:
    return Site(tmp_path / "data", clip)


def test_prioritised_videos_go_first_and_every_message_does_one_run(site: Site) -> None:
    administration = site.graph.administration
    administration.prioritise(site.videos[3].id, ANA)
    administration.prioritise(site.videos[2].id, ANA)
    assert [site.take() for _ in range(4)] == [[3], [2], [0], [1]]
    assert site.sent == []
    assert site.states() == ["done"] * 4
    assert {run.attempts for run in site.catalogue.runs() if run.stage == "frames"} == {1}


def test_a_paused_stage_hands_messages_back_untried(site: Site) -> None:
    administration = site.graph.administration
    administration.pause("frames", ANA)
    assert [site.take() for _ in range(4)] == [[], [], [], []]
    assert site.states() == ["queued"] * 4
    assert {run.attempts for run in site.catalogue.runs()} == {0}
    report = site.graph.reconcile(resend_after=0.0)
    assert "frames" not in {key.stage for key in report.sent}
    administration.resume("frames", ANA)
    back = administration.take_unsent(["frames"], 10)
    assert [key.video_id for key in back] == [video.id for video in site.videos]
    site.sent[:] = back
    assert [site.take() for _ in range(4)] == [[0], [1], [2], [3]]


def test_a_new_run_of_a_paused_stage_waits_without_a_message(site: Site) -> None:
    administration = site.graph.administration
    for video in site.videos:
        site.catalogue.forget(site.frames(video))
    administration.pause("frames", ANA)
    site.graph.reconcile()
    assert site.states() == ["queued"] * 4
    assert len(administration.take_unsent(["frames"], 10)) == 4


def test_a_video_in_quarantine_is_not_run_whoever_sends_it(site: Site) -> None:
    administration = site.graph.administration
    administration.quarantine(site.videos[0].id, [], ANA, "why not")
    assert site.take() == []
    run = site.catalogue.run(site.frames(site.videos[0]))
    assert run is not None
    assert (run.state, run.error_code, run.error_message) == (
        "failed", "video.quarantined", "Set aside by ana: why not.",
    )  # fmt: skip
    site.catalogue.reset([site.frames(site.videos[0])])  # a replay of dead letters
    site.graph.enqueue([site.frames(site.videos[0])])
    assert len(site.sent) == 3
    administration.prioritise(site.videos[0].id, ANA)
    assert site.take() == [1], "priority is no way out"
    administration.release(site.videos[0].id, ANA)
    site.graph.retry(site.videos[0])
    assert site.take() == [0]
    assert [site.take() for _ in range(2)] == [[3], [2]], "the message of 0 serves the run that 0 went before"
