"""Fixtures that every test may use."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared_media() -> Path:
    """The folder of real clips, good and bad, beside a checkout; tests that need it skip aloud without it."""
    folder = SHARED / "media"
    if not (folder / "index.csv").is_file():
        pytest.skip("needs the real clips in ../shared/media, which this checkout does not have")
    return folder


@pytest.fixture(scope="session")
def media_index(shared_media: Path) -> dict[str, dict[str, str]]:
    """The rows of ../shared/media/index.csv by file name."""
    with (shared_media / "index.csv").open(newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}
