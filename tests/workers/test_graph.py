"""The stage graph over a real store and a real database, with the real encoders on a small generated clip.

No broker here: `send` collects what would be sent, and a test drains it, so that every interleaving can be played.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.artifacts import source_key
from store.catalogue import Catalogue, RunKey, Video
from store.errors import InputError, PassingError
from store.objects import ObjectStore, open_objects
from store.records import Metadata
from store.settings import Settings, load_settings
from tests import clips
from workers import extraction, stages
from workers.graph import Graph
from workers.intake import take_in

pytestmark = pytest.mark.models
NAMES = [stage.name for stage in stages.STAGES]


class House:
    """One installation in a folder: store, database, graph, and the messages that were sent and not yet taken."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.objects: ObjectStore = open_objects(settings)
        self.catalogue = Catalogue(settings.database_url())
        self.sent: list[RunKey] = []
        self.graph = Graph(settings, self.objects, self.catalogue, self.sent.append)

    def add(self, path: Path, **words: object) -> Video:
        taken = take_in(path, Metadata(**words), self.settings, self.objects, self.catalogue)
        self.graph.retry(taken.video)
        return taken.video

    def drain(self, encoders: extraction.Encoders) -> list[str]:
        """Run what was sent until nothing is left; the stages that ran, in order."""
        ran = []
        while self.sent:
            key = self.sent.pop(0)
            self.graph.run(key, encoders)
            ran.append(key.stage)
        return ran

    def drain_all_but(self, stage: str, encoders: extraction.Encoders) -> None:
        """Run what was sent and what follows, and keep the messages of one stage."""
        kept: list[RunKey] = []
        while self.sent:
            key = self.sent.pop(0)
            if key.stage == stage:
                kept.append(key)
            else:
                self.graph.run(key, encoders)
        self.sent.extend(kept)

    def contents(self) -> dict[str, bytes]:
        """Every artifact's bytes by key."""
        return {item.key: self.objects.get(item.key) for item in self.objects.list("artifacts/")}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> extraction.Encoders:
    return extraction.Encoders(load_settings(data=tmp_path_factory.mktemp("encoders")))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "pattern.mp4", seconds=2.0, tone_hz=440.0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, encoders: extraction.Encoders, clip: Path) -> Path:
    """The folder of an installation in which the clip is ready. Tests copy it."""
    folder = tmp_path_factory.mktemp("done")
    house = House(load_settings(data=folder))
    house.add(clip, title="A test pattern")
    house.drain(encoders)
    house.catalogue.close()
    return folder


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(load_settings(data=tmp_path / "data"))
    yield house
    house.catalogue.close()


@pytest.fixture
def ready_house(done: Path, tmp_path: Path) -> Iterator[House]:
    shutil.copytree(done, tmp_path / "data")
    house = House(load_settings(data=tmp_path / "data"))
    yield house
    house.catalogue.close()


def only(house: House) -> Video:
    return house.catalogue.videos()[0]


def test_the_graph_is_in_order_and_closed() -> None:
    for place, stage in enumerate(stages.STAGES):
        assert set(stage.needs) <= set(NAMES[:place]), f"{stage.name} needs a stage below it"
        assert any(stages.BY_NAME[need].reads_words for need in stage.needs) <= stage.reads_words


def test_a_video_runs_through_every_stage_once(ready_house: House) -> None:
    video = only(ready_house)
    for name in NAMES:
        key = ready_house.graph.key(video, name)
        run = ready_house.catalogue.run(key)
        assert ready_house.graph.has(key), name
        assert run is not None
        assert (run.state, run.attempts) == ("done", 1), name
    assert ready_house.graph.states([video])[video.id] == ("ready", None)
    assert len(ready_house.catalogue.publications(ready_house.graph.versions["published"])) == 1


def test_stages_wait_for_their_needs(house: House, encoders: extraction.Encoders, clip: Path) -> None:
    house.add(clip)
    assert [key.stage for key in house.sent] == ["frames", "audio", "transcript", "speakers"]
    ran = house.drain(encoders)
    for stage in stages.STAGES:
        for need in stage.needs:
            assert ran.index(need) < ran.index(stage.name)


def test_running_again_computes_and_changes_nothing(ready_house: House, encoders: extraction.Encoders) -> None:
    before = ready_house.contents()
    for name in NAMES:
        run = ready_house.graph.run(ready_house.graph.key(only(ready_house), name), encoders)
        assert run is not None
        assert run.attempts == 1, f"{name} was attempted again"
    assert ready_house.sent == []
    assert ready_house.contents() == before


def test_the_same_input_gives_the_same_bytes(
    ready_house: House, tmp_path: Path, encoders: extraction.Encoders, clip: Path
) -> None:
    other = House(load_settings(data=tmp_path / "other"))
    other.add(clip, title="A test pattern")
    other.sent.reverse()  # another order of the first stages
    other.drain(encoders)
    assert other.contents() == ready_house.contents()


def test_a_lost_artifact_is_made_again_and_nothing_else(ready_house: House, encoders: extraction.Encoders) -> None:
    before = ready_house.contents()
    lost = next(key for key in before if "/audio/" in key)
    ready_house.objects.delete(lost)
    report = ready_house.graph.reconcile()
    assert [key.stage for key in report.sent] == ["audio"]
    assert ready_house.drain(encoders) == ["audio"]
    assert ready_house.contents() == before


def test_a_damaged_need_is_made_again_by_the_stage_that_meets_it(
    ready_house: House, encoders: extraction.Encoders
) -> None:
    video = only(ready_house)
    before = ready_house.contents()
    damaged = ready_house.graph.key(video, "text")
    path = f"artifacts/text/{damaged.version}/{video.id}-{damaged.revision}"
    ready_house.objects.put(path, before[path][: len(before[path]) // 2])
    for name in ("fused", "published"):
        ready_house.graph.discard(ready_house.graph.key(video, name))
    ready_house.graph.reconcile()
    assert ready_house.drain(encoders) == ["fused", "text", "fused", "published"]
    assert ready_house.contents() == before
    assert ready_house.graph.states([video])[video.id][0] == "ready"


@pytest.mark.parametrize("stage", NAMES)
def test_a_verifying_sweep_mends_half_written_artifacts(
    ready_house: House, encoders: extraction.Encoders, stage: str
) -> None:
    before = ready_house.contents()
    key = next(key for key in before if key.startswith(f"artifacts/{stage}/"))
    ready_house.objects.put(key, before[key][: len(before[key]) // 2])
    assert ready_house.graph.reconcile().sent == [], "a sweep that reads nothing cannot see it"
    report = ready_house.graph.reconcile(verify=True)
    assert [run.stage for run in report.discarded] == [stage]
    assert ready_house.drain(encoders)[0] == stage
    assert ready_house.contents() == before


def test_a_lost_ledger_loses_nothing(ready_house: House) -> None:
    import sqlalchemy as sa

    from store.catalogue import publications, runs

    before = ready_house.contents()
    with ready_house.catalogue.engine.begin() as connection:
        connection.execute(sa.delete(runs))
        connection.execute(sa.delete(publications))
    report = ready_house.graph.reconcile()
    assert (report.sent, report.repaired) == ([], 1)
    assert ready_house.graph.states([only(ready_house)])[only(ready_house).id][0] == "ready"
    assert ready_house.contents() == before


def test_lost_messages_are_found_by_the_sweep(house: House, encoders: extraction.Encoders, clip: Path) -> None:
    house.add(clip)
    house.sent.clear()  # the broker lost them all
    assert [key.stage for key in house.graph.reconcile().sent] == ["frames", "audio", "transcript", "speakers"]
    house.drain(encoders)
    assert house.graph.states([only(house)])[only(house).id][0] == "ready"


def test_the_sweep_lets_waiting_messages_be(house: House, clip: Path) -> None:
    house.add(clip)
    depths = dict.fromkeys(stages.QUEUES, 1)
    assert house.graph.reconcile(depths).sent == []
    assert house.graph.reconcile({}, resend_after=60).sent == []
    assert len(house.graph.reconcile({}).sent) == 4


def test_two_sweeps_at_once_have_no_second_effect(house: House, encoders: extraction.Encoders, clip: Path) -> None:
    video = house.add(clip)
    house.graph.reconcile()
    house.graph.reconcile()
    assert len(house.sent) == 12
    house.drain(encoders)
    assert all(run.attempts == 1 for run in house.catalogue.runs([video.id]))
    assert len(house.catalogue.publications(house.graph.versions["published"])) == 1


def test_new_words_run_only_the_stages_that_read_words(
    ready_house: House, encoders: extraction.Encoders, clip: Path
) -> None:
    before = ready_house.contents()
    ready_house.add(clip, title="Another title", tags=("colour bars",))
    assert ready_house.drain(encoders) == ["text", "topics", "fused", "published"]
    after = ready_house.contents()
    assert {key.split("/")[1] for key in after.keys() - before.keys()} == {"text", "topics", "fused", "published"}
    assert all(after[key] == content for key, content in before.items())


def test_words_that_come_back_are_published_again(
    ready_house: House, encoders: extraction.Encoders, clip: Path
) -> None:
    version = ready_house.graph.versions["published"]
    first = only(ready_house).revision
    ready_house.add(clip, title="Another title")
    ready_house.drain(encoders)
    ready_house.add(clip, title="A test pattern")
    assert ready_house.sent == []
    assert [row.revision for row in ready_house.catalogue.publications(version)][-1] == first


def test_another_speech_runtime_runs_only_what_hangs_on_it(ready_house: House, tmp_path: Path) -> None:
    other = House(load_settings(data=tmp_path / "data", speech_runtime="openai-whisper"))
    changed = {name for name in NAMES if other.graph.versions[name] != ready_house.graph.versions[name]}
    assert changed == {"transcript", "text", "topics", "fused", "published"}
    assert [key.stage for key in other.graph.reconcile().sent] == ["transcript"]


def test_a_message_of_another_version_is_dropped(ready_house: House, encoders: extraction.Encoders) -> None:
    before = ready_house.contents()
    key = ready_house.graph.key(only(ready_house), "vision").model_copy(update={"version": "0" * 16})
    assert ready_house.graph.run(key, encoders) is None
    assert ready_house.contents() == before


def test_a_message_of_older_words_is_dropped(ready_house: House, encoders: extraction.Encoders, clip: Path) -> None:
    old = ready_house.graph.key(only(ready_house), "text")
    ready_house.add(clip, title="Newer")
    ready_house.objects.delete(next(item.key for item in ready_house.objects.list("artifacts/text/")))
    assert ready_house.graph.run(old, encoders) is None


def test_a_video_without_sound_or_words_is_a_normal_video(
    house: House, tmp_path: Path, encoders: extraction.Encoders
) -> None:
    video = house.add(clips.test_pattern(tmp_path / "mute.mp4", seconds=1.5, tone_hz=None))
    house.drain(encoders)
    assert house.graph.states([video])[video.id] == ("ready", None)
    fused = house.graph.artifact(house.graph.key(video, "fused"))
    assert set(fused.attributes["attention"]) == {"vision"}
    assert fused.attributes["attention"]["vision"] == pytest.approx(1.0)


def test_a_video_whose_worker_dies_each_time_is_set_aside(
    house: House, encoders: extraction.Encoders, clip: Path
) -> None:
    """Three real processes claim the run and kill themselves; the fourth attempt is not made."""
    video = house.add(clip)
    key = house.graph.key(video, "frames")
    code = (
        "import os, signal, sys; from store.settings import load_settings; from store.objects import open_objects;"
        "from store.catalogue import Catalogue, RunKey; from workers.graph import Graph;"
        "s = load_settings(); c = Catalogue(s.database_url());"
        "g = Graph(s, open_objects(s), c, print);"
        "k = RunKey.model_validate_json(sys.argv[1]);"
        "assert g._claim(k) is not None; os.kill(os.getpid(), signal.SIGKILL)"
    )
    for attempt in (1, 2, 3):
        done = subprocess.run(
            [sys.executable, "-c", code, key.model_dump_json()],
            env=os.environ | house.settings.environment(),
            check=False,
        )
        assert done.returncode == -9
        run = house.catalogue.run(key)
        assert run is not None
        assert (run.state, run.attempts) == ("running", attempt)
    report = house.graph.reconcile()
    assert report.given_up == [key]
    state, error = house.graph.states([video])[video.id]
    assert state == "failed"
    assert error is not None
    assert error.code == "stage.gave_up"
    house.drain(encoders)  # the others go on
    audio = house.catalogue.run(house.graph.key(video, "audio"))
    assert audio is not None
    assert audio.state == "done"


def test_a_dead_process_of_this_machine_gives_its_claim_up_at_once(
    house: House, encoders: extraction.Encoders, clip: Path
) -> None:
    video = house.add(clip)
    key = house.graph.key(video, "audio")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = house.graph.worker.rpartition("/")[0]
    assert house.catalogue.claim(key, f"{host}/{gone.pid}", 30) == 1
    run = house.graph.run(key, encoders)
    assert run is not None
    assert (run.state, run.attempts) == ("done", 2)


def test_a_live_worker_elsewhere_keeps_its_claim(house: House, encoders: extraction.Encoders, clip: Path) -> None:
    video = house.add(clip)
    key = house.graph.key(video, "audio")
    house.catalogue.claim(key, "another-host/1", 30)
    run = house.graph.run(key, encoders)
    assert run is not None
    assert (run.state, run.worker) == ("running", "another-host/1")
    house.sent.clear()
    assert key not in house.graph.reconcile().sent


def test_a_store_that_is_away_is_tried_again_and_costs_no_attempt(
    house: House, encoders: extraction.Encoders, clip: Path
) -> None:
    video = house.add(clip)
    key = house.graph.key(video, "audio")
    source = house.settings.data / "objects" / source_key(video.id)
    aside = source.with_name("aside")
    source.rename(aside)
    source.symlink_to(source)  # a loop: reading it is an error of the store, not a missing object
    for _ in range(5):
        with pytest.raises(PassingError):
            house.graph.run(key, encoders)
    source.unlink()
    aside.rename(source)
    run = house.graph.run(key, encoders)
    assert run is not None
    assert (run.state, run.attempts) == ("done", 1)


def test_the_lease_is_renewed_while_a_stage_computes(tmp_path: Path, clip: Path) -> None:
    house = House(load_settings(data=tmp_path / "data", lease_seconds=0.4))
    key = house.graph.key(house.add(clip), "audio")
    house.graph._claim(key)
    with house.graph._heartbeat([key]):
        time.sleep(1.2)
        assert house.catalogue.claim(key, "another-host/2", 0.4) is None
    time.sleep(0.6)
    assert house.catalogue.claim(key, "another-host/2", 0.4) == 2


class _Blinking:
    """A store in which one object is away at the first look, as while it is written anew (seen on rclone)."""

    def __init__(self, objects: ObjectStore, key: str) -> None:
        self.objects, self.key, self.looks = objects, key, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.objects, name)

    def get(self, key: str) -> bytes:
        self.looks += key == self.key
        if key == self.key and self.looks == 1:
            raise InputError("store.missing", f"There is no object {key}.")
        return self.objects.get(key)


def test_a_need_that_is_away_for_a_moment_is_asked_for_again(ready_house: House, encoders: extraction.Encoders) -> None:
    video = only(ready_house)
    key = ready_house.graph.key(video, "vision")
    ready_house.graph.discard(key)
    need = next(item.key for item in ready_house.objects.list("artifacts/frames/"))
    ready_house.graph.objects = _Blinking(ready_house.objects, need)  # type: ignore[assignment]
    with pytest.raises(PassingError):
        ready_house.graph.run(key, encoders)
    run = ready_house.graph.run(key, encoders)
    assert run is not None
    assert (run.state, run.attempts) == ("done", 1)
