"""Re-embedding, measured: planning over large catalogues, what a new upload feels of it, and how fast it goes.

    python -m bench.reembed --plan [--rows 10000,100000,1000000,10000000]
    python -m bench.reembed --interference [--backlog 10000] [--uploads 5]
    python -m bench.reembed --throughput [--videos 200]

*plan*: `plan_job` over synthetic catalogues (an SQLite file; a row of `videos` for each video, with a few words, and a
run in the ledger for one in ten), in a process of its own: seconds, the peak of its memory, and by how much that grew
while it planned. With a filter, too.

*interference*: the time from `add` to the first moment at which the video stands in the feed's table, for a real clip,
on a running stack: idle, and with a job under way over a backlog of thousands. The backlog's videos are one small clip
under many ids (hard links to its artifacts), so the runs are real and the disk stays small. The two are measured by
turns, and `upload_latency_ratio` is the ratio of the medians; `allowed_seconds` is a quarter more than idle, and the
longest task of the job that ran meanwhile.

*throughput*: videos a second that are fused and published anew from stored tokens, and of a job that reads frames anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog

from app import reembedding as operations
from app.administration import Administrator, this_user
from app.operations import ReelSense
from app.stack import ensure
from bench import results
from store.artifacts import artifact_key, source_key
from store.catalogue import Catalogue, Video
from store.settings import Settings, load_settings
from workers import reembedding
from workers.reembedding import Request
from workers.stages import STAGES

MOST_FILTERED = 10_000_000
WHERE = "uploaded_at > 2026-01-01 and region = 'DE'"


# --- planning --------------------------------------------------------------------------------------------------------


def synthesise(database: Path, rows: int, version: str) -> None:
    """A catalogue of so many rows, written by two statements. Ids are in the order of insertion, which is kind to the
    index and says nothing for planning, which reads in that order in any case."""
    import sqlite3

    Catalogue(f"sqlite:///{database}").close()
    metadata = """
        '{"title":"Video '||n||'","tags":["tag'||(n%97)||'"],"creator":"creator '||(n%5003)||'","region":"'
        ||(CASE n%3 WHEN 0 THEN 'DE' WHEN 1 THEN 'FR' ELSE 'US' END)||'","language":"en"}'"""
    media = """
        '{"container":"mp4","bytes":'||(100000+n%900000)||',"duration":'||(5+n%55)||'.5,"width":720,"height":1280,'
        ||'"video_codec":"h264"}'"""
    numbers = f"WITH RECURSIVE count(n) AS (SELECT 0 UNION ALL SELECT n+1 FROM count WHERE n < {rows - 1})"
    with sqlite3.connect(database) as connection:
        # No journal while it is filled: a log as large as the table would make every later read slow.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-200000")
        connection.execute(
            f"""INSERT INTO videos (id, revision, file_name, metadata, media, uploaded_at) {numbers}
            SELECT printf('%032x', n*16), printf('%016x', n), 'video.mp4', {metadata}, {media},
            1735689600.0 + n * (63072000.0 / {rows})
            FROM count"""
        )
        connection.execute(
            f"""INSERT INTO runs (video_id, stage, version, revision, state, attempts, seconds) {numbers}
            SELECT printf('%032x', n*16), 'vision', '{version}', '', 'done', 1, 0.3 FROM count WHERE n % 10 = 0"""
        )
    connection.close()


def peak_mb() -> float:
    """The most memory this process ever had. Not `ru_maxrss`, which a process inherits from the one that made it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024, 1)


def plan_once(data: Path, where: str) -> dict[str, Any]:
    """Plan in this process, which does nothing else."""
    reelsense = ReelSense(load_settings(data=data))
    reelsense.graph.refresh()
    before = peak_mb()
    started, cpu = time.monotonic(), time.process_time()
    planned = reembedding.plan_job(reelsense.graph, Request(overrides={"frames": 12}, where=where))
    return {
        "seconds": round(time.monotonic() - started, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_mb": peak_mb(),
        "grown_mb": round(peak_mb() - before, 1),
        "videos": planned.document["videos"],
        "shards": len(planned.shards),
    }


def measure_plan(rows: list[int]) -> dict[str, Any]:
    """For each size: seconds and memory of planning all, and of planning what passes a filter."""
    found: dict[str, Any] = {}
    for count in rows:
        with tempfile.TemporaryDirectory(prefix="reelsense-bench-") as name:
            data = Path(name) / "data"
            data.mkdir()
            reelsense = ReelSense(load_settings(data=data))
            served = reelsense.graph.versions["vision"]
            reelsense.catalogue.close()
            started = time.monotonic()
            synthesise(data / "catalogue.sqlite3", count, served)
            made = time.monotonic() - started
            row = _in_a_process(data, "")
            filtered = _in_a_process(data, WHERE) if count <= MOST_FILTERED else None
            found[str(count)] = row | {
                "filtered": filtered,
                "catalogue_mb": round((data / "catalogue.sqlite3").stat().st_size / 2**20),
                "rows_made_in_seconds": round(made, 1),
            }
        print(f"{count:>9} rows: {found[str(count)]}", flush=True)
    return found


def _in_a_process(data: Path, where: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.reembed", "--plan-once", str(data), "--where", where]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- on a running stack ----------------------------------------------------------------------------------------------


def multiply(reelsense: ReelSense, video: Video, count: int) -> None:
    """Put so many more videos into the catalogue, which are `video` under other ids: hard links to its source and its
    artifacts, and rows that say that they are done and published."""
    import sqlalchemy as sa

    from store.catalogue import publications, runs, videos

    root = reelsense.settings.objects_directory()
    now = time.time()
    rows: dict[sa.Table, list[dict[str, Any]]] = {videos: [], runs: [], publications: []}
    keys = {stage.name: reelsense.graph.key(video, stage.name) for stage in STAGES}
    for number in range(count):
        other = f"{0x1000000 + number:08x}".rjust(32, "0")
        target = root / source_key(other)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(root / source_key(video.id), target)
        for name, key in keys.items():
            os.link(
                root / artifact_key(name, key.version, video.id, key.revision),
                root / artifact_key(name, key.version, other, key.revision),
            )
            rows[runs].append(
                {"video_id": other, "stage": name, "version": key.version, "revision": key.revision, "state": "done",
                 "attempts": 1}
            )  # fmt: skip
        rows[videos].append(
            {"id": other, "revision": video.revision, "file_name": "copy.mp4", "uploaded_at": now - 86400,
             "metadata": video.metadata.model_dump_json(), "media": video.media.model_dump_json()}
        )  # fmt: skip
        rows[publications].append(
            {"video_id": other, "version": keys["published"].version, "revision": video.revision, "published_at": now}
        )
    with reelsense.catalogue.engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(sa.insert(table), values)


def upload_seconds(reelsense: ReelSense, clip: Path) -> float:
    """From `add` to the moment at which the feed's table has the video."""
    table = reelsense.table
    started = time.monotonic()
    added = reelsense.add(clip)
    if added.id is None:
        raise SystemExit(f"{clip}: {added.error}")
    while added.id not in table:
        time.sleep(0.05)
        table.refresh()
    return time.monotonic() - started


def variant(file: Path, number: int, folder: Path) -> Path:
    """The same clip as another video: an appended box, which every reader skips."""
    from bench.throughput import variant as other

    return other(file, number, folder)


def job_runs(reelsense: ReelSense, versions: dict[str, str], since: float) -> list[Any]:
    """Runs of a job that ended after a time."""
    import sqlalchemy as sa

    from store.catalogue import runs

    query = sa.select(runs.c.stage, runs.c.seconds, runs.c.finished_at).where(
        runs.c.version.in_(sorted(versions.values())), runs.c.finished_at > since, runs.c.seconds.is_not(None)
    )
    with reelsense.catalogue.engine.begin() as connection:
        return list(connection.execute(query))


def measure_interference(settings: Settings, clip: Path, small: Path, backlog: int, uploads: int) -> dict[str, Any]:
    """By turns an upload with the job paused and one with it under way."""
    with ensure(settings) as live, tempfile.TemporaryDirectory(prefix="reelsense-bench-") as name:
        reelsense = ReelSense(live)
        (first,) = reelsense.wait([reelsense.add(small)], 600)
        multiply(reelsense, reelsense.catalogue.video(first.id or ""), backlog)
        upload_seconds(reelsense, variant(clip, 10_000, Path(name)))  # loads the models
        started = operations.start(
            Administrator(reelsense, this_user()), Request(overrides={"frames": 12}), dry_run=False
        )
        job = started["job"]
        reelsense.graph.refresh()
        own = next(plan for plan in reelsense.graph.plans if plan.job == job).versions
        changed = {name: own[name] for name in started["stages"]}
        _wait_running(reelsense, job)
        measured: dict[str, list[float]] = {"idle": [], "busy": []}
        begun = time.time()
        for number in range(uploads):
            operations.changed(Administrator(reelsense, this_user()), job, "pause")
            time.sleep(3)
            measured["idle"].append(upload_seconds(reelsense, variant(clip, 2 * number, Path(name))))
            operations.changed(Administrator(reelsense, this_user()), job, "resume")
            _wait_running(reelsense, job)
            before = len(job_runs(reelsense, changed, begun))
            while len(job_runs(reelsense, changed, begun)) <= before:
                time.sleep(0.1)
            measured["busy"].append(upload_seconds(reelsense, variant(clip, 2 * number + 1, Path(name))))
            print(f"upload {number}: idle {measured['idle'][-1]:.2f} s, busy {measured['busy'][-1]:.2f} s", flush=True)
        seconds = [row.seconds for row in job_runs(reelsense, changed, begun)]
        shown = operations.shown(reelsense, job)
        operations.changed(Administrator(reelsense, this_user()), job, "cancel")
    idle, busy = statistics.median(measured["idle"]), statistics.median(measured["busy"])
    longest = max(seconds, default=0.0)
    return {
        "upload_latency_ratio": round(busy / idle, 3),
        "idle_seconds": [round(value, 2) for value in measured["idle"]],
        "busy_seconds": [round(value, 2) for value in measured["busy"]],
        "task_seconds": {"median": round(statistics.median(seconds), 3), "longest": round(longest, 3)},
        "allowed_seconds": round(1.25 * idle + longest, 2),
        "within": busy <= 1.25 * idle + longest,
        "backlog": backlog,
        "job_runs_meanwhile": len(seconds),
        "job_done_meanwhile": shown["done"],
        "workers": settings.workers,
    }


def _wait_running(reelsense: ReelSense, job: str) -> None:
    while reelsense.graph.jobs.job(job).state != "running":
        if reelsense.graph.jobs.job(job).state == "failed":
            raise SystemExit(f"the job failed: {reelsense.graph.jobs.job(job).reason}")
        time.sleep(0.2)


def measure_throughput(settings: Settings, small: Path, videos: int) -> dict[str, Any]:
    """Videos a second of a job over `videos` copies of a clip: fused anew, and read anew."""
    found: dict[str, Any] = {"videos": videos, "workers": settings.workers}
    with ensure(settings) as live:
        reelsense = ReelSense(live)
        (first,) = reelsense.wait([reelsense.add(small)], 600)
        multiply(reelsense, reelsense.catalogue.video(first.id or ""), videos)
        seconds = _refuse(reelsense, videos)
        found["re_fusing"] = {"seconds": round(seconds, 1), "videos_per_second": round(videos / seconds, 2)}
        print("re_fusing", found["re_fusing"], flush=True)
        job = operations.start(Administrator(reelsense, this_user()), Request(overrides={"frames": 12}), dry_run=False)[
            "job"
        ]
        started = time.monotonic()
        while (state := reelsense.graph.jobs.job(job).state) in ("planned", "canary", "running"):
            time.sleep(0.5)
        if state != "complete":
            raise SystemExit(f"the job is {state}: {reelsense.graph.jobs.job(job).reason}")
        seconds = time.monotonic() - started
        found["re_encoding"] = {"seconds": round(seconds, 1), "videos_per_second": round(videos / seconds, 2)}
        print("re_encoding", found["re_encoding"], flush=True)
        operations.changed(Administrator(reelsense, this_user()), job, "cancel")
    return found


def _refuse(reelsense: ReelSense, videos: int) -> float:
    """Seconds in which workers fuse and publish `videos` videos whose vectors were taken away."""
    for video in reelsense.catalogue.videos()[:videos]:
        for name in ("fused", "published"):
            reelsense.graph.discard(reelsense.graph.key(video, name))
    started = time.monotonic()
    sent = reelsense.reconcile()["sent"]
    prefix = f"artifacts/published/{reelsense.graph.versions['published']}/"
    while sum(1 for _ in reelsense.objects.list(prefix)) < len(sent):
        time.sleep(0.2)
    return time.monotonic() - started


def main() -> None:
    """Measure what is asked for and write it into `bench/results/reembed.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--rows", default="10000,100000,1000000,10000000")
    parser.add_argument("--interference", action="store_true")
    parser.add_argument("--backlog", type=int, default=10_000)
    parser.add_argument("--uploads", type=int, default=5)
    parser.add_argument("--throughput", action="store_true")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--clip", type=Path, help="the clip that is uploaded; default: one of the demo's")
    parser.add_argument("--plan-once", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--where", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if arguments.plan_once:
        print(json.dumps(plan_once(arguments.plan_once, arguments.where)))
        return
    path = results.RESULTS / "reembed.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    document.pop("machine", None)
    if arguments.plan:
        document["plan"] = document.get("plan", {}) | measure_plan([int(count) for count in arguments.rows.split(",")])
    with tempfile.TemporaryDirectory(prefix="reelsense-bench-") as name:
        folder = Path(name)
        if arguments.interference or arguments.throughput:
            from app.clips import fetch

            settings = load_settings(data=folder / "data", sweep_seconds=60.0)
            clip = arguments.clip or sorted(fetch(settings.cache))[0]
            small = _small_clip(folder)
        if arguments.interference:
            measured = measure_interference(settings, clip, small, arguments.backlog, arguments.uploads)
            document |= {"upload_latency_ratio": measured.pop("upload_latency_ratio"), "interference": measured}
        if arguments.throughput:
            other = load_settings(data=folder / "throughput", sweep_seconds=60.0)
            document["throughput"] = measure_throughput(other, small, arguments.videos)
    print(f"written: {results.write('reembed', document)}")


def _small_clip(folder: Path) -> Path:
    """A second of a moving test picture, without sound."""
    import imageio_ffmpeg

    target = folder / "small.mp4"
    source = "testsrc=size=160x120:rate=5:duration=1"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", source]
    subprocess.run([*command, "-c:v", "libx264", "-pix_fmt", "yuv420p", str(target)], check=True)
    return target


if __name__ == "__main__":
    main()
