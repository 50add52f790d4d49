"""`reelsense rebuild`: the catalogue made anew from object storage alone.

Nothing is computed: videos come from the records beside their sources, done runs from the artifacts, publications,
events and the choice of learnt models from the journal (`store.journal`). Safe to run again, and on a catalogue that
has lost a part only: what is there already stays.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.ranker_models import forget_tombstoned
from store.artifacts import is_video_id, metadata_key, revision_of, source_key
from store.catalogue import Video
from store.errors import ReelsenseError
from store.journal import Journal, record_key
from store.records import Metadata

if TYPE_CHECKING:
    from app.operations import ReelSense


def rebuild(reelsense: ReelSense) -> dict[str, Any]:
    """Make the catalogue anew. Counts of what was `restored`; `probed` are videos without a record, whose file name and
    time of upload are gone; `unreadable` are sources of which no video can be made, with the reason."""
    known = {video.id for video in reelsense.catalogue.videos()}
    found: dict[str, list[str]] = {}
    for item in reelsense.objects.list("sources/"):
        _, video_id, name = item.key.split("/", 2)
        if is_video_id(video_id):
            found.setdefault(video_id, []).append(name)
    restored, probed, unreadable = [], [], []
    for video_id, names in found.items():
        if video_id in known or "video" not in names:
            continue  # words without a source: an upload that ended half-way, of which nobody was told that it is in
        try:
            recorded = _recorded(reelsense, video_id) if "record.json" in names else None
            restored.append(recorded or _probed(reelsense, video_id, names))
            if recorded is None:
                probed.append(video_id)
        except ReelsenseError as error:
            unreadable.append({"id": video_id, "code": error.code, "message": error.message})
    # In the order of their uploads, as they came.
    for video in sorted(restored, key=lambda video: (video.uploaded_at, video.id)):
        reelsense.catalogue.put_video(video)
    journal = Journal(reelsense.objects, reelsense.catalogue).restore()
    # An older copy of the bucket may hold rankers that were trained with somebody who was forgotten since.
    rankers = forget_tombstoned(reelsense)
    reelsense.graph.refresh()
    reelsense.graph.repair()
    states = reelsense.graph.states(reelsense.catalogue.videos())
    return {
        "videos": len(states),
        "restored": len(restored),
        "probed": probed,
        "unreadable": unreadable,
        "ready": sum(state == "ready" for state, _ in states.values()),
        "events": journal["events"],
        "set_aside": journal["set-aside"],
        "forgotten": journal["forgotten"],
        "rankers": rankers,
        "publications": journal["publications"],
        "choices": journal["choices"],
    }


def _recorded(reelsense: ReelSense, video_id: str) -> Video | None:
    """The video by the record beside its source; None when that cannot be read."""
    try:
        stored = json.loads(reelsense.objects.get(record_key(video_id)))
        words = reelsense.objects.get(metadata_key(video_id, stored["revision"]))
        return Video.model_validate(stored | {"metadata": Metadata.model_validate_json(words)})
    except (ValueError, KeyError, TypeError):
        return None


def _probed(reelsense: ReelSense, video_id: str, names: list[str]) -> Video:
    """The video by looking into its source: of several revisions of its words, the one that was published."""
    from workers.probe import probe

    version = reelsense.graph.versions["published"]
    published = {item.key.rpartition("/")[2] for item in reelsense.objects.list(f"artifacts/published/{version}/")}
    revisions = sorted(name[len("metadata-") : -len(".json")] for name in names if name.startswith("metadata-"))
    revision = next((item for item in revisions if f"{video_id}-{item}" in published), (revisions or [""])[-1])
    metadata = Metadata()
    if revision:
        metadata = Metadata.model_validate_json(reelsense.objects.get(metadata_key(video_id, revision)))
    with tempfile.TemporaryDirectory(prefix="reelsense-") as folder:
        source = Path(folder) / "video"
        reelsense.objects.download(source_key(video_id), source)
        media = probe(source, reelsense.settings.limits)
    return Video(
        id=video_id,
        revision=revision or revision_of(metadata),
        file_name="",
        metadata=metadata,
        media=media,
        uploaded_at=time.time(),
    )
