"""`reelsense incoming`: what came in by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from app.cli import Data, Json, answer

if TYPE_CHECKING:
    from app.operations import ReelSense

MOST_LISTED = 200

incoming = typer.Typer(help="What came in from the object store and the watched folder.", no_args_is_help=True)


@incoming.command("ls")
def listed(data: Data = None, as_json: Json = False) -> None:
    """What was seen last, what became of it, and what waits."""
    answer(as_json, data, list_incoming, _show_listed)


@incoming.command("scan")
def scanned(data: Data = None, as_json: Json = False) -> None:
    """Look now at all that was put there, and take it in."""
    answer(as_json, data, scan_incoming, _show_scanned)


def list_incoming(reelsense: ReelSense) -> dict[str, Any]:
    """The counts by state, the latest objects, and how many announced keys have not been looked at."""
    from store.incoming import IncomingLedger
    from workers.incoming import shown

    ledger = IncomingLedger(reelsense.catalogue)
    return {
        "counts": ledger.counts(),
        "announced": ledger.hints_waiting(),
        "objects": [
            {
                "key": shown(seen.key, 1024),
                "bytes": seen.bytes,
                "state": seen.state,
                "attempts": seen.attempts,
                "seen_at": seen.seen_at,
                "video": seen.video_id,
                "error": None
                if seen.error_code is None
                else {"code": seen.error_code, "message": seen.error_message, "hint": ""},
            }
            for seen in ledger.latest(MOST_LISTED)
        ],
    }


def scan_incoming(reelsense: ReelSense) -> dict[str, Any]:
    """One scan of the object store, and of the watched folder where there is one.

    Raises the error of the surroundings that ended it, if one did.
    """
    from app.operations import error_json
    from store import measurements
    from workers import logs
    from workers.incoming import open_incoming, open_watched, shown

    logs.configure(reelsense.settings, service="command")  # on stderr: stdout is the answer's
    parts = (reelsense.settings, reelsense.objects, reelsense.catalogue, reelsense.graph)
    intakes = [open_incoming(*parts)]
    if reelsense.settings.incoming.watched_folder:
        intakes.append(open_watched(*parts))
    outcomes: dict[str, int] = {}
    objects = []
    for intake in intakes:
        report = intake.scan()
        if report.error is not None:
            raise report.error
        for outcome, count in report.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        objects += [
            {
                "key": shown(item.key, 1024),
                "outcome": item.outcome,
                "video": item.video_id,
                "error": error_json(item.error),
            }
            for item in report.ended
        ]
    measurements.flush(reelsense.catalogue)
    return {"outcomes": dict(sorted(outcomes.items())), "objects": objects}


def _show_listed(document: dict[str, Any]) -> None:
    from app.tables import console, table

    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item["seen_at"])),
            item["key"],
            item["bytes"],
            item["state"],
            (item["video"] or "")[:12] or (item["error"] or {}).get("code"),
        )
        for item in document["objects"]
    ]
    console().print(table("", ("seen", "key", "bytes", "state", "video or code"), rows))
    counts = ", ".join(f"{count} {state}" for state, count in document["counts"].items())
    console().print(f"{counts or 'nothing'}; {document['announced']} announced and not looked at")


def _show_scanned(document: dict[str, Any]) -> None:
    from app.tables import console, table

    rows = [
        (item["key"], item["outcome"], (item["video"] or "")[:12] or (item["error"] or {}).get("code"))
        for item in document["objects"]
    ]
    console().print(table("", ("key", "outcome", "video or code"), rows))
    console().print(", ".join(f"{count} {outcome}" for outcome, count in document["outcomes"].items()) or "nothing new")
