"""What ranking asks of many rows at once, as arrays: tags, topic, region, language, and how attention is shared.

A `Snapshot` keeps each row's words for people; walking 2,000 dictionaries in every request would cost more than the
rest of the feed. Rows are only ever added, so these arrays grow with the table and are kept for as long as it lives.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ranker import tag_index
from ranker.tag_index import TagIndex
from ranker.video_table import Snapshot, VideoRow
from store.records import MODALITIES

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

NOTHING = -1


@dataclass(frozen=True, eq=False)
class RowFacts:
    """The facts of rows 0 to n - 1 of a table.

    `starts` int64 [n + 1] and `tags` int64, `weights` float64 [starts[n]]: the tags of row r, as numbers into
    `tag_numbers`, are `tags[starts[r]:starts[r + 1]]`, their weights at unit length beside them. `rarity` float64
    [tags]: idf_t of `ranker.tag_index` in 0..1. `topics` int64 [n]: the heaviest tag's number (first by name among
    equals), -1 without tags. `regions`, `languages` int64 [n]: numbers, -1 where not known. `attention` float64 [n, 3]:
    the attention to each modality at unit length: about how long each modality's part of the fused vector is.
    """

    starts: Int64
    tags: Int64
    weights: Float64
    rarity: Float64
    topics: Int64
    regions: Int64
    languages: Int64
    attention: Float64
    tag_numbers: Mapping[str, int]
    region_numbers: Mapping[str, int]
    language_numbers: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.topics)

    def places(self, rows: Int64) -> tuple[Int64, Int64]:
        """(place in `rows`, place in `tags`) of every tag of the given rows."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        owners = np.repeat(np.arange(len(rows)), lengths)
        ends = np.cumsum(lengths)
        within = np.arange(len(owners)) - np.repeat(ends - lengths, lengths)
        return owners, np.repeat(self.starts[rows], lengths) + within

    def matches(self, rows: Int64, wanted: Mapping[str, float]) -> Float64:
        """float64 [rows]: the match of `wanted` with each row, as `ranker.tag_index` defines it. The result of a row
        does not depend on which others are asked for."""
        norm = tag_index.length(wanted)
        asked = np.zeros(len(self.rarity))
        for tag, weight in wanted.items():
            number = self.tag_numbers.get(tag, len(asked))
            if weight > 0 and number < len(asked):
                asked[number] = weight / norm
        asked *= self.rarity
        owners, places = self.places(rows)
        shared = asked[self.tags[places]] * self.weights[places]
        return np.bincount(owners, shared, len(rows)).astype(np.float64, copy=False)


class _Growing:
    """An array that is appended to; what was taken from it stays as it was."""

    def __init__(self, dtype: type, width: int = 0) -> None:
        self._values: npt.NDArray[Any] = np.zeros((64, width) if width else 64, dtype)
        self._count = 0

    def add(self, values: npt.NDArray[Any]) -> None:
        while self._count + len(values) > len(self._values):
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
        self._values[self._count : self._count + len(values)] = values
        self._count += len(values)

    def taken(self) -> npt.NDArray[Any]:
        return self._values[: self._count]


class _Table:
    """The facts of one table as they grow."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.starts, self.tags, self.weights = _Growing(np.int64), _Growing(np.int64), _Growing(np.float64)
        self.topics, self.regions, self.languages = _Growing(np.int64), _Growing(np.int64), _Growing(np.int64)
        self.attention = _Growing(np.float64, len(MODALITIES))
        self.tag_numbers: dict[str, int] = {}
        self.region_numbers: dict[str, int] = {}
        self.language_numbers: dict[str, int] = {}
        self.carried = _Growing(np.int64)
        self.starts.add(np.zeros(1, np.int64))
        self.rows = 0
        self.replaced = 0
        self.entries = 0
        self.facts: RowFacts | None = None

    def follow(self, snapshot: Snapshot) -> RowFacts:
        with self.lock:
            if self.facts is None or self.rows < len(snapshot):
                self._add([snapshot.rows[place] for place in range(self.rows, len(snapshot))])
                self._drop(snapshot.tags.replaced)
                self.facts = self._take()
            return self.facts

    def _add(self, rows: list[VideoRow]) -> None:
        tags: list[int] = []
        weights: list[float] = []
        starts: list[int] = []
        topics: list[int] = []
        attention = np.zeros((len(rows), len(MODALITIES)))
        for place, row in enumerate(rows):
            norm = tag_index.length(row.tags)
            for tag, weight in row.tags.items():
                if weight > 0:
                    tags.append(self.tag_numbers.setdefault(tag, len(self.tag_numbers)))
                    weights.append(weight / norm)
            starts.append(self.entries + len(tags))
            topics.append(self.tag_numbers[topic] if (topic := topic_of(row)) else NOTHING)
            attention[place] = [row.attention.get(modality, 0.0) for modality in MODALITIES]
        norms = np.linalg.norm(attention, axis=1, keepdims=True)
        self.attention.add(attention / np.where(norms > 0, norms, 1.0))
        numbers = np.array(tags, np.int64)
        self.carried.add(np.zeros(len(self.tag_numbers) - len(self.carried.taken()), np.int64))
        np.add.at(self.carried.taken(), numbers, 1)
        self.tags.add(numbers)
        self.weights.add(np.array(weights, np.float64))
        self.starts.add(np.array(starts, np.int64))
        self.topics.add(np.array(topics, np.int64))
        self.regions.add(_numbered([row.region for row in rows], self.region_numbers))
        self.languages.add(_numbered([primary(row.language) for row in rows], self.language_numbers))
        self.entries += len(tags)
        self.rows += len(rows)

    def _drop(self, replaced: list[int]) -> None:
        """What rows carried that later ones stand for counts no more."""
        starts, tags = self.starts.taken(), self.tags.taken()
        while self.replaced < len(replaced) and replaced[self.replaced] < self.rows:
            row = replaced[self.replaced]
            np.subtract.at(self.carried.taken(), tags[starts[row] : starts[row + 1]], 1)
            self.replaced += 1

    def _take(self) -> RowFacts:
        counts = np.maximum(self.carried.taken().astype(np.float64), 1.0)
        videos = self.rows - self.replaced
        rarity = np.log1p(videos / counts) / np.log1p(videos) if videos else np.zeros(len(counts))
        return RowFacts(
            self.starts.taken(),
            self.tags.taken(),
            self.weights.taken(),
            rarity,
            self.topics.taken(),
            self.regions.taken(),
            self.languages.taken(),
            self.attention.taken(),
            self.tag_numbers,
            self.region_numbers,
            self.language_numbers,
        )


# One for each table, by its tag index, which lives as long as the table and no longer.
_TABLES: WeakKeyDictionary[TagIndex, _Table] = WeakKeyDictionary()
_TABLES_LOCK = threading.Lock()


def facts_of(snapshot: Snapshot) -> RowFacts:
    """The facts of at least all rows of the snapshot. The first call of a table walks all rows, later ones the new."""
    with _TABLES_LOCK:
        table = _TABLES.setdefault(snapshot.tags, _Table())
    return table.follow(snapshot)


def topic_of(row: VideoRow) -> str:
    """The video's heaviest tag, the first by name among equals; empty without tags."""
    heaviest = min(row.tags.items(), key=lambda item: (-item[1], item[0]), default=("", 0.0))
    return heaviest[0] if heaviest[1] > 0 else ""


def primary(language: str | None) -> str:
    """`pt` of `pt-BR`: what decides whether somebody understands it."""
    return (language or "").split("-")[0].lower()


def _numbered(names: list[str], numbers: dict[str, int]) -> Int64:
    return np.array([numbers.setdefault(name, len(numbers)) if name else NOTHING for name in names], np.int64)
