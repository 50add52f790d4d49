"""Nothing is lost, and nothing has a second effect, whatever dies: the real stack under kills and outages.

    python -m bench.chaos [--uploads 300] [--kills 100] [--broker valkey|rabbitmq] [--store directory|s3]

Uploads are distinct short cuts of real clips; every fiftieth has more pictures than `limits.frames` and must end in the
dead letters. While they arrive, workers are killed with SIGKILL in the middle of a stage (of each death the ledger says
which run it hit), the broker is killed and later killed and wiped, and the object store and the database are made to
fail for a while. At the end every upload must be published exactly once or be a dead letter whose reason is true, and
every artifact must be readable and have the very bytes that a run without any of this gives (done first, and kept in
the cache by version). Results are added to `bench/results/chaos.json`, one entry for each variant.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import sqlalchemy as sa

from app.operations import ReelSense
from app.stack import connected, ensure, running
from bench import results
from bench.chaos_servers import ACCESS_KEY, SECRET_KEY, RabbitMQ, RcloneS3
from store.artifacts import digest, from_bytes
from store.catalogue import Run, RunKey
from store.catalogue import runs as ledger
from store.dead_letters import DeadLetters
from store.errors import PassingError, ReelsenseError
from store.settings import Settings, load_settings

MEDIA = Path(__file__).parent.parent.parent / "shared" / "media"
CLIP_SECONDS = 1.2
TOO_MANY_EVERY = 50
FRAMES_LIMIT = 60
ATTEMPTS = 5
MOST_WAITING = 24
DATABASE_OUTAGE_SECONDS = 36.0  # longer than SQLite's own patience of 30
STORE_OUTAGE_SECONDS = 12.0
QUIET_SECONDS = 240.0


def main() -> None:
    """Run one variant and add its numbers to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=300)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--broker", choices=("valkey", "rabbitmq"), default="valkey")
    parser.add_argument("--store", choices=("directory", "s3"), default="directory")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of real clips")
    parser.add_argument("--seconds", type=float, default=2400.0, help="longest time; what is not done by then is lost")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the data directory, to look into it")
    arguments = parser.parse_args()
    if not (arguments.media / "good").is_dir():
        raise SystemExit(f"there are no real clips in {arguments.media}; name a folder with --media")
    os.environ |= {
        "REELSENSE_FRAMES": "2",
        "REELSENSE_LIMITS__FRAMES": str(FRAMES_LIMIT),
        "REELSENSE_LIMITS__ATTEMPTS": str(ATTEMPTS),
        "REELSENSE_SWEEP_SECONDS": "2",
        "REELSENSE_LEASE_SECONDS": "8",
        "REELSENSE_VISIBILITY_SECONDS": "120",
    }
    clips = cut_clips(arguments.media, load_settings().cache / "bench" / "chaos-clips", arguments.uploads)
    expected = undisturbed(clips)
    folder = Path(tempfile.mkdtemp(prefix="reelsense-chaos-"))
    # Told to stop, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        row = Chaos(folder, clips, expected, arguments).run()
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    name = f"{arguments.broker}+{arguments.store}"
    path = results.RESULTS / "chaos.json"
    variants = json.loads(path.read_text())["variants"] if path.is_file() else {}
    print(json.dumps({name: row}, indent=1))
    print(f"written: {results.write('chaos', {'variants': variants | {name: row}})}")
    if row["lost"] or row["doubled"] or row["unequal"] or row["untrue"]:
        raise SystemExit(1)


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


# --- what goes in ----------------------------------------------------------------------------------------------------


def cut_clips(media: Path, folder: Path, count: int) -> list[Path]:
    """`count` distinct cuts of the clips in `media/good`, made once and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted((media / "good").iterdir())
    lengths = {source: _seconds(source) for source in sources}
    clips = []
    for number in range(count):
        source = sources[number % len(sources)]
        too_many = number % TOO_MANY_EVERY == 7
        clip = folder / f"cut-{number:04d}{'.mkv' if too_many else '.mp4'}"
        clips.append(clip)
        if clip.is_file():
            continue
        start = (number // len(sources)) * CLIP_SECONDS % max(lengths[source] - CLIP_SECONDS, 0.1)
        # Matroska does not declare how many pictures there are: the excess is met by the stage, not at the door.
        rate, length = (50, 2.0) if too_many else (8, CLIP_SECONDS)
        aside = clip.with_name(f"aside-{clip.name}")
        subprocess.run(
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-ss", f"{start:.2f}"),
                *("-i", str(source), "-t", f"{length}", "-map", "0:v:0", "-map", "0:a:0?", "-sn"),
                *("-vf", "scale=192:-2", "-r", str(rate), "-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"),
                *("-c:a", "aac", "-ar", "22050", "-map_metadata", "-1", "-metadata", f"comment=cut {number}"),
                *("-fflags", "+bitexact", str(aside)),
            ],
            check=True,
        )
        aside.replace(clip)
    say(f"{count} uploads from {len(sources)} clips")
    return clips


def _seconds(source: Path) -> float:
    import av

    with av.open(str(source)) as container:
        return (container.duration or 0) / 1_000_000


@dataclass(frozen=True)
class Expected:
    """What a run without disturbance gives: the SHA-256 of each artifact by key, and error codes by video id."""

    artifacts: dict[str, str]
    failed: dict[str, str]


def undisturbed(clips: Sequence[Path]) -> Expected:
    """One worker, no trouble; kept by the versions of the stages and the clips."""
    settings = load_settings()
    from workers.stages import versions

    name = digest({"versions": versions(settings), "clips": [_sha256(clip) for clip in clips]})
    kept = settings.cache / "bench" / f"chaos-undisturbed-{name}.json"
    if kept.is_file():
        return Expected(**json.loads(kept.read_text()))
    folder = Path(tempfile.mkdtemp(prefix="reelsense-undisturbed-"))
    try:
        started = time.monotonic()
        plain = load_settings(data=folder)
        with ensure(plain) as live:
            reelsense = ReelSense(live)
            added = [reelsense.add(clip) for clip in clips]
            done = reelsense.wait(added, 3600.0, _progress("undisturbed"))
            found = Expected(
                artifacts={
                    item.key: hashlib.sha256(reelsense.objects.get(item.key)).hexdigest()
                    for item in reelsense.objects.list("artifacts/")
                },
                failed={item.id: item.error.code for item in done if item.id and item.error},
            )
        late = [item.path for item in done if item.error is not None and item.error.code == "wait.timeout"]
        if late or len({item.id for item in done}) != len(clips):
            raise SystemExit("the undisturbed run did not end, or two clips are the same video")
        say(f"undisturbed: {len(found.artifacts)} artifacts in {time.monotonic() - started:.0f} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept.write_text(json.dumps(vars(found)))
    return found


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _progress(name: str) -> Callable[[dict[str, Any]], None]:
    last = [0.0]

    def show(states: dict[str, Any]) -> None:
        if time.monotonic() - last[0] > 15:
            last[0] = time.monotonic()
            say(f"{name}: {dict(Counter(state for state, _ in states.values()))}")

    return show


# --- the run ---------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was done to the stack, and which runs were hit: how often each was killed."""

    kills: int = 0
    hit: Counter[RunKey] = field(default_factory=Counter)
    broker_restarts: int = 0
    broker_wipes: int = 0
    store_outages: int = 0
    database_outages: int = 0
    refused_for_a_while: int = 0


class Chaos:
    """One variant: everything that it starts, it ends."""

    def __init__(self, folder: Path, clips: Sequence[Path], expected: Expected, arguments: argparse.Namespace) -> None:
        self.folder, self.clips, self.expected = folder, clips, expected
        self.kills_wanted: int = arguments.kills
        self.seconds: float = arguments.seconds
        self.random = random.Random(arguments.seed)
        self.rabbitmq = RabbitMQ(folder / "rabbitmq") if arguments.broker == "rabbitmq" else None
        self.s3 = RcloneS3(folder / "s3") if arguments.store == "s3" else None
        self.tally = Tally()
        self.accepted: dict[str, str] = {}
        self.stopping = threading.Event()
        self.trouble: list[str] = []
        self.outage = threading.Lock()

    def run(self) -> dict[str, Any]:
        """Start, disturb, wait, check."""
        started = time.monotonic()
        flags: dict[str, Any] = {"data": self.folder / "data"}
        stack: subprocess.Popen[bytes] | None = None
        threads: list[threading.Thread] = []
        try:
            if self.s3 is not None:
                self.s3.start()
                flags |= {"objects": "s3://reelsense", "s3_endpoint": self.s3.url}
                flags |= {"s3_access_key": ACCESS_KEY, "s3_secret_key": SECRET_KEY}
            if self.rabbitmq is not None:
                self.rabbitmq.start()
                flags |= {"broker": self.rabbitmq.url}
            settings = load_settings(**flags)
            stack = self._start_stack(settings)
            info = running(settings)
            live = settings if settings.broker or info is None else connected(settings, info)
            threads = [
                threading.Thread(target=self._guarded(target), args=(live,), name=target.__name__, daemon=True)
                for target in (self._upload, self._kill, self._outages)
            ]
            for thread in threads:
                thread.start()
            states = self._wait(ReelSense(live), threads, started)
            self.stopping.set()
            for thread in threads:
                thread.join(120)
            if self.trouble:
                say("trouble in the bench itself: " + "; ".join(self.trouble))
            return self._check(ReelSense(settings), states, time.monotonic() - started)
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join(60)
            if stack is not None:
                stack.terminate()
                try:
                    stack.wait(60)
                except subprocess.TimeoutExpired:
                    stack.kill()
                    stack.wait()
            for server in (self.rabbitmq, self.s3):
                if server is not None:
                    server.close()

    def _guarded(self, target: Callable[[Settings], None]) -> Callable[[Settings], None]:
        def run(settings: Settings) -> None:
            try:
                target(settings)
            except BaseException as error:
                self.trouble.append(f"{target.__name__}: {type(error).__name__}: {error}")
                raise

        return run

    def _start_stack(self, settings: Settings) -> subprocess.Popen[bytes]:
        settings.data.mkdir(parents=True, exist_ok=True)
        with (settings.data / "stack.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.stack", "--no-api"],
                env=os.environ | settings.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while running(settings) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the stack did not start: " + (settings.data / "stack.log").read_text()[-2000:])
            time.sleep(0.1)
        return process

    def _upload(self, settings: Settings) -> None:
        """Add clip after clip as a client would: an upload that is refused for a while is tried again. They are spread
        over the kills, so that there is always something to hit."""
        reelsense = ReelSense(settings)
        for number, clip in enumerate(self.clips):
            while not self.stopping.is_set():
                far = number / len(self.clips) > self.tally.kills / max(self.kills_wanted, 1) + 0.1
                if not far or self._idle(reelsense):
                    break
                self.stopping.wait(0.3)
            while not self.stopping.is_set():
                try:
                    added = reelsense.add(clip)
                except PassingError:
                    self.tally.refused_for_a_while += 1
                    self.stopping.wait(1.0)
                    continue
                if added.id is not None:
                    self.accepted[added.id] = clip.name
                else:
                    self.trouble.append(f"{clip.name}: {added.error}")
                break

    def _idle(self, reelsense: ReelSense) -> bool:
        """Whether the stack has too little to do to be worth killing."""
        try:
            states = reelsense.graph.states(reelsense.catalogue.videos())
        except PassingError:
            return False
        return sum(state in ("waiting", "processing") for state, _ in states.values()) < 6

    def _kill(self, settings: Settings) -> None:
        """Kill working children, and now and then the whole worker, at random moments of their stages."""
        reelsense = ReelSense(settings)
        host = socket.gethostname()
        done_before = -1
        hit: set[tuple[RunKey, int]] = set()
        while self.tally.kills < self.kills_wanted and not self.stopping.is_set():
            self.stopping.wait(self.random.uniform(0.2, 1.5))
            with contextlib.suppress(PassingError, OSError):
                runs = reelsense.catalogue.runs()
                done = sum(run.state == "done" for run in runs)
                # The ledger keeps the run of a dead worker for a while: each attempt is hit once.
                working = [
                    run
                    for run in runs
                    if run.state == "running"
                    and (run.worker or "").startswith(f"{host}/")
                    and (_key(run), run.attempts) not in hit
                ]
                if not working or done - done_before < 2:  # let something be done between two deaths
                    continue
                chosen = self.random.choice(working)
                pid = int((chosen.worker or "").rpartition("/")[2])
                victims = [pid, _parent(pid)] if self.random.random() < 0.2 else [pid]
                for victim in victims:
                    os.kill(victim, signal.SIGKILL)
                hit.add((_key(chosen), chosen.attempts))
                self.tally.hit[_key(chosen)] += 1
                self.tally.kills += 1
                done_before = done

    def _outages(self, settings: Settings) -> None:
        """Each kind of outage, one after the other, at its share of the kills."""
        plan: list[tuple[float, Callable[[Settings], None]]] = [
            (0.15, self._restart_broker),
            (0.3, self._stop_store),
            (0.45, self._wipe_broker),
            (0.6, self._lock_database),
            (0.75, self._restart_broker),
            (0.85, self._stop_store),
        ]
        for share, outage in plan:
            while self.tally.kills < share * self.kills_wanted:
                if self.stopping.wait(0.5):
                    return
            say(f"{outage.__name__.strip('_').replace('_', ' ')} after {self.tally.kills} kills")
            outage(settings)

    def _restart_broker(self, settings: Settings) -> None:
        self._end_broker(settings, wipe=False)
        self.tally.broker_restarts += 1

    def _wipe_broker(self, settings: Settings) -> None:
        self._end_broker(settings, wipe=True)
        self.tally.broker_wipes += 1

    def _end_broker(self, settings: Settings, *, wipe: bool) -> None:
        if self.rabbitmq is not None:
            self.rabbitmq.stop()
            if wipe:
                self.rabbitmq.wipe()
            self.stopping.wait(3.0)
            self.rabbitmq.start()
            return
        for pid in _valkey(settings.data):
            os.kill(pid, signal.SIGKILL)
            if wipe:
                shutil.rmtree(settings.data / "broker", ignore_errors=True)

    def _stop_store(self, settings: Settings) -> None:
        if self.s3 is not None:
            self.s3.stop()
            self.stopping.wait(STORE_OUTAGE_SECONDS)
            self.s3.start()
        else:
            # The disk is away: in its place something that can be neither read nor written, not even by root.
            objects = settings.objects_directory()
            aside = objects.with_name("objects.aside")
            objects.rename(aside)
            objects.symlink_to(objects)
            self.stopping.wait(STORE_OUTAGE_SECONDS)
            objects.unlink()
            aside.rename(objects)
        self.tally.store_outages += 1

    def _lock_database(self, settings: Settings) -> None:
        """Hold the lock of the database for longer than anybody waits for it."""
        with contextlib.closing(sqlite3.connect(settings.data / "catalogue.sqlite3", timeout=60)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            self.stopping.wait(DATABASE_OUTAGE_SECONDS)
            connection.execute("ROLLBACK")
        self.tally.database_outages += 1

    def _wait(self, reelsense: ReelSense, threads: Sequence[threading.Thread], started: float) -> dict[str, Any]:
        shown, before, moved = 0.0, -1, time.monotonic()
        while True:
            time.sleep(1.0)
            with contextlib.suppress(PassingError):
                states = reelsense.graph.states(reelsense.catalogue.videos())
                counts = Counter(state for state, _ in states.values())
                ended = counts["ready"] + counts["failed"]
                if time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    say(f"{self.tally.kills} kills, {len(self.accepted)} accepted, {dict(counts)}")
                progress = _count_done(reelsense) + self.tally.kills + len(self.accepted)
                if progress != before:
                    before, moved = progress, time.monotonic()
                whole = len(self.accepted) == len(self.clips) and ended == len(states) == len(self.clips)
                if whole and not threads[2].is_alive():
                    return states
                if whole and not counts["processing"]:
                    # Nothing is left to hit: the kills that are missing will not come, the outages do.
                    self.kills_wanted = self.tally.kills
            if time.monotonic() - started > self.seconds or time.monotonic() - moved > QUIET_SECONDS:
                say("the time is up, or nothing moves any more")
                self.stopping.set()
                while True:
                    with contextlib.suppress(PassingError):
                        return reelsense.graph.states(reelsense.catalogue.videos())
                    time.sleep(1.0)

    def _check(self, reelsense: ReelSense, states: dict[str, Any], seconds: float) -> dict[str, Any]:
        version = reelsense.graph.versions["published"]
        published = Counter(row.video_id for row in reelsense.catalogue.publications(version))
        letters = DeadLetters(reelsense.catalogue).letters()
        dead = {letter.video_id: letter for letter in letters}
        untrue = []
        for letter in letters:
            hits = self.tally.hit[letter.key()]
            by_itself = self.expected.failed.get(letter.video_id) == letter.code
            if not (by_itself or (letter.code == "stage.gave_up" and hits >= ATTEMPTS)):
                untrue.append(
                    f"{letter.stage} of {letter.video_id[:12]}: {letter.code}: {letter.message} ({hits} hits)"
                )
        found: dict[str, str] = {}
        unreadable = []
        for item in reelsense.objects.list("artifacts/"):
            data = reelsense.objects.get(item.key)
            found[item.key] = hashlib.sha256(data).hexdigest()
            try:
                from_bytes(data)
            except ReelsenseError:
                unreadable.append(item.key)
        given_up = {letter.video_id for letter in letters if letter.video_id not in self.expected.failed}
        unequal = [key for key, value in found.items() if self.expected.artifacts.get(key) != value]
        missing = [
            key
            for key in self.expected.artifacts
            if key not in found and key.rpartition("/")[2].partition("-")[0] not in given_up
        ]
        lost = [video for video in self.accepted if published[video] == 0 and video not in dead]
        starts, runs = _starts(reelsense.settings.data / "logs")
        row = {
            "uploads": len(self.accepted),
            "kills": self.tally.kills,
            "published": sum(count > 0 for count in published.values()),
            "dead": len(dead),
            "dead_by_code": dict(Counter(letter.code for letter in letters)),
            "lost": len(lost) + len(self.clips) - len(self.accepted),
            "doubled": sum(count > 1 for count in published.values()),
            "unequal": len(set(unequal + missing + unreadable)),
            "untrue": len(untrue),
            "artifacts": len(found),
            "stage_starts": starts,
            "repeated_share": round((starts - runs) / max(runs, 1), 4),
            "broker_restarts": self.tally.broker_restarts,
            "broker_wipes": self.tally.broker_wipes,
            "store_outages": self.tally.store_outages,
            "database_outages": self.tally.database_outages,
            "uploads_asked_to_come_again": self.tally.refused_for_a_while,
            "seconds": round(seconds),
        }
        for name, items in (("lost", lost), ("unequal", unequal), ("missing", missing), ("untrue", untrue)):
            for text in items[:5]:
                say(f"{name}: {text} {states.get(text, '')}")
        return row


def _starts(logs: Path) -> tuple[int, int]:
    """How many stages were started according to the workers' logs, and how many different runs these were."""
    started: Counter[tuple[str, str, str]] = Counter()
    for log in logs.glob("worker-*.log"):
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                event = json.loads(line)
                if event["event"] == "stage started":
                    started[event["stage"], event["video"], event["version"]] += 1
    return sum(started.values()), len(started)


def _count_done(reelsense: ReelSense) -> int:
    with reelsense.catalogue._begin() as connection:
        query = sa.select(sa.func.count()).select_from(ledger).where(ledger.c.state == "done")
        return int(connection.execute(query).scalar_one())


def _key(run: Run) -> RunKey:
    return RunKey(video_id=run.video_id, stage=run.stage, version=run.version, revision=run.revision)


def _parent(pid: int) -> int:
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def _valkey(data: Path) -> Iterator[int]:
    """The embedded broker of this very data directory."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                ours = (entry / "cwd").readlink().is_relative_to(data)  # it works in its own folder of the data
                if ours and b"valkey-server" in (entry / "cmdline").read_bytes():
                    yield int(entry.name)


if __name__ == "__main__":
    main()
