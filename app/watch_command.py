"""`reelsense watch`: queues, workers, what ended last and what failed, in one view that renews itself.

All of it comes from the ledger, so it shows the same from any machine, and goes on while the broker is away. Without a
terminal each frame is printed below the last.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.operations import ReelSense

# Rates are of this last time.
RATE_SECONDS = 60.0
MOST_ROWS = 10

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]


def watch(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two frames.")] = 2.0,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one frame as one JSON document.")] = False,
) -> None:
    """Queues, workers, what ended and what failed, live. Ctrl-C ends it."""
    from app.cli import INTERRUPTED, print_json, reported
    from app.operations import ReelSense
    from app.stack import connected, running
    from store.settings import load_settings

    with reported(as_json):
        settings = load_settings(data=data)
        if not settings.broker and (info := running(settings)) is not None:
            settings = connected(settings, info)
        reelsense = ReelSense(settings)
        if as_json:
            print_json(frame(reelsense))
            return
        try:
            _show(reelsense, once=once, every=every)
        except KeyboardInterrupt:
            # Asked to end: no traceback, the terminal as it was.
            if not sys.stdout.isatty():
                raise typer.Exit(INTERRUPTED) from None


def frame(reelsense: ReelSense) -> dict[str, Any]:
    """What there is to see at this moment. Raises `database.unavailable`."""
    from app.pauses import paused
    from store import ledger_figures, measurements
    from workers.stages import STAGES

    now = time.time()
    found = ledger_figures.figures(reelsense.catalogue)
    ended = ledger_figures.ended_since(reelsense.catalogue, now - RATE_SECONDS)
    is_paused = paused(reelsense)
    queues = [
        {
            "name": stage.queue,
            "depth": found.runs.get((stage.name, "queued"), 0),
            "running": found.runs.get((stage.name, "running"), 0),
            "oldest_seconds": max(0.0, now - found.oldest[stage.name]) if stage.name in found.oldest else None,
            "ended_per_minute": ended.get(stage.name, 0) * 60.0 / RATE_SECONDS,
            "paused": is_paused[stage.queue],
        }
        for stage in STAGES
    ]
    runs = [{**vars(run), "seconds": max(0.0, now - run.since)} for run in ledger_figures.running(reelsense.catalogue)]
    return {
        "at": now,
        "queues": queues,
        "processes": [process.model_dump() for process in measurements.present(reelsense.catalogue)],
        "running": runs,
        "ended": [vars(run) for run in ledger_figures.last_ended(reelsense.catalogue, MOST_ROWS)],
        "dead": [vars(failures) for failures in found.failures[:MOST_ROWS]],
    }


def _show(reelsense: ReelSense, *, once: bool, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once or not console.is_terminal:
        while True:
            console.print(rendered(frame(reelsense)))
            if once:
                return
            time.sleep(every)
    with Live(rendered(frame(reelsense)), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            live.update(rendered(frame(reelsense)), refresh=True)


def rendered(seen: dict[str, Any]) -> RenderableType:
    """A frame as tables. What comes from uploads or errors is text, never markup."""
    from rich.console import Group
    from rich.text import Text

    queues = _table("queues", "queue", "waiting", "running", "oldest", "ended a minute", "")
    for row in seen["queues"]:
        queues.add_row(
            row["name"],
            str(row["depth"]),
            str(row["running"]),
            _duration(row["oldest_seconds"]),
            f"{row['ended_per_minute']:.0f}",
            "paused" if row["paused"] else "",
        )
    workers = _table("workers", "process", "memory", "runs")
    for process in seen["processes"]:
        pid = process["name"].rpartition("-")[2]
        host = process["name"].partition("/")[0]
        held = [
            f"{run['stage']} {run['video_id'][:12]} for {_duration(run['seconds'])}, attempt {run['attempt']}"
            for run in seen["running"]
            if run["worker"] == f"{host}/{pid}"
        ]
        workers.add_row(Text(process["name"]), f"{process['memory_bytes'] / 2**20:.0f} MB", Text("\n".join(held)))
    ended = _table("ended last", "at", "stage", "video", "how", "seconds")
    for run in seen["ended"]:
        ended.add_row(
            time.strftime("%H:%M:%S", time.localtime(run["at"])),
            run["stage"],
            run["video_id"][:12],
            Text(run["state"] if run["state"] == "done" else f"{run['state']} {run['code']}"),
            "" if run["seconds"] is None else f"{run['seconds']:.2f}",
        )
    dead = _table("dead letters", "stage", "code", "runs", "latest")
    for row in seen["dead"]:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["latest"]))
        dead.add_row(row["stage"], Text(row["code"]), str(row["runs"]), at)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen["at"]))
    return Group(Text(f"ReelSense, {at}", style="bold"), queues, workers, ended, dead)


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name)
    return table


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
