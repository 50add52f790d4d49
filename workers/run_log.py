"""The last log lines of the run at hand, kept with the run so that a dead letter can show them.

They go to the database with each heartbeat, and at once when the run has killed a worker before: what a killed worker
said last is then there, although nobody could ask it.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from store.catalogue import RunKey
from store.dead_letters import DeadLetters
from store.errors import PassingError

MOST_LINES = 60
LONGEST_LINE = 2000
STACK_FRAMES = 12


class RunLog:
    """The lines of one run (of several videos, in a batch). `at_once`: every line is written through."""

    current: RunLog | None = None

    def __init__(self, letters: DeadLetters, keys: Sequence[RunKey], *, at_once: bool) -> None:
        self.letters = letters
        self.keys = list(keys)
        self.at_once = at_once
        self.lines: collections.deque[str] = collections.deque(maxlen=MOST_LINES)
        self.saved = False
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line[:LONGEST_LINE])
        if self.at_once:
            self.save()

    def save(self) -> None:
        """Write the lines, and where the main thread is. Lines that a database away cannot take go with the next."""
        with self._lock, contextlib.suppress(PassingError):
            self.letters.note(self.keys, list(self.lines), _place())
            self.saved = True

    def end(self, *, failed: bool) -> None:
        """The run has ended: a failure's lines are kept, others forgotten."""
        if failed:
            self.save()
        elif self.saved:
            with contextlib.suppress(PassingError):
                self.letters.clear(self.keys)


@contextlib.contextmanager
def kept(letters: DeadLetters, keys: Sequence[RunKey], *, at_once: bool) -> Iterator[RunLog]:
    """Keep what is logged in the block. The caller says with `RunLog.end` how the run went."""
    run_log = RunLog(letters, keys, at_once=at_once)
    RunLog.current = run_log
    try:
        yield run_log
    finally:
        RunLog.current = None


def keep_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the line goes to the run at hand, and on."""
    if RunLog.current is not None:
        RunLog.current.add(json.dumps(dict(event), default=str, ensure_ascii=False))
    return event


class KeepWarnings(logging.Handler):
    """What libraries say through `logging`, for the run at hand."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line; with a database of its own in trouble, do not log about logging."""
        if RunLog.current is not None and not record.name.startswith("sqlalchemy"):
            RunLog.current.add(json.dumps({"logger": record.name, "event": record.getMessage()[:LONGEST_LINE]}))


def _place() -> str:
    """The last frames of the main thread, the innermost last."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None or threading.current_thread() is threading.main_thread():
        return ""
    return "".join(traceback.format_stack(frame)[-STACK_FRAMES:])
