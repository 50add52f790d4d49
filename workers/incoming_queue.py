"""Bucket notifications from a queue: `python -m workers.incoming_queue`, the `amqp` and `redis` targets of MinIO.

A message is acknowledged after its keys are noted in the ledger, from where `workers.incoming_service` looks at them;
so whoever dies here loses none. A message that is no notification is reported and dropped, never tried for ever.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import structlog

from store.catalogue import Catalogue
from store.errors import InputError, PassingError, ReelsenseError, SettingsError
from store.incoming import IncomingLedger
from store.settings import Settings, load_settings
from workers import logs
from workers.notifications import keys_of
from workers.reporting import reporting

WAIT_SECONDS = 1.0
RETRY_SECONDS = 2.0
log = structlog.get_logger()


def serve(settings: Settings, stop: threading.Event) -> None:
    """Take notifications until told to stop. A broker or database that is away is waited for."""
    url = settings.incoming.queue_url
    if not url.startswith(("amqp://", "amqps://", "redis://", "rediss://", "redis+socket://")):
        raise SettingsError("settings.invalid", "incoming.queue_url must begin with amqp:// or redis://.")
    ledger = IncomingLedger(Catalogue(settings.database_url()))
    consume = _consume_amqp if url.startswith("amqp") else _consume_redis
    while not stop.is_set():
        try:
            consume(settings, ledger, stop)
        except PassingError as error:
            log.warning("notifications wait", code=error.code, message=error.message)
            stop.wait(RETRY_SECONDS)


def note(body: bytes, settings: Settings, ledger: IncomingLedger) -> None:
    """Note the keys of one message. Raises PassingError; a message at fault is reported and has no effect."""
    try:
        keys = keys_of(body, settings)
    except InputError as error:
        log.warning("notification dropped", code=error.code, message=error.message, bytes=len(body))
        return
    if keys:
        ledger.hint(keys)


def _consume_amqp(settings: Settings, ledger: IncomingLedger, stop: threading.Event) -> None:
    import importlib

    import kombu.connection
    import kombu.entity
    import kombu.exceptions

    protocol: Any = importlib.import_module("amqp.exceptions")  # it has no types
    connect: Any = kombu.connection.Connection
    make_queue: Any = kombu.entity.Queue
    queue = make_queue(settings.incoming.queue, durable=True, no_declare=True)

    def received(message: Any) -> None:
        body = message.body
        note(body.encode() if isinstance(body, str) else bytes(body), settings, ledger)
        message.ack()

    try:
        with connect(settings.incoming.queue_url, connect_timeout=5.0, heartbeat=30.0) as connection:
            connection.ensure_connection(max_retries=2, interval_start=0.1)
            try:
                queue(connection.channel()).queue_declare(passive=True)  # of whatever kind the operator made it
            except connection.channel_errors:
                queue(connection.channel()).queue_declare()
            # `on_message` and not callbacks: those decode by what the message says of itself.
            with connection.Consumer([queue], on_message=received, prefetch_count=16, accept=None):
                while not stop.is_set():
                    try:
                        connection.drain_events(timeout=WAIT_SECONDS)
                    except TimeoutError:
                        connection.heartbeat_check()
    except (kombu.exceptions.OperationalError, protocol.AMQPError, OSError) as error:
        raise PassingError("broker.unavailable", "The broker of the notifications does not answer.") from error


def _consume_redis(settings: Settings, ledger: IncomingLedger, stop: threading.Event) -> None:
    import redis

    url = settings.incoming.queue_url.replace("redis+socket://", "unix://")
    name = settings.incoming.queue
    try:
        with redis.Redis.from_url(url, socket_timeout=10.0, socket_connect_timeout=5.0) as client:
            while not stop.is_set():
                body: Any = client.lindex(name, 0)
                if body is None:
                    stop.wait(WAIT_SECONDS)
                    continue
                note(body, settings, ledger)
                client.lrem(name, 1, body)  # only now: who dies before this reads it again
    except redis.RedisError as error:
        raise PassingError("broker.unavailable", "The broker of the notifications does not answer.") from error


def main() -> None:
    """`python -m workers.incoming_queue`, until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings()
        logs.configure(settings, service="notifications")
        with reporting(settings, "notifications"):
            serve(settings, stop)
    except ReelsenseError as error:
        sys.exit(f"{error.code}: {error.message} {error.hint}")


if __name__ == "__main__":
    main()
