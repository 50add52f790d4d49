"""The readable half of the table of videos, in columns: a million rows of Python objects would need gigabytes.

A column only grows, and never moves what a reader holds: when it is full, its numbers are copied into one of twice the
room, and earlier views keep the old. One thread writes; any may read the rows that are in already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from ranker.grouping import runs
from ranker.interactions import Sparse
from store.records import Modality

Scalar = TypeVar("Scalar", bound=np.generic)

KEPT_ROWS = 16_384
NO_LANGUAGE = -1


@dataclass(frozen=True, slots=True)
class VideoRow:
    """What is kept in memory of a published video. `duration` in seconds, `published_at` in seconds since the epoch."""

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


class Column(Generic[Scalar]):
    """Numbers of one kind, [used]."""

    def __init__(self, kind: type[Scalar]) -> None:
        self.values: npt.NDArray[Scalar] = np.zeros(64, kind)
        self.used = 0

    def add(self, value: float) -> None:
        """One more."""
        self.extend((value,))

    def extend(self, values: Sequence[float] | npt.NDArray[Any]) -> None:
        """Several more."""
        end = self.used + len(values)
        if end > len(self.values):
            grown = np.zeros(max(end, 2 * len(self.values)), self.values.dtype)
            grown[: self.used] = self.values[: self.used]
            self.values = grown
        self.values[self.used : end] = values
        self.used = end

    def first(self, count: int) -> npt.NDArray[Scalar]:
        """The first `count`, as a view."""
        return self.values[:count]

    @property
    def bytes(self) -> int:
        """Of what is used."""
        return self.used * self.values.itemsize


class Texts:
    """Texts of any length, one after the other in UTF-8."""

    def __init__(self) -> None:
        self._said = bytearray()
        self._ends = Column(np.int64)
        self._ends.add(0)

    def add(self, text: str) -> None:
        """One more."""
        # A title may hold half a surrogate pair, which JSON can say and UTF-8 cannot.
        self._said += text.encode("utf-8", "surrogatepass")
        self._ends.add(len(self._said))

    def __getitem__(self, place: int) -> str:
        start, end = self._ends.values[place : place + 2].tolist()
        return bytes(self._said[start:end]).decode("utf-8", "surrogatepass")

    @property
    def bytes(self) -> int:
        """Of texts and ends."""
        return len(self._said) + self._ends.bytes


class Names:
    """Names by number, in the order in which they were first met."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The name's number, a new one if it is new."""
        number = self.numbers.get(name)
        if number is None:
            # In this order: who finds the number finds the name.
            number = len(self.names)
            self.names.append(name)
            self.numbers[name] = number
        return number


class Weights:
    """Weighted names of each row, such as tags: 12 bytes for each of them."""

    def __init__(self) -> None:
        self.known = Names()
        self._numbers = Column(np.int32)
        self._weights = Column(np.float64)
        self._ends = Column(np.int64)
        self._ends.add(0)

    def add(self, weights: Mapping[Any, float]) -> None:
        """The next row's, in their order."""
        self._numbers.extend([self.known.number(name) for name in weights])
        self._weights.extend(list(weights.values()))
        self._ends.add(self._numbers.used)

    def __getitem__(self, place: int) -> dict[str, float]:
        start, end = self._ends.values[place : place + 2].tolist()
        names = self.known.names
        numbers, weights = self._numbers.values[start:end].tolist(), self._weights.values[start:end].tolist()
        return {names[number]: weight for number, weight in zip(numbers, weights, strict=True)}

    def cells(self, rows: npt.NDArray[np.int64]) -> Sparse:
        """CSR float32 [rows, names]: the weights above 0 of these rows."""
        # Ends first: what they point at was written before them, whatever is added meanwhile.
        ends = self._ends.values
        starts, counts = ends[rows], ends[rows + 1] - ends[rows]
        places = runs(starts, counts)
        numbers, weights = self._numbers.values[places], self._weights.values[places]
        found = sparse.csr_matrix(
            (weights.astype(np.float32), numbers, np.concatenate([[0], np.cumsum(counts)])),
            shape=(len(rows), len(self.known.names)),
        )
        found.data[found.data < 0] = 0
        found.eliminate_zeros()
        return found

    @property
    def bytes(self) -> int:
        """Without the names themselves."""
        return self._numbers.bytes + self._weights.bytes + self._ends.bytes


class VideoRows(Sequence[VideoRow]):
    """All rows, each made when it is asked for; those asked for lately are kept."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.published_at = Column(np.float64)
        self.creators = Column(np.int64)
        self.creator_names = Names()
        self.regions = Column(np.int32)
        self.region_names = Names()
        self.languages = Column(np.int32)
        self.language_names = Names()
        self.sounds = Column(np.int32)
        self.sound_names = Names()
        self._durations = Column(np.float64)
        self._revisions = Texts()
        self._titles = Texts()
        self.tag_weights = Weights()
        self._attention = Weights()
        self._kept: dict[int, VideoRow] = {}

    def append(self, row: VideoRow) -> None:
        """The next row."""
        self.published_at.add(row.published_at)
        self.creators.add(self.creator_names.number(row.creator))
        self.regions.add(self.region_names.number(row.region))
        self.languages.add(NO_LANGUAGE if row.language is None else self.language_names.number(row.language))
        self.sounds.add(self.sound_names.number(row.sound))
        self._durations.add(row.duration)
        self._revisions.add(row.revision)
        self._titles.add(row.title)
        self.tag_weights.add(row.tags)
        self._attention.add(row.attention)
        self.ids.append(row.id)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[VideoRow]:
        return (self[place] for place in range(len(self)))

    @overload
    def __getitem__(self, place: int) -> VideoRow: ...
    @overload
    def __getitem__(self, place: slice) -> list[VideoRow]: ...
    def __getitem__(self, place: int | slice) -> VideoRow | list[VideoRow]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        wanted = int(place)
        if (kept := self._kept.get(wanted)) is not None:
            return kept
        if not -len(self) <= wanted < len(self):
            raise IndexError(f"there are {len(self)} rows, not {wanted}")
        wanted %= len(self)
        language = int(self.languages.values[wanted])
        attention: dict[Any, float] = self._attention[wanted]
        row = VideoRow(
            self.ids[wanted],
            self._revisions[wanted],
            self._titles[wanted],
            self.creator_names.names[int(self.creators.values[wanted])],
            self.region_names.names[int(self.regions.values[wanted])],
            None if language == NO_LANGUAGE else self.language_names.names[language],
            float(self._durations.values[wanted]),
            self.tag_weights[wanted],
            attention,
            float(self.published_at.values[wanted]),
            self.sound_names.names[int(self.sounds.values[wanted])],
        )
        if len(self._kept) >= KEPT_ROWS:
            self._kept.clear()
        self._kept[wanted] = row
        return row

    @property
    def bytes(self) -> int:
        """Memory of the columns; ids and names come on top."""
        numbers = (self.published_at, self.creators, self.regions, self.languages, self.sounds, self._durations)
        others = (self._revisions, self._titles, self.tag_weights, self._attention)
        return sum(column.bytes for column in (*numbers, *others))


class RowOf(Mapping[str, int]):
    """The row of each video that is to be seen at one moment: over books that go on growing (`latest`, and `earlier`
    rows of videos that were replaced), and what lived then (`alive` bool [n])."""

    def __init__(self, ids: list[str], latest: dict[str, int], earlier: dict[str, list[int]], alive: Any) -> None:
        self._ids = ids
        self._latest = latest
        self._earlier = earlier
        self._alive: npt.NDArray[np.bool_] = alive
        self._count = int(np.count_nonzero(alive))

    def __getitem__(self, video_id: str) -> int:
        place = self._latest[video_id]
        if place >= len(self._alive):
            then = [row for row in self._earlier.get(video_id, ()) if row < len(self._alive)]
            if not then:
                raise KeyError(video_id)
            place = then[-1]
        if not self._alive[place]:
            raise KeyError(video_id)
        return place

    def __iter__(self) -> Iterator[str]:
        return (self._ids[place] for place in np.flatnonzero(self._alive).tolist())

    def __len__(self) -> int:
        return self._count
