"""Fuzzing of the probe and of decoding: headers of real clips, damaged at random, each in a sandboxed child.

    python -m bench.fuzz --seconds 60 --seed 0 [--keep DIR]

Every case takes a clip, spoils its first or last kilobytes (where containers keep their index) or any place, in one of
eight ways, and does with it all that is done with an upload. A code is a good answer; so is a decoder that crashes, in
its child. What must not be: a hang, and an exception that nobody gave a code to. With `--keep`, the bytes of those are
written down. The same seed gives the same cases in the same order.

Clips: those of ../shared/media under 2 MB, else small ones of each container made on the spot.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results import write
from bench.sandboxed import Outcome, apart, probed_and_decoded
from store.settings import Limits

MEDIA = Path(__file__).parent.parent.parent / "shared" / "media"
MOST_BYTES = 2 * 2**20
HEAD_BYTES = 4096
# Of wall time, for what waits for ever; what works for ever meets the limit on CPU time. Generous, for busy machines.
CASE_SECONDS = 240.0
# Tight, so that a case is quick: what is dear at these limits is dear at the default ones.
LIMITS = Limits(seconds=60, frames=300, probe_cpu_seconds=15, memory_bytes=2**30, pixels=1920 * 1080)
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
_LENGTHS = (0, 1, 7, 8, 9, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass
class Report:
    """What came of the cases."""

    cases: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")


def corpus() -> dict[str, bytes]:
    """Clips by name: real ones where they are, else made."""
    real = [*sorted((MEDIA / "good").glob("*")), *sorted((MEDIA / "bad").glob("*"))] if MEDIA.is_dir() else []
    found = {path.name: path.read_bytes() for path in real if 0 < path.stat().st_size <= MOST_BYTES}
    if found:
        return found
    from tests.attacks import CODECS, clip

    return {container: clip(container) for container in CODECS}


def _place(data: bytearray, chance: random.Random) -> int:
    """Mostly in the first or the last kilobytes."""
    where = chance.random()
    if where < 0.5:
        return chance.randrange(min(HEAD_BYTES, len(data)))
    if where < 0.8:
        return len(data) - 1 - chance.randrange(min(4 * HEAD_BYTES, len(data)))
    return chance.randrange(len(data))


def _flip(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 16)):
        data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return data


def _interesting(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 8)):
        data[_place(data, chance)] = chance.choice(_INTERESTING)
    return data


def _length(data: bytearray, chance: random.Random) -> bytearray:
    """A number of four bytes, in either order: lengths, counts, rates, sizes."""
    place = _place(data, chance)
    data[place : place + 4] = chance.choice(_LENGTHS).to_bytes(4, chance.choice(("big", "little")))
    return data


def _box_length(data: bytearray, chance: random.Random) -> bytearray:
    """The length of a box or chunk: four letters with a number before (MP4) or behind them (AVI)."""
    names = [place for place in range(4, min(len(data) - 8, 65_536)) if data[place : place + 4].isalpha()]
    names += [place for place in range(max(4, len(data) - 65_536), len(data) - 8) if data[place : place + 4].isalpha()]
    if names:
        place = chance.choice(names) + chance.choice((-4, 4))
        data[place : place + 4] = chance.choice(_LENGTHS).to_bytes(4, "big" if chance.random() < 0.7 else "little")
    return data


def _cut(data: bytearray, chance: random.Random) -> bytearray:
    return data[: chance.randint(min(16, len(data)), len(data))]


def _drop(data: bytearray, chance: random.Random) -> bytearray:
    place = _place(data, chance)
    del data[place : place + chance.choice((1, 4, 8, 100, 4096))]
    return data


def _repeat(data: bytearray, chance: random.Random) -> bytearray:
    place, length = _place(data, chance), chance.choice((4, 64, 1024, 16_384))
    data[place:place] = data[place : place + length] * chance.randint(1, 20)
    return data


def _nothing(data: bytearray, chance: random.Random) -> bytearray:
    place = _place(data, chance)
    length = min(chance.choice((4, 64, 1024)), len(data) - place)
    data[place : place + length] = bytes([chance.choice(_INTERESTING)]) * length
    return data


_WAYS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "flip": _flip,
    "interesting": _interesting,
    "length": _length,
    "box length": _box_length,
    "cut": _cut,
    "drop": _drop,
    "repeat": _repeat,
    "nothing": _nothing,
}


def mutated(clips: Sequence[bytes], chance: random.Random) -> tuple[bytes, list[str]]:
    """One spoilt clip, and in which ways: one to three of them, now and then the head of one on the body of another."""
    data = bytearray(chance.choice(clips))
    ways: list[str] = []
    if chance.random() < 0.1:
        other, place = chance.choice(clips), chance.randint(8, HEAD_BYTES)
        data = data[:place] + bytearray(other[place:])
        ways.append("splice")
    for _ in range(chance.choice((1, 1, 2, 3))):
        way = chance.choice(tuple(_WAYS))
        data = _WAYS[way](data, chance) or bytearray(b"\0")
        ways.append(way)
    return bytes(data), ways


def run(seconds: float, seed: int, keep: Path | None, most_cases: int | None = None) -> Report:
    """Fuzz for so long, or for so many cases."""
    chance, clips = random.Random(seed), list(corpus().values())
    report = Report()
    probed_and_decoded(clips[0], LIMITS)  # all that is imported late
    end = time.monotonic() + seconds
    while time.monotonic() < end and (most_cases is None or report.cases < most_cases):
        data, ways = mutated(clips, chance)
        outcome = apart(lambda data=data: probed_and_decoded(data, LIMITS), LIMITS, CASE_SECONDS)  # type: ignore[misc]
        _note(report, data, ways, outcome, keep)
    return report


def _note(report: Report, data: bytes, ways: list[str], outcome: Outcome, keep: Path | None) -> None:
    name = f"{report.cases:06d} {hashlib.sha256(data).hexdigest()[:12]} {'+'.join(ways)}"
    report.cases += 1
    report.ways.update(ways)
    report.slowest = max(report.slowest, (round(outcome.cpu_seconds, 2), name))
    report.largest = max(report.largest, (outcome.peak_bytes, name))
    if outcome.fault:
        report.findings.append({"case": name, "fault": outcome.fault})
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / name.replace(" ", "-")).write_bytes(data)
    elif outcome.answer is None:
        report.crashes[f"status {outcome.status}"] += 1
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / ("crash-" + name.replace(" ", "-"))).write_bytes(data)
    else:
        steps = [outcome.answer.get(step) or "" for step in ("probe", "frames", "sound", "captions")]
        degraded = "degraded" if outcome.answer.get("degraded") else "accepted"
        report.codes[next((code for code in steps if code), degraded)] += 1


def main() -> None:
    """Parse, run, write and tell; the exit status is 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="directory for the bytes of findings and crashes")
    arguments = parser.parse_args()
    report = run(arguments.seconds, arguments.seed, arguments.keep)
    document = {
        "command": f"python -m bench.fuzz --seconds {arguments.seconds:g} --seed {arguments.seed}",
        "clips": len(corpus()),
        "cases": report.cases,
        "answers": dict(report.codes.most_common()),
        "crashes_in_the_child": dict(report.crashes),
        "findings": report.findings,
        "slowest_case_cpu_seconds": report.slowest,
        "largest_case_bytes_beside_the_parent": report.largest,
        "ways": dict(report.ways),
    }
    path = write("fuzz", document)
    print(f"{report.cases} cases, {len(report.findings)} findings, {sum(report.crashes.values())} crashes: {path}")
    raise SystemExit(1 if report.findings else 0)


if __name__ == "__main__":
    main()
