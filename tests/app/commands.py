"""Running the `reelsense` command as a user does, and looking at the processes of a stack that the test started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit status."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON document of stdout; fails when there is anything else."""
        return json.loads(self.stdout)


def environment(**variables: str) -> dict[str, str]:
    """The environment of a user who has set nothing but `variables`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REELSENSE_")} | variables


def reelsense(*arguments: object, timeout: float = 240, **variables: str) -> Answer:
    """Run `reelsense ARGUMENTS` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def stack(data: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """`reelsense up` on a data directory, until the block ends."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up", "--data", str(data), "--port", str(free_port())],
            cwd=ROOT,
            env=environment(**variables),
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: _is_up(data, process.pid), 60, f"no stack: {(data / 'up.log').read_text()}")
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _is_up(data: Path, pid: int) -> bool:
    """Whether that very process has said that it is ready: a dead one leaves its note behind."""
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((data / "run" / "stack.json").read_text())["pid"] == pid)
    return False


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    from tests.store.servers import free_port as find

    return find()


def until(true: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait until something is true; fail with `otherwise` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def descendants(pid: int) -> dict[int, str]:
    """Command lines of all processes below `pid`, by id (Linux)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    below: dict[int, str] = {}
    front: Sequence[int] = [pid]
    while front:
        front = [child for child, parent in parents.items() if parent in front]
        for child in front:
            with contextlib.suppress(OSError):
                below[child] = (Path("/proc") / str(child) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return below
