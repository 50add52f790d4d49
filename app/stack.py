"""The embedded stack of one data directory: broker, workers, API, and the sweep, started and owned by one process.

`reelsense up` runs it in the foreground; a command with `--wait` runs it for its own duration when none runs yet. One
stack for one data directory: it holds a lock on `DATA/run/stack.lock`, and `DATA/run/stack.json` says how to reach it.
A part that dies is started again; when the stack itself dies, its parts die with it (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.scaling import Scaling
from store.batch_jobs import BatchJobs
from store.catalogue import Catalogue
from store.errors import PassingError, ReelsenseError, StackError
from store.settings import Settings, load_settings
from workers import embedded_broker
from workers.worker import die_with_parent

START_SECONDS = 30.0
STOP_SECONDS = 20.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
JOBS_SECONDS = 2.0


@dataclass(frozen=True)
class StackInfo:
    """How to reach a running stack: its process id, the broker's URL, and the API's URL (empty without one)."""

    pid: int
    broker: str
    api: str


@dataclass
class Part:
    """One process of the stack: how to start it, and when it may be started again after it died. Workers have a
    `number` from 1; `leaving` is one that is not wanted any more, `told` one that was asked to end."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None
    pause: float = FIRST_PAUSE_SECONDS
    not_before: float = 0.0
    started: float = 0.0
    number: int = 0
    leaving: bool = False
    told: bool = False


def running(settings: Settings) -> StackInfo | None:
    """The stack that runs on this data directory, or None. A file left by a dead stack counts as none."""
    run = settings.data / "run"
    try:
        with (run / "stack.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        pass
    try:
        return StackInfo(**json.loads((run / "stack.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # starting, not ready yet


def connected(settings: Settings, info: StackInfo) -> Settings:
    """The same settings, talking to the broker of that stack."""
    return settings.model_copy(update={"broker": info.broker})


@contextlib.contextmanager
def ensure(settings: Settings) -> Iterator[Settings]:
    """Settings with a broker to talk to: the one that is set, the stack that runs, or one started for this block."""
    if settings.broker:
        yield settings
        return
    if (info := running(settings)) is not None:
        yield connected(settings, info)
        return
    log = settings.data / "logs" / "stack.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.stack", "--no-api"],
            env=os.environ | settings.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            start_new_session=True,
        )
    try:
        yield connected(settings, _await(settings, process, log))
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> StackInfo:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (info := running(settings)) is not None:
            return info
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise StackError("stack.start_failed", "The embedded stack did not start.", hint=f"See {log}.")


@dataclass
class Stack:
    """The running stack: `serve` blocks until a signal."""

    settings: Settings
    with_api: bool
    parts: list[Part] = field(default_factory=list)
    stopping: bool = False
    next_training: float = 0.0

    def serve(self, on_ready: Callable[[StackInfo], None] | None = None) -> None:
        """Start every part, restart what dies, sweep now and then; on SIGTERM or SIGINT stop them in order.

        Raises `stack.already_running`, `stack.start_failed`.
        """
        run = self.settings.data / "run"
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (run / "stack.lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(
                    "stack.already_running",
                    f"A stack already runs on {self.settings.data}.",
                    hint="Use it, stop it with Ctrl-C in its terminal, or choose another --data.",
                ) from None
            (run / "stack.json").unlink(missing_ok=True)  # of a stack that was killed
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._stop)
            try:
                self._serve(run, on_ready)
            finally:
                (run / "stack.json").unlink(missing_ok=True)
                self._stop_parts()

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def _serve(self, run: Path, on_ready: Callable[[StackInfo], None] | None) -> None:
        settings = self.settings
        if self.with_api:
            from app.access import check_bind

            check_bind(settings)
        if self.with_api and settings.port == 0:
            settings = settings.model_copy(update={"port": _free_port(settings.host)})
        if not settings.broker:
            self.parts.append(Part("valkey", lambda: embedded_broker.start(self.settings.data)))
            settings = settings.model_copy(update={"broker": embedded_broker.broker_url(settings.data)})
        environment = os.environ | settings.environment()
        api = ""
        if self.with_api:
            api = f"http://{settings.host}:{settings.port}"
            self.parts.append(self._python("api", environment, "app.api"))
            self.parts += self._intake(settings, environment)
        for part in self.parts:
            self._start(part)
        from workers.sweeper import Sweeper

        sweeper = Sweeper(settings, _say)
        scaling = Scaling(settings, sweeper.graph.administration)
        self._scale(scaling, environment)
        info = StackInfo(os.getpid(), settings.broker, api)
        aside = run / "stack.json.aside"
        aside.write_text(json.dumps(vars(info)))
        aside.replace(run / "stack.json")
        if on_ready is not None:
            on_ready(info)
        from workers import logs
        from workers.reporting import reporting

        logs.configure(settings, service="stack")
        feeder = self._python("feeder", environment, "workers.feeder")
        trainer = self._python("trainer", environment, "app.training_worker", "--name", "trainer")
        with reporting(settings, "stack"):
            while not self.stopping:
                self._scale(scaling, environment)
                for part in self.parts:
                    self._watch(part)
                if feeder not in self.parts and sweeper.has_jobs():
                    self.parts.append(feeder)
                    self._start(feeder)
                if trainer not in self.parts and self._has_training(sweeper.graph.catalogue):
                    self.parts.append(trainer)
                    self._start(trainer)
                sweeper.now_and_then()
                time.sleep(0.2)
            sweeper.write_journal()

    def _intake(self, settings: Settings, environment: dict[str, str]) -> list[Part]:
        """What takes in by itself: from the object store, from the watched folder, from the queue of notifications."""
        parts = [self._python("incoming", environment, "workers.incoming_service")]
        if settings.incoming.watched_folder:
            parts.append(self._python("folder", environment, "workers.incoming_service", "--folder"))
        if settings.incoming.queue_url:
            parts.append(self._python("notifications", environment, "workers.incoming_queue"))
        return parts

    def _python(self, name: str, environment: dict[str, str], module: str, *arguments: str) -> Part:
        def start() -> subprocess.Popen[bytes]:
            (self.settings.data / "logs").mkdir(exist_ok=True)
            with (self.settings.data / "logs" / f"{name}.log").open("ab") as output:
                return subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=lambda: die_with_parent(signal.SIGTERM),
                    start_new_session=True,
                )

        return Part(name, start)

    def _has_training(self, catalogue: Catalogue) -> bool:
        """Whether a batch job is open; asks once in `JOBS_SECONDS` and says no in between. A worker for those starts
        with the first one: most installations have none."""
        if time.monotonic() < self.next_training:
            return False
        self.next_training = time.monotonic() + JOBS_SECONDS
        with contextlib.suppress(PassingError):
            return BatchJobs(catalogue).any_open()
        return False

    def _scale(self, scaling: Scaling, environment: dict[str, str]) -> None:
        """Start the workers that are wanted and not there; let those that are not wanted finish, and forget them."""
        wanted = scaling.wanted()
        there = {part.number: part for part in self.parts if part.number}
        for number in sorted(wanted - there.keys()):
            name = f"worker-{number}"
            part = self._python(name, environment, "workers.worker", "--name", name)
            part.number = number
            self.parts.append(part)
            self._start(part)
        for number, part in there.items():
            part.leaving = number not in wanted
            part.told = part.told and part.leaving
            if part.leaving and part.process is not None and part.process.poll() is not None:
                self.parts.remove(part)
            elif part.leaving and not part.told and number > scaling.level:
                # Scaled down. One that was drained leaves by itself, and says so.
                part.told = True
                if part.process is not None:
                    part.process.terminate()

    def _start(self, part: Part) -> None:
        part.process = part.start()
        part.started = time.monotonic()

    def _watch(self, part: Part) -> None:
        if part.process is None or part.process.poll() is None or part.leaving:
            return
        now = time.monotonic()
        if now - part.started > 30.0:
            part.pause = FIRST_PAUSE_SECONDS  # it had been well: this is a new trouble
        if part.not_before <= part.started:
            part.not_before = now + part.pause
            part.pause = min(part.pause * 2, LONGEST_PAUSE_SECONDS)
            _say(f"{part.name} ended with status {part.process.returncode}; starting it again")
        if now >= part.not_before:
            try:
                self._start(part)
            except StackError as error:
                part.started = now
                _say(error.message)

    def _stop_parts(self) -> None:
        """Workers and API first, so that they can hand back what they hold; the broker last."""
        brokers = [part for part in self.parts if part.name == "valkey"]
        for group in ([part for part in self.parts if part not in brokers], brokers):
            alive = [part.process for part in group if part.process is not None and part.process.poll() is None]
            for process in alive:
                process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            for process in alive:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    _kill_group(process)


def _free_port(host: str) -> int:
    """A port that is free now: the API's address is told to others, so it cannot be left to the API's process."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a part of ours with its children: each part leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main() -> None:
    """`python -m app.stack [--no-api]`: the stack with the settings of the environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-api", action="store_true")
    arguments = parser.parse_args()
    try:
        Stack(load_settings(), with_api=not arguments.no_api).serve()
    except ReelsenseError as error:
        _say(f"{error.code}: {error.message} {error.hint}")
        sys.exit(1)


if __name__ == "__main__":
    main()
