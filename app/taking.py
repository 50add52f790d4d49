"""Batches of events, over HTTP and from files: each line is checked, cleaned, stored, and answered by itself.

A line that makes no sense costs the others nothing: its result carries the code and the sentence of the error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.event_files import Format, Line, form_of, parse_json_line, read_lines
from ranker.cleaning import forgotten_error, take_all
from ranker.events import checked_line
from store.catalogue import Catalogue, StoredEvent
from store.errors import InputError

if TYPE_CHECKING:
    from app.operations import ReelSense

MOST_LINES = 10_000
SHOWN_ERRORS = 100


def take_lines(catalogue: Catalogue, lines: Sequence[Line], now: float | None = None) -> list[dict[str, Any]]:
    """What became of each numbered line, in order: `{"line", "id", "state"}`, with `reason` and `detail` where the
    state is set_aside, and `code` and `message` where it is refused."""
    clock = time.time() if now is None else now
    checked: list[StoredEvent | InputError] = []
    for _, line in lines:
        try:
            checked.append(line if isinstance(line, InputError) else checked_line(line, clock))
        except InputError as error:
            checked.append(error)
    outcomes = iter(take_all(catalogue, [item for item in checked if not isinstance(item, InputError)], clock))
    results: list[dict[str, Any]] = []
    for (number, _), item in zip(lines, checked, strict=True):
        outcome = item if isinstance(item, InputError) else next(outcomes)
        result: dict[str, Any] = {"line": number}
        if not isinstance(item, InputError):
            result["id"] = item.id
        if not isinstance(outcome, InputError) and outcome.state == "forgotten":
            outcome = forgotten_error()
        if isinstance(outcome, InputError):
            result |= {"state": "refused", "code": outcome.code, "message": outcome.message}
        else:
            result["state"] = outcome.state
            if outcome.verdict is not None:
                result |= {"reason": outcome.verdict.reason, "detail": outcome.verdict.detail}
        results.append(result)
    return results


def summed(results: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many lines there are of each state."""
    return {
        state: sum(result["state"] == state for result in results) for state in ("new", "known", "set_aside", "refused")
    }


def parse_batch(body: bytes) -> list[Line]:
    """The numbered lines of a request's body: a JSON array, or JSON Lines. Raises `event.batch_invalid`."""
    text = body.strip()
    if not text:
        raise InputError("event.batch_invalid", "The batch is empty.", hint="Send a JSON array, or JSON Lines.")
    if text.startswith(b"["):
        whole = parse_json_line(text)
        if not isinstance(whole, list):
            raise InputError("event.batch_invalid", "The batch begins as a JSON array and is none.")
        lines: list[Line] = list(enumerate(whole, 1))
    else:
        numbered = [(number, line) for number, line in enumerate(body.splitlines(), 1) if line.strip()]
        if len(numbered) > MOST_LINES:
            raise _too_many(len(numbered))
        lines = [(number, parse_json_line(line)) for number, line in numbered]
    if len(lines) > MOST_LINES:
        raise _too_many(len(lines))
    return lines


def _too_many(count: int) -> InputError:
    return InputError(
        "event.batch_invalid",
        f"The batch has {count} lines, at most {MOST_LINES} are taken.",
        hint="Send several batches, or a file with `reelsense events import`.",
    )


def import_file(reelsense: ReelSense, path: Path, form: Format | None = None) -> dict[str, Any]:
    """Take every line of a file in; counts by state, by reason and by code, and the first errors with their lines.

    The file is read as a stream and each batch is stored when it was read, so an import that breaks off can be run
    again: what is known is known. Raises `event.file_unreadable`."""
    states: Counter[str] = Counter({"new": 0, "known": 0, "set_aside": 0, "refused": 0})
    reasons: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    errors: list[dict[str, Any]] = []
    ignored: list[str] = []
    lines = 0
    try:
        for batch, passed_over in read_lines(path, form or form_of(path)):
            ignored = passed_over
            lines += len(batch)
            for result in take_lines(reelsense.catalogue, batch):
                states[result["state"]] += 1
                if result["state"] == "set_aside":
                    reasons[result["reason"]] += 1
                elif result["state"] == "refused":
                    codes[result["code"]] += 1
                    if len(errors) < SHOWN_ERRORS:
                        errors.append({name: result[name] for name in ("line", "code", "message")})
    except InputError as error:
        if not lines:
            raise
        said = f"{error.message} {lines} lines before that were read: {dict(states)}."
        raise InputError(error.code, said, hint="What was read is stored; the file may be imported again.") from None
    return {
        "file": str(path),
        "lines": lines,
        **states,
        "reasons": dict(sorted(reasons.items())),
        "codes": dict(sorted(codes.items())),
        "errors": errors,
        "ignored_columns": ignored,
    }
