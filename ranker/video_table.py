"""The published videos as the ranker sees them: vectors in one matrix, and what people can read of each.

The table follows the catalogue's publications by their sequence, so new videos appear at the next `refresh`, without a
restart. Rows are only ever added: a new revision of a video is a new row, and its old row is marked as replaced. So a
`Snapshot` that was taken before stays true while another thread refreshes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ranker.phrase_index import PhraseIndex
from ranker.tag_index import TagIndex
from ranker.vector_index import IndexKeeper, VectorIndex
from ranker.video_rows import Column, RowOf, VideoRows
from ranker.video_rows import VideoRow as VideoRow
from store.administration import Administration
from store.artifacts import artifact_key, from_bytes
from store.catalogue import Catalogue, Publication
from store.deletions import Deletions
from store.errors import NotFoundError, PassingError, ReelsenseError
from store.objects import ObjectStore
from store.publications import published_between, published_sequences
from store.records import Float32, PublishedAttributes
from store.vector_segments import SegmentRow, VectorSegments

# PostgreSQL hands out sequence numbers before it commits, so a lower number can appear after a higher one: look back.
LOOK_BACK = 256
KEPT_DETAILS = 512
UNREADABLE = ("store.missing", "store.artifact_damaged")
# A unit vector in float32 is this near to length 1; anything else is not what fusion makes.
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class PublishedVideo:
    """A whole `published` artifact: for explanations and search, read when needed.

    `vector` float32 [dim] unit; `weights` float32 [n_tokens]; `token_vectors` float32 [n_tokens, dim];
    `phrase_embeddings` float32 [n_phrases, text width], unit.
    """

    id: str
    attributes: PublishedAttributes
    vector: Float32
    weights: Float32
    token_vectors: Float32
    phrase_embeddings: Float32

    def __post_init__(self) -> None:
        n_tokens, n_phrases = len(self.attributes.tokens), len(self.attributes.phrases)
        if self.vector.ndim != 1 or abs(float(np.linalg.norm(self.vector)) - 1.0) > UNIT_TOLERANCE:
            raise ValueError(f"vector must be one unit vector, got {self.vector.shape}")
        if self.weights.shape != (n_tokens,) or self.token_vectors.shape != (n_tokens, len(self.vector)):
            raise ValueError(f"{n_tokens} tokens, but weights {self.weights.shape}, vectors {self.token_vectors.shape}")
        if self.phrase_embeddings.ndim != 2 or len(self.phrase_embeddings) != n_phrases:
            raise ValueError(f"{n_phrases} phrases, but embeddings {self.phrase_embeddings.shape}")

    def __repr__(self) -> str:
        return f"PublishedVideo({self.id}, tokens={self.token_vectors.shape})"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The table at one moment. `vectors` float32 [n, dim] unit; `alive` bool [n] (false: replaced by a later row, or
    in quarantine); `published_at` float64 [n]; `creators` int64 [n] numbers into `creator_numbers`; `regions` and
    `languages` int32 [n] numbers into `region_numbers` and `language_numbers` (-1: the language is not known);
    `row_of` the row of each video; `index` finds nearest rows. `rows`, their `ids` and the numbers of names may hold
    later ones."""

    rows: VideoRows
    ids: Sequence[str]
    vectors: Float32
    alive: npt.NDArray[np.bool_]
    published_at: npt.NDArray[np.float64]
    creators: npt.NDArray[np.int64]
    creator_numbers: Mapping[str, int]
    row_of: Mapping[str, int]
    tags: TagIndex
    regions: npt.NDArray[np.int32]
    region_numbers: Mapping[str, int]
    languages: npt.NDArray[np.int32]
    language_numbers: Mapping[str, int]
    index: VectorIndex

    def __len__(self) -> int:
        return len(self.vectors)

    def row(self, video_id: str) -> VideoRow | None:
        """The video's row, or None when it is not published."""
        place = self.row_of.get(video_id)
        return None if place is None else self.rows[place]

    def allowed(
        self,
        *,
        regions: Sequence[str] | None = None,
        languages: Sequence[str] | None = None,
        published_after: float | None = None,
    ) -> npt.NDArray[np.bool_]:
        """bool [n]: which videos are to be seen, of these regions and languages (None: of all), and published after
        this time; for `index.search`, and to be narrowed further by the caller."""
        mask = self.alive.copy()
        for wanted, column, numbers in (
            (regions, self.regions, self.region_numbers),
            (languages, self.languages, self.language_numbers),
        ):
            if wanted is not None:
                mask &= np.isin(column, [numbers[name] for name in sorted(set(wanted)) if name in numbers])
        if published_after is not None:
            mask &= self.published_at > published_after
        return mask


class VideoTable:
    """The published videos of one version. `refresh` follows the catalogue; reading never waits for it.

    Videos in quarantine are not in it: no feed, search or list of neighbours shows them until they are released. What
    was deleted leaves it, and comes back when the same bytes are uploaded and published again.

    Errors: `store.unavailable`, `database.unavailable`. An artifact that is missing or damaged hides its own video and
    no other: its code stands in `unreadable`, and the next `refresh` tries again.
    """

    def __init__(self, objects: ObjectStore, catalogue: Catalogue, version: str, cache: Path | None = None) -> None:
        self.objects = objects
        self.catalogue = catalogue
        self.version = version
        self.administration = Administration(catalogue)
        self.deletions = Deletions(catalogue)
        # Before any publication is read: those of a video that is deleted later are taken out again.
        self._deleted = self.deletions.highest()
        self.unreadable: dict[str, str] = {}
        self._lock = threading.Lock()
        self._last = 0
        self._started = False
        self._known: set[int] = set()
        self._hidden: frozenset[str] = frozenset()
        self._waiting: list[Publication] = []
        self._rows = VideoRows()
        self._sequences = Column(np.int64)
        self._vectors: Float32 = np.zeros((0, 0), np.float32)
        self._alive = Column(np.bool_)
        self._latest: dict[str, int] = {}
        self._earlier: dict[str, list[int]] = {}
        self._index = IndexKeeper(cache / f"{version}.cells" if cache else None)
        self._tags = TagIndex()
        self._details: OrderedDict[str, PublishedVideo] = OrderedDict()
        self.phrases = PhraseIndex()
        self.phrases_lock = threading.Lock()
        self.snapshot = self._take()

    def refresh(self) -> int:
        """Read what was published since the last call; how many rows are new. Costs two queries when nothing is."""
        with self._lock:
            before = len(self._rows)
            hidden = frozenset(self.administration.quarantined())
            changed = hidden != self._hidden
            self._waiting += [self._again(video) for video in self._hidden - hidden if video in self._latest]
            self._hidden = hidden
            if not self._started:
                self._start()
            changed = self._take_out() or changed
            fresh = self._fresh()
            todo = sorted([*self._waiting, *fresh], key=lambda item: item.sequence)
            # All wait until they are read: should the store go away half-way, the rest is read next time.
            self._waiting = todo
            self._last = max([self._last, *(item.sequence for item in todo)])
            self._known.update(item.sequence for item in todo)
            self._known = {sequence for sequence in self._known if sequence > self._last - 2 * LOOK_BACK}
            try:
                self._waiting = [item for item in todo if not self._follow(item)]
            finally:
                if changed or self._index.changed or len(self._rows) != before:
                    self.snapshot = self._take()
            return len(self._rows) - before

    def _take_out(self) -> bool:
        """Let what was deleted be seen no more; whether there was any. What a snapshot of before holds stays true."""
        gone = self.deletions.after(max(0, self._deleted - LOOK_BACK))
        found = False
        for deletion in gone:
            self._deleted = max(self._deleted, deletion.number)
            self.unreadable.pop(deletion.video_id, None)
            self._waiting = [
                item for item in self._waiting if item.video_id != deletion.video_id or item.sequence > deletion.up_to
            ]
            place = self._latest.get(deletion.video_id)
            if place is None or int(self._sequences.values[place]) > deletion.up_to or not self._alive.values[place]:
                continue
            self._alive.values[place] = False
            self._tags.replace(place, self._rows[place].tags)
            found = True
        return found

    def _fresh(self) -> list[Publication]:
        """Publications that are not followed yet, in order."""
        sequences = published_sequences(self.catalogue, self.version, max(0, self._last - LOOK_BACK))
        new = [sequence for sequence in sequences if sequence not in self._known]
        if not new:
            return []
        found = published_between(self.catalogue, self.version, new[0] - 1, new[-1])
        return [item for item in found if item.sequence not in self._known]

    def _start(self) -> None:
        """Read what the segments of the vector table hold of the publications; the rest waits to be read from the
        artifacts. Raises `store.unavailable`, `database.unavailable`; then the next call goes on."""
        segments = VectorSegments(self.objects, self.version)
        for segment in segments.readable():
            last = segment.rows[-1].sequence
            if last <= self._last:
                continue
            rows = {row.sequence: place for place, row in enumerate(segment.rows)}
            for item in published_between(self.catalogue, self.version, self._last, last):
                place = rows.get(item.sequence)
                if place is None or not self._fits(item, segment.rows[place], segment.vectors[place]):
                    if not self._follow(item) and item not in self._waiting:
                        self._waiting.append(item)
                elif not self._is_in(item.video_id, item.sequence):
                    said = segment.rows[place]
                    row = VideoRow(
                        said.id, said.revision, said.title, said.creator, said.region, said.language, said.duration,
                        said.tags, said.attention, item.published_at, said.sound,
                    )  # fmt: skip
                    self._append(row, segment.vectors[place], item.sequence)
                self._known.add(item.sequence)
            self._last = last
            self._known = {sequence for sequence in self._known if sequence > self._last - 2 * LOOK_BACK}
        self._started = True

    def _fits(self, item: Publication, row: SegmentRow, vector: Float32) -> bool:
        """Whether a segment's row is that of the publication, and could stand in this table."""
        return (
            (row.id, row.revision) == (item.video_id, item.revision)
            and abs(float(np.linalg.norm(vector)) - 1.0) <= UNIT_TOLERANCE
            and (not len(self._rows) or len(vector) == self._vectors.shape[1])
        )

    def _again(self, video_id: str) -> Publication:
        """The publication of a video that was released, to be read anew: an index that follows the rows has passed it
        over while it was hidden."""
        place = self._latest[video_id]
        row, sequence = self._rows[place], int(self._sequences.values[place])
        self._sequences.values[place] = -1
        return Publication(
            sequence=sequence,
            video_id=video_id,
            version=self.version,
            revision=row.revision,
            published_at=row.published_at,
        )

    def _follow(self, publication: Publication) -> bool:
        """Add the row of one publication, unless it or a later one of the same video is there already; false when its
        artifact cannot be read."""
        video_id = publication.video_id
        if self._is_in(video_id, publication.sequence):
            return True
        try:
            video = self._read(video_id, publication.revision)
            if len(self._rows) and len(video.vector) != self._vectors.shape[1]:
                raise PassingError("store.artifact_damaged", f"The vector of {video_id} is {len(video.vector)} wide.")
        except ReelsenseError as error:
            if error.code not in UNREADABLE:
                raise
            self.unreadable[video_id] = error.code
            return False
        self.unreadable.pop(video_id, None)
        said = video.attributes
        row = VideoRow(
            video.id, publication.revision, said.title, said.creator, said.region, said.language, said.duration,
            said.tags, said.attention, publication.published_at, said.sound,
        )  # fmt: skip
        self._append(row, video.vector, publication.sequence)
        return True

    def _is_in(self, video_id: str, sequence: int) -> bool:
        """Whether this publication of the video, or a later one, has its row."""
        place = self._latest.get(video_id)
        return place is not None and int(self._sequences.values[place]) >= sequence

    def _append(self, row: VideoRow, vector: Float32, sequence: int) -> None:
        place = len(self._rows)
        if place >= len(self._vectors):
            # Twice the room each time; snapshots keep their views of the old matrix.
            grown = np.zeros((max(64, 2 * place), len(vector)), np.float32)
            if place:
                grown[:place] = self._vectors[:place]
            self._vectors = grown
        self._vectors[place] = vector
        self._rows.append(row)
        self._tags.add(row.tags)
        self._alive.add(True)
        self._sequences.add(sequence)
        if (old := self._latest.get(row.id)) is not None:
            if self._alive.values[old]:  # or it was deleted, and came again
                self._alive.values[old] = False
                self._tags.replace(old, self._rows[old].tags)
            # Before the new row: an earlier snapshot must find its own in one of the two.
            self._earlier.setdefault(row.id, []).append(old)
        self._latest[row.id] = place

    def _take(self) -> Snapshot:
        """The table as it is. Costs a copy of `alive`, whatever the number of rows."""
        rows, count = self._rows, len(self._rows)
        alive = self._alive.first(count).copy()
        alive[[self._latest[video] for video in self._hidden if video in self._latest]] = False
        vectors = self._vectors[:count]
        return Snapshot(
            rows,
            rows.ids,
            vectors,
            alive,
            rows.published_at.first(count),
            rows.creators.first(count),
            rows.creator_names.numbers,
            RowOf(rows.ids, self._latest, self._earlier, alive),
            self._tags,
            rows.regions.first(count),
            rows.region_names.numbers,
            rows.languages.first(count),
            rows.language_names.numbers,
            self._index.index(vectors, alive),
        )

    def _read(self, video_id: str, revision: str) -> PublishedVideo:
        """The artifact of one revision. Raises `store.missing`, `store.artifact_damaged`, `store.unavailable`."""
        artifact = from_bytes(self.objects.get(artifact_key("published", self.version, video_id, revision)))
        try:
            return PublishedVideo(
                video_id,
                PublishedAttributes.model_validate(artifact.attributes),
                *(
                    np.ascontiguousarray(artifact.arrays[name], np.float32)
                    for name in ("vector", "weights", "token_vectors", "phrase_embeddings")
                ),
            )
        except (KeyError, ValueError) as error:
            raise PassingError(
                "store.artifact_damaged",
                f"The published artifact of {video_id} is not complete: {type(error).__name__}.",
                hint="Delete the object and run `reelsense reconcile`.",
            ) from error

    def __len__(self) -> int:
        return len(self.snapshot.row_of)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.snapshot.row_of

    @property
    def ids(self) -> list[str]:
        """The published videos, in the order in which their latest revisions were published."""
        seen = self.snapshot
        return list(seen.row_of)

    @property
    def vectors(self) -> Float32:
        """float32 [n, dim], one row for each of `ids`."""
        seen = self.snapshot
        return seen.vectors[seen.alive]

    def get(self, video_id: str) -> PublishedVideo:
        """All that was published of a video. Raises `video.unknown` when it is not in the table."""
        row = self.snapshot.row(video_id)
        if row is None:
            raise NotFoundError(
                "video.unknown", f"The video {video_id[:64]!r} is not published.", hint="See `reelsense status`."
            )
        key = f"{row.id}-{row.revision}"
        with self._lock:
            if (kept := self._details.get(key)) is not None:
                self._details.move_to_end(key)
                return kept
        video = self._read(row.id, row.revision)
        with self._lock:
            self._details[key] = video
            while len(self._details) > KEPT_DETAILS:
                self._details.popitem(last=False)
        return video

    def find(self, video_id: str) -> PublishedVideo | None:
        """`get`, or None when the video is not in the table or its artifact is gone or damaged: what is shown about one
        video is no reason to show nothing about the others."""
        try:
            return self.get(video_id)
        except ReelsenseError as error:
            if error.code in ("video.unknown", *UNREADABLE):
                return None
            raise
