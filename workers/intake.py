"""Intake: a file becomes a video. Checked, named by its content, stored with its words, and noted in the catalogue."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from store import measurements
from store.artifacts import metadata_key, revision_of, source_key, video_id_of
from store.catalogue import Catalogue, Video
from store.errors import InputError, MediaError, NotFoundError
from store.journal import record_key
from store.objects import ObjectStore
from store.records import CaptionTrack, Metadata
from store.settings import Limits, Settings
from workers import tracing
from workers.captions import find_sidecars, read_sidecar
from workers.display_names import display_name
from workers.probe import probe


@dataclass(frozen=True)
class Intake:
    """The video, and whether it is `new`, a `duplicate` (nothing changed), or known with new words (`updated`)."""

    video: Video
    outcome: Literal["new", "duplicate", "updated"]


def metadata_of(
    path: Path,
    *,
    title: str | None = None,
    description: str | None = None,
    tags: Sequence[str] = (),
    creator: str | None = None,
    region: str | None = None,
    language: str | None = None,
    sound: str | None = None,
    captions: Sequence[Path] = (),
    limits: Limits,
) -> Metadata:
    """The words that go with a file: as given, and the caption files beside it when none are named.

    Raises `metadata.invalid`, `caption.missing`, `caption.unreadable`.
    """
    files = list(captions) or find_sidecars(path)
    tracks: list[CaptionTrack] = [read_sidecar(file, limits, None) for file in files]
    return checked_metadata(title, description, tags, creator, region, language, sound, tuple(tracks))


def checked_metadata(
    title: str | None = None,
    description: str | None = None,
    tags: Sequence[str] = (),
    creator: str | None = None,
    region: str | None = None,
    language: str | None = None,
    sound: str | None = None,
    captions: tuple[CaptionTrack, ...] = (),
) -> Metadata:
    """Words as a record, without the blanks around them. Raises `metadata.invalid`."""
    clean = tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    try:
        return Metadata(
            title=(title or "").strip(),
            description=(description or "").strip(),
            tags=clean,
            creator=(creator or "").strip(),
            region=region or "",
            language=language or "",
            sound=(sound or "").strip(),
            captions=captions,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InputError("metadata.invalid", f"The {name} is malformed: {first['msg']}.") from None


def take_in(
    path: Path,
    metadata: Metadata,
    settings: Settings,
    objects: ObjectStore,
    catalogue: Catalogue,
    *,
    file_name: str = "",
) -> Intake:
    """Check the file, store it under the id of its content, and note it. Nothing is stored of a file that is refused.

    The same content again is the same video: with the same words, or none, nothing changes; with other words the video
    gets them, and only the stages that read words run again. `file_name` is what people called it, where `path` is a
    name of our own. Raises MediaError, PassingError.
    """
    try:
        with tracing.upload(catalogue) as span:
            taken = _take_in(path, metadata, settings, objects, catalogue, file_name)
            span.taken(taken.video.id, taken.outcome)
    except InputError as error:
        measurements.count("reelsense_uploads_refused_total", code=error.code)
        raise
    measurements.count("reelsense_uploads_accepted_total", outcome=taken.outcome)
    return taken


def _take_in(
    path: Path, metadata: Metadata, settings: Settings, objects: ObjectStore, catalogue: Catalogue, file_name: str
) -> Intake:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise MediaError("media.missing", f"There is no readable file {path.name!r} at this path.")
    size = path.stat().st_size
    if size > settings.limits.bytes:
        raise MediaError(
            "media.too_large",
            f"The file has {size} bytes, at most {settings.limits.bytes} are allowed.",
            hint="Raise REELSENSE_LIMITS__BYTES.",
        )
    video_id = video_id_of(_sha256(path))
    revision = revision_of(metadata)
    known = _known(catalogue, video_id)
    if known is not None and (metadata == Metadata() or known.revision == revision):
        return Intake(known, "duplicate")
    media = known.media if known is not None else probe(path, settings.limits)
    if objects.size(source_key(video_id)) != size:
        objects.put_file(source_key(video_id), path)
    objects.put(metadata_key(video_id, revision), metadata.model_dump_json().encode())
    video = Video(
        id=video_id,
        revision=revision,
        file_name=display_name(file_name or path.name),
        metadata=metadata,
        media=media,
        uploaded_at=time.time(),
    )
    # What only the catalogue would know, beside the source: `reelsense rebuild` reads it.
    kept = known.model_copy(update={"revision": revision}) if known is not None else video
    objects.put(record_key(video_id), kept.model_dump_json(exclude={"metadata"}).encode())
    catalogue.put_video(video)
    return Intake(catalogue.video(video_id), "new" if known is None else "updated")


def _known(catalogue: Catalogue, video_id: str) -> Video | None:
    try:
        return catalogue.video(video_id)
    except NotFoundError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
