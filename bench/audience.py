"""What all viewers together cost: `python -m bench.audience [--viewers 100000 --events 1000000 --videos 100000]` writes
results/audience.json.

A real SQLite database holds the events; popularity of videos and activity of viewers follow a power law (Zipf 1.1 and
1.3), and each viewer keeps to three of 200 topics. Vectors as in bench/ranker.py. CPU seconds of following all
events, of making the crowd, of one more event; CPU milliseconds of each source for viewers of 30 views (median of
`ASKED`).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import sqlalchemy as sa
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.ranker import NOW, SEGMENT, TOPICS, VERSION, BenchObjects, publish
from bench.results import write
from ranker.audience import Audience
from ranker.candidates import Request
from ranker.found import QUOTAS
from ranker.profiles import build
from ranker.sources import sources
from ranker.video_table import Snapshot, VideoTable
from store.catalogue import Catalogue, StoredEvent
from store.event_log import EventLog, events

ASKED = 20


def fill(catalogue: Catalogue, snapshot: Snapshot, viewers: int, count: int, stream: np.random.Generator) -> None:
    """`count` views; nine of ten are of one of the viewer's three topics."""
    topic_of = np.array([int(next(iter(row.tags)).split()[1]) for row in snapshot.rows])
    of_topic = [np.flatnonzero(topic_of == topic) for topic in range(TOPICS)]
    tastes = stream.integers(TOPICS, size=(viewers, 3))
    people = np.minimum(stream.zipf(1.3, count), viewers) - 1
    people = np.where(people < 100, stream.integers(viewers, size=count), people)
    ranks = stream.zipf(1.1, count)
    blank = StoredEvent(
        id="", user_id="", video_id="", kind="view", watched_seconds=None, at=0, region="DE", language="de"
    ).model_dump(exclude={"sequence"})
    batch: list[dict[str, Any]] = []
    for number in range(count):
        near = of_topic[tastes[people[number], number % 3]]
        video = near[ranks[number] % len(near)] if number % 10 and len(near) else ranks[number] % len(snapshot)
        batch.append(
            blank
            | {"id": str(number), "user_id": f"viewer {people[number]}", "video_id": snapshot.rows[int(video)].id,
               "watched_seconds": float(number * 7 % 21), "at": NOW - count + number}
        )  # fmt: skip
        if len(batch) == 10_000 or number == count - 1:
            with catalogue.engine.begin() as connection:
                connection.execute(sa.insert(events), batch)
            batch = []


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("viewers", 100_000), ("events", 1_000_000), ("videos", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    said = parser.parse_args()
    stream = np.random.Generator(np.random.PCG64(0))
    document: dict[str, Any] = {"viewers": said.viewers, "events": said.events, "videos": said.videos}
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Catalogue(f"sqlite:///{folder}/catalogue.sqlite3")
        objects = BenchObjects()
        for first in range(0, said.videos, SEGMENT):
            publish(catalogue, objects, first, min(first + SEGMENT, said.videos))
        table = VideoTable(objects, catalogue, VERSION)
        table.refresh()
        snapshot = table.snapshot
        EventLog(catalogue)  # makes the table
        fill(catalogue, snapshot, said.viewers, said.events, stream)
        audience = Audience(catalogue)
        started = time.process_time()
        audience.refresh(snapshot, background=False)
        spent, crowd = time.process_time() - started, audience.crowd
        if crowd is None:
            raise AssertionError("the first refresh makes the crowd")
        document["follow_cpu_seconds"] = round(spent - crowd.cpu_seconds, 2)
        document["crowd_cpu_seconds"] = round(crowd.cpu_seconds, 2)
        document["matrix_cells"] = int(crowd.interactions.matrix.nnz)
        for number in range(100):
            one = StoredEvent(id=f"more {number}", user_id="ann", video_id=snapshot.rows[number].id, kind="view",
                              watched_seconds=20.0, at=NOW)  # fmt: skip
            EventLog(catalogue).add([one])
        started = time.process_time()
        audience.refresh(snapshot)
        document["refresh_of_100_new_events_cpu_ms"] = round(1000 * (time.process_time() - started), 2)
        document["sources_cpu_ms"] = ask(audience, snapshot, stream)
        catalogue.close()
    document["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(document, indent=1))
    print(write("audience", document))


def ask(audience: Audience, snapshot: Snapshot, stream: np.random.Generator) -> dict[str, Any]:
    """CPU milliseconds of each source by its quota: median and largest."""
    # As the API serves (`app.api.main`).
    threadpool_limits(1, user_api="blas")
    spent: dict[str, list[float]] = {name: [] for name in QUOTAS}
    found: dict[str, list[int]] = {name: [] for name in QUOTAS}
    crowd = audience.crowd
    if crowd is None:
        raise AssertionError("the crowd was made before")
    popular = np.flatnonzero(np.diff(crowd.interactions.matrix.tocsc().indptr) > 3)
    for number in range(ASKED):
        watched = stream.choice(popular, min(30, len(popular)), replace=False)
        acts = [
            StoredEvent(id="", user_id="ann", video_id=crowd.names[int(column)], kind="view", watched_seconds=20.0,
                        at=NOW - place)
            for place, column in enumerate(watched)
        ]  # fmt: skip
        # A profile needs the table's snapshot alone.
        profile = build(acts, cast("VideoTable", SimpleNamespace(snapshot=snapshot)))
        unseen = snapshot.alive.copy()
        unseen[[snapshot.row_of[name] for name in profile.seen]] = False
        request = Request(profile, snapshot, NOW, unseen, f"viewer {number}", "DE", "de")
        for source in sources(audience):
            started = time.process_time()
            found[source.name].append(len(source.find(request, QUOTAS[source.name]).rows))
            spent[source.name].append(1000 * (time.process_time() - started))
    return {
        name: {
            "median": round(float(np.median(values)), 2),
            "largest": round(max(values), 2),
            "found": round(float(np.mean(found[name])), 1),
        }
        for name, values in spent.items()
    }


if __name__ == "__main__":
    main()
