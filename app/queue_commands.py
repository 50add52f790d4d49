"""The commands of administrators: `reelsense queue`, `workers`, `videos`, `timeline` and `audit`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.administration import Administrator

queue = typer.Typer(help="See, pause, resume and purge queues.", no_args_is_help=True)
workers = typer.Typer(help="See, drain and scale workers.", no_args_is_help=True)
videos = typer.Typer(help="Prioritise, cancel, retry, quarantine and delete videos.", no_args_is_help=True)
audit = typer.Typer(help="Who decided what, and when.", no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
Queue = Annotated[str, typer.Argument(help="A queue or a stage.")]
Worker = Annotated[str, typer.Argument(help="A worker: NAME@HOST, or NAME where that is enough.")]
VideoId = Annotated[str, typer.Argument(help="A video's id, or the beginning of it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept with it, and in the audit log.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    from app import delete_command, learnt_commands

    delete_command.add_to(videos)
    app.add_typer(learnt_commands.learnt, name="learnt")
    app.add_typer(queue, name="queue")
    app.add_typer(workers, name="workers")
    app.add_typer(videos, name="videos")
    app.add_typer(audit, name="audit")
    app.command()(timeline)


def administer(
    as_json: bool, data: Path | None, ask: Callable[[Administrator], dict[str, Any]], show: Callable[[Any], None]
) -> None:
    """Let the OS user who runs this command ask something, and print the answer."""
    from app.administration import Administrator, this_user
    from app.cli import answer

    answer(as_json, data, lambda reelsense: ask(Administrator(reelsense, this_user())), show)


@queue.command("ls")
def queue_ls(data: Data = None, as_json: Json = False) -> None:
    """Every queue: how much waits and since when, how fast it goes, whether it is paused."""
    administer(as_json, data, lambda admin: admin.queues(), show_queues)


@queue.command("show")
def queue_show(name: Queue, data: Data = None, as_json: Json = False) -> None:
    """One queue: what runs, what has waited longest, its failures."""
    administer(as_json, data, lambda admin: admin.queue(name), show_queue)


@queue.command("pause")
def queue_pause(name: Queue, reason: Reason = "", data: Data = None, as_json: Json = False) -> None:
    """Let no run begin until `resume`; what runs is finished. Holds over restarts of everything."""
    administer(as_json, data, lambda admin: admin.pause(name, reason), show_pause)


@queue.command("resume")
def queue_resume(name: Queue, data: Data = None, as_json: Json = False) -> None:
    """Take a pause back."""
    administer(as_json, data, lambda admin: admin.resume(name), show_pause)


@queue.command("purge")
def queue_purge(
    name: Queue,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be cancelled.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Cancel what waits in a queue, until `restore`."""
    administer(as_json, data, lambda admin: admin.purge(name, dry_run=dry_run), show_purge)


@queue.command("restore")
def queue_restore(name: Queue, data: Data = None, as_json: Json = False) -> None:
    """Take a purge back: what it cancelled waits again."""
    administer(as_json, data, lambda admin: admin.restore(name), show_restore)


@workers.command("ls")
def workers_ls(data: Data = None, as_json: Json = False) -> None:
    """Every worker: what it does and since when, its queues, memory and threads."""
    administer(as_json, data, lambda admin: admin.workers(), show_workers)


@workers.command("drain")
def workers_drain(name: Worker, data: Data = None, as_json: Json = False) -> None:
    """Let a worker finish what it runs, take no more, and leave."""
    administer(as_json, data, lambda admin: admin.drain(name), show_drain)


@workers.command("scale")
def workers_scale(
    number: Annotated[int | None, typer.Argument(help="How many; without it, as many as the settings say.")] = None,
    of: Annotated[
        str | None, typer.Option("--of", help="Processes of this one worker, instead of workers of the stack.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """How many workers the embedded stack runs. Drained ones come back."""
    if of is not None:
        administer(as_json, data, lambda admin: admin.pool(of, number or 0), show_pool)
    else:
        administer(as_json, data, lambda admin: admin.scale(number), show_scale)


@workers.command("autoscale")
def workers_autoscale(
    least: Annotated[int, typer.Argument(help="Least workers.")],
    most: Annotated[int, typer.Argument(help="Most workers.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Between which bounds the embedded stack scales its workers with what waits."""
    administer(as_json, data, lambda admin: admin.scale(least, most), show_scale)


@videos.command("ls")
def videos_ls(data: Data = None, as_json: Json = False) -> None:
    """The videos in quarantine, and those that go first (`reelsense status` lists all)."""
    administer(as_json, data, lambda admin: admin.aside(), show_aside)


@videos.command("prioritise")
def videos_prioritise(
    video: VideoId,
    off: Annotated[bool, typer.Option("--off", help="In its turn again.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Run what waits of a video before all else."""
    administer(as_json, data, lambda admin: admin.prioritise(video, off=off), show_changed("prioritised"))


@videos.command("cancel")
def videos_cancel(video: VideoId, data: Data = None, as_json: Json = False) -> None:
    """Cancel what waits of a video and what would come after it, until `retry`."""
    administer(as_json, data, lambda admin: admin.cancel(video), show_cancel)


@videos.command("retry")
def videos_retry(video: VideoId, data: Data = None, as_json: Json = False) -> None:
    """Try again what failed, was given up or was cancelled of a video."""
    administer(as_json, data, lambda admin: admin.retry(video), show_retry)


@videos.command("quarantine")
def videos_quarantine(video: VideoId, reason: Reason = "", data: Data = None, as_json: Json = False) -> None:
    """Set a video aside: nothing of it is processed, and nobody is shown it."""
    administer(as_json, data, lambda admin: admin.quarantine(video, reason), show_changed("quarantined"))


@videos.command("release")
def videos_release(video: VideoId, data: Data = None, as_json: Json = False) -> None:
    """Take a video out of quarantine."""
    administer(as_json, data, lambda admin: admin.release(video), show_changed("quarantined"))


def timeline(video: VideoId, data: Data = None, as_json: Json = False) -> None:
    """What happened to a video: queued, started, done, by which worker, how long, how large."""
    administer(as_json, data, lambda admin: admin.timeline(video), show_timeline)


@audit.command("ls")
def audit_ls(
    k: Annotated[int, typer.Option("-k", help="How many entries.")] = 50,
    subject: Annotated[
        str | None, typer.Option("--about", help="Only those about this queue, worker or video.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The latest decisions, newest first."""
    administer(as_json, data, lambda admin: admin.audit(k, subject), show_audit)


# --- what people see -----------------------------------------------------------------------------------------------


def show_queues(document: dict[str, Any]) -> None:
    """One line a queue."""
    _table(
        "",
        ("queue", "waiting", "running", "oldest", "in/min", "out/min", "empty in", "messages", ""),
        [
            (
                row["name"],
                row["depth"],
                row["running"],
                duration(row["oldest_seconds"]),
                row["in_per_minute"],
                row["out_per_minute"],
                duration(row["drain_seconds"]),
                row["messages"],
                _paused(row),
            )
            for row in document["queues"]
        ],
    )
    if document["broker"] != "ok":
        _line(f"The broker's messages are not known: {document['broker']}.")


def show_queue(document: dict[str, Any]) -> None:
    """A queue, its runs, its failures."""
    show_queues({"queues": [document], "broker": document["broker"]})
    runs = [*document["under_way"], *document["waiting"]]
    if runs:
        _table(
            "",
            ("video", "stage", "state", "for", "tries", "worker"),
            [
                (
                    row["video"][:12],
                    row["stage"],
                    row["state"],
                    duration(row["seconds"]),
                    row["attempts"],
                    row["worker"],
                )
                for row in runs
            ],
        )
    if document["failures"]:
        _table(
            "failures",
            ("stage", "code", "runs", "latest", "such as"),
            [
                (row["stage"], row["code"], row["runs"], clock(row["latest"]), row["message"])
                for row in document["failures"]
            ],
        )


def show_pause(document: dict[str, Any]) -> None:
    """What became of a pause."""
    state = "paused" if document["paused"] else "resumed"
    already = "" if document["changed"] else " (it was already)"
    if document["paused"]:
        more = f" {document['running']} under way will be finished." if document["running"] else ""
    else:
        more = f" {document['sent']} sent again." if document["sent"] else ""
    _line(f"{document['name']} is {state}{already}.{more}{_told(document)}")


def show_purge(document: dict[str, Any]) -> None:
    """What was cancelled."""
    verb = "would be cancelled" if document["dry_run"] else "were cancelled"
    _line(f"{document['runs']} runs of {document['name']} {verb} ({document['messages']} messages in the broker).")
    if document["dry_run"]:
        _line("Nothing was changed. Without --dry-run it is.")
    elif document["runs"]:
        _line(f"`reelsense queue restore {document['name']}` takes that back.")


def show_restore(document: dict[str, Any]) -> None:
    """What waits again."""
    _line(f"{document['runs']} runs of {document['name']} wait again; {document['sent']} sent.")


def show_workers(document: dict[str, Any]) -> None:
    """One line a worker."""
    from workers.stages import QUEUES

    rows = []
    for row in document["workers"]:
        doing = ", ".join(
            f"{run['stage']} of {run['video'][:12]} for {duration(run['seconds'])}" for run in row["running"]
        )
        rows.append(
            (
                row["name"],
                row["pid"],
                row["state"],
                doing or "-",
                row["tasks"],
                f"{row['memory_bytes'] / 2**20:.0f} MB",
                f"{row['processes']} x {row['threads']}",
                row["model_set"],
                "all" if len(row["queues"]) == len(QUEUES) else " ".join(row["queues"]) or "-",
            )
        )
    _table("", ("worker", "pid", "state", "runs now", "tasks", "memory", "threads", "models", "queues"), rows)
    if document["scaled"]:
        bounds = document["scaled"]
        _line(
            f"Scaled to {bounds['least']}"
            + (f" to {bounds['most']}" if bounds["most"] != bounds["least"] else "")
            + "."
        )
    for run in document["held_by_others"]:
        _line(f"{run['stage']} of {run['video'][:12]} is held by {run['worker']}, which no listed worker is.")


def show_drain(document: dict[str, Any]) -> None:
    """That a worker leaves."""
    _line(f"{document['worker']} finishes what it runs and leaves.{_told(document)}")


def show_scale(document: dict[str, Any]) -> None:
    """How many there will be."""
    bounds = (
        str(document["least"])
        if document["least"] == document["most"]
        else f"{document['least']} to {document['most']}"
    )
    now = "" if document["stack"] else " No stack runs here now: it holds for the next one."
    _line(f"The stack runs {bounds} workers.{now}")


def show_pool(document: dict[str, Any]) -> None:
    """How many a worker runs."""
    _line(f"{document['worker']} runs {document['processes']} stages at a time.{_told(document)}")


def show_changed(what: str) -> Callable[[dict[str, Any]], None]:
    """Whether a video is, or is no more, something."""

    def show(document: dict[str, Any]) -> None:
        already = "" if document["changed"] else " (as it was)"
        _line(f"{document['video'][:12]} is {'' if document[what] else 'not '}{what}{already}.")

    return show


def show_cancel(document: dict[str, Any]) -> None:
    """What was cancelled."""
    running = f" {len(document['running'])} under way will be finished." if document["running"] else ""
    _line(f"{document['cancelled']} runs of {document['video'][:12]} were cancelled.{running}")


def show_retry(document: dict[str, Any]) -> None:
    """How the video is now."""
    _line(f"{document['video'][:12]} is {document['state']}.")


def show_aside(document: dict[str, Any]) -> None:
    """The videos that are not treated like others."""
    rows = [
        (row["video"][:12], "in quarantine", row["who"], clock(row["at"]), row["reason"])
        for row in document["quarantined"]
    ]
    rows += [(row["video"][:12], "goes first", row["who"], clock(row["at"]), "") for row in document["prioritised"]]
    _table("", ("video", "", "who", "when", "why"), rows)


def show_timeline(document: dict[str, Any]) -> None:
    """One line an event, with the seconds since the upload."""
    start = document["uploaded_at"]
    lines: list[tuple[Any, ...]] = [
        (
            row["at"],
            row["stage"],
            row["what"],
            row["worker"],
            duration(row["seconds"]),
            _size(document["bytes"].get(row["stage"])) if row["what"] == "done" else None,
            row["code"],
        )
        for row in document["events"]
    ]
    lines += [(row["at"], "", row["what"], row["who"], None, None, None) for row in document["administered"]]
    _table(
        "",
        ("when", "after", "stage", "what", "by", "took", "artifact", ""),
        [(clock(line[0]), f"{line[0] - start:.1f} s", *line[1:]) for line in sorted(lines, key=lambda line: line[0])],
    )


def show_audit(document: dict[str, Any]) -> None:
    """One line a decision."""
    _table(
        "",
        ("when", "who", "via", "what", "about", ""),
        [
            (
                clock(row["at"]),
                row["who"],
                row["via"],
                row["action"],
                row["subject"],
                ", ".join(f"{name} {value}" for name, value in row["details"].items()),
            )
            for row in document["audit"]
        ],
    )


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `4.2 s`, `3 min`, `2.5 h`, `6 days`."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def clock(at: float) -> str:
    """A time of today as hours, another with its date (UTC)."""
    when = datetime.fromtimestamp(at, UTC)
    return when.strftime("%H:%M:%S" if abs(time.time() - at) < 43_200 else "%Y-%m-%d %H:%M")


def _size(count: int | None) -> str | None:
    return None if count is None else f"{count / 1024:.1f} kB"


def _paused(row: dict[str, Any]) -> str:
    if row["pause"] is None:
        return ""
    reason = f": {row['pause']['reason']}" if row["pause"]["reason"] else ""
    return f"paused by {row['pause']['who']}{reason}"


def _told(document: dict[str, Any]) -> str:
    if document["not_told"]:
        return (
            f" The workers could not be told ({document['not_told']}); they see it within seconds, or when they start."
        )
    return f" {document['told']} workers were told." if document["told"] else ""


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from app.tables import console, table

    console().print(table(title, columns, rows))


def _line(text: str) -> None:
    from app.tables import console

    console().print(text, markup=False, soft_wrap=True)
