"""Re-embedding jobs over a real store and database with real encoders: planned, fed, compared, switched, rolled back.

No broker here: what is sent is collected, and a test plays the worker and the feeder by turns.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from store.catalogue import RunKey, Video
from store.errors import ReelsenseError
from store.event_log import EventLog
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
    return ready(tmp_path_factory.mktemp("done"), encoders)


def ready(folder: Path, encoders: extraction.Encoders) -> Path:
    """Make an installation with `COUNT` clips in `folder`/data; the folder."""
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
    assert len(house.graph.artifact(house.graph.key(video, "frames")).arrays["seconds"]) <= 2
    assert house.graph.states(house.catalogue.videos())[video.id][0] == "ready"
    assert house.graph.reconcile().sent == []
    rolled, _ = reembedding.rollback(house.graph, None, "ana")
    assert rolled.state == "rolled_back"
    assert dict(house.graph.versions) == old
    assert [entry["what"] for entry in rolled.history if entry["who"] == "ana"] == ["start", "switch", "rollback"]


def test_a_viewer_s_feed_and_profile_switch_together(house: JobHouse, encoders: extraction.Encoders) -> None:
    from app.operations import ReelSense
    from ranker.profiles import build

    reelsense = ReelSense(house.settings)
    liked = house.catalogue.videos()[0].id
    reelsense.event("ana", liked, "like", None)
    events = EventLog(house.catalogue).of("ana")
    reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.play(encoders, ("complete",))
    for act in (lambda: None, lambda: reembedding.switch(house.graph, house.job(), "ana"), lambda: rolled(house)):
        act()
        table = reelsense.table
        assert table.version == house.graph.versions["published"]
        assert len(reelsense.recommend("ana", 10)["items"]) == COUNT - 1
        own = {video: table.get(video).vector for video in table.ids}
        for video in house.catalogue.videos():
            stored = house.graph.artifact(house.graph.key(video, "published")).arrays["vector"]
            assert (own[video.id] == stored).all(), "every row is of the served version"
        taste = build(events, table).long
        assert taste @ own[liked] == pytest.approx(np.linalg.norm(taste)), "and so is what the viewer likes"


def rolled(house: JobHouse) -> None:
    reembedding.rollback(house.graph, None, "ana")


def test_nothing_to_do_is_said(house: JobHouse) -> None:
    for request in (Request(("vision",), "starter"), Request(overrides={"frames": 24}), Request()):
        with pytest.raises(ReelsenseError) as caught:
            reembedding.start(house.graph, request, "ana")
        assert caught.value.code == "job.nothing_to_do"
        assert reembedding.plan_job(house.graph, request).document["stages"] == {}


def test_two_jobs_over_the_same_videos_are_refused_and_over_others_not(house: JobHouse) -> None:
    german = Request(overrides={"frames": 2}, where="region = 'DE'")
    first = reembedding.start(house.graph, german, "ana")
    for where in ("", "region = 'DE' and title has 'Pattern'"):
        with pytest.raises(ReelsenseError) as caught:
            reembedding.start(house.graph, Request(overrides={"frames": 3}, where=where), "ben")
        assert caught.value.code == "job.overlaps"
        assert first.id in caught.value.message
    assert len(house.graph.jobs.jobs()) == 1
    reembedding.start(house.graph, Request(overrides={"frames": 3}, where="region = 'FR'"), "ben")
    reembedding.cancel(house.graph, first, "ana")
    reembedding.start(house.graph, german, "ana")


def test_a_part_of_the_catalogue_is_not_served_without_a_word(house: JobHouse, encoders: extraction.Encoders) -> None:
    reembedding.start(house.graph, Request(overrides={"frames": 2}, where="region = 'DE'"), "ana")
    ran = house.play(encoders, ("complete",))
    assert ran.count("published") == 2, "the French one is not touched"
    old = dict(house.graph.versions)
    with pytest.raises(ReelsenseError) as caught:
        reembedding.switch(house.graph, house.job(), "ana")
    assert caught.value.code == "job.incomplete"
    assert caught.value.message.startswith("1 videos")
    assert dict(house.graph.versions) == old
    _, census = reembedding.switch(house.graph, house.job(), "ana", partial=True)
    assert census["lacking"] == 1
    assert [key.stage for key in house.graph.reconcile().sent] == ["frames"], "the sweep makes the rest"


def test_a_switch_before_completion_is_refused(house: JobHouse) -> None:
    job = reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.feeder.feed()
    house.feeder.feed()
    for state in ("canary", "paused"):
        with pytest.raises(ReelsenseError) as caught:
            reembedding.switch(house.graph, house.job(), "ana", partial=True)
        assert caught.value.code == "job.incomplete"
        assert f"is {state}" in caught.value.message
        if state == "canary":
            reembedding.pause(house.graph, job, "ana")
    with pytest.raises(ReelsenseError) as caught:
        reembedding.rollback(house.graph, None, "ana")
    assert caught.value.code == "job.wrong_state"


def test_a_lost_artifact_stops_the_switch(house: JobHouse, encoders: extraction.Encoders) -> None:
    reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.play(encoders, ("complete",))
    plan = next(plan for plan in house.graph.plans if plan.job)
    house.objects.delete(reembedding.key_of(house.graph, house.catalogue.videos()[0], "vision", plan))
    with pytest.raises(ReelsenseError) as caught:
        reembedding.switch(house.graph, house.job(), "ana")
    assert caught.value.code == "job.incomplete"
    assert "1 artifacts" in caught.value.message
    assert [key.stage for key in house.graph.reconcile().sent] == ["vision"], "a complete job is swept"
    house.drain(encoders)
    reembedding.switch(house.graph, house.job(), "ana")


def test_a_paused_job_begins_nothing_and_goes_on_where_it_was(house: JobHouse, encoders: extraction.Encoders) -> None:
    job = reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.feeder.feed()
    house.feeder.feed()
    assert {key.stage for key in house.sent} == {"frames"}
    reembedding.pause(house.graph, job, "ana")
    assert house.drain(encoders) == ["frames"] * COUNT, "the messages come, and are handed back"
    before = house.catalogue.runs()
    house.feeder.feed()
    assert house.sent == []
    assert all(run.attempts == 0 for run in before if run.version == house.graph.plans[-1].versions["frames"])
    assert reembedding.resume(house.graph, house.job(), "ana").state == "canary"
    house.play(encoders, ("complete",))


def test_a_cancelled_job_leaves_no_work(house: JobHouse, encoders: extraction.Encoders) -> None:
    job = reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.feeder.feed()
    house.feeder.feed()
    kept = list(house.sent)
    reembedding.cancel(house.graph, job, "ana")
    assert len(house.graph.plans) == 1
    house.drain(encoders)
    assert house.graph.jobs.under_way({key.version for key in kept}) == []
    assert not any(house.graph.has(key) for key in kept)
    with pytest.raises(ReelsenseError) as caught:
        reembedding.resume(house.graph, house.job(), "ana")
    assert caught.value.code == "job.wrong_state"


def upload(house: JobHouse, folder: Path) -> Video:
    return house.add(clips.colour_bars(folder / "late.mp4", seconds=1.0), title="late")


def test_a_job_waits_behind_uploads_and_does_not_starve(
    house: JobHouse, encoders: extraction.Encoders, tmp_path: Path
) -> None:
    job = reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.feeder.feed()
    house.feeder.feed()
    jobs_own, house.sent[:] = list(house.sent), []
    upload(house, tmp_path)
    uploads, house.sent[:] = list(house.sent), []
    for key in jobs_own:
        run = house.graph.run(key, encoders)
        assert run is not None
        assert (run.state, run.attempts, run.queued_at) == ("queued", 0, 0.0), "handed back untried"
    house.feeder.feed()
    assert house.sent == [], "nothing is sent while an upload waits"
    house.graph.jobs.note(job.id, last_started=time.time() - 61)
    house.feeder.feed()
    assert len(house.sent) == 1, "after a minute one is"
    run = house.graph.run(house.sent.pop(), encoders)
    assert run is not None
    assert run.state == "done"
    house.sent.extend(uploads)
    house.drain(encoders)
    house.play(encoders, ("complete",))
    assert set(house.attempts("frames", jobs_own[0].version)) == {1}


def test_a_video_that_came_meanwhile_is_there_before_the_switch(
    house: JobHouse, encoders: extraction.Encoders, tmp_path: Path
) -> None:
    reembedding.start(house.graph, FEWER_FRAMES, "ana")
    late = upload(house, tmp_path)
    house.play(encoders, ("complete",))
    house.graph.reconcile()
    house.drain(encoders)
    plan = next(plan for plan in house.graph.plans if plan.job)
    assert house.graph.has(house.graph.key(late, "published", plan))
    totals = house.graph.jobs.totals(house.job().id)
    assert totals.done == totals.videos == COUNT, "what came since is not the job's"
    last = house.add(clips.test_pattern(house.settings.data / "last.mp4", seconds=0.5, tone_hz=None), title="last")
    house.drain(encoders)
    house.feeder.feed()  # what was handed back while the upload ran
    house.drain(encoders)
    assert house.graph.has(house.graph.key(last, "published", plan)), "a complete job follows uploads"
    reembedding.switch(house.graph, house.job(), "ana")


def test_a_feeder_that_dies_is_followed_by_another_and_nothing_runs_twice(
    house: JobHouse, encoders: extraction.Encoders
) -> None:
    reembedding.start(house.graph, Request(overrides={"frames": 2}, concurrency=1), "ana")
    house.feeder.feed()
    house.feeder.feed()
    assert len({key.video_id for key in house.sent}) == 1, "as many videos at once as are allowed"
    house.sent.clear()  # the broker died with what it held, and so did the feeder
    house.feeder = Feeder(house.graph, dict, house.said.append)
    house.feeder.name = "another"
    house.feeder.feed()
    assert house.sent == [], "the other one's lease holds"
    house.graph.jobs.note(house.job().id, feeder_until=0.0)
    house.play(encoders, ("complete",))
    versions = next(plan for plan in house.graph.plans if plan.job).versions
    for stage in ANEW:
        assert house.attempts(stage, versions[stage]) == [1] * COUNT, stage


def test_a_lost_ledger_is_made_good_from_artifacts(house: JobHouse, encoders: extraction.Encoders) -> None:
    import sqlalchemy as sa

    from store.catalogue import publications, runs

    first = reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.play(encoders, ("complete",))
    version = next(plan for plan in house.graph.plans if plan.job).versions["published"]
    with house.catalogue.engine.begin() as connection:
        connection.execute(sa.delete(runs))
        connection.execute(sa.delete(publications))
    house.graph.jobs.note(first.id, state="running")
    house.graph.jobs.reopen(first.id)
    assert house.play(encoders, ("complete",)) == []
    assert len(house.catalogue.publications(version)) == COUNT


def test_garbage_is_what_nobody_needs(house: JobHouse, encoders: extraction.Encoders) -> None:
    assert garbage.garbage(house.graph) == []
    reembedding.start(house.graph, FEWER_FRAMES, "ana")
    house.play(encoders, ("complete",))
    assert garbage.garbage(house.graph) == [], "an open job's work is no garbage"
    reembedding.switch(house.graph, house.job(), "ana")
    assert garbage.garbage(house.graph) == [], "what could be rolled back to is none either"
    first = house.job()
    reembedding.start(house.graph, Request(overrides={"frames": 3}), "ana")
    second = house.graph.jobs.jobs()[-1]
    for _ in range(30):
        house.feeder.feed()
        house.drain(encoders)
        house.feeder._counted.clear()
    reembedding.switch(house.graph, house.graph.jobs.job(second.id), "ana")
    before = house.contents()
    found = garbage.garbage(house.graph)
    assert {entry["stage"] for entry in found} == set(ANEW)
    assert house.contents() == before, "looking deletes nothing"
    assert garbage.collect(house.graph) == found
    after = house.contents()
    assert len(before) - len(after) == sum(entry["artifacts"] for entry in found) == COUNT * len(ANEW)
    served = house.graph.versions
    for video in house.catalogue.videos():
        for stage in served:
            assert house.graph.has(house.graph.key(video, stage))
    reembedding.rollback(house.graph, None, "ana")
    assert house.graph.plans[0].settings.frames == 2
    assert first.encoding == house.catalogue.choices()["encoding"]


def test_garbage_is_not_collected_by_other_settings_than_those_that_serve(house: JobHouse) -> None:
    other = House(house.settings.model_copy(update={"frames": 5}))
    before = house.contents()
    with pytest.raises(ReelsenseError) as caught:
        garbage.collect(other.graph)
    assert caught.value.code == "job.unsafe"
    assert house.contents() == before


def test_a_rate_bounds_what_is_sent(house: JobHouse) -> None:
    job = reembedding.start(house.graph, Request(overrides={"frames": 2}, rate=0.001), "ana")
    house.feeder.feed()
    house.feeder.feed()
    assert house.sent == []
    house.graph.jobs.note(job.id, fed_at=time.time() - 1001)
    house.feeder.feed()
    house.feeder.feed()
    assert len({key.video_id for key in house.sent}) == 1


def test_a_message_of_no_open_job_is_dropped(house: JobHouse, encoders: extraction.Encoders) -> None:
    key = RunKey(video_id=house.catalogue.videos()[0].id, stage="frames", version="f" * 16, revision="")
    assert house.graph.run(key, encoders) is None
