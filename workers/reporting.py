"""The part of a process that writes down, now and then, what was counted in it (`store/measurements.py`), and says that
it is there and how much memory it holds."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import structlog

from store import measurements
from store.catalogue import Catalogue
from store.errors import PassingError
from store.settings import Settings
from workers import tracing

WRITE_SECONDS = 2.0
ANNOUNCE_SECONDS = 15.0
log = structlog.get_logger()


class Reporter:
    """Writes every `WRITE_SECONDS` from a thread, and a last time when it ends. A database away is waited for."""

    def __init__(self, settings: Settings, kind: str, name: str = "") -> None:
        self.settings = settings
        self.kind = kind
        self.name = f"{socket.gethostname()}/{name or kind}-{os.getpid()}"
        self._catalogue: Catalogue | None = None
        self._announced = -ANNOUNCE_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Write the rest, and say that this process is gone."""
        self._stop.set()
        self._thread.join(10.0)
        try:
            self.write()
            if self._catalogue is not None:
                measurements.leave(self._catalogue, self.name)
                self._catalogue.close()
        except PassingError as error:
            log.warning("what was counted is lost", code=error.code, message=error.message)

    def write(self) -> None:
        """Write what was counted since the last time. Raises `database.unavailable`."""
        if self._catalogue is None:
            self._catalogue = Catalogue(self.settings.database_url())
        measurements.flush(self._catalogue)
        if time.monotonic() - self._announced >= ANNOUNCE_SECONDS:
            process = measurements.Process(
                name=self.name, kind=self.kind, memory_bytes=memory_bytes(), seen_at=time.time()
            )
            measurements.announce(self._catalogue, process)
            self._announced = time.monotonic()

    def _run(self) -> None:
        away = False
        while True:
            try:
                self.write()
                away = False
            except PassingError as error:
                if not away:
                    log.warning("measurements wait for the database", code=error.code, message=error.message)
                away = True
            if self._stop.wait(WRITE_SECONDS):
                return


@contextlib.contextmanager
def reporting(settings: Settings, kind: str) -> Iterator[None]:
    """Report for this process, and trace, while the block runs."""
    tracing.start(settings, kind)
    reporter = Reporter(settings, kind)
    reporter.start()
    try:
        yield
    finally:
        reporter.end()
        tracing.stop()


@contextlib.contextmanager
def counted(settings: Settings) -> Iterator[None]:
    """The same for a command, which is over before anybody could look at it: written once, at its end."""
    tracing.start(settings, "command")
    try:
        yield
    finally:
        catalogue = Catalogue(settings.database_url())
        try:
            measurements.flush(catalogue)
        except PassingError as error:
            log.warning("what was counted is lost", code=error.code, message=error.message)
        finally:
            catalogue.close()
            tracing.stop()


def memory_bytes() -> int:
    """What this process holds in memory (resident set)."""
    import psutil  # type: ignore[import-untyped]

    return int(psutil.Process().memory_info().rss)
