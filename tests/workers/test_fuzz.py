"""The fuzz run itself: the same seed gives the same cases, a short run finds nothing, and a planted fault is found."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from bench import fuzz
from tests.attacks import CODECS, clip

CLIPS = [clip(container) for container in CODECS]


def test_the_same_seed_gives_the_same_cases() -> None:
    first, second, other = random.Random(5), random.Random(5), random.Random(6)
    cases = [fuzz.mutated(CLIPS, first) for _ in range(40)]
    assert cases == [fuzz.mutated(CLIPS, second) for _ in range(40)]
    assert cases != [fuzz.mutated(CLIPS, other) for _ in range(40)]
    assert all(data for data, _ in cases)
    assert {way for _, ways in cases for way in ways} >= {"flip", "cut", "box length"}
    assert not [data for data, _ in cases if data in CLIPS]


def test_a_short_run_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "corpus", lambda: dict(zip(CODECS, CLIPS, strict=True)))
    report = fuzz.run(600.0, 3, None, most_cases=40)
    assert report.findings == []
    assert report.cases == sum(report.codes.values()) + sum(report.crashes.values()) == 40
    assert len(report.codes) > 2


def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fuzz, "corpus", lambda: {"mp4": clip("mp4")})
    monkeypatch.setattr(fuzz, "CASE_SECONDS", 0.5)

    def broken(data: bytes, limits: Any) -> dict[str, Any]:  # noqa: ARG001
        if planted == "exception":
            raise KeyError("planted")
        time.sleep(5)
        return {}

    for planted in ("exception", "hang"):
        with monkeypatch.context() as patch:
            report = fuzz.Report()
            patch.setattr(fuzz, "probed_and_decoded", broken)
            outcome = fuzz.apart(lambda: fuzz.probed_and_decoded(b"x", fuzz.LIMITS), fuzz.LIMITS, fuzz.CASE_SECONDS)
            fuzz._note(report, b"x", ["flip"], outcome, tmp_path)
        (finding,) = report.findings
        assert ("planted" if planted == "exception" else "hang") in finding["fault"]
    assert len(list(tmp_path.iterdir())) == 1  # the same bytes, the same name
