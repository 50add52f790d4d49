"""What fusing costs: milliseconds for a video in batches, and videos a CPU second from stored embeddings, as they grow.

Tokens are random and of real shapes: 24 frames, 6 windows of sound and 8 pieces of text. CPU time of one thread.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from fusion.trained import TrainedFusion
from store.artifacts import from_bytes, to_bytes, token_arrays
from store.records import Artifact, Modality, Tokens

COUNTS: dict[Modality, int] = {"vision": 24, "audio": 6, "text": 8}
BATCHES = (1, 32, 256)
CATALOGUES = (1_000, 10_000, 100_000)
POOL = 256  # different videos; a larger catalogue repeats them
CHUNK = 64  # of a catalogue that are fused at once


def _tokens(fusion: TrainedFusion, number: int) -> dict[Modality, Tokens]:
    generator = np.random.default_rng(number)
    found: dict[Modality, Tokens] = {}
    for name, count in COUNTS.items():
        start = np.linspace(0, 28, count).astype(np.float32)
        salience = generator.uniform(0.2, 1, count).astype(np.float32)
        rows = generator.standard_normal((count, fusion.config.widths[name])).astype(np.float32)
        found[name] = Tokens(rows, start, start + np.float32(1), salience)
    return found


def cost(fusion: TrainedFusion, catalogues: tuple[int, ...] = CATALOGUES) -> dict[str, Any]:
    """The measurements, for JSON."""
    torch.set_num_threads(1)
    videos = [_tokens(fusion, number) for number in range(POOL)]
    sources: dict[Modality, list[str]] = {name: ["token"] * count for name, count in COUNTS.items()}
    given = [(video, sources) for video in videos]
    fusion.fuse_many(given[:32])
    milliseconds = {}
    for size in BATCHES:
        begun, done = time.process_time(), 0
        while time.process_time() - begun < 2.0:
            fusion.fuse_many(given[:size])
            done += size
        milliseconds[str(size)] = round((time.process_time() - begun) / done * 1000, 3)
    stored = [
        {name: to_bytes(Artifact(name, "v", "0" * 32, "", {}, token_arrays(part))) for name, part in video.items()}
        for video in videos
    ]
    throughput = {}
    for size in catalogues:
        begun = time.process_time()
        for first in range(0, size, CHUNK):
            chunk = [stored[number % POOL] for number in range(first, min(first + CHUNK, size))]
            read = [{name: from_bytes(data).tokens() for name, data in video.items()} for video in chunk]
            fusion.fuse_many([(video, sources) for video in read])
        throughput[str(size)] = round(size / (time.process_time() - begun), 1)
    return {"milliseconds_per_video": milliseconds, "videos_per_cpu_second": throughput, "tokens": COUNTS}
