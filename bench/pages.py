"""What the pages cost at a large catalogue: `python -m bench.pages [--videos 10000]`.

A catalogue of that many published videos (rows and vectors alone: no media, so pictures weigh nothing here), 50 of them
failed. For each page: CPU milliseconds of the server's answer (median of 7 after one warm-up, in one process, without a
socket; CPU, for others may use the machine), the bytes of its HTML, and those of the style sheets and scripts it loads,
which browsers keep. For the map: the CPU seconds to draw it, once for so many new videos, beside the requests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from starlette.testclient import TestClient
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.api import create_api
from app.catalogue_map import drawn
from app.operations import ReelSense
from bench import results
from store.catalogue import publications, runs, videos
from store.records import MediaInfo, Metadata
from store.settings import load_settings
from store.vector_segments import Segment, SegmentRow, VectorSegments
from workers.stages import BY_NAME, STAGES

REPEATS = 7
TOPICS = 40
WIDTH = 256
FAILED = 50
SEGMENT = 5_000
BATCH = 2_000
BEGAN = 1_780_000_000.0


def fill(reelsense: ReelSense, count: int) -> list[str]:
    """So many videos that are ready, but for the first `FAILED`; their ids."""
    versions = reelsense.graph.versions
    numbers = np.random.default_rng(1)
    middles = numbers.normal(size=(TOPICS, WIDTH))
    media = MediaInfo(container="mp4", bytes=1, duration=20.0, width=2, height=2, video_codec="h264").model_dump_json()
    ids = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(count)]
    revision = "a" * 16
    for first in range(0, count, BATCH):
        part = range(first, min(first + BATCH, count))
        rows = [
            {
                "id": ids[n], "revision": revision, "file_name": f"{n}.mp4", "media": media, "uploaded_at": BEGAN + n,
                "metadata": Metadata(title=f"Video {n}", tags=(f"tag {n % 97}",)).model_dump_json(),
            }
            for n in part
        ]  # fmt: skip
        done = [
            {
                "video_id": ids[n], "stage": stage.name, "version": versions[stage.name],
                "revision": revision if BY_NAME[stage.name].reads_words else "", "attempts": 1, "seconds": 1.0,
                "state": "failed" if n < FAILED and stage.name == "audio" else "done",
            }
            for n in part
            for stage in STAGES
        ]  # fmt: skip
        out = [
            {"video_id": ids[n], "version": versions["published"], "revision": revision, "published_at": BEGAN + n}
            for n in part
        ]
        with reelsense.catalogue.engine.begin() as connection:
            connection.execute(sa.insert(videos), rows)
            connection.execute(sa.insert(runs), done)
            connection.execute(sa.insert(publications), out)
    segments = VectorSegments(reelsense.objects, versions["published"])
    for first in range(0, count, SEGMENT):
        part = range(first, min(first + SEGMENT, count))
        topic = np.array([n % TOPICS for n in part])
        vectors = (middles[topic] + numbers.normal(size=(len(part), WIDTH))).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        segments.write(
            Segment(
                [
                    SegmentRow(
                        sequence=n + 1, id=ids[n], revision=revision, title=f"Video {n}", creator="", region="",
                        language="en", duration=20.0, tags={f"topic {n % TOPICS}": 1.0, f"tag {n % 97}": 0.5},
                        attention={"vision": 0.5, "audio": 0.3, "text": 0.2}, published_at=BEGAN + n,
                    )
                    for n in part
                ],
                vectors,
            )
        )  # fmt: skip
    return ids


def asked(client: TestClient, path: str) -> dict[str, Any]:
    """What one page costs."""
    answer = client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"
    loaded = set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', answer.text))
    cpu = []
    for _ in range(REPEATS):
        used = time.process_time()
        client.get(path)
        cpu.append(time.process_time() - used)
    return {
        "cpu_ms": round(1000 * float(np.median(cpu)), 1),
        "bytes": len(answer.content),
        "asset_bytes": sum(len(client.get(address).content) for address in loaded),
    }


def measure(count: int, folder: Path) -> dict[str, Any]:
    """All figures at one size."""
    reelsense = ReelSense(load_settings(data=folder))
    ids = fill(reelsense, count)
    snapshot = reelsense.table.snapshot
    used = time.process_time()
    found = drawn(reelsense, snapshot)
    map_cost = {"drawn": len(found.ids), "cpu_seconds": round(time.process_time() - used, 2)}
    pages: dict[str, Any] = {}
    with TestClient(create_api(reelsense.settings), base_url="http://127.0.0.1") as client:
        while client.get("/map/points").status_code == 202:
            time.sleep(0.5)
        cursor = re.findall(r'href="(/library\?cursor=[^"]+)"', client.get("/library").text)[0]
        paths = {
            "library": "/library",
            "library, its second page": cursor.replace("&amp;", "&"),
            "library, failed": "/library?state=failed",
            "library, a tag": "/library?tag=topic+7",
            "library, a filter": "/library?where=tags+has+%27tag+7%27",
            "upload": "/upload",
            "map": "/map",
            "map, its points": "/map/points",
        }
        for name, path in paths.items():
            pages[name] = asked(client, path)
    reelsense.catalogue.close()
    return {"videos": len(ids), "pages": pages, "drawing the map": map_cost}


def main() -> None:
    """Measure and write `bench/results/pages.json`."""
    # As the API serves (`app.api.main`).
    threadpool_limits(1, user_api="blas")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000)
    with tempfile.TemporaryDirectory() as folder:
        row = measure(parser.parse_args().videos, Path(folder))
    print(json.dumps(row, indent=1))
    print(f"written: {results.write('pages', row)}")


if __name__ == "__main__":
    main()
