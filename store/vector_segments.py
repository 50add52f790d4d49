"""The vector table on object storage: what the ranker must know of many published videos, in few objects.

Workers write one immutable `published` artifact a video, which stays the truth. One indexer (`workers.vector_indexer`)
copies vector and row of many into a segment, so that a ranker starts with a few reads and not with one for each video:

    vectors/VERSION/segments/FIRST-LAST.safetensors      `vectors` float32 [n, dim], JSON rows; named by sequences

A segment is never changed; small ones are merged into a larger one, and deleted later. Nothing is believed because of a
segment alone: the publications in the catalogue say which revision of which video is out, and a row is only used for
that; a row that is not there, or a segment that is lost or damaged, is read from the artifacts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from store.artifacts import METADATA_ENTRY, artifact_key, from_bytes
from store.catalogue import Publication
from store.errors import PassingError, ReelsenseError
from store.objects import ObjectStore
from store.records import Float32, Modality, PublishedAttributes

UNREADABLE = ("store.missing", "store.artifact_damaged")
_LEAF = re.compile(r"([0-9]{15})-([0-9]{15})\.safetensors")


class SegmentRow(BaseModel):
    """One published video: of which publication, and what is read of it while a feed is made."""

    model_config = ConfigDict(frozen=True)
    sequence: int
    id: str
    revision: str
    title: str
    creator: str
    region: str
    language: str | None
    duration: float
    tags: dict[str, float]
    attention: dict[Modality, float]
    published_at: float
    sound: str = ""


_ROWS = TypeAdapter(list[SegmentRow])


@dataclass(frozen=True, order=True)
class Span:
    """The sequences `first` to `last` of publications, both in it; names a segment."""

    first: int
    last: int

    def holds(self, other: Span) -> bool:
        """Whether all of `other` lies in it."""
        return self.first <= other.first and other.last <= self.last


@dataclass(frozen=True, eq=False)
class Segment:
    """Rows by rising sequence, and their vectors float32 [n, dim]."""

    rows: list[SegmentRow]
    vectors: Float32

    def __post_init__(self) -> None:
        sequences = [row.sequence for row in self.rows]
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.rows) or self.vectors.dtype != np.float32:
            raise ValueError(f"{len(self.rows)} rows, but vectors {self.vectors.dtype} {self.vectors.shape}")
        if sequences != sorted(set(sequences)):
            raise ValueError("the rows are not in the order of their publications")
        if not np.isfinite(self.vectors).all():
            raise ValueError("a vector holds NaN or infinity")

    def to_bytes(self) -> bytes:
        """As safetensors, with a digest of rows and vectors: same rows, same bytes."""
        from safetensors.numpy import save

        rows = _ROWS.dump_python(self.rows, mode="json")
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        header = json.dumps({"digest": _digest(text, self.vectors), "rows": text}, ensure_ascii=False)
        saved: bytes = save({"vectors": np.ascontiguousarray(self.vectors)}, metadata={METADATA_ENTRY: header})
        return saved

    @classmethod
    def from_bytes(cls, data: bytes) -> Segment:
        """Read back what `to_bytes` wrote. Raises `store.artifact_damaged` for anything else."""
        from safetensors.numpy import load

        try:
            header_length = int.from_bytes(data[:8], "little")
            said = json.loads(json.loads(data[8 : 8 + header_length])["__metadata__"][METADATA_ENTRY])
            vectors = load(data)["vectors"]
            if _digest(said["rows"], vectors) != said["digest"]:
                raise ValueError("the digest is another")
            return cls(_ROWS.validate_json(said["rows"]), vectors)
        except Exception as error:
            raise PassingError(
                "store.artifact_damaged",
                f"A vector segment of {len(data)} bytes cannot be read back: {type(error).__name__}.",
                hint="The artifacts are read in its place; the sweeper writes it anew.",
            ) from error


def _digest(rows: str, vectors: Float32) -> str:
    said = hashlib.sha256(rows.encode())
    said.update(repr((vectors.shape, str(vectors.dtype))).encode())
    said.update(np.ascontiguousarray(vectors).data)
    return said.hexdigest()


class VectorSegments:
    """The segments of one version. Errors: `store.unavailable`."""

    def __init__(self, objects: ObjectStore, version: str) -> None:
        self.objects = objects
        self.version = version
        self.folder = f"vectors/{version}/segments/"

    def key(self, span: Span) -> str:
        """Where the segment of these sequences lies."""
        return f"{self.folder}{span.first:015d}-{span.last:015d}.safetensors"

    def spans(self) -> list[Span]:
        """What there is: by first sequence, the longest first where several begin alike."""
        found = []
        for item in self.objects.list(self.folder):
            if match := _LEAF.fullmatch(item.key.removeprefix(self.folder)):
                found.append(Span(int(match[1]), int(match[2])))
        return sorted(found, key=lambda span: (span.first, -span.last))

    def read(self, span: Span) -> Segment:
        """Raises `store.missing`, `store.artifact_damaged`."""
        segment = Segment.from_bytes(self.objects.get(self.key(span)))
        if not segment.rows or (segment.rows[0].sequence, segment.rows[-1].sequence) != (span.first, span.last):
            raise PassingError("store.artifact_damaged", f"The vector segment {self.key(span)} holds another's rows.")
        return segment

    def write(self, segment: Segment) -> Span:
        """Write it under the name that its first and last row give it."""
        span = Span(segment.rows[0].sequence, segment.rows[-1].sequence)
        self.objects.put(self.key(span), segment.to_bytes())
        return span

    def delete(self, span: Span) -> None:
        """Remove it; readers fall back to what else there is."""
        self.objects.delete(self.key(span))

    def readable(self) -> Iterator[Segment]:
        """All that can be read, each sequence once, in order: a merged segment in place of those it was made of, and
        those where it is damaged."""
        after = 0
        for span in self.spans():
            if span.last <= after:
                continue
            try:
                segment = self.read(span)
            except ReelsenseError as error:
                if error.code not in UNREADABLE:
                    raise
                continue
            fresh = [place for place, row in enumerate(segment.rows) if row.sequence > after]
            if fresh:
                yield Segment(segment.rows[fresh[0] :], segment.vectors[fresh[0] :])
            after = max(after, span.last)

    def remove(self, sequences: Collection[int]) -> int:
        """Take rows out of every segment that holds them: how many. Each is written anew, under the name that its
        first and last row give it now, before the old one goes."""
        removed = 0
        for span in self.spans():
            if not any(span.first <= sequence <= span.last for sequence in sequences):
                continue
            try:
                segment = self.read(span)
            except ReelsenseError as error:
                if error.code not in UNREADABLE:
                    raise
                self.delete(span)  # nobody can tell whose rows are in it; the indexer writes the gap anew
                continue
            kept = [place for place, row in enumerate(segment.rows) if row.sequence not in sequences]
            if len(kept) == len(segment.rows):
                continue
            removed += len(segment.rows) - len(kept)
            new = self.write(Segment([segment.rows[n] for n in kept], segment.vectors[kept])) if kept else None
            if new != span:
                self.delete(span)
        return removed

    def gather(self, wanted: Sequence[Publication]) -> Segment | None:
        """A segment of these publications (by rising sequence) from their artifacts; those that cannot be read, or
        whose vector is not as wide as the first one's, are left out. None when nothing is left."""
        rows: list[SegmentRow] = []
        vectors: list[Float32] = []
        for publication in wanted:
            key = artifact_key("published", self.version, publication.video_id, publication.revision)
            try:
                artifact = from_bytes(self.objects.get(key))
                row, vector = segment_row(publication, artifact.attributes), artifact.arrays["vector"]
            except ReelsenseError as error:
                if error.code not in UNREADABLE:
                    raise
                continue
            except (KeyError, ValueError):
                continue  # the ranker names the damaged artifact when it reads it
            if vector.ndim == 1 and (not vectors or len(vector) == len(vectors[0])):
                rows.append(row)
                vectors.append(np.ascontiguousarray(vector, np.float32))
        return Segment(rows, np.stack(vectors)) if rows else None


def segment_row(publication: Publication, attributes: dict[str, Any]) -> SegmentRow:
    """The row of a publication. Raises ValueError where the attributes are not those of a published artifact."""
    said = PublishedAttributes.model_validate(attributes)
    return SegmentRow(
        sequence=publication.sequence,
        id=publication.video_id,
        revision=publication.revision,
        title=said.title,
        creator=said.creator,
        region=said.region,
        language=said.language,
        duration=said.duration,
        tags=said.tags,
        attention=said.attention,
        published_at=publication.published_at,
        sound=said.sound,
    )


def merged(segments: Sequence[Segment]) -> Segment:
    """One segment of several that follow each other, of vectors of one width."""
    rows = [row for segment in segments for row in segment.rows]
    return Segment(rows, np.concatenate([segment.vectors for segment in segments]))
