"""Bucket notifications through real brokers: RabbitMQ where it is installed, and a list of the embedded Valkey."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from store.catalogue import Catalogue
from store.incoming import IncomingLedger
from store.settings import Settings, load_settings
from tests.conftest import ROOT
from tests.workers.test_brokers import rabbitmq, valkey
from tests.workers.test_notifications import body, record

QUEUE = "told"
Publish = Callable[[bytes], None]


@contextlib.contextmanager
def consumer(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The process as the stack starts it."""
    settings.data.mkdir(exist_ok=True)
    with (settings.data / "queue.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.incoming_queue"],
            cwd=ROOT,
            env=os.environ | settings.environment(),
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def amqp_publisher(url: str) -> Publish:
    """What MinIO's `amqp` target does: JSON bodies to an exchange, by a routing key."""
    import kombu.connection
    import kombu.entity

    connection: Any = kombu.connection.Connection(url)  # type: ignore[no-untyped-call]
    channel = connection.channel()
    kombu.entity.Queue(QUEUE, durable=True)(channel).queue_declare()  # type: ignore[no-untyped-call]

    def publish(data: bytes) -> None:
        message = channel.prepare_message(data, content_type="application/json", content_encoding="utf-8")
        channel.basic_publish(message, exchange="", routing_key=QUEUE)

    return publish


def redis_publisher(folder: Path) -> Publish:
    """What MinIO's `redis` target does in the format `access`: RPUSH."""
    import redis

    from workers import embedded_broker

    client = redis.Redis(unix_socket_path=str(embedded_broker.socket_path(folder)))

    def publish(data: bytes) -> None:
        client.rpush(QUEUE, data)

    return publish


@pytest.fixture(scope="module", params=["valkey", "rabbitmq"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Publish]]:
    folder = tmp_path_factory.mktemp(request.param)
    with (valkey if request.param == "valkey" else rabbitmq)(folder) as url:
        yield url, redis_publisher(folder) if request.param == "valkey" else amqp_publisher(url)


def until(true: Callable[[], bool], settings: Settings) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, (settings.data / "queue.log").read_text()[-3000:]
        time.sleep(0.1)


def test_what_is_told_is_noted_and_what_is_nonsense_is_dropped(told: tuple[str, Publish], tmp_path: Path) -> None:
    """A consumer that is killed in between, and a database that comes late, lose nothing."""
    url, publish = told
    settings = load_settings(data=tmp_path / "d", objects="s3://bucket", incoming={"queue_url": url, "queue": QUEUE})
    ledger = IncomingLedger(Catalogue(settings.database_url()))
    for data in (b"nonsense", b"", body(record("incoming/x.mp4", bucket="another")), body(record("incoming/0.mp4"))):
        publish(data)
    with consumer(settings) as process:
        until(lambda: ledger.hints_waiting() == 1, settings)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for number in range(1, 40):
        publish(body(record(f"incoming/{number}.mp4")))
    publish(body(record("incoming/39.mp4")))  # told twice
    with consumer(settings):
        until(lambda: ledger.hints_waiting() == 40, settings)
    assert sorted(key for key, _ in ledger.due_hints(100)) == sorted(f"incoming/{number}.mp4" for number in range(40))
    log = (settings.data / "queue.log").read_text()
    assert log.count("notification dropped") == 3
    assert "guest:guest" not in log


def test_a_broker_that_is_away_is_waited_for(tmp_path: Path) -> None:
    from tests.store.servers import free_port
    from workers.incoming_queue import serve

    stop = threading.Event()
    for scheme in ("amqp", "redis"):
        stop.clear()
        settings = load_settings(data=tmp_path, incoming={"queue_url": f"{scheme}://127.0.0.1:{free_port()}"})
        thread = threading.Thread(target=serve, args=(settings, stop))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_the_body_is_json_in_the_form_of_minio() -> None:
    assert json.loads(body(record("a")))["Records"][0]["s3"]["object"]["key"] == "a"
