"""The API under load on loopback: `python -m bench.api_load [--videos 100000] [--viewers 20000]`; api_load.json.

One API process, as `reelsense up` starts it, in front of the catalogue of `bench.ranker`: everything is real but for
the videos (vectors of planted topics, artifacts made from their key). A second process asks, on connections that stay
open, each thread its next request as soon as the answer is there; the two share the machine, so what is asked with
takes from what answers. Each row: `at_once` threads, requests a second, and milliseconds from the request to the last
byte of the answer, p50 and p99. `cpu_ms_each` is what the API's process computed for one, which says most where other
programs ran on the machine as well (`load_1min`).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

import bench.ranker as planted
from bench import results

SECONDS = 15.0
AT_ONCE = (1, 4, 16)
K = 20
START_SECONDS = 900.0


def main() -> None:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--viewers", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="How long each row is measured.")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.serve is not None:
        serve(said.serve, said.port, said.videos, said.viewers)
        return
    document: dict[str, Any] = {"videos": said.videos, "viewers": said.viewers, "k": K, "seconds": said.seconds}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), said.videos, said.viewers) as (port, server):
        document["start_seconds"] = round(wait_until_up(port), 1)
        began = time.monotonic()
        ask(port, [f"/api/v1/viewers/viewer%200/recommend?k={K}"])
        # The table is read and its cells are made.
        document["first_feed_seconds"] = round(time.monotonic() - began, 1)
        recommend = [f"/api/v1/viewers/viewer%20{n}/recommend?k={K}" for n in range(said.viewers)]
        document["recommend"] = [measured(server, port, recommend, at_once, said.seconds) for at_once in AT_ONCE]
        ids = [planted.video_of(number) for number in range(0, said.videos, 7)]
        similar = [f"/api/v1/videos/{video}/similar?k={K}" for video in ids]
        document["similar"] = [measured(server, port, similar, 4, said.seconds)]
        document["list"] = [
            measured(server, port, [f"/api/v1/videos?limit={limit}" for limit in (20, 100)], 4, said.seconds)
        ]
        document["live"] = [measured(server, port, ["/health/live"], 4, said.seconds / 3)]
    print(json.dumps(document, indent=1))
    print(f"written: {results.write('api_load', document)}")


# --- who asks --------------------------------------------------------------------------------------------------------


def measured(server: psutil.Process, port: int, paths: list[str], at_once: int, seconds: float) -> dict[str, Any]:
    """One row: paths are drawn at random, the same for every run."""
    spent: list[float] = []
    bytes_read = 0
    lock = threading.Lock()
    for path in paths[:20]:
        ask(port, [path])
    deadline = time.monotonic() + seconds

    def work(number: int) -> None:
        nonlocal bytes_read
        stream = np.random.default_rng(number)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        mine: list[float] = []
        got = 0
        while time.monotonic() < deadline:
            began = time.perf_counter()
            connection.request("GET", paths[int(stream.integers(len(paths)))])
            answer = connection.getresponse()
            got += len(answer.read())
            mine.append(time.perf_counter() - began)
            if answer.status != 200:
                raise AssertionError(f"{answer.status} came back")
        connection.close()
        with lock:
            spent.extend(mine)
            bytes_read += got

    used = cpu_seconds(server)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(at_once)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    computed = cpu_seconds(server) - used
    p50, p99 = (round(1000 * float(value), 2) for value in np.percentile(spent, (50, 99)))
    return {
        "at_once": at_once,
        "requests": len(spent),
        "per_second": round(len(spent) / took, 1),
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_ms_each": round(1000 * computed / len(spent), 2),
        "bytes_each": round(bytes_read / len(spent)),
    }


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has computed so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def ask(port: int, paths: list[str]) -> int:
    """Ask for each path; the status of the last."""
    status = 0
    for path in paths:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        status = answer.status
        connection.close()
    return status


@contextmanager
def serving(folder: Path, videos: int, viewers: int) -> Iterator[tuple[int, psutil.Process]]:
    """The API as a process of its own: its port, and the process."""
    from tests.store.servers import free_port

    port = free_port()
    command = [sys.executable, "-m", "bench.api_load", "--serve", str(folder), "--port", str(port)]
    process = subprocess.Popen([*command, "--videos", str(videos), "--viewers", str(viewers)])
    try:
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_up(port: int) -> float:
    """Seconds until it answers."""
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS:
        try:
            if ask(port, ["/health/live"]) == 200:
                return time.monotonic() - began
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the API does not answer")


# --- who answers -----------------------------------------------------------------------------------------------------


def serve(folder: Path, port: int, videos: int, viewers: int) -> None:
    """Fill the catalogue, and serve it as `app.api.main` does, with the planted table in place of the published one."""
    os.environ["REELSENSE_DATA"] = str(folder)
    os.environ["REELSENSE_PORT"] = str(port)
    os.environ["REELSENSE_LOG_LEVEL"] = "warning"
    os.environ["REELSENSE_RATES__READS"] = "0"
    import app.api
    from app.operations import ReelSense
    from ranker.video_table import VideoTable

    planted.NOW = time.time()
    objects = planted.BenchObjects()

    class Planted(ReelSense):
        @property
        def table(self) -> VideoTable:
            self.graph.refresh()
            if self._table is None:
                cells = folder / "cells"
                self._table = VideoTable(objects, self.catalogue, planted.VERSION, cells)
            self._table.refresh()
            return self._table

    vars(app.api)["ReelSense"] = Planted
    from store.settings import load_settings

    filled = Planted(load_settings(data=folder))
    for first in range(0, videos, planted.SEGMENT):
        planted.publish(filled.catalogue, objects, first, min(first + planted.SEGMENT, videos))
    planted.watch(filled.catalogue, viewers, videos)
    filled.catalogue.close()
    app.api.main()


if __name__ == "__main__":
    main()
