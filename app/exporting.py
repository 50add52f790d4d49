"""Vectors for other tools: rows aligned by id, with masks and versions, without pickle.

`npy` writes a folder as MMRec and Cornac read it: `vision_feat.npy`, `audio_feat.npy`, `text_feat.npy` and
`fused_feat.npy` (float32 [n_videos, dim]; row i is line i of `items.csv`), beside each a `..._mask.npy` (bool
[n_videos]: false where the video lacks the modality, whose row is zeros), `items.csv` (`itemID,videoID,title`), and
`manifest.json` with the stage versions. `parquet` writes one table `videos.parquet` with the same columns, null where a
modality is missing, and the versions in the schema's metadata.

A modality's row is the mean of its tokens, weighted by salience: what one vector can say of many.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from store.records import MODALITIES, Artifact, Float32, Tokens

Format = Literal["parquet", "npy"]
COLUMNS = (*MODALITIES, "fused")


@dataclass(frozen=True, eq=False)
class ExportedVideo:
    """One row: `vectors` float32 [dim] by column, without those that the video lacks."""

    id: str
    title: str
    vectors: Mapping[str, Float32]


def exported(video_id: str, title: str, artifacts: Mapping[str, Artifact]) -> ExportedVideo:
    """The row of a video from its artifacts by stage (`vision`, `audio`, `text`, `fused`)."""
    vectors: dict[str, Float32] = {"fused": artifacts["fused"].arrays["vector"].astype(np.float32)}
    for modality in MODALITIES:
        tokens = artifacts[modality].tokens()
        if len(tokens):
            vectors[modality] = pooled(tokens)
    return ExportedVideo(video_id, title, vectors)


def pooled(tokens: Tokens) -> Float32:
    """float32 [dim]: the mean of the tokens by salience; the plain mean where no token has any."""
    weights = tokens.salience if tokens.salience.sum() > 0 else np.ones(len(tokens), np.float32)
    mean: Float32 = np.average(tokens.embeddings, axis=0, weights=weights).astype(np.float32)
    return mean


def write(rows: list[ExportedVideo], versions: Mapping[str, str], form: Format, folder: Path) -> list[Path]:
    """Write `rows` (sorted by id, so that the same catalogue gives the same files) and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows, key=lambda row: row.id)
    return _write_parquet(ordered, versions, folder) if form == "parquet" else _write_npy(ordered, versions, folder)


def _columns(rows: list[ExportedVideo]) -> Iterator[tuple[str, Float32, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """Name, float32 [n, dim] with zeros for what is missing, and mask bool [n], for each column that any row has."""
    for name in COLUMNS:
        width = next((len(row.vectors[name]) for row in rows if name in row.vectors), 0)
        if not width:
            continue
        matrix = np.zeros((len(rows), width), np.float32)
        mask = np.zeros(len(rows), np.bool_)
        for place, row in enumerate(rows):
            if name in row.vectors:
                matrix[place], mask[place] = row.vectors[name], True
        yield name, matrix, mask


def _write_npy(rows: list[ExportedVideo], versions: Mapping[str, str], folder: Path) -> list[Path]:
    files = [folder / "items.csv"]
    with files[0].open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("itemID", "videoID", "title"))
        writer.writerows((place, row.id, row.title) for place, row in enumerate(rows))
    described: dict[str, Any] = {}
    for name, matrix, mask in _columns(rows):
        feature, masked = folder / f"{name}_feat.npy", folder / f"{name}_mask.npy"
        np.save(feature, matrix, allow_pickle=False)
        np.save(masked, mask, allow_pickle=False)
        described[name] = {
            "file": feature.name,
            "mask": masked.name,
            "dim": matrix.shape[1],
            "present": int(mask.sum()),
        }
        files += [feature, masked]
    files.append(folder / "manifest.json")
    manifest = {"videos": len(rows), "columns": described, "versions": dict(sorted(versions.items()))}
    files[-1].write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return files


def _write_parquet(rows: list[ExportedVideo], versions: Mapping[str, str], folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays: dict[str, Any] = {
        "id": pa.array([row.id for row in rows], pa.string()),
        "title": pa.array([row.title for row in rows], pa.string()),
    }
    for name, matrix, mask in _columns(rows):
        values = pa.array(matrix.reshape(-1), pa.float32())
        arrays[name] = pa.FixedSizeListArray.from_arrays(values, matrix.shape[1], mask=pa.array(~mask))
    metadata = {"reelsense.versions": json.dumps(dict(sorted(versions.items())))}
    table = pa.table(arrays).replace_schema_metadata(metadata)
    path = folder / "videos.parquet"
    pq.write_table(table, path)
    return [path]
