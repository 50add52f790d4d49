"""The reconciling sweep, now and then: what the broker lost or a dead worker held is found and sent again.

Part of `reelsense up`; on a fleet a service of its own: `python -m workers.sweeper`, which feeds re-embedding jobs too
(`workers.feeder`). Two at once do no harm.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

from store.errors import PassingError, ReelsenseError
from store.journal import Journal
from store.run_events import cutoff
from store.settings import Settings, load_settings
from store.worker_registry import WorkerRegistry
from workers import logs
from workers.celery_app import create_app, open_graph, queue_depths
from workers.feeder import feed_until, open_feeder
from workers.reporting import reporting
from workers.vector_indexer import VectorIndexer

RESEND_SECONDS = 60.0
JOURNAL_SECONDS = 60.0
JOBS_SECONDS = 1.0
RETENTION_SECONDS = 3600.0
VECTORS_SECONDS = 60.0


class Sweeper:
    """Sweeps when first asked, then every `sweep_seconds`. `say` receives a line when there was something to do."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.app = create_app(settings)
        self.graph = open_graph(self.app)
        self.journal = Journal(self.graph.objects, self.graph.catalogue)
        self.registry = WorkerRegistry(self.graph.catalogue)
        self.seconds = settings.sweep_seconds
        self.history_days = settings.history_days
        self.say = say
        self.next = 0.0
        self.next_journal = 0.0
        self.next_jobs = 0.0
        self.retention_days = settings.event_retention_days
        self.next_retention = 0.0
        self.next_vectors = 0.0
        self.vectors: VectorIndexer | None = None
        # The first sweep resends at once: whatever was queued before may have died with its broker.
        self.resend_after = 0.0

    def now_and_then(self) -> None:
        """Sweep if it is time to. A store, database or broker that is away is reported and tried again next time."""
        if time.monotonic() >= self.next_vectors:
            self.write_vectors()
        if time.monotonic() < self.next:
            return
        try:
            report = self.graph.reconcile(queue_depths(self.app), resend_after=self.resend_after)
            self.resend_after = RESEND_SECONDS
            self.graph.administration.prune(cutoff(self.history_days))
            self.registry.prune()
            if report.sent or report.repaired or report.given_up:
                self.say(f"sweep: sent {len(report.sent)}, repaired {report.repaired}, gave up {len(report.given_up)}")
        except PassingError as error:
            self.say(f"sweep: {error.code}: {error.message}")
        if time.monotonic() >= self.next_journal:
            self.write_journal()
        if self.retention_days > 0 and time.monotonic() >= self.next_retention:
            self.drop_old_events()
        self.next = time.monotonic() + self.seconds

    def write_journal(self) -> None:
        """Copy to object storage what only the database knows, as far as both answer; the rest goes with the next."""
        self.next_journal = time.monotonic() + JOURNAL_SECONDS
        try:
            self.journal.write()
        except PassingError as error:
            self.say(f"journal: {error.code}: {error.message}")

    def drop_old_events(self) -> None:
        """Delete the events that are older than they may be, from the database and from the journal."""
        self.next_retention = time.monotonic() + RETENTION_SECONDS
        oldest = time.time() - self.retention_days * 86_400.0
        try:
            removed = sum(self.journal.log.remove_before(oldest).values())
            rewritten = self.journal.remove_before(oldest)
        except PassingError as error:
            self.say(f"retention: {error.code}: {error.message}")
            return
        if removed or rewritten:
            self.say(f"retention: deleted {removed} old events, and from {len(rewritten)} segments of the journal")

    def write_vectors(self) -> None:
        """One pass of the indexer of the vector table of what is served; the next at once while there is a backlog."""
        self.next_vectors = time.monotonic() + VECTORS_SECONDS
        try:
            version = self.graph.versions["published"]
            if self.vectors is None or self.vectors.version != version:
                self.vectors = VectorIndexer(self.graph.objects, self.graph.catalogue, version)
            if self.vectors.step().written:
                self.next_vectors = time.monotonic()
        except PassingError as error:
            self.say(f"vectors: {error.code}: {error.message}")

    def has_jobs(self) -> bool:
        """Whether a re-embedding job is open; asks the catalogue once in `JOBS_SECONDS` and says no in between."""
        if time.monotonic() < self.next_jobs:
            return False
        self.next_jobs = time.monotonic() + JOBS_SECONDS
        try:
            return self.graph.jobs.any_open()
        except PassingError:
            return False  # the sweep says it


def main() -> None:
    """Sweep until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")

    try:
        settings = load_settings()
        logs.configure(settings, service="sweeper")
        sweeper = Sweeper(settings, say)
    except ReelsenseError as error:
        sys.exit(f"{error.code}: {error.message} {error.hint}")
    # By itself, so that a long sweep of a large catalogue does not keep a job waiting.
    feeder = open_feeder(settings, say)

    def feed() -> None:
        try:
            feed_until(stop, feeder, say)
        finally:
            stop.set()  # an error that nobody expected ends this service, so that whoever runs it starts it anew

    feeding = threading.Thread(target=feed, name="feeder")
    feeding.start()
    with reporting(settings, "sweeper"):
        while not stop.wait(0.5):
            sweeper.now_and_then()
        feeding.join()
        sweeper.write_journal()


if __name__ == "__main__":
    main()
