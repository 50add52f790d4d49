"""Feeds at size: `python -m bench.ranker [--videos 10000 100000 1000000] [--viewers 100000]`: results/ranker.json.

Everything is real but for the videos: a SQLite database holds publications and events, the vector table is read from
its segments, each feed goes through profile, seven sources, scoring, diversity, rules and reasons, as the API makes it.
Vectors are anisotropic, as real ones are: 200 topics under a spectrum of 1 / k, plus noise of the same spectrum; the
artifacts that reasons read are made from their key. Popularity follows a power law (Zipf 1.1), and nine of ten views of
a viewer are of three topics.

For each size: seconds of loading the table; milliseconds (wall) and CPU milliseconds of a feed of 20 for viewers with
about ten events, p50 and p99; recall of the 100 nearest neighbours against the exact ones; the time from a publication
to the first feed that holds it (feeds are asked for by the measured viewers, those of the nearest taste first, at most
50); from an event to the changed feed; from `not_interested` to a feed without its kind.
Once: events a second, stored in batches of 1,000 and cleaned; and profiles brought up to date a second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.feeds import Feed, Feeds
from bench import results
from ranker.cleaning import take_all
from ranker.events import Event
from ranker.objectives import Ranking
from ranker.profile_cache import ProfileCache
from ranker.video_table import VideoTable
from store.artifacts import to_bytes
from store.catalogue import Catalogue, StoredEvent, publications, videos
from store.event_log import EventLog
from store.event_log import events as event_rows
from store.objects import ObjectInfo
from store.records import Artifact, AttendedToken, Float32, MediaInfo, Metadata, PublishedAttributes
from store.vector_segments import Segment, SegmentRow, VectorSegments

VERSION = "0" * 16
REVISION = "a" * 16
DIM, TOPICS, CREATORS = 256, 200, 5_000
NOW = 1_800_000_000.0
EVENTS_EACH = 10
ASKED, K = 200, 20
SEGMENT = 50_000
DURATION = 20.0
SCALE = (1 / np.sqrt(np.arange(1, DIM + 1))).astype(np.float32)


def video_of(number: int) -> str:
    """The id of the n-th video: its number in front, so that the artifact follows from the key."""
    return f"{number:08x}" + hashlib.sha256(str(number).encode()).hexdigest()[:24]


def topic_of(number: int) -> int:
    """The topic of the n-th video."""
    return number * 7919 % TOPICS


CENTRES = np.random.default_rng(7).standard_normal((TOPICS, DIM)).astype(np.float32) * SCALE


def vectors_of(first: int, last: int) -> Float32:
    """float32 [last - first, DIM], unit: the same for a number whatever the range."""
    found = np.stack([np.random.default_rng(number).standard_normal(DIM, np.float32) for number in range(first, last)])
    found = CENTRES[[topic_of(number) for number in range(first, last)]] + 0.5 * found * SCALE
    unit: Float32 = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def words_of(number: int) -> dict[str, Any]:
    """What is read of the n-th video beside its vector."""
    topic = topic_of(number)
    return {
        "title": f"video {number}",
        "creator": f"creator {number % CREATORS}",
        "region": ("DE", "FR", "JP", "BR")[number % 4],
        "language": ("de", "fr", "ja", "pt")[number % 4],
        "duration": DURATION,
        "tags": {f"topic {topic}": 1.0, f"tag {topic} {number % 25}": 0.5},
        "attention": {"vision": 0.4, "audio": 0.2, "text": 0.4},
    }


class BenchObjects:
    """An object store in memory that makes each published artifact from its key."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        """What was put; or the artifact of the video that the key names."""
        if key in self.kept:
            return self.kept[key]
        number = int(key.rsplit("/", 1)[1][:8], 16)
        [vector] = vectors_of(number, number + 1)
        tokens = [
            AttendedToken(modality="vision", source="frame", start=0, end=10),
            AttendedToken(modality="audio", source="window", start=0, end=20),
            AttendedToken(modality="text", source="title", start=0, end=20),
        ]
        attributes = PublishedAttributes(**words_of(number), tokens=tokens, phrases=[])
        arrays = {
            "vector": vector,
            "weights": np.array([0.4, 0.2, 0.4], np.float32),
            "token_vectors": np.stack([vector] * 3),
            "phrase_embeddings": np.zeros((0, 384), np.float32),
        }
        said = attributes.model_dump(mode="json")
        return to_bytes(Artifact("published", VERSION, video_of(number), REVISION, said, arrays))

    def put(self, key: str, data: bytes) -> None:
        """Keep it."""
        self.kept[key] = data

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """What was put below a prefix."""
        yield from (ObjectInfo(key, len(self.kept[key])) for key in sorted(self.kept) if key.startswith(prefix))

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)


def publish(catalogue: Catalogue, objects: BenchObjects, first: int, last: int, at: float | None = None) -> None:
    """Publish videos, with a segment where `at` is not given."""
    media = MediaInfo(container="mp4", bytes=1, duration=DURATION, width=2, height=2, video_codec="h264")
    said = {"metadata": Metadata().model_dump_json(), "media": media.model_dump_json()}
    times = [NOW - (n * 2_654_435_761 % (90 * 86_400)) if at is None else at for n in range(first, last)]
    with catalogue.engine.begin() as connection:
        connection.execute(
            sa.insert(videos),
            [said | {"id": video_of(n), "revision": REVISION, "file_name": "", "uploaded_at": 0.0}
             for n in range(first, last)],
        )  # fmt: skip
        connection.execute(
            sa.insert(publications),
            [{"video_id": video_of(n), "version": VERSION, "revision": REVISION, "published_at": times[n - first]}
             for n in range(first, last)],
        )  # fmt: skip
    if at is None:
        rows = [
            SegmentRow.model_construct(
                sequence=n + 1, id=video_of(n), revision=REVISION, published_at=times[n - first], **words_of(n)
            )
            for n in range(first, last)
        ]
        VectorSegments(objects, VERSION).write(Segment(rows, vectors_of(first, last)))


def watch(catalogue: Catalogue, viewers: int, count: int) -> None:
    """`EVENTS_EACH` views by each viewer, straight into the log: what cleaning costs is measured by itself."""
    EventLog(catalogue)
    stream = np.random.default_rng(3)
    tastes = stream.integers(TOPICS, size=(viewers, 3))
    inverse = pow(7919, -1, TOPICS)
    blank = StoredEvent(id="", user_id="", video_id="", kind="view", watched_seconds=None, at=0).model_dump(
        exclude={"sequence"}
    )
    batch: list[dict[str, Any]] = []
    for viewer in range(viewers):
        ranks = stream.zipf(1.1, EVENTS_EACH)
        for turn, rank in enumerate(ranks.tolist()):
            number = int(rank % count)
            if turn:
                inside = int(rank % (count // TOPICS))
                number = int(tastes[viewer, turn % 3]) * inverse % TOPICS + TOPICS * inside
            region = ("DE", "FR", "JP", "BR")[viewer % 4]
            batch.append(
                blank | {"id": f"{viewer}-{turn}", "user_id": f"viewer {viewer}", "video_id": video_of(number),
                         "watched_seconds": float((viewer + turn * 7) % 21),
                         "at": NOW - 86_400 * (turn + 1) - viewer % 3600, "region": region}
            )  # fmt: skip
        if len(batch) >= 20_000 or viewer == viewers - 1:
            with catalogue.engine.begin() as connection:
                connection.execute(sa.insert(event_rows), batch)
            batch = []


class Installation:
    """What the API keeps, over one database."""

    def __init__(self, folder: Path, count: int, viewers: int) -> None:
        self.catalogue = Catalogue(f"sqlite:///{folder}/catalogue.sqlite3")
        self.objects = BenchObjects()
        self.count = count
        for first in range(0, count, SEGMENT):
            publish(self.catalogue, self.objects, first, min(first + SEGMENT, count))
        watch(self.catalogue, viewers, count)
        self.held = VideoTable(self.objects, self.catalogue, VERSION)
        self.feeds = Feeds(self.catalogue, ProfileCache(self.catalogue, most=viewers), self.table, Ranking)

    def table(self) -> VideoTable:
        """Up to date, as at every request."""
        self.held.refresh()
        return self.held

    def feed(self, user: str) -> Feed:
        """One feed, now."""
        return self.feeds.make(user, K, NOW)

    def act(self, user: str, video: str, kind: str, watched: float | None = None) -> None:
        """One event, as the API takes it."""
        event = Event.checked(user=user, video=video, kind=kind, watched_seconds=watched, at=NOW, now=NOW)
        take_all(self.catalogue, [event.stored()], NOW)


def unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At length 1; zeros stay."""
    found: npt.NDArray[np.float64] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return found


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values: list[float], name: str) -> dict[str, float]:
    """p50 and p99 of seconds, in milliseconds."""
    return {
        f"p50_{name}": round(1000 * float(np.percentile(values, 50)), 2),
        f"p99_{name}": round(1000 * float(np.percentile(values, 99)), 2),
    }


def measure(count: int, viewers: int) -> dict[str, Any]:
    """One size."""
    with tempfile.TemporaryDirectory() as folder:
        here = Installation(Path(folder), count, viewers)
        loading = seconds(here.table)
        # The index is built beside the requests; the audience is read and the crowd made.
        here.feeds.audience.refresh(here.held.snapshot, background=False)
        here.held._index.wait()
        here.table()
        stream = np.random.default_rng(11)
        asked = [f"viewer {number}" for number in stream.choice(viewers, ASKED + 20, replace=False).tolist()]
        for user in asked[:20]:
            here.feed(user)
        wall, cpu = [], []
        left_out: dict[str, int] = {}
        for user in asked[20:]:
            began, clock = time.process_time(), time.perf_counter()
            feed = here.feed(user)
            wall.append(time.perf_counter() - clock)
            cpu.append(time.process_time() - began)
            for name in feed.left_out:
                left_out[name] = left_out.get(name, 0) + 1
        document = {
            "load_seconds": round(loading, 2),
            **spread(wall, "ms"),
            **spread(cpu, "cpu_ms"),
            "left_out": left_out,
            **recall(here),
            "freshness": freshness(here, asked),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        here.catalogue.close()
        return document


def recall(here: Installation) -> dict[str, float]:
    """Of the 100 nearest of 100 new vectors, how many the index finds; CPU milliseconds a query."""
    snapshot = here.held.snapshot
    queries = vectors_of(2 * 10**7, 2 * 10**7 + 100)
    clock = time.process_time()
    rows = np.concatenate([snapshot.index.search(query[None], 100, snapshot.alive)[0] for query in queries])
    took = 10 * (time.process_time() - clock)
    exact = np.argpartition(-(queries @ snapshot.vectors.T), 100, axis=1)[:, :100]
    found = [len(set(a.tolist()) & set(b.tolist())) / 100 for a, b in zip(rows, exact, strict=True)]
    return {"ann_recall_at_100": round(float(np.mean(found)), 4), "ann_cpu_ms": round(took, 3)}


def freshness(here: Installation, asked: list[str]) -> dict[str, Any]:
    """Clocks in milliseconds, medians of several viewers."""
    new, tried, changed, refused, gone = [], [], [], [], []
    here.feeds.tastes.refresh_seconds = 1e9
    interests = {user: here.feeds.profiles.get(user, here.held).long for user in asked}
    for turn, user in enumerate(asked[:10]):
        before = here.feed(user).items
        number = 10**7 + 7 * turn
        [vector] = vectors_of(number, number + 1)
        nearest = sorted(interests, key=lambda name: -float(vector @ unit(interests[name])))
        clock = time.perf_counter()
        publish(here.catalogue, here.objects, number, number + 1, at=NOW)
        for feeds, other in enumerate(nearest[:50], 1):
            if video_of(number) in {item.video for item in here.feed(other).items}:
                new.append(time.perf_counter() - clock)
                tried.append(feeds)
                break
        places = [item.video for item in here.feed(user).items]
        clock = time.perf_counter()
        here.act(user, before[1].video, "view", DURATION)
        after = here.feed(user).items
        if [item.video for item in after] != places:
            changed.append(time.perf_counter() - clock)
        kind = topic_of(int(after[0].video[:8], 16))
        clock = time.perf_counter()
        here.act(user, after[0].video, "not_interested")
        now = here.feed(user).items
        refused.append(time.perf_counter() - clock)
        had = sum(topic_of(int(item.video[:8], 16)) == kind for item in after)
        has = sum(topic_of(int(item.video[:8], 16)) == kind for item in now)
        gone.append((had, has))
    return {
        "publication_to_feed_ms": round(1000 * float(np.median(new)), 1) if new else None,
        # They share the places of exploration with the new one.
        "published_within_the_hour": int(np.sum(NOW - here.held.snapshot.published_at < 3600)),
        "found_its_viewer": f"{len(new)} of 10",
        "feeds_made_until_then": float(np.median(tried)) if tried else None,
        "event_to_changed_feed_ms": round(1000 * float(np.median(changed)), 1) if changed else None,
        "feed_changed_by_one_event": f"{len(changed)} of 10",
        "not_interested_to_feed_ms": round(1000 * float(np.median(refused)), 1),
        "videos_of_its_topic_before_and_after": [sum(had for had, _ in gone), sum(has for _, has in gone)],
    }


def events_a_second() -> dict[str, float]:
    """Cleaned and stored in batches of 1,000; and profiles brought up to date by one event each."""
    with tempfile.TemporaryDirectory() as folder:
        here = Installation(Path(folder), 10_000, 1_000)
        here.table()
        total = 20_000
        stream = np.random.default_rng(5)
        made = [
            StoredEvent(
                id=f"new {number}", user_id=f"viewer {number % 1000}", video_id=video_of(int(stream.integers(10_000))),
                kind="view", watched_seconds=float(number % 20), at=NOW + 60.0 * (number // 1000),
            )
            for number in range(total)
        ]  # fmt: skip
        started = time.process_time()
        for first in range(0, total, 1_000):
            take_all(here.catalogue, made[first : first + 1_000], NOW + 86_400)
        stored = total / (time.process_time() - started)
        started = time.process_time()
        for viewer in range(1_000):
            here.feeds.profiles.get(f"viewer {viewer}", here.held)
        read = 1_000 / (time.process_time() - started)
        for viewer in range(1_000):
            here.act(f"viewer {viewer}", video_of(viewer), "like")
        started = time.process_time()
        for viewer in range(1_000):
            here.feeds.profiles.get(f"viewer {viewer}", here.held)
        return {
            "stored_per_cpu_second": round(stored),
            "profiles_read_per_cpu_second": round(read),
            "profiles_brought_up_to_date_per_cpu_second": round(1_000 / (time.process_time() - started)),
        }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--viewers", type=int, default=100_000)
    arguments = parser.parse_args()
    # As the API serves (`app.api.main`).
    threadpool_limits(1, user_api="blas")
    behaviour = events_a_second()
    print(json.dumps(behaviour))
    document: dict[str, Any] = {
        "viewers": arguments.viewers,
        "events": arguments.viewers * EVENTS_EACH,
        "k": K,
        "events_per_second": behaviour["stored_per_cpu_second"],
        "behaviour": behaviour,
        "recommend": {},
    }
    for count in arguments.videos:
        document["recommend"][str(count)] = measure(count, arguments.viewers)
        print(count, json.dumps(document["recommend"][str(count)]))
    largest = document["recommend"][str(max(arguments.videos))]
    document["ann_recall_at_100"], document["freshness"] = largest["ann_recall_at_100"], largest["freshness"]
    print("written:", results.write("ranker", document))


if __name__ == "__main__":
    main()
