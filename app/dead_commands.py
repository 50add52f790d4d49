"""`reelsense dead`: the runs that failed, with their reasons; trying them again, and putting them out of sight."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from store.errors import InputError

if TYPE_CHECKING:
    from app.operations import ReelSense
    from store.dead_letters import DeadLetter, DeadLetters

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
    from app.cli import answer

    answer(as_json, data, lambda reelsense: listed(reelsense, stage, code, video), _show_list)


@dead.command("show")
def show(
    letter: Annotated[str, typer.Argument(help="Id of a dead letter, or the beginning of it.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter with its traceback and its last log lines."""
    from app.cli import answer

    answer(as_json, data, lambda reelsense: _letters(reelsense).letter(letter).model_dump(), _show_letter)


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
    from app.cli import answer

    answer(
        as_json,
        data,
        lambda reelsense: replayed(reelsense, chosen(reelsense, ids or [], every, stage, code, video), dry_run=dry_run),
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
    from app.cli import answer

    answer(
        as_json,
        data,
        lambda reelsense: dropped(reelsense, chosen(reelsense, ids or [], every, stage, code, video), dry_run=dry_run),
        _show_done,
    )


# --- the operations --------------------------------------------------------------------------------------------------


def listed(reelsense: ReelSense, stage: str | None, code: str | None, video: str | None) -> dict[str, Any]:
    """`{"dead": [...]}`: the letters without tracebacks and log lines, which `show` has."""
    letters = _letters(reelsense).letters(stage, code, video)
    return {"dead": [letter.model_dump(exclude={"traceback", "lines", "place"}) for letter in letters]}


def chosen(
    reelsense: ReelSense, ids: Sequence[str], every: bool, stage: str | None, code: str | None, video: str | None
) -> list[DeadLetter]:
    """The letters that are meant: by id, by filters, or all. Raises `dead.unknown`, and `request.invalid` where nothing
    says which: a forgotten argument must not mean every one."""
    filtered = any(item is not None for item in (stage, code, video))
    if sum((bool(ids), filtered, every)) != 1:
        raise InputError(
            "request.invalid", "Say which: ids, or filters (--stage, --code, --video), or --all, and one of them only."
        )
    letters = _letters(reelsense)
    if ids:
        return list({found.id: found for found in map(letters.letter, ids)}.values())
    return letters.letters(stage, code, video)


def replayed(reelsense: ReelSense, letters: Sequence[DeadLetter], *, dry_run: bool) -> dict[str, Any]:
    """Forget the attempts of these runs and send them. Those of a version or of words that are no more are `stale`, and
    stay. Raises `stack.not_running`, `broker.unavailable`, and then nothing has changed."""
    from workers.celery_app import queue_depths

    queue_depths(reelsense.celery)
    reelsense.graph.refresh()
    videos = {video.id: video for video in reelsense.catalogue.videos([letter.video_id for letter in letters])}
    live = [
        letter
        for letter in letters
        if letter.video_id in videos and letter.key() in reelsense.graph.keys(videos[letter.video_id], letter.stage)
    ]
    if not dry_run:
        reelsense.catalogue.reset([letter.key() for letter in live])
        _letters(reelsense).clear([letter.key() for letter in live])
        reelsense.graph.enqueue([letter.key() for letter in live])
    return {
        "replayed": [letter.id for letter in live],
        "stale": [letter.id for letter in letters if letter not in live],
        "dry_run": dry_run,
    }


def dropped(reelsense: ReelSense, letters: Sequence[DeadLetter], *, dry_run: bool) -> dict[str, Any]:
    """Put these letters out of sight."""
    if not dry_run:
        _letters(reelsense).drop(letters)
    return {"dropped": [letter.id for letter in letters], "dry_run": dry_run}


def _letters(reelsense: ReelSense) -> DeadLetters:
    from store.dead_letters import DeadLetters

    return DeadLetters(reelsense.catalogue)


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
