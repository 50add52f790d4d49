"""How soon a feed knows: `python -m bench.clock [--uploads 5]` adds to `freshness` in results/ranker.json.

The real stack, real clips (those of the demo, and copies with other bytes), real models. By turns: the time from `add`
to the first feed of a viewer that holds the new video, and how much of that passed after its publication; from an event
to the feed that it changed; from `not_interested` to a feed without that video.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog

from app.clips import fetch
from app.operations import ReelSense
from app.stack import ensure
from bench import results
from bench.throughput import variant
from store.settings import Settings, load_settings

LONGEST_SECONDS = 120.0


def feed(reelsense: ReelSense, user: str) -> list[str]:
    """The ids of a viewer's feed of 20."""
    return [item["video"] for item in reelsense.recommend(user, 20)["items"]]


def upload_to_feed(reelsense: ReelSense, clip: Path, user: str) -> tuple[float, float]:
    """(seconds from `add` to the first feed that holds the video, seconds of that after its publication)."""
    started = time.time()
    added = reelsense.add(clip)
    if added.id is None:
        raise SystemExit(f"{clip}: {added.error}")
    while added.id not in feed(reelsense, user):
        if time.time() - started > LONGEST_SECONDS:
            raise SystemExit(f"{clip} is in no feed after {LONGEST_SECONDS} s")
        time.sleep(0.02)
    seen = time.time()
    row = reelsense.table.snapshot.row(added.id)
    if row is None:
        raise SystemExit("a feed shows what is not published")
    return seen - started, seen - row.published_at


def measure(settings: Settings, uploads: int) -> dict[str, Any]:
    """All clocks, medians in seconds."""
    with ensure(settings) as live, tempfile.TemporaryDirectory(prefix="reelsense-bench-") as name:
        reelsense = ReelSense(live)
        clips = sorted(fetch(settings.cache))
        added = reelsense.wait([reelsense.add(clip) for clip in clips], 600)
        ids = [item.id or "" for item in added if item.state == "ready"]
        reelsense.event("ana", ids[0], "like", None)
        took = []
        for number in range(uploads):
            clip = clips[number % len(clips)]
            took.append(upload_to_feed(reelsense, variant(clip, number, Path(name)), "ana"))
            print(f"{clip.name}: {took[-1][0]:.2f} s, {took[-1][1]:.3f} s after its publication", flush=True)
        acted, refused = [], []
        for number in range(uploads):
            viewer = f"viewer {number}"
            reelsense.event(viewer, ids[0], "like", None)
            before = feed(reelsense, viewer)
            started = time.perf_counter()
            reelsense.event(viewer, before[-1], "share", None)
            after = feed(reelsense, viewer)
            acted.append(time.perf_counter() - started)
            if after == before:
                raise SystemExit("an event changed nothing")
            started = time.perf_counter()
            reelsense.event(viewer, after[0], "not_interested", None)
            now = feed(reelsense, viewer)
            refused.append(time.perf_counter() - started)
            if after[0] in now:
                raise SystemExit("what was refused is shown")
    return {
        "upload_to_feed_seconds": round(statistics.median(one for one, _ in took), 2),
        "published_to_feed_seconds": round(statistics.median(one for _, one in took), 3),
        "published_to_feed_seconds_longest": round(max(one for _, one in took), 3),
        "event_to_feed_seconds": round(statistics.median(acted), 3),
        "not_interested_to_feed_seconds": round(statistics.median(refused), 3),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=5)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    path = results.RESULTS / "ranker.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    document.pop("machine", None)
    with tempfile.TemporaryDirectory(prefix="reelsense-bench-") as name:
        measured = measure(load_settings(data=Path(name) / "data", sweep_seconds=60.0), arguments.uploads)
    document["freshness"] = document.get("freshness", {}) | measured
    print(json.dumps(measured))
    print("written:", results.write("ranker", document))


if __name__ == "__main__":
    main()
