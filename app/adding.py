"""Adding many files, and waiting for work with a live view of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.operations import Added, ReelSense
from app.stack import connected, ensure, running
from store.errors import InputError, ReelsenseError
from store.settings import Settings
from workers.reporting import counted

VIDEO_SUFFIXES = frozenset(
    (
        *(
            ".3gp",
            ".avi",
            ".flv",
            ".m2ts",
            ".m4v",
            ".mkv",
            ".mov",
            ".mp4",
            ".mpeg",
            ".mpg",
            ".mts",
            ".ogv",
            ".qt",
            ".ts",
        ),
        *(".webm", ".wmv"),
    )
)
States = dict[str, tuple[str, ReelsenseError | None]]


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant: a folder stands for the video files below it (by suffix, sorted), a file for itself."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files.extend(
                sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
            )
        else:
            files.append(path)
    return files


def add_all(
    settings: Settings,
    paths: Sequence[Path],
    words: dict[str, Any],
    *,
    wait: bool,
    timeout_seconds: float = 3600.0,
    quiet: bool = False,
) -> list[Added]:
    """Add every file of `paths`, and with `wait` see them through. One bad file costs the others nothing."""
    files = files_of(paths)
    if not files:
        raise InputError(
            "media.missing",
            f"There is no video file in {paths[0]}." if paths else "No path was given.",
            hint=f"Folders are searched for files ending in {' '.join(sorted(VIDEO_SUFFIXES))}.",
        )
    if not wait:
        if (info := running(settings)) is not None and not settings.broker:
            settings = connected(settings, info)
        reelsense = ReelSense(settings)
        with counted(settings):
            return [reelsense.add(file, **words) for file in files]
    with ensure(settings) as live, counted(live), _progress(len(files), quiet) as progress:
        reelsense = ReelSense(live)
        added = []
        for file in files:
            added.append(reelsense.add(file, **words))
            progress.added(file, added[-1])
        return reelsense.wait(added, timeout_seconds, progress.update)


def reconcile_all(settings: Settings, *, verify: bool, wait: bool, timeout_seconds: float) -> dict[str, Any]:
    """One sweep (see `ReelSense.reconcile`); with `wait`, until no video is waiting or under way.

    Raises `wait.timeout` when the time is up.
    """
    if not wait:
        if (info := running(settings)) is not None and not settings.broker:
            settings = connected(settings, info)
        return ReelSense(settings).reconcile(verify=verify)
    with ensure(settings) as live:
        reelsense = ReelSense(live)
        document = reelsense.reconcile(verify=verify)
        deadline = time.monotonic() + timeout_seconds
        while True:
            states = reelsense.graph.states(reelsense.catalogue.videos())
            if not any(state in ("waiting", "processing") for state, _ in states.values()):
                return document | {"states": {video: state for video, (state, _) in sorted(states.items())}}
            if time.monotonic() > deadline:
                raise InputError("wait.timeout", f"Work was still under way after {timeout_seconds:g} seconds.")
            time.sleep(0.5)


class _Silent:
    """No view at all."""

    def added(self, file: Path, added: Added) -> None:
        """Nothing."""

    def update(self, states: States) -> None:
        """Nothing."""


class _Lines(_Silent):
    """A line for each change, where stderr is no terminal."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def added(self, file: Path, added: Added) -> None:
        """Say what became of the file."""
        text = (
            f"{added.error.code}: {added.error.message}" if added.error else f"{added.outcome} {(added.id or '')[:12]}"
        )
        sys.stderr.write(f"add {file.name}: {text}\n")

    def update(self, states: States) -> None:
        """Say which videos came to an end."""
        for video, (state, error) in states.items():
            if self.seen.get(video) != state and state in ("ready", "failed"):
                sys.stderr.write(f"{video[:12]}: {state}{f' ({error.code})' if error else ''}\n")
            self.seen[video] = state


class _Live(_Silent):
    """A progress bar with the number of videos in each state."""

    def __init__(self, bar: Any, task: Any) -> None:
        self.bar = bar
        self.task = task

    def added(self, file: Path, added: Added) -> None:
        """Show the refused at once; the others show as they end."""
        if added.error is not None:
            self.bar.console.print(f"[red]{file.name}[/]: {added.error.code}: {added.error.message}", highlight=False)

    def update(self, states: States) -> None:
        """Move the bar."""
        ended = sum(state in ("ready", "failed") for state, _ in states.values())
        under_way = sum(state == "processing" for state, _ in states.values())
        self.bar.update(self.task, completed=ended, total=len(states), description=f"{under_way} under way")


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[_Silent]:
    if quiet:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield _Live(bar, bar.add_task("starting", total=total))
