"""The same delivery over both brokers: the embedded Valkey, and RabbitMQ where one can be started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.catalogue import Catalogue
from store.errors import PassingError, StackError
from store.settings import Settings, load_settings
from tests import clips
from tests.conftest import ROOT
from tests.store.servers import free_port
from workers import embedded_broker, stages
from workers.celery_app import create_app, open_graph, queue_depths
from workers.intake import take_in


@contextlib.contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """A RabbitMQ node of our own, all of it on loopback. Yields its URL."""
    port, distribution, mapper = free_port(), free_port(), free_port()
    (folder / "enabled_plugins").write_text("[].")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users.guest = true\n")
    variables = {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"reelsense{port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    server = next(iter(sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))), None)
    mapper_binary = shutil.which("epmd")
    if server is None or mapper_binary is None:
        pytest.skip("needs RabbitMQ (Debian: apt-get install rabbitmq-server; .ci/run does it)")
    environment = os.environ | variables
    names = subprocess.Popen([mapper_binary], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (folder / "output").open("wb") as output:
        node = subprocess.Popen([str(server)], env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        url = f"amqp://guest:guest@127.0.0.1:{port}//"
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(PassingError):
                queue_depths(create_app(load_settings(data=folder, broker=url)))
                break
            assert node.poll() is None, (folder / "output").read_text()
            assert time.monotonic() < deadline, "RabbitMQ does not answer"
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(30)
        names.terminate()
        names.wait(10)


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """The embedded server on a data directory of its own. Yields its URL."""
    process = embedded_broker.start(folder)
    try:
        yield embedded_broker.broker_url(folder)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module", params=["valkey", "rabbitmq"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp(request.param)
    with (valkey if request.param == "valkey" else rabbitmq)(folder) as url:
        yield load_settings(data=folder / "data", broker=url)


@contextlib.contextmanager
def worker(settings: Settings, name: str) -> Iterator[subprocess.Popen[bytes]]:
    log = settings.data / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.worker", "--name", name],
            cwd=ROOT,
            env=os.environ | settings.environment(),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.stack
def test_messages_wait_for_a_worker_and_are_worked_off(settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings)
    graph = open_graph(app)
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=330.0)
    from store.records import Metadata

    video = take_in(clip, Metadata(title="x"), settings, graph.objects, graph.catalogue).video
    graph.enqueue(graph.ready(video))
    graph.send(graph.key(video, "frames"))  # delivered twice
    depths = queue_depths(app)
    assert (depths["frames"], depths["audio"], depths["transcript"], depths["text"]) == (2, 1, 1, 0)
    with worker(settings, "one"):
        deadline = time.monotonic() + 120
        while graph.states([video])[video.id][0] != "ready":
            assert time.monotonic() < deadline, (settings.data / "one.log").read_text()[-2000:]
            time.sleep(0.2)
    runs = Catalogue(settings.database_url()).runs([video.id])
    assert sorted(run.stage for run in runs) == sorted(stage.name for stage in stages.STAGES)
    assert {run.attempts for run in runs} == {1}
    assert set(queue_depths(app).values()) == {0}


def test_a_broker_that_is_away_is_a_passing_error(tmp_path: Path) -> None:
    for url in (f"redis://127.0.0.1:{free_port()}/0", f"amqp://guest@127.0.0.1:{free_port()}//"):
        app = create_app(load_settings(data=tmp_path, broker=url))
        with pytest.raises(PassingError) as caught:
            queue_depths(app)
        assert caught.value.code == "broker.unavailable"


def test_no_broker_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="No stack runs") as caught:
        create_app(load_settings(data=tmp_path))
    assert "reelsense up" in caught.value.hint


def test_a_long_data_directory_still_has_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 40)
    with valkey(deep):
        assert embedded_broker.answers(embedded_broker.socket_path(deep))
    assert len(str(embedded_broker.socket_path(deep))) <= embedded_broker.LONGEST_SOCKET_PATH


def test_the_embedded_broker_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """kill -9 a second after a write: it is there after the restart; and nobody else may open the socket."""
    import redis

    process = embedded_broker.start(tmp_path)
    socket = embedded_broker.socket_path(tmp_path)
    assert socket.stat().st_mode & 0o077 == 0
    redis.Redis(unix_socket_path=str(socket)).set("kept", "yes")
    time.sleep(1.2)
    process.kill()
    process.wait()
    with valkey(tmp_path):
        assert redis.Redis(unix_socket_path=str(socket)).get("kept") == b"yes"
