"""The one writer of the vector table (`store.vector_segments`): part of the sweeper. Two at once do no harm: a name
says which publications are in, and readers take each of them once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from store.catalogue import Catalogue, Publication
from store.errors import ReelsenseError
from store.objects import ObjectStore
from store.publications import published_between
from store.vector_segments import UNREADABLE, Segment, SegmentRow, Span, VectorSegments, merged

# PostgreSQL may show a lower sequence after a higher one: what is younger than this is left to the next pass.
SETTLED_SECONDS = 60.0
# Fewer new publications than this are not worth an object: a ranker reads them from their artifacts.
LEAST_ROWS = 256
# So many artifacts are read in one pass, a few seconds' work; merging makes larger segments of them.
WRITTEN_ROWS = 2_048
MOST_ROWS = 16_384
# So many neighbouring small segments are merged.
MERGED = 8
# A reader that has listed the segments still reads those that were merged since.
GRACE_SECONDS = 600.0


@dataclass(frozen=True)
class Pass:
    """What one pass did, in segments."""

    written: int = 0
    merged: int = 0
    mended: int = 0
    deleted: int = 0


class VectorIndexer:
    """Writes, merges and mends the segments of one version; each pass does little, and does not wait."""

    def __init__(self, objects: ObjectStore, catalogue: Catalogue, version: str) -> None:
        self.catalogue = catalogue
        self.segments = VectorSegments(objects, version)
        self.version = version
        self._superseded: dict[Span, float] = {}
        self._checked = Span(0, 0)

    def step(self, now: float | None = None) -> Pass:
        """One pass at the time `now`. Raises `store.unavailable`, `database.unavailable`."""
        at = time.time() if now is None else now
        written = self._write(at)
        joined = self._merge()
        mended = self._mend()
        return Pass(written, joined, mended, self._clear(at))

    def _used(self) -> list[Span]:
        """The segments that readers take: no two share a sequence, but for those of another indexer."""
        used: list[Span] = []
        for span in self.segments.spans():
            if not used or span.last > used[-1].last:
                used.append(span)
        return used

    def _write(self, at: float) -> int:
        """One new segment: of what a lost one left in a gap, or of what was published since."""
        after = 0
        for span in [*self._used(), None]:
            last = None if span is None else span.first - 1
            batch: list[Publication] = []
            if last is None or after < last:
                batch = published_between(
                    self.catalogue, self.version, after, last, before=at - SETTLED_SECONDS, most=WRITTEN_ROWS
                )
            if batch and (span is not None or len(batch) >= LEAST_ROWS):
                segment = self.segments.gather(batch)
                if segment is not None:
                    self.segments.write(segment)
                    return 1
            if span is not None:
                after = span.last
        return 0

    def _merge(self) -> int:
        """Merge the first run of small neighbours that is long enough."""
        run: list[tuple[Span, Segment]] = []
        count = 0
        for span in self._used():
            if span.last - span.first + 1 > MOST_ROWS // 2 and not run:
                continue
            try:
                segment = self.segments.read(span)
            except ReelsenseError as error:
                if error.code not in UNREADABLE:
                    raise
                run, count = [], 0
                continue
            wide = run and segment.vectors.shape[1] != run[0][1].vectors.shape[1]
            if len(segment.rows) > MOST_ROWS // 2 or count + len(segment.rows) > MOST_ROWS or wide:
                run, count = [], 0
                continue
            run.append((span, segment))
            count += len(segment.rows)
            if len(run) == MERGED:
                self.segments.write(merged([part for _, part in run]))
                return 1
        return 0

    def _mend(self) -> int:
        """Hold one segment, another at each pass, against the catalogue: what is damaged, or says other than the
        publications do, is written anew."""
        used = self._used()
        if not used:
            return 0
        span = next((one for one in used if one > self._checked), used[0])
        self._checked = span
        wanted = published_between(self.catalogue, self.version, span.first - 1, span.last)
        try:
            old = self.segments.read(span)
        except ReelsenseError as error:
            if error.code not in UNREADABLE:
                raise
            self.segments.delete(span)
            return 1
        if [_named(row) for row in old.rows] == [(item.sequence, item.video_id, item.revision) for item in wanted]:
            return 0
        new = self._again(wanted, old)
        if new is not None and new.rows == old.rows:
            return 0
        if new is not None and (new.rows[0].sequence, new.rows[-1].sequence) == (span.first, span.last):
            self.segments.write(new)
        else:
            # Its name would be another: the next passes write the gap.
            self.segments.delete(span)
        return 1

    def _again(self, wanted: list[Publication], old: Segment) -> Segment | None:
        """A segment of what is wanted: what the old one has of it, and the rest from the artifacts."""
        kept = {_named(row): place for place, row in enumerate(old.rows)}
        names = [(item.sequence, item.video_id, item.revision) for item in wanted]
        fresh = self.segments.gather([item for item, name in zip(wanted, names, strict=True) if name not in kept])
        pairs = [(old.rows[kept[name]], old.vectors[kept[name]]) for name in names if name in kept]
        if fresh is not None:
            pairs += list(zip(fresh.rows, fresh.vectors, strict=True))
        if not pairs:
            return None
        pairs.sort(key=lambda pair: pair[0].sequence)
        return merged([Segment([row], vector[None]) for row, vector in pairs if len(vector) == len(pairs[0][1])])

    def _clear(self, at: float) -> int:
        """Delete segments that lie in a readable larger one since long enough."""
        spans = self.segments.spans()
        inner = {span for span in spans for other in spans if other != span and other.holds(span)}
        self._superseded = {span: self._superseded.get(span, at) for span in inner}
        late = [span for span, since in self._superseded.items() if at - since >= GRACE_SECONDS]
        deleted = 0
        for span in late:
            outer = next(other for other in spans if other != span and other.holds(span))
            try:
                self.segments.read(outer)
            except ReelsenseError as error:
                if error.code not in UNREADABLE:
                    raise
                continue
            self.segments.delete(span)
            deleted += 1
        return deleted


def _named(row: SegmentRow) -> tuple[int, str, str]:
    return row.sequence, row.id, row.revision
