"""Failure on real parts: time limits, full disks, clocks that jump, workers that are told to stop, outages."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.artifacts import source_key
from store.catalogue import Catalogue, RunKey, Video
from store.dead_letters import DeadLetters
from store.errors import InputError, PassingError, ReelsenseError
from store.objects import open_objects
from store.records import MediaInfo, Metadata
from store.settings import Settings, load_settings
from tests import clips
from tests.conftest import ROOT
from workers import extraction, stages, time_limits
from workers.celery_app import retry_seconds
from workers.graph import Graph
from workers.intake import take_in
from workers.time_limits import TimeLimits, limited, limits_of

MINUTE = 60.0


class House:
    """One installation in a folder, with the messages that were sent."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings.database_url())
        self.objects = open_objects(settings)
        self.sent: list[RunKey] = []
        self.graph = self.another_graph()

    def another_graph(self) -> Graph:
        return Graph(self.settings, self.objects, self.catalogue, self.sent.append)

    def add(self, path: Path) -> Video:
        taken = take_in(path, Metadata(), self.settings, self.objects, self.catalogue)
        self.graph.retry(taken.video)
        return taken.video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "pattern.mp4", seconds=1.0, tone_hz=440.0)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> extraction.Encoders:
    return extraction.Encoders(load_settings(data=tmp_path_factory.mktemp("encoders")))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(load_settings(data=tmp_path / "data", lease_seconds=0.5))
    yield house
    house.catalogue.close()


def python(code: str, settings: Settings, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """A process of its own, as a worker's child is, with these settings."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | settings.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


# A child that runs one stage whose computation is `sys.argv[2]`.
CHILD = """
import os, signal, sys, time
from store.settings import load_settings
from store.objects import open_objects
from store.catalogue import Catalogue, RunKey
from workers import extraction, logs
from workers.graph import Graph
logs.configure()
settings = load_settings()
catalogue = Catalogue(settings.database_url())
graph = Graph(settings, open_objects(settings), catalogue, lambda key: print("sent", key.stage, flush=True))
def compute(stage, given, encoders):
    print("computing", flush=True)
    exec(sys.argv[2])
extraction.compute = compute
run = graph.run(RunKey.model_validate_json(sys.argv[1]), extraction.Encoders(settings))
print(run.state, run.attempts, run.error_code, flush=True)
"""
# One call into C that never gives the interpreter up: what a decoder or a network that hangs looks like.
HANG = "import ctypes; ctypes.PyDLL(None).pause(), time.sleep(100)"


# --- time limits -----------------------------------------------------------------------------------------------------


def video_of(duration: float | None, size: int = 1000) -> Video:
    media = MediaInfo(container="mp4", bytes=size, duration=duration, width=1, height=1, video_codec="h264")
    return Video(id="0" * 32, revision="", file_name="", metadata=Metadata(), media=media, uploaded_at=0.0)


def test_limits_grow_with_the_video_and_end_at_the_setting(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path)
    for stage in stages.STAGES:
        short, long = (limits_of(stage.name, [video_of(seconds)], settings) for seconds in (1.0, 60.0))
        assert 0 < short.soft < short.hard < long.hard <= settings.limits.stage_seconds
    assert limits_of("transcript", [video_of(1e6)], settings).hard == settings.limits.stage_seconds
    # A header that lies about the length does not make the limit too short for what is really in the file.
    lying = limits_of("transcript", [video_of(0.1, size=100 * 2**20)], settings)
    assert lying.hard == settings.limits.stage_seconds
    batch = limits_of("vision", [video_of(10.0)] * 3, settings)
    assert batch.hard > limits_of("vision", [video_of(10.0)], settings).hard


def test_the_soft_limit_interrupts_and_says_where() -> None:
    def dawdle() -> None:
        with contextlib.suppress(Exception):  # an encoder that catches everything is interrupted all the same
            while True:
                time.sleep(0.01)

    with pytest.raises(ReelsenseError) as caught, limited(TimeLimits(soft=0.2, hard=60.0)):
        dawdle()
    assert caught.value.code == "stage.timeout"
    assert "in dawdle of test_failures.py" in caught.value.message
    os.kill(os.getpid(), time_limits.INTERRUPT)  # afterwards the signal does nothing
    time.sleep(0.05)


def test_a_stage_beyond_its_soft_limit_fails_at_once_and_is_not_tried_again(house: House, clip: Path) -> None:
    video = house.add(clip)
    key = house.graph.key(video, "audio")
    limits = house.settings.limits.model_copy(update={"stage_seconds": 1.0})
    child = python(CHILD, house.settings.model_copy(update={"limits": limits}), key.model_dump_json(), "time.sleep(60)")
    out, _ = child.communicate(timeout=60)
    assert out.splitlines()[-1] == "failed 1 stage.timeout"
    assert key not in house.graph.reconcile().sent
    letter = DeadLetters(house.catalogue).letters()[0]
    assert (letter.stage, letter.code, letter.attempts) == ("audio", "stage.timeout", 1)
    assert any(time_limits.SOFT_LIMIT_EVENT in line for line in letter.lines)


def test_a_stage_that_hangs_is_killed_by_the_hard_limit_and_set_aside(house: House, clip: Path) -> None:
    """Three times a process that hangs in C dies of the kernel's timer; then its dead letter says that it was the
    time, and holds the lines of a worker that could not be asked any more."""
    video = house.add(clip)
    key = house.graph.key(video, "audio")
    limits = house.settings.limits.model_copy(update={"stage_seconds": 0.8})
    settings = house.settings.model_copy(update={"limits": limits})
    for _ in range(limits.attempts):
        child = python(
            CHILD,
            settings,
            key.model_dump_json(),
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); time.sleep(60)",
        )
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGALRM
    assert house.graph.reconcile().given_up == [key]
    letter = DeadLetters(house.catalogue).letters()[0]
    assert (letter.state, letter.code, letter.attempts) == ("dead", "stage.timeout", limits.attempts)
    assert "stage started" in letter.lines[0]
    assert time_limits.SOFT_LIMIT_EVENT in letter.lines[-1]


def test_code_that_never_gives_the_interpreter_up_is_killed_all_the_same(house: House, clip: Path) -> None:
    key = house.graph.key(house.add(clip), "audio")
    limits = house.settings.limits.model_copy(update={"stage_seconds": 0.8})
    started = time.monotonic()
    child = python(CHILD, house.settings.model_copy(update={"limits": limits}), key.model_dump_json(), HANG)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGALRM
    assert time.monotonic() - started < 30


def test_pauses_between_retries_double_up_to_a_minute_with_jitter() -> None:
    for number, middle in enumerate((2, 4, 8, 16, 32, 60, 60)):
        drawn = [retry_seconds(number) for _ in range(200)]
        assert middle * 0.5 <= min(drawn) < middle * 0.7
        assert middle * 1.3 < max(drawn) <= middle * 1.5


# --- workers that die, or are told to stop ---------------------------------------------------------------------------


def test_a_killed_worker_leaves_its_last_lines_and_its_place(house: House, clip: Path) -> None:
    """Killed once, by nobody's limit: what it noted with its heartbeat is there to read."""
    key = house.graph.key(house.add(clip), "audio")
    child = python(CHILD, house.settings, key.model_dump_json(), "time.sleep(60)")
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "computing"
    time.sleep(0.5)
    child.kill()
    child.communicate()
    noted = DeadLetters(house.catalogue).noted(key)
    assert "stage started" in noted.lines[-1]
    assert "in compute" in noted.place


def test_a_worker_that_shuts_down_hands_its_stage_back_uncounted(house: House, clip: Path) -> None:
    key = house.graph.key(house.add(clip), "audio")
    child = python(CHILD, house.settings, key.model_dump_json(), "time.sleep(60)")
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "computing"
    child.send_signal(time_limits.INTERRUPT)
    out, _ = child.communicate(timeout=30)
    assert out.splitlines() == ["sent audio", "queued 0 None"]


# --- clocks, sweeps, duplicates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_takes_no_run_from_a_living_worker(house: House, clip: Path, jump: float) -> None:
    """A worker elsewhere whose clock is an hour off, or a sweep whose own is: while heartbeats change it keeps its run,
    and when they stop it loses it after a lease, and not after an hour."""
    key = house.graph.key(house.add(clip), "audio")
    house.catalogue.claim(key, "another-host/1", 30.0, now=time.time() + jump)
    house.graph.reconcile()
    house.sent.clear()
    deadline = time.monotonic() + 1.5
    beats = 0
    while time.monotonic() < deadline:
        with house.catalogue.engine.begin() as connection:
            beats += 1
            connection.exec_driver_sql(
                "UPDATE runs SET heartbeat_at = ? WHERE stage = 'audio'", (time.time() + jump + beats / 1000,)
            )
        assert house.graph.run(key, extraction.Encoders(house.settings)) is not None  # a second delivery finds it taken
        house.graph.reconcile()
        time.sleep(0.1)
    run = house.catalogue.run(key)
    assert run is not None
    assert (run.state, run.worker, run.attempts) == ("running", "another-host/1", 1)
    assert key not in house.sent
    silent = time.monotonic()
    while key not in house.sent:
        house.graph.reconcile()
        assert time.monotonic() - silent < 10.0, "a dead worker's run hangs"
        time.sleep(0.05)
    assert time.monotonic() - silent >= house.settings.lease_seconds * 0.8


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_message_that_was_lost_before_the_clock_jumped_is_sent_again(house: House, clip: Path, jump: float) -> None:
    video = house.add(clip)
    key = house.graph.key(video, "audio")
    house.catalogue.mark_queued(key, now=time.time() - jump)
    house.sent.clear()
    assert key in house.graph.reconcile({}, resend_after=60.0).sent


def test_two_sweeps_that_find_the_same_dead_worker_take_its_run_once(house: House, clip: Path) -> None:
    """The second one read the ledger before the first had given the run to another worker."""
    key = house.graph.key(house.add(clip), "audio")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = house.graph.worker.rpartition("/")[0]
    house.catalogue.claim(key, f"{host}/{gone.pid}", 30.0)
    stale = house.catalogue.run(key)
    assert stale is not None
    assert key in house.graph.reconcile().sent
    assert house.catalogue.claim(key, "another-host/2", 30.0) == 2
    second = house.another_graph()
    from workers.graph import SweepReport

    second._sweep_one(key, stale, False, 0.0, SweepReport())
    run = house.catalogue.run(key)
    assert run is not None
    assert (run.state, run.worker) == ("running", "another-host/2")


# --- what is away ----------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_a_database_outage_in_mid_stage_costs_no_attempt(
    house: House, encoders: extraction.Encoders, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite locked by another process for longer than anybody waits, from the middle of a stage to its end."""
    import sqlite3

    video = house.add(clip)
    key = house.graph.key(video, "audio")
    impatient = Catalogue(house.settings.database_url())
    with impatient.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=100")
    graph = Graph(house.settings, house.objects, impatient, house.sent.append)
    compute = extraction.compute
    locked = sqlite3.connect(house.settings.data / "catalogue.sqlite3", isolation_level=None, check_same_thread=False)

    def locking(*arguments: object) -> object:
        result = compute(*arguments)  # type: ignore[arg-type]
        locked.execute("BEGIN IMMEDIATE")
        raise PassingError("store.unavailable", "and the store as well")
        return result

    monkeypatch.setattr(extraction, "compute", locking)
    with pytest.raises(PassingError) as caught:
        graph.run(key, encoders)
    assert caught.value.code == "database.unavailable"
    locked.execute("ROLLBACK")
    locked.close()
    monkeypatch.setattr(extraction, "compute", compute)
    run = graph.run(key, encoders)
    assert run is not None
    assert (run.state, run.attempts) == ("done", 1)
    impatient.close()


@pytest.mark.models
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_loses_nothing(tmp_path: Path, encoders: extraction.Encoders, clip: Path) -> None:
    """Objects on a disk that is full: the stage is handed back uncounted, and done when there is room again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        house = House(load_settings(data=tmp_path / "data", objects=str(disk / "objects")))
        video = house.add(clip)
        key = house.graph.key(video, "audio")
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as stream:
            while True:
                stream.write(b"0" * 4096)
        for _ in range(4):
            with pytest.raises(PassingError) as caught:
                house.graph.run(key, encoders)
            assert caught.value.code == "store.unavailable"
        refused = clips.test_pattern(tmp_path / "other.mp4", seconds=1.2, tone_hz=330.0)
        with pytest.raises(PassingError):
            house.add(refused)
        assert [item.id for item in house.catalogue.videos()] == [video.id], "half an upload is in the catalogue"
        ballast.unlink()
        run = house.graph.run(key, encoders)
        assert run is not None
        assert (run.state, run.attempts) == ("done", 1)
        house.add(refused)
        house.catalogue.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_temporary_directory_is_no_fault_of_the_video(house: House, clip: Path) -> None:
    key = house.graph.key(house.add(clip), "audio")
    child = python(CHILD, house.settings, key.model_dump_json(), "raise OSError(28, 'No space left on device')")
    _, trouble = child.communicate(timeout=60)
    assert "store.unavailable" in trouble or "machine is full" in trouble
    run = house.catalogue.run(key)
    assert run is not None
    assert (run.state, run.attempts, run.error_code) == ("queued", 0, "store.unavailable")


def test_a_directory_that_is_away_is_not_taken_for_an_empty_one(house: House, clip: Path) -> None:
    """A disk that is not mounted: nothing is missing, nothing is sent, nothing fails; it is an outage."""
    video = house.add(clip)
    objects = house.settings.objects_directory()
    objects.rename(objects.with_name("aside"))
    for ask in (
        lambda: list(house.objects.list("sources/")),
        lambda: house.objects.size(source_key(video.id)),
        lambda: house.objects.get(source_key(video.id)),
        lambda: house.objects.put("x", b"x"),
        house.graph.reconcile,
    ):
        with pytest.raises(PassingError) as caught:
            ask()
        assert caught.value.code == "store.unavailable"
    objects.with_name("aside").rename(objects)
    assert house.objects.size(source_key(video.id)) == clip.stat().st_size
    with pytest.raises(InputError):
        house.objects.get("sources/nothing")


@pytest.mark.models
def test_an_s3_server_that_is_stopped_and_started_again_costs_no_attempt(
    tmp_path: Path, encoders: extraction.Encoders, clip: Path
) -> None:
    from tests.store import servers

    port = servers.free_port()
    served = tmp_path / "served"
    served.mkdir()
    command = [
        *(servers._rclone(), "serve", "s3", str(served), "--addr", f"127.0.0.1:{port}"),
        *("--auth-key", f"{servers.ACCESS_KEY},{servers.SECRET_KEY}", "--config", str(tmp_path / "none.conf")),
    ]
    settings = load_settings(
        data=tmp_path / "data",
        objects="s3://reelsense",
        s3_endpoint=f"http://127.0.0.1:{port}",
        s3_access_key=servers.ACCESS_KEY,
        s3_secret_key=servers.SECRET_KEY,
    )
    with servers.running(command, port, tmp_path / "first.log"):
        house = House(settings)
        key = house.graph.key(house.add(clip), "audio")
    for _ in range(2):
        with pytest.raises(PassingError) as caught:
            house.graph.run(key, encoders)
        assert caught.value.code == "store.unavailable"
    with pytest.raises(PassingError):
        house.graph.reconcile()
    with servers.running(command, port, tmp_path / "second.log"):
        run = house.graph.run(key, encoders)
        assert run is not None
        assert (run.state, run.attempts) == ("done", 1)
        assert house.graph.readable(key)
    house.catalogue.close()
