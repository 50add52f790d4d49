"""Deleting a video: what the database knows of it, its source and words, its artifacts of every version, and its rows
in the vector table.

The database goes first and in one transaction, so from that moment on nothing finds the video; a crash after it leaves
objects that nobody asks for, and running it again removes them. A worker in the middle of a stage of the video learns
of it when it ends, and takes away what it wrote (`workers.graph`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from store.artifacts import artifact_key
from store.catalogue import Publication, RunKey
from store.deletions import Deletions, Removed
from store.objects import ObjectStore
from store.vector_segments import VectorSegments
from workers.graph import Graph
from workers.stages import STAGES


def delete_video(graph: Graph, video_id: str, who: str) -> dict[str, Any]:
    """Delete a video everywhere: `removed` rows by table and objects by kind, and `found` objects after it, which is
    empty. Raises `video.unknown`, `store.unavailable`, `database.unavailable`; then it has to be run again, with the
    whole id where the video is not in the catalogue any more."""
    graph.refresh()
    video = graph.catalogue.video(video_id)
    current = [key for stage in STAGES for key in graph.keys(video, stage.name)]
    gone = Deletions(graph.catalogue).remove(video.id, who)
    objects = graph.objects
    source = [item.key for item in objects.list(f"sources/{video.id}/")]
    keys = _artifacts_of(gone, current)
    artifacts = [key for key in keys if objects.size(key) is not None]
    for key in (*source, *artifacts):
        objects.delete(key)
    rows = _clear_segments(objects, gone.publications)
    found = [item.key for item in objects.list(f"sources/{video.id}/")]
    found += [key for key in artifacts if objects.size(key) is not None]
    counted = {"source": len(source), "artifacts": len(artifacts), "vectors": rows}
    return {
        "video": video.id,
        "removed": {"rows": dict(gone.rows), "objects": {name: count for name, count in counted.items() if count}},
        "found": found,
    }


def _artifacts_of(gone: Removed, current: Iterable[RunKey]) -> list[str]:
    keys = {*gone.keys, *current}
    return sorted({artifact_key(key.stage, key.version, key.video_id, key.revision) for key in keys})


def _clear_segments(objects: ObjectStore, gone: Iterable[Publication]) -> int:
    """Take the rows of these publications out of the segments of the vector table: how many there were. One that is
    merged at this very moment is mended by the indexer, which holds segments against the catalogue."""
    versions: dict[str, set[int]] = {}
    for publication in gone:
        versions.setdefault(publication.version, set()).add(publication.sequence)
    return sum(VectorSegments(objects, version).remove(sequences) for version, sequences in versions.items())
