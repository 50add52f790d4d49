"""Which parts of an installation answer, and why those that do not, do not."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from store import ledger_figures, measurements
from store.errors import ReelsenseError, StackError

if TYPE_CHECKING:
    from app.operations import ReelSense

# Without these the API can take nothing; without workers it can: what it takes waits.
NEEDED = ("store", "database", "broker")
PARTS = (*NEEDED, "workers")
BROKER_SECONDS = 2.0


@dataclass(frozen=True)
class Part:
    """One part, and what is wrong with it (None: it answers)."""

    name: str
    error: ReelsenseError | None

    def as_json(self) -> dict[str, Any]:
        """As the readiness page says it. The sentences name no host, no path and no secret: anybody may ask."""
        if self.error is None:
            return {"ready": True}
        return {"ready": False, "code": self.error.code, "why": _PUBLIC.get(self.error.code, self.error.code)}


_PUBLIC = {
    "store.unavailable": "The object store does not answer.",
    "database.unavailable": "The catalogue database does not answer.",
    "broker.unavailable": "The message broker does not answer.",
    "stack.not_running": "No broker is set, and no stack runs.",
    "workers.none": "No worker has been heard of in the last minute.",
}


def parts_of(reelsense: ReelSense) -> list[Part]:
    """Ask each part."""
    return [Part(name, _trouble(reelsense, name)) for name in PARTS]


def broker_of(reelsense: ReelSense) -> Part:
    """Ask the broker alone."""
    return Part("broker", _trouble(reelsense, "broker"))


def _trouble(reelsense: ReelSense, name: str) -> ReelsenseError | None:
    try:
        if name == "store":
            next(iter(reelsense.objects.list("ready/")), None)
        elif name == "database":
            ledger_figures.answers(reelsense.catalogue)
        elif name == "broker":
            _ask_broker(reelsense)
        elif not any(process.kind == "worker" for process in measurements.present(reelsense.catalogue)):
            return StackError("workers.none", _PUBLIC["workers.none"])
    except ReelsenseError as error:
        return error
    return None


def _ask_broker(reelsense: ReelSense) -> None:
    """Raises `stack.not_running`, `broker.unavailable`."""
    from store.errors import PassingError
    from workers.celery_app import queue_depths

    url = urlsplit(reelsense.celery.conf.broker_url or "")
    if url.hostname is not None:
        # Celery tries for long; a connection that is refused says the same at once.
        try:
            socket.create_connection((url.hostname, url.port or _PORTS.get(url.scheme, 5672)), BROKER_SECONDS).close()
        except OSError as error:
            raise PassingError("broker.unavailable", "The message broker does not answer.") from error
    queue_depths(reelsense.celery)


_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}
