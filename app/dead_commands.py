"""`reelsense dead`: the runs that failed, with their reasons; trying them again, and putting them out of sight."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

dead = typer.Typer(help="What failed for good, and why.", no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
Stage = Annotated[str | None, typer.Option("--stage", help="Only of this stage.", show_default=False)]
Code = Annotated[str | None, typer.Option("--code", help="Only with this error code.", show_default=False)]
Video = Annotated[
    str | None, typer.Option("--video", help="Only of the videos whose id begins so.", show_default=False)
]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of dead letters, or the beginnings of them.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@dead.command("ls")
def ls(stage: Stage = None, code: Code = None, video: Video = None, data: Data = None, as_json: Json = False) -> None:
    """List the dead letters, the latest first."""
    from app import dead_letters
    from app.queue_commands import administer

    administer(as_json, data, lambda admin: dead_letters.listed(admin.reelsense, stage, code, video), _show_list)


@dead.command("show")
def show(
    letter: Annotated[str, typer.Argument(help="Id of a dead letter, or the beginning of it.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter with its traceback and its last log lines."""
    from app import dead_letters
    from app.queue_commands import administer

    administer(as_json, data, lambda admin: dead_letters.shown(admin.reelsense, letter), _show_letter)


@dead.command("replay")
def replay(
    ids: Ids = None,
    every: All = False,
    stage: Stage = None,
    code: Code = None,
    video: Video = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Try dead letters again, with all their attempts."""
    from app import dead_letters
    from app.queue_commands import administer

    administer(
        as_json,
        data,
        lambda admin: dead_letters.replayed(
            admin, dead_letters.chosen(admin.reelsense, ids or [], every, stage, code, video), dry_run=dry_run
        ),
        _show_done,
    )


@dead.command("drop")
def drop(
    ids: Ids = None,
    every: All = False,
    stage: Stage = None,
    code: Code = None,
    video: Video = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put dead letters out of sight. Their videos stay failed, and are not tried again."""
    from app import dead_letters
    from app.queue_commands import administer

    administer(
        as_json,
        data,
        lambda admin: dead_letters.dropped(
            admin, dead_letters.chosen(admin.reelsense, ids or [], every, stage, code, video), dry_run=dry_run
        ),
        _show_done,
    )


# --- for people ------------------------------------------------------------------------------------------------------


def _show_list(document: dict[str, Any]) -> None:
    for item in document["dead"]:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item["at"]))
        typer.echo(
            f"{item['id'][:12]}  {at}  {item['stage']:<10}  {item['video_id'][:12]}  "
            f"{item['attempts']} tries  {item['code']}: {item['message']}"
        )
    if not document["dead"]:
        typer.echo("There are no dead letters.")


def _show_letter(document: dict[str, Any]) -> None:
    for name, value in document.items():
        if name not in ("lines", "traceback", "place"):
            typer.echo(f"{name:10} {value}")
    for name, text in (
        ("traceback", document["traceback"]),
        ("where it was at the last heartbeat", document["place"]),
        ("last log lines", "\n".join(document["lines"])),
    ):
        if text:
            typer.echo(f"\n{name}:\n{text.rstrip()}")


def _show_done(document: dict[str, Any]) -> None:
    would = "would be " if document["dry_run"] else ""
    for name in ("replayed", "dropped", "stale"):
        for letter in document.get(name, []):
            typer.echo(f"{letter[:12]}  {'stale, left alone' if name == 'stale' else would + name}")
