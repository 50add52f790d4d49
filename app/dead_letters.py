"""The runs that failed for good: listing them, trying them again, putting them out of sight; once for the command line
and the HTTP API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.administration import current
from store.errors import InputError

if TYPE_CHECKING:
    from app.administration import Administrator
    from app.operations import ReelSense
    from store.dead_letters import DeadLetter, DeadLetters


def listed(reelsense: ReelSense, stage: str | None, code: str | None, video: str | None) -> dict[str, Any]:
    """`{"dead": [...]}`: the letters without tracebacks and log lines, which `show` has."""
    letters = _letters(reelsense).letters(stage, code, video)
    return {"dead": [letter.model_dump(exclude={"traceback", "lines", "place"}) for letter in letters]}


def shown(reelsense: ReelSense, letter: str) -> dict[str, Any]:
    """One letter with its traceback and its last log lines. Raises `dead.unknown`."""
    return _letters(reelsense).letter(letter).model_dump()


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


def replayed(admin: Administrator, letters: Sequence[DeadLetter], *, dry_run: bool) -> dict[str, Any]:
    """Forget the attempts of these runs and send them. Those of a version or of words that are no more are `stale`, and
    stay. Raises `stack.not_running`, `broker.unavailable`, and then nothing has changed."""
    from workers.celery_app import queue_depths

    reelsense = admin.reelsense
    queue_depths(reelsense.celery)
    keys = set(current(reelsense, [letter.key() for letter in letters]))
    live = [letter for letter in letters if letter.key() in keys]
    if live and not dry_run:
        admin.note("dead.replay", "", {"letters": [letter.id for letter in live]})
        reelsense.catalogue.reset([letter.key() for letter in live])
        _letters(reelsense).clear([letter.key() for letter in live])
        reelsense.graph.enqueue([letter.key() for letter in live])
    return {
        "replayed": [letter.id for letter in live],
        "stale": [letter.id for letter in letters if letter not in live],
        "dry_run": dry_run,
    }


def dropped(admin: Administrator, letters: Sequence[DeadLetter], *, dry_run: bool) -> dict[str, Any]:
    """Put these letters out of sight."""
    if letters and not dry_run:
        admin.note("dead.drop", "", {"letters": [letter.id for letter in letters]})
        _letters(admin.reelsense).drop(letters)
    return {"dropped": [letter.id for letter in letters], "dry_run": dry_run}


def _letters(reelsense: ReelSense) -> DeadLetters:
    from store.dead_letters import DeadLetters

    return DeadLetters(reelsense.catalogue)
