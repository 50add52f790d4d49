"""The process that takes in what was put into the object store: `python -m workers.incoming_service`.

It looks at what notifications announced, at once, and at the whole of `incoming.prefix` every `incoming.poll_seconds`.
Part of `reelsense up`; on a fleet a service of its own, of which there may be several. `--folder` serves the watched
folder instead: file system events where there are any, and a scan at the start and at every poll.

A scan is never more than a twentieth of the time: over a store that takes long to list, the pauses grow with it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from store.errors import PassingError, ReelsenseError
from store.settings import Settings, load_settings
from workers import logs
from workers.celery_app import create_app, open_graph
from workers.incoming import DONE, REFUSED, Incoming, clear_workplaces, open_incoming, open_watched
from workers.reporting import reporting

HINT_SECONDS = 0.5
LARGEST_SHARE = 1 / 20
log = structlog.get_logger()


class Service:
    """Looks at hints when asked, and scans when it is time to."""

    def __init__(self, incoming: Incoming, stop: Callable[[], bool]) -> None:
        self.incoming = incoming
        self.stop = stop
        self.next_scan = 0.0

    def now_and_then(self, *, changed: bool = False) -> None:
        """One turn. `changed`: something is known to be new. What is away is reported and tried again."""
        settings = self.incoming.settings.incoming
        try:
            if not self.incoming.place.label:
                self.incoming.look_at_hints(self.stop)
        except PassingError as error:
            log.warning("hints wait", code=error.code, message=error.message)
        if not (
            changed or (self.next_scan <= time.monotonic() and (settings.poll_seconds or self.incoming.place.label))
        ):
            return
        started = time.monotonic()
        report = self.incoming.scan(self.stop)
        if report.error is not None:
            log.warning("scan ended early", code=report.error.code, message=report.error.message)
        took = time.monotonic() - started
        pause = max(settings.poll_seconds or 60.0, took / LARGEST_SHARE if not report.ended else 0.0)
        if report.outcomes["settling"] or report.outcomes["held"] or report.outcomes["passing"]:
            pause = min(pause, max(0.5, settings.settle_seconds))
        self.next_scan = time.monotonic() + pause


def serve_store(settings: Settings, stop: threading.Event) -> None:
    """Serve `incoming.prefix` of the object store until told to stop."""
    graph = open_graph(create_app(settings))
    clear_workplaces(settings)
    service = Service(open_incoming(settings, graph.objects, graph.catalogue, graph), stop.is_set)
    while not stop.wait(HINT_SECONDS):
        service.now_and_then()


def serve_folder(settings: Settings, stop: threading.Event) -> None:
    """Serve the watched folder until told to stop."""
    from watchfiles import watch

    graph = open_graph(create_app(settings))
    incoming = open_watched(settings, graph.objects, graph.catalogue, graph)
    service = Service(incoming, stop.is_set)
    root = Path(settings.incoming.watched_folder).expanduser().absolute()
    aside = tuple(str(root / name.rstrip("/")) for name in (DONE, REFUSED))
    changes = watch(
        root,
        watch_filter=lambda _, path: not path.startswith(aside),
        stop_event=stop,
        debounce=400,
        rust_timeout=int(HINT_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    # The watch begins with the first turn of this loop, so a file that comes during the first scan is not missed.
    for change in changes:
        service.now_and_then(changed=bool(change))


def main() -> None:
    """`python -m workers.incoming_service [--folder]`, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", action="store_true")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings()
        logs.configure(settings, service="incoming")
        with reporting(settings, "incoming"):
            (serve_folder if arguments.folder else serve_store)(settings, stop)
    except ReelsenseError as error:
        sys.exit(f"{error.code}: {error.message} {error.hint}")


if __name__ == "__main__":
    main()
