"""What a feed costs once recall has chosen: `python -m bench.feed_speed [--videos 10000]`.

A viewer with 200 events and a refusal, 2,000 candidates from three sources (with a path each), a feed of 50 with all
reasons. The catalogue is that of `bench.ranker_speed`. Writes CPU and wall milliseconds (median of 20) for each method
of diversity, without the refusal, and for every video of the table as a candidate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import results
from bench.ranker_speed import NOW, VERSION, GeneratedObjects, announce, history, median_ms, video_of
from ranker.events import Event
from ranker.objectives import Ranking
from ranker.profiles import build
from ranker.recommend import recommend
from ranker.scoring import Situation
from ranker.video_table import VideoTable
from store.catalogue import Catalogue

CANDIDATES = 2000
K = 50


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


def measure(videos: int, folder: Path) -> dict[str, object]:
    """All figures at one size."""
    catalogue = Catalogue(f"sqlite:///{folder / 'catalogue.sqlite3'}")
    announce(catalogue, range(videos))
    table = VideoTable(GeneratedObjects(), catalogue, VERSION)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000)
    with tempfile.TemporaryDirectory() as folder:
        row = measure(parser.parse_args().videos, Path(folder))
    print(json.dumps(row))
    print(f"written: {results.write('feed_speed', row)}")


if __name__ == "__main__":
    main()
