"""Vectors for other tools, read back as those tools read them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.exporting import COLUMNS, ExportedVideo, pooled, write
from store.records import Tokens

VERSIONS = {"vision": "a" * 16, "audio": "b" * 16, "text": "c" * 16, "fused": "d" * 16}


def rows() -> list[ExportedVideo]:
    """Three videos, not in the order of their ids; the second has no sound."""
    generator = np.random.default_rng(1)

    def vector(width: int) -> np.ndarray:
        return generator.standard_normal(width).astype(np.float32)

    found = []
    for name, modalities in (("cc", "vat"), ("aa", "vt"), ("bb", "vat")):
        widths = {"v": ("vision", 8), "a": ("audio", 5), "t": ("text", 6)}
        vectors = {widths[key][0]: vector(widths[key][1]) for key in modalities} | {"fused": vector(4)}
        found.append(ExportedVideo(name, f'a "title", {name}', vectors))
    return found


def test_arrays_as_mmrec_reads_them(tmp_path: Path) -> None:
    """MMRec maps ids by a CSV of `itemID` and loads `*_feat.npy`, whose row is that number."""
    given = rows()
    write(given, VERSIONS, "npy", tmp_path)
    with (tmp_path / "items.csv").open(newline="") as stream:
        items = {int(row["itemID"]): row["videoID"] for row in csv.DictReader(stream)}
    assert items == {0: "aa", 1: "bb", 2: "cc"}
    by_id = {row.id: row for row in given}
    for name in COLUMNS:
        features = np.load(tmp_path / f"{name}_feat.npy", allow_pickle=False)
        mask = np.load(tmp_path / f"{name}_mask.npy", allow_pickle=False)
        assert features.dtype == np.float32
        for place, video in items.items():
            expected = by_id[video].vectors.get(name)
            assert mask[place] == (expected is not None)
            np.testing.assert_array_equal(features[place], 0.0 if expected is None else expected)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["versions"] == VERSIONS
    assert manifest["columns"]["audio"]["present"] == 2


def test_arrays_as_cornac_reads_them(tmp_path: Path) -> None:
    """FeatureModality takes a matrix and the list of ids of its rows: here those videos that have the modality."""
    given = rows()
    write(given, VERSIONS, "npy", tmp_path)
    with (tmp_path / "items.csv").open(newline="") as stream:
        ids = [row["videoID"] for row in csv.DictReader(stream)]
    mask = np.load(tmp_path / "audio_mask.npy", allow_pickle=False)
    features, named = np.load(tmp_path / "audio_feat.npy", allow_pickle=False)[mask], np.array(ids)[mask].tolist()
    assert named == ["bb", "cc"]
    by_id = {row.id: row.vectors["audio"] for row in given if "audio" in row.vectors}
    np.testing.assert_array_equal(features, np.stack([by_id[name] for name in named]))


def test_a_table_keeps_what_is_missing_missing(tmp_path: Path) -> None:
    given = rows()
    (file,) = write(given, VERSIONS, "parquet", tmp_path)
    table = pq.read_table(file)
    assert table.column("id").to_pylist() == ["aa", "bb", "cc"]
    assert table.column("audio").to_pylist()[0] is None
    by_id = {row.id: row for row in given}
    for row in table.to_pylist():
        np.testing.assert_array_equal(np.float32(row["fused"]), by_id[row["id"]].vectors["fused"])
        assert row["title"] == by_id[row["id"]].title
    assert json.loads(table.schema.metadata[b"reelsense.versions"]) == VERSIONS


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_the_same_catalogue_gives_the_same_bytes(tmp_path: Path, form: str) -> None:
    first = write(rows(), VERSIONS, form, tmp_path / "one")  # type: ignore[arg-type]
    second = write(list(reversed(rows())), VERSIONS, form, tmp_path / "two")  # type: ignore[arg-type]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_an_empty_catalogue_is_an_empty_table(tmp_path: Path) -> None:
    (file,) = write([], VERSIONS, "parquet", tmp_path)
    assert pq.read_table(file).num_rows == 0


def test_pooling_goes_by_salience() -> None:
    times = np.zeros(2, np.float32)
    tokens = Tokens(np.eye(2, dtype=np.float32), times, times, np.array([1.0, 3.0], np.float32))
    np.testing.assert_allclose(pooled(tokens), [0.25, 0.75])
    silent = Tokens(np.eye(2, dtype=np.float32), times, times, times)
    np.testing.assert_allclose(pooled(silent), [0.5, 0.5])
