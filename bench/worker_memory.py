"""The memory of one worker over a thousand videos: does it stay bounded, and are its children recycled?

    python -m bench.worker_memory [--videos 1000] [--stages light|all]

A real worker with one child works off a thousand small uploads (short cuts of real clips, made distinct by a free box
at their end) from the embedded broker. `light` leaves out the two dearest stages, `transcript` and `screen`, and what
hangs on them: on two cores all of them take most of an hour. The child's resident memory is sampled twice a second; the
slope is that of a line through the samples of each child after its first quarter, when its models are loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import sqlalchemy as sa

from app.operations import ReelSense
from bench import results
from bench.chaos import MEDIA, cut_clips, say
from bench.throughput import variant
from store.catalogue import runs as ledger
from store.settings import load_settings
from workers import embedded_broker, stages
from workers.celery_app import MOST_CHILD_KILOBYTES, MOST_CHILD_TASKS

LIGHT = ("frames", "vision", "appearance", "audio", "speakers")
CUTS = 28
AHEAD = 40
SAMPLE_SECONDS = 0.5
MOST_POINTS = 200
QUIET_SECONDS = 180.0


def main() -> None:
    """Measure and write `bench/results/worker_memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--stages", choices=("light", "all"), default="light")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of real clips")
    arguments = parser.parse_args()
    os.environ["REELSENSE_FRAMES"] = "4"
    chosen = LIGHT if arguments.stages == "light" else tuple(stage.name for stage in stages.STAGES)
    folder = Path(tempfile.mkdtemp(prefix="reelsense-memory-"))
    try:
        cuts = cut_clips(arguments.media, load_settings().cache / "bench" / "chaos-clips", CUTS)
        samples = drive(folder, [cut for cut in cuts if cut.suffix == ".mp4"], arguments.videos, chosen)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    document = summary(samples) | {
        "videos": arguments.videos,
        "stages": list(chosen),
        "recycled_after_stages": MOST_CHILD_TASKS,
        "recycled_above_megabytes": MOST_CHILD_KILOBYTES // 1024,
    }
    print({name: value for name, value in document.items() if name != "curve"})
    print(f"written: {results.write('worker_memory', document)}")


def drive(folder: Path, cuts: list[Path], videos: int, chosen: tuple[str, ...]) -> list[dict[str, Any]]:
    """Feed `videos` uploads to one worker; samples of its child's memory with the videos done by then."""
    data = folder / "data"
    broker = embedded_broker.start(data)
    settings = load_settings(data=data, broker=embedded_broker.broker_url(data))
    queues = ",".join(stages.BY_NAME[name].queue for name in chosen)
    reelsense = ReelSense(settings)
    samples: list[dict[str, Any]] = []
    started = time.monotonic()
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "workers.worker", "--name", "memory", "--queues", queues],
            env=os.environ | settings.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        added, done, shown, moved = 0, 0, 0.0, time.monotonic()
        while done < videos:
            if added < min(videos, done + AHEAD):  # one at a time: taking in takes a moment in which nothing is sampled
                upload = variant(cuts[added % len(cuts)], added, folder)
                if reelsense.add(upload).id is None:
                    raise SystemExit(f"{upload.name} was refused")
                upload.unlink()
                added += 1
            before, done = done, _ended(reelsense, chosen) // len(chosen)
            moved = time.monotonic() if done > before else moved
            if time.monotonic() - moved > QUIET_SECONDS or worker.poll() is not None:
                raise SystemExit("the worker stands still: " + (folder / "worker.log").read_text()[-2000:])
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(worker.pid).children():
                    samples.append(
                        {
                            "seconds": round(time.monotonic() - started, 1),
                            "videos": done,
                            "pid": child.pid,
                            "megabytes": round(child.memory_info().rss / 2**20, 1),
                        }
                    )
            if time.monotonic() - shown > 15 and samples:
                shown = time.monotonic()
                say(f"{done} videos, {samples[-1]['megabytes']:.0f} MB")
            if added >= min(videos, done + AHEAD):
                time.sleep(SAMPLE_SECONDS)
    finally:
        for process in (worker, broker):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return samples


def _ended(reelsense: ReelSense, chosen: tuple[str, ...]) -> int:
    """How many runs of these stages are done. Ends the measurement when one has failed."""
    query = sa.select(ledger.c.state, sa.func.count()).where(ledger.c.stage.in_(chosen)).group_by(ledger.c.state)
    with reelsense.catalogue.engine.begin() as connection:
        counts = {state: int(count) for state, count in connection.execute(query)}
    if counts.keys() & {"failed", "dead"}:
        raise SystemExit(f"a stage failed: {counts}")
    return counts.get("done", 0)


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The highest memory, the slope of each child, and a curve of at most `MOST_POINTS` points."""
    # A child that has ended and was not waited for yet holds nothing.
    samples = [sample for sample in samples if sample["megabytes"] > 0]
    numbers = {pid: number for number, pid in enumerate(dict.fromkeys(sample["pid"] for sample in samples), 1)}
    children = []
    for pid, number in numbers.items():
        own = [sample for sample in samples if sample["pid"] == pid]
        settled = own[len(own) // 4 :]
        done = np.array([sample["videos"] for sample in settled], float)
        memory = np.array([sample["megabytes"] for sample in settled], float)
        several = len(np.unique(done)) > 2
        children.append(
            {
                "child": number,
                "videos": int(done[-1] - own[0]["videos"]),
                "first_megabytes": settled[0]["megabytes"],
                "last_megabytes": settled[-1]["megabytes"],
                "most_megabytes": float(memory.max()),
                "megabytes_per_100_videos": round(float(np.polyfit(done, memory, 1)[0]) * 100, 2) if several else None,
            }
        )
    step = max(1, len(samples) // MOST_POINTS)
    return {
        "most_megabytes": max(sample["megabytes"] for sample in samples),
        "seconds": samples[-1]["seconds"],
        "children": children,
        "curve": [
            [sample["seconds"], sample["videos"], numbers[sample["pid"]], sample["megabytes"]]
            for sample in samples[::step]
        ],
        "curve_columns": ["seconds", "videos done", "child", "megabytes resident"],
    }


if __name__ == "__main__":
    main()
