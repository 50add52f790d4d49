"""`reelsense events` (import, export, set-aside) and `reelsense forget`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import FAILED, Data, Json, User, answer, print_json, reported

events = typer.Typer(help="Events of viewers, many at a time.", no_args_is_help=True)


class EventFormat(StrEnum):
    """How a file of events is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


@events.command("import")
def imported(
    file: Annotated[Path, typer.Argument(help="CSV, JSON Lines or Parquet; docs/behaviour.md has the columns.")],
    form: Annotated[
        EventFormat | None, typer.Option("--format", help="Default: by the file's name.", show_default=False)
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Take in the events of a file. Exit status 1 when a line was refused; the others are in."""
    from app.operations import ReelSense
    from app.taking import import_file
    from store.settings import load_settings

    with reported(as_json):
        reelsense = ReelSense(load_settings(data=data))
        document = import_file(reelsense, file, None if form is None else form.value)
    if as_json:
        print_json(document)
    else:
        for error in document["errors"]:
            sys.stderr.write(f"line {error['line']}: {error['code']}: {error['message']}\n")
        if document["ignored_columns"]:
            sys.stderr.write(f"columns passed over: {', '.join(document['ignored_columns'])}\n")
        _show_counts({name: document[name] for name in ("lines", "new", "known", "set_aside", "refused")})
        _show_counts(document["reasons"])
    if document["refused"]:
        raise typer.Exit(FAILED)


@events.command("export")
def exported(
    folder: Annotated[Path, typer.Argument(help="Folder to write into; `day=YYYY-MM-DD` folders are made there.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write every event that counts as Parquet, a folder for each day (UTC), for training and other tools."""

    def export(reelsense: Any) -> dict[str, Any]:
        from app.event_files import write_partitions

        return write_partitions(reelsense.event_log, folder)

    answer(as_json, data, export, lambda document: _show_counts({"events": document["events"], **document["days"]}))


@events.command("set-aside")
def set_aside(
    reason: Annotated[str | None, typer.Option(help="Only those of this reason.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="Only those of this viewer.", show_default=False)] = None,
    count: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many, the latest first.")] = 20,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Events that do not count, by reason: how many, and the latest."""

    def listed(reelsense: Any) -> dict[str, Any]:
        return list_set_aside(reelsense, reason, user, count)

    answer(as_json, data, listed, _show_set_aside)


def forget(user: User, data: Data = None, as_json: Json = False) -> None:
    """Delete a viewer's events and picks everywhere, and print the proof."""
    from app.forgetting import forget as forget_viewer

    answer(as_json, data, lambda reelsense: forget_viewer(reelsense, user), _show_forgotten)


def add_to(app: typer.Typer) -> None:
    """Register the group and the command."""
    app.add_typer(events, name="events")
    app.command("forget")(forget)


def list_set_aside(reelsense: Any, reason: str | None, user: str | None, count: int) -> dict[str, Any]:
    """How many events are set aside by reason, and the latest `count` of the reason and viewer given. Raises
    `request.invalid`."""
    from ranker.cleaning import REASONS
    from store.errors import InputError

    if reason is not None and reason not in REASONS:
        raise InputError(
            "request.invalid", f"There is no reason {reason[:40]!r}.", hint=f"One of {', '.join(REASONS)}."
        )
    log = reelsense.event_log
    counts = log.counts()
    return {
        "reasons": [{"reason": name, "events": counts.get(name, 0), "meaning": said} for name, said in REASONS.items()],
        "events": [event.model_dump(mode="json") for event in log.set_aside(reason, user, count)],
    }


def _show_counts(counts: dict[str, int]) -> None:
    sys.stdout.write("".join(f"{name:22} {count}\n" for name, count in counts.items()))


def _show_set_aside(document: dict[str, Any]) -> None:
    _show_counts({row["reason"]: row["events"] for row in document["reasons"]})
    for event in document["events"]:
        sys.stdout.write(
            f"{event['reason']:22} {event['user_id']} {event['kind']} {event['video_id']} at {event['at']:.0f}: "
            f"{event['detail']}\n"
        )


def _show_forgotten(document: dict[str, Any]) -> None:
    for place, count in document["removed"].items():
        sys.stdout.write(f"removed {count:6} from {place}\n")
    scanned = document["scanned"]
    sys.stdout.write(
        f"found   {sum(document['found'].values()):6} in {scanned['tables']} tables and {scanned['segments']} segments "
        f"of the journal, read again\ntombstone {document['digest']}\n"
    )
