"""What a feed costs once recall has chosen: `python -m bench.feed_speed [--videos 10000]`.

A viewer with 200 events and a refusal, 2,000 candidates from three sources (with a path each), a feed of 50 with all
reasons. The catalogue is that of `bench.ranker`. Writes CPU and wall milliseconds (median of 20) for each method
of diversity, without the refusal, and for every video of the table as a candidate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench import results
from bench.ranker import NOW, TOPICS, VERSION, BenchObjects, publish, video_of
from ranker.events import Event
from ranker.objectives import Ranking
from ranker.profiles import build
from ranker.recommend import recommend
from ranker.scoring import Situation
from ranker.video_table import VideoTable
from store.catalogue import Catalogue

CANDIDATES = 2000
K = 50
REPEATS = 20


@dataclass(frozen=True)
class Listed:
    """What a source found."""

    source: str
    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    paths: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Gathered:
    """What all sources found."""

    candidates: tuple[Listed, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def gathered_of(table: VideoTable) -> Gathered:
    """2,000 rows, found by three sources that overlap."""
    generator = np.random.default_rng(5)
    rows = generator.permutation(len(table))[:CANDIDATES]
    listed = []
    for place, name in enumerate(("interest", "co_watch", "graph")):
        mine = rows[place * 600 : place * 600 + 800]
        paths = {int(row): ("you", "a video", "a creator") for row in mine}
        listed.append(Listed(name, mine, generator.random(len(mine)), paths))
    return Gathered(tuple(listed))


def history(count: int, videos: int) -> list[Event]:
    """A viewer of three topics who skips a fourth, over thirty days."""
    generator = np.random.default_rng(3)
    events = []
    for place in range(count):
        topic = int(generator.integers(4))
        number = int(generator.integers(videos // TOPICS)) * TOPICS + pow(7919, -1, TOPICS) * topic % TOPICS
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


def measure(videos: int, folder: Path) -> dict[str, object]:
    """All figures at one size."""
    catalogue = Catalogue(f"sqlite:///{folder / 'catalogue.sqlite3'}")
    objects = BenchObjects()
    publish(catalogue, objects, 0, videos)
    table = VideoTable(objects, catalogue, VERSION)
    table.refresh()
    events = history(200, videos)
    refusal = Event.checked(user="ana", video=video_of(3), kind="not_interested", at=NOW - 60, now=NOW)
    plain, refusing = build(events, table), build([*events, refusal], table)
    gathered, where = gathered_of(table), Situation("DE", "de")

    def feed(profile: object, method: str, found: Gathered | None) -> dict[str, float]:
        ranking = Ranking.model_validate({"diversity": {"method": method}})
        return median_ms(
            lambda: recommend(profile, table, K, NOW, ranking, situation=where, gathered=found)  # type: ignore[arg-type]
        )

    return {
        "videos": len(table),
        "candidates": len(np.unique(np.concatenate([item.rows for item in gathered.candidates]))),
        "k": K,
        "mmr": feed(refusing, "mmr", gathered),
        "dpp": feed(refusing, "dpp", gathered),
        "without_a_refusal": feed(plain, "mmr", gathered),
        "all_rows": feed(refusing, "mmr", None),
    }


def main() -> None:
    """Measure and write `bench/results/feed_speed.json`."""
    # As the API serves (`app.api.main`).
    threadpool_limits(1, user_api="blas")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000)
    with tempfile.TemporaryDirectory() as folder:
        row = measure(parser.parse_args().videos, Path(folder))
    print(json.dumps(row))
    print(f"written: {results.write('feed_speed', row)}")


if __name__ == "__main__":
    main()
