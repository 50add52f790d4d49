"""A soak of the HTTP intake on loopback: many clients upload by tus, the API is killed once, and nothing may be lost.

    python -m bench.intake_load [--clients 8] [--seconds 30] [--videos FOLDER]

The real API process on an empty data directory, real clips (an appended `free` box makes each upload a new video), each
sent in two pieces. The limit on bytes under way is set to `BACKLOG` clips, so that clients faster than the intake are
told 429 and come back when they are told to. In the middle the API gets SIGKILL and is started again; clients ask where
they stand and go on. At the end every upload whose last byte was answered with 2xx must be in the catalogue, under the
digest of the very bytes that were sent. No workers run: what is measured is the intake (receiving, probing, storing).
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from app.clips import fetch
from bench import results
from store.artifacts import video_id_of
from store.catalogue import Catalogue
from store.settings import load_settings
from store.upload_ledger import UploadLedger

BACKLOG = 8
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}
UPLOADS = "/api/v1/uploads"
# Far more than the backlog needs, unless the machine is busy with other things.
END_SECONDS = 240.0


class Server:
    """The API process on one port and data directory; it can be killed and started again."""

    def __init__(self, data: Path, variables: dict[str, str]) -> None:
        self.data = data
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        own = {name: value for name, value in os.environ.items() if not name.startswith("REELSENSE_")}
        self.environment = own | variables | {"REELSENSE_DATA": str(data), "REELSENSE_PORT": str(self.port)}
        self.cpu_seconds = self.children_seconds = 0.0
        self.peak_bytes = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.data / "api.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.api"], env=self.environment, stdout=log, stderr=log
            )
        self.seen = psutil.Process(self.process.pid)
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health/live")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit((self.data / "api.log").read_text()) from None
                time.sleep(0.05)

    def look(self) -> None:
        """Note memory, and the CPU time of the process and of the probing children it has waited for."""
        times = self.seen.cpu_times()
        self.now = times.user + times.system
        self.now_children = times.children_user + times.children_system
        self.peak_bytes = max(self.peak_bytes, self.seen.memory_info().rss)

    def stop(self, number: signal.Signals) -> None:
        """End it by this signal."""
        self.look()
        self.cpu_seconds += self.now
        self.children_seconds += self.now_children
        self.process.send_signal(number)
        self.process.wait()


@dataclass
class Tally:
    """What the clients saw. `accepted`: upload address by the video's id; seconds from creation to the last 2xx."""

    accepted: dict[str, str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    upload_seconds: list[float] = field(default_factory=list)
    request_seconds: list[float] = field(default_factory=list)
    broken: int = 0
    resumed: int = 0


class Client(threading.Thread):
    """One uploader: clip after clip until the time is up; it finishes what it has begun."""

    def __init__(self, number: int, server: Server, clips: Sequence[bytes], until: float) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number = number
        self.server = server
        self.clips = clips
        self.until = until
        self.tally = Tally()
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> http.client.HTTPResponse | None:
        """One request; None when the connection broke."""
        began = time.monotonic()
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.tally.broken += 1
            time.sleep(0.2)
            return None
        self.tally.statuses[f"{method} {answer.status}"] += 1
        self.tally.request_seconds.append(time.monotonic() - began)
        return answer

    def run(self) -> None:
        """Upload."""
        turn = 0
        while time.monotonic() < self.until:
            content = variant(self.clips[turn % len(self.clips)], self.number, turn)
            turn += 1
            self.upload(content)

    def upload(self, content: bytes) -> None:
        """One clip, through refusals and broken connections."""
        while True:
            began = time.monotonic()
            answer = self.ask("POST", UPLOADS, TUS | {"Upload-Length": str(len(content))})
            if answer is not None and answer.status == 201:
                break
            if answer is not None and answer.status == 429:
                time.sleep(int(answer.headers["Retry-After"]) * random.uniform(0.8, 1.2))
            elif answer is not None:
                raise SystemExit(f"creation: {answer.status}")
            if time.monotonic() > self.until:
                return
        where = answer.headers["Location"]
        offset = 0
        while offset < len(content):
            piece = content[offset : offset + len(content) // 2 + 1]
            answer = self.ask("PATCH", where, PIECE | {"Upload-Offset": str(offset)}, piece)
            if answer is not None and answer.status == 204:
                offset = int(answer.headers["Upload-Offset"])
                continue
            time.sleep(0.05)
            found = self.ask("HEAD", where, TUS)
            if found is not None and found.status == 200:
                offset = int(found.headers["Upload-Offset"])
                self.tally.resumed += 1
        self.tally.upload_seconds.append(time.monotonic() - began)
        self.tally.accepted[video_id_of(hashlib.sha256(content).hexdigest())] = where


def variant(clip: bytes, client: int, turn: int) -> bytes:
    """The same clip with other bytes: an MP4 `free` box, which every reader skips, is appended."""
    return clip + struct.pack(">I4sQQ", 24, b"free", client, turn)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
        "max_ms": round(1000 * max(values), 1),
    }


def soak(data: Path, clips: Sequence[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """Run the clients against a server that dies once; what they saw and what became of it."""
    limit = BACKLOG * (max(map(len, clips)) + 24)
    server = Server(
        data, {"REELSENSE_INTAKE__USER_BYTES": str(limit), "REELSENSE_INTAKE__RETRY_SECONDS": "1",
               "REELSENSE_INTAKE__USER_WAITING": "1000000", "REELSENSE_INTAKE__WAITING": "1000000"}
    )  # fmt: skip
    began = time.monotonic()
    threads = [Client(number, server, clips, began + seconds) for number in range(clients)]
    for thread in threads:
        thread.start()
    most_on_disk, killed = 0, False
    while any(thread.is_alive() for thread in threads):
        server.look()
        most_on_disk = max(most_on_disk, size_of(data / "uploads"))
        if not killed and time.monotonic() - began > seconds / 2:
            server.stop(signal.SIGKILL)
            killed = True
            server.start()
        time.sleep(0.1)
    sent_seconds = time.monotonic() - began
    ledger = UploadLedger(Catalogue(load_settings(data=data).database_url()))
    deadline = time.monotonic() + END_SECONDS
    while ledger.all("received") and time.monotonic() < deadline:
        time.sleep(0.2)
    all_seconds = time.monotonic() - began
    server.stop(signal.SIGTERM)
    accepted = {video: where for thread in threads for video, where in thread.tally.accepted.items()}
    rows = [ledger.find(where.rpartition("/")[2]) for where in accepted.values()]
    known = {video.id for video in ledger.catalogue.videos()}
    taken = [row.finished_at - row.touched_at for row in rows if row is not None and row.finished_at is not None]
    ledger.catalogue.close()
    tallies = [thread.tally for thread in threads]
    return {
        "clients": clients,
        "clip_bytes": [len(clip) for clip in clips],
        "limit_bytes": limit,
        "kills": int(killed),
        "sent_seconds": round(sent_seconds, 1),
        "accepted": len(accepted),
        "lost": len(set(accepted) - known),
        "refused_videos": sum(row is None or row.state != "taken" for row in rows),
        "uploads_per_second": round(len(accepted) / all_seconds, 2),
        "answers": dict(sorted(sum((tally.statuses for tally in tallies), Counter()).items())),
        "broken_connections": sum(tally.broken for tally in tallies),
        "resumed": sum(tally.resumed for tally in tallies),
        "request": quantiles([value for tally in tallies for value in tally.request_seconds]),
        "upload": quantiles([value for tally in tallies for value in tally.upload_seconds]),
        "accepted_to_catalogue": quantiles(taken),
        "most_bytes_under_way": most_on_disk,
        "api_cpu_seconds": round(server.cpu_seconds, 1),
        "probe_cpu_seconds": round(server.children_seconds, 1),
        "api_peak_memory_mb": round(server.peak_bytes / 2**20),
    }


def size_of(folder: Path) -> int:
    """Bytes in the files below."""
    total = 0
    for path in folder.rglob("upload"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # taken in meanwhile
    return total


def main() -> None:
    """Soak and write `bench/results/intake_load.json`; exit status 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long clients begin new uploads")
    parser.add_argument("--videos", type=Path, help="a folder of MP4 files instead of the demo's clips")
    arguments = parser.parse_args()
    cache = load_settings().cache
    files = sorted(arguments.videos.glob("*.mp4")) if arguments.videos else fetch(cache)
    clips = [file.read_bytes() for file in files if file.suffix == ".mp4"]
    with tempfile.TemporaryDirectory(prefix="reelsense-bench-") as name:
        document = soak(Path(name), clips, arguments.clients, min(arguments.seconds, 45.0))
    path = results.write("intake_load", document)
    for key, value in document.items():
        print(f"{key:24} {value}")
    print(f"written: {path}")
    if document["lost"] or document["refused_videos"] or document["most_bytes_under_way"] > document["limit_bytes"]:
        sys.exit("the intake did not keep its promise")


if __name__ == "__main__":
    main()
