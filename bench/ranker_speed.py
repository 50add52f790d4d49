"""How long a feed takes: `python -m bench.ranker_speed [--videos 10000 100000]`.

The catalogue is a real SQLite database; the artifacts are made on demand from their key, so that no disk is measured.
Vectors are anisotropic, as real ones are: 200 topics under a spectrum of 1 / k, plus noise of the same spectrum.
Writes for each size: seconds of the first load, of a refresh that finds nothing, of one that finds a new
video, and milliseconds (wall and CPU, median of 20) of a feed of 20 for a new viewer and one with 100 events.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import sqlalchemy as sa

from bench import results
from ranker.events import Event
from ranker.recommend import recommend
from ranker.video_table import VideoTable
from store.artifacts import artifact_key, to_bytes
from store.catalogue import Catalogue, publications
from store.objects import ObjectInfo
from store.records import Artifact, AttendedToken, Float32, PublishedAttributes

VERSION = "0" * 16
DIM = 256
TOPICS = 200
NOW = 1_800_000_000.0
REPEATS = 20


def spectrum(generator: np.random.Generator) -> Float32:
    """One direction whose k-th coordinate has the variance 1 / k."""
    vector = generator.standard_normal(DIM) / np.sqrt(np.arange(1, DIM + 1))
    return vector.astype(np.float32)


def video_of(number: int) -> str:
    """The id of the n-th video: its number in front, so that the artifact follows from the key."""
    return f"{number:08x}" + hashlib.sha256(str(number).encode()).hexdigest()[:24]


class GeneratedObjects:
    """An object store that makes each published artifact from its key. Read only."""

    def get(self, key: str) -> bytes:
        """The artifact of the video that the key names."""
        leaf = key.rsplit("/", 1)[1]
        number = int(leaf[:8], 16)
        generator = np.random.default_rng(number)
        topic = number % TOPICS
        vectors = np.stack([spectrum(np.random.default_rng([7, topic])) + 0.5 * spectrum(generator) for _ in range(3)])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        weights = np.array([0.4, 0.2, 0.4], np.float32)
        pooled = weights @ vectors
        attributes = PublishedAttributes(
            title=f"video {number}",
            creator=f"creator {number % 1000}",
            region="",
            language=None,
            duration=20.0,
            tags={f"topic {topic}": 1.0, f"tag {number % 5000}": 0.5, f"rare {number // 10}": 0.5},
            attention={"vision": 0.4, "audio": 0.2, "text": 0.4},
            tokens=[
                AttendedToken(modality="vision", source="frame", start=0, end=10),
                AttendedToken(modality="audio", source="window", start=0, end=20),
                AttendedToken(modality="text", source="title", start=0, end=20),
            ],
            phrases=[],
        )
        arrays = {
            "vector": (pooled / np.linalg.norm(pooled)).astype(np.float32),
            "weights": weights,
            "token_vectors": vectors.astype(np.float32),
            "phrase_embeddings": np.zeros((0, 384), np.float32),
        }
        return to_bytes(Artifact("published", VERSION, leaf[:32], "", attributes.model_dump(mode="json"), arrays))

    def put(self, key: str, data: bytes) -> None:
        """Not here."""
        raise NotImplementedError

    def put_file(self, key: str, path: Path) -> None:
        """Not here."""
        raise NotImplementedError

    def open(self, key: str) -> BinaryIO:
        """Not here."""
        raise NotImplementedError

    def download(self, key: str, path: Path) -> None:
        """Not here."""
        raise NotImplementedError

    def size(self, key: str) -> int | None:
        """Not here."""
        raise NotImplementedError

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Not here."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Not here."""
        raise NotImplementedError


def announce(catalogue: Catalogue, numbers: range) -> None:
    """Enter the publications of these videos, spread over the last hundred days."""
    rows = [
        {"video_id": video_of(number), "version": VERSION, "revision": "", "published_at": NOW - number % 100 * 86_400}
        for number in numbers
    ]
    with catalogue.engine.begin() as connection:
        connection.execute(sa.insert(publications), rows)


def history(count: int, videos: int) -> list[Event]:
    """A viewer of three topics who skips a fourth, over thirty days."""
    generator = np.random.default_rng(3)
    events = []
    for place in range(count):
        topic = int(generator.integers(4))
        number = int(generator.integers(videos // TOPICS)) * TOPICS + topic
        watched = 1.0 if topic == 3 else 20.0
        at = NOW - 30 * 86_400 * (1 - place / count)
        events.append(
            Event.checked(user="ana", video=video_of(number), kind="view", watched_seconds=watched, at=at, now=NOW)
        )
    return events


def median_ms(act: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU milliseconds, medians of `REPEATS` after one warm-up."""
    act()
    wall, cpu = [], []
    for _ in range(REPEATS):
        started, used = time.perf_counter(), time.process_time()
        act()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {"wall_ms": round(1000 * float(np.median(wall)), 2), "cpu_ms": round(1000 * float(np.median(cpu)), 2)}


def seconds(act: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    act()
    return round(time.perf_counter() - started, 4)


def measure(videos: int, folder: Path) -> dict[str, object]:
    """All figures at one size."""
    catalogue = Catalogue(f"sqlite:///{folder / 'catalogue.sqlite3'}")
    announce(catalogue, range(videos))
    table = VideoTable(GeneratedObjects(), catalogue, VERSION)
    loaded = seconds(table.refresh)
    idle = seconds(table.refresh)
    announce(catalogue, range(videos, videos + 1))
    one_more = seconds(table.refresh)
    if artifact_key("published", VERSION, table.ids[-1], "").endswith(video_of(videos)) is False:
        raise AssertionError("the new video did not appear")
    events = history(100, videos)
    return {
        "videos": len(table),
        "load_seconds": loaded,
        "idle_refresh_seconds": idle,
        "refresh_of_one_seconds": one_more,
        "new_viewer": median_ms(lambda: recommend([], table, 20, NOW)),
        "viewer_of_100_events": median_ms(lambda: recommend(events, table, 20, NOW)),
    }


def main() -> None:
    """Measure each size and write `bench/results/ranker_speed.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000])
    rows = []
    for videos in parser.parse_args().videos:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(videos, Path(folder)))
            print(json.dumps(rows[-1]))
    print(f"written: {results.write('ranker_speed', {'sizes': rows})}")


if __name__ == "__main__":
    main()
