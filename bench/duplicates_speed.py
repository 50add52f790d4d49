"""How long it takes to find near-duplicates: `python -m bench.duplicates_speed [--videos 10000 100000]`.

Signatures of 24 frames are made up as real ones are: a video has shots of about four frames, whose hashes differ in a
few bits; every fifth video is a cut of another one, encoded anew (four bits of each frame differ); one in a hundred
shows the same title card. Writes CPU seconds, the share of the copies found, and false pairs.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from bench import results
from ranker.duplicates import Hashes, find_duplicates

FRAMES, SHOT, COPY_EVERY, CARD_EVERY = 24, 4, 5, 100


def turned(hashes: Hashes, bits: int, generator: np.random.Generator) -> Hashes:
    """`hashes` with about `bits` bits of each turned over."""
    mask = generator.random((len(hashes), 64)) < bits / 64
    return hashes ^ np.packbits(mask, axis=1)


def catalogue(count: int) -> tuple[dict[str, Hashes], set[tuple[str, str]]]:
    """`count` signatures, and the pairs that are copies."""
    generator = np.random.default_rng(11)
    card = generator.integers(0, 256, (1, 8), np.uint8)
    signatures: dict[str, Hashes] = {}
    copies = set()
    for number in range(count):
        video = f"{number:032x}"
        if number % COPY_EVERY == COPY_EVERY - 1:
            source = f"{number - 2:032x}"
            signatures[video] = turned(signatures[source][4:20], 4, generator)
            copies.add((source, video))
        else:
            shots = generator.integers(0, 256, (FRAMES // SHOT, 8), np.uint8)
            signatures[video] = turned(np.repeat(shots, SHOT, axis=0), 3, generator)
        if number % CARD_EVERY == 0:
            signatures[video][0] = card[0]
    return signatures, copies


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000])
    rows = []
    for count in parser.parse_args().videos:
        signatures, copies = catalogue(count)
        started = time.process_time()
        groups = find_duplicates(signatures)
        seconds = time.process_time() - started
        found = {(pair.first, pair.second) for group in groups for pair in group.pairs}
        rows.append(
            {
                "videos": count,
                "frames": sum(len(hashes) for hashes in signatures.values()),
                "cpu_seconds": round(seconds, 2),
                "copies": len(copies),
                "found": len(found & copies),
                "false_pairs": len(found - copies),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
        print(rows[-1])
    results.write("duplicates_speed", {"sizes": rows})


if __name__ == "__main__":
    main()
