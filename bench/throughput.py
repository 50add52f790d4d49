"""Videos per hour and seconds in each stage on the demo's clips, beside a naive run of the same encoders.

    python -m bench.throughput [--runs 3] [--videos FOLDER]

*ReelSense*: two workers of the embedded stack, from the first file added to the last one ready. The first batch
(`cold`) pays for loading the models; in the others (`warm`) the clips' bytes are changed by an appended free box, so
that they are new videos and everything is computed again.
*Naive*: one process; for each clip every stage after the other, the same encoders already loaded.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog

from app.clips import fetch
from app.operations import ReelSense
from app.stack import ensure
from bench import results
from store.settings import Settings, load_settings
from workers import extraction, graph, stages


def variant(file: Path, number: int, folder: Path) -> Path:
    """The same clip with other bytes: an MP4 `free` box, which every reader skips, is appended."""
    target = folder / f"{file.stem}-{number}.mp4"
    payload = number.to_bytes(8, "big")
    target.write_bytes(file.read_bytes() + struct.pack(">I4s", 8 + len(payload), b"free") + payload)
    return target


def through_stack(settings: Settings, batches: list[list[Path]]) -> list[dict[str, Any]]:
    """Each batch through one running stack, in turn: wall seconds and the seconds of each stage."""
    rows = []
    with ensure(settings) as live:
        reelsense = ReelSense(live)
        for batch in batches:
            started = time.monotonic()
            added = reelsense.wait([reelsense.add(file) for file in batch], 1800)
            wall = time.monotonic() - started
            failed = [item for item in added if item.error is not None]
            if failed:
                raise SystemExit(f"{failed[0].path}: {failed[0].error}")
            runs = reelsense.catalogue.runs([item.id for item in added if item.id])
            rows.append({"wall_seconds": wall, "stages": stage_seconds(runs)})
    return rows


def stage_seconds(runs: list[Any]) -> dict[str, float]:
    """Seconds spent in each stage, summed over videos."""
    return {stage.name: sum(run.seconds or 0.0 for run in runs if run.stage == stage.name) for stage in stages.STAGES}


def naive(settings: Settings, batches: list[list[Path]]) -> list[dict[str, Any]]:
    """Each batch in this process, video by video and stage by stage, with encoders that stay loaded."""
    rows = []
    reelsense = ReelSense(settings)
    encoders = extraction.Encoders(settings)
    walker = graph.Graph(settings, reelsense.objects, reelsense.catalogue, send=lambda _: None)
    for batch in batches:
        started = time.monotonic()
        ids = []
        for file in batch:
            added = reelsense.add(file)
            if added.id is None:
                raise SystemExit(f"{file}: {added.error}")
            video = reelsense.catalogue.video(added.id)
            for stage in stages.STAGES:
                walker.run(walker.key(video, stage.name), encoders)
            ids.append(added.id)
        wall = time.monotonic() - started
        rows.append({"wall_seconds": wall, "stages": stage_seconds(reelsense.catalogue.runs(ids))})
    return rows


def main() -> None:
    """Measure and write `bench/results/throughput.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="warm runs; the median is reported")
    parser.add_argument("--videos", type=Path, help="a folder of MP4 files instead of the demo's clips")
    arguments = parser.parse_args()
    # A line for each stage of each video would bury the table.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="reelsense-bench-") as name:
        folder = Path(name)
        settings = load_settings(data=folder / "stack")
        clips = sorted(arguments.videos.glob("*.mp4")) if arguments.videos else fetch(settings.cache)
        batches = [[variant(clip, number, folder) for clip in clips] for number in range(arguments.runs + 1)]
        rows = {
            "reelsense": through_stack(settings, batches),
            "naive": naive(load_settings(data=folder / "naive"), batches),
        }
    document: dict[str, Any] = {
        "clips": [clip.name for clip in clips],
        "workers": settings.workers,
        "runs": arguments.runs,
    }
    for who, measured in rows.items():
        warm = [row["wall_seconds"] for row in measured[1:]]
        document[who] = {
            "cold_seconds": round(measured[0]["wall_seconds"], 2),
            "warm_seconds": [round(value, 2) for value in warm],
            "videos_per_hour": round(3600 * len(clips) / statistics.median(warm)),
            "stage_seconds_per_video": {
                stage.name: round(statistics.median(row["stages"][stage.name] for row in measured[1:]) / len(clips), 3)
                for stage in stages.STAGES
            },
        }
    document["ratio"] = round(document["reelsense"]["videos_per_hour"] / document["naive"]["videos_per_hour"], 2)
    path = results.write("throughput", document)
    show(document)
    print(f"written: {path}")


def show(document: dict[str, Any]) -> None:
    """The table for people."""
    print(f"{len(document['clips'])} clips, {document['workers']} workers, medians of {document['runs']} warm runs")
    print(f"{'':12} {'videos/hour':>12}  " + "  ".join(f"{stage.name:>10}" for stage in stages.STAGES))
    for who in ("reelsense", "naive"):
        row = document[who]
        seconds = "  ".join(f"{row['stage_seconds_per_video'][stage.name]:>10.2f}" for stage in stages.STAGES)
        print(f"{who:12} {row['videos_per_hour']:>12}  {seconds}   (stage columns: seconds a video)")
    print(f"ratio {document['ratio']}")


if __name__ == "__main__":
    main()
