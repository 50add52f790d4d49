"""What videos say and show, as it is searched: phrase embeddings in one matrix, and postings from word to video.

The index is made at the first search and grows with the table; a feed never pays for it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from store.records import Float32

if TYPE_CHECKING:
    from ranker.video_table import PublishedVideo, VideoTable

Float64 = npt.NDArray[np.float64]

# BM25's usual constants (Robertson & Zaragoza 2009, "The probabilistic relevance framework").
SATURATION = 1.2
LENGTH_PENALTY = 0.75
_WORD = re.compile(r"\w+")
# Scripts that are written without spaces: Han, kana, Thai.
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared: NFKC, case-folded; runs of scripts without spaces as pairs of signs."""
    found: list[str] = []
    for run in _WORD.findall(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())):
        last = 0
        for unspaced in _UNSPACED.finditer(run):
            if unspaced.start() > last:
                found.append(run[last : unspaced.start()])
            signs = unspaced.group()
            found.extend(signs[place : place + 2] for place in range(max(len(signs) - 1, 1)))
            last = unspaced.end()
        if last < len(run):
            found.append(run[last:])
    return found


class PhraseIndex:
    """Phrases and words of the rows of one table, in the order of its rows. Not for several threads at once."""

    def __init__(self) -> None:
        self._matrix: Float32 = np.zeros((0, 0), np.float32)
        self._used = 0
        self._row_of_phrase: list[int] = []
        self._weights: list[float] = []
        self._postings: dict[str, tuple[array[int], array[int]]] = {}
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._lengths)

    def follow(self, table: VideoTable) -> None:
        """Read the rows of the table that are not in yet. A replaced row, and one whose artifact went away, is empty.
        Raises `store.unavailable`."""
        snapshot = table.snapshot
        for place in range(len(self._lengths), len(snapshot)):
            video = table.find(snapshot.ids[place]) if snapshot.alive[place] else None
            self._add(place, video)

    def _add(self, place: int, video: PublishedVideo | None) -> None:
        words: list[str] = []
        if video is not None:
            # Title and tags are phrases already where the uploader's words were read; as a set they count once.
            texts = {
                video.attributes.title,
                *video.attributes.tags,
                *(phrase.text for phrase in video.attributes.phrases),
            }
            words = [word for text in sorted(texts) for word in words_of(text)]
            self._add_phrases(place, video)
        for word, count in Counter(words).items():
            rows, counts = self._postings.setdefault(word, (array("q"), array("q")))
            rows.append(place)
            counts.append(count)
        self._lengths.append(len(words))

    def _add_phrases(self, place: int, video: PublishedVideo) -> None:
        count, width = video.phrase_embeddings.shape
        if not count:
            return
        if self._used and width != self._matrix.shape[1]:
            raise ValueError(f"phrase embeddings are {self._matrix.shape[1]} wide, those of {video.id} {width}")
        if self._used + count > len(self._matrix):
            grown = np.zeros((max(1024, 2 * (self._used + count)), width), np.float32)
            if self._used:
                grown[: self._used] = self._matrix[: self._used]
            self._matrix = grown
        self._matrix[self._used : self._used + count] = video.phrase_embeddings
        self._used += count
        self._row_of_phrase.extend([place] * count)
        self._weights.extend(phrase.weight for phrase in video.attributes.phrases)

    def semantic(self, query: Float32) -> Float64:
        """float64 [n] in 0..1: how near each row's nearest phrase is in meaning to the query (float32 [width], unit).

        A phrase scores `max(cosine, 0) * sqrt(weight)`: a label that is half sure is worth 0.7 of one that is sure; a
        row scores what its best phrase does. Raises ValueError for a query of another width.
        """
        scores = np.zeros(len(self._lengths))
        if self._used == 0:
            return scores
        if query.shape != (self._matrix.shape[1],):
            raise ValueError(f"the query must be [{self._matrix.shape[1]}], got {query.shape}")
        weights = np.sqrt(np.clip(np.array(self._weights), 0.0, 1.0))
        cosines = (self._matrix[: self._used] @ query).astype(np.float64)
        np.maximum.at(scores, np.array(self._row_of_phrase), cosines * weights)
        return scores

    def rarities(self, words: Sequence[str]) -> dict[str, float]:
        """BM25's idf of each word: log(1 + (N - n + 1/2) / (n + 1/2)), above 0."""
        total = len(self._lengths)
        result = {}
        for word in words:
            carriers = len(self._postings[word][0]) if word in self._postings else 0
            result[word] = math.log1p((total - carriers + 0.5) / (carriers + 0.5))
        return result

    def lexical(self, words: Sequence[str]) -> Float64:
        """float64 [n] in 0..1: BM25 of each row for the words, as a share of what a row saturated with every word
        would get; so a row that says only the common words of a query gets little."""
        scores = np.zeros(len(self._lengths))
        rarities = self.rarities(sorted(set(words)))
        whole = sum(rarities.values()) * (SATURATION + 1.0)
        if not whole > 0 or not self._lengths:
            return scores
        lengths = np.array(self._lengths, np.float64)
        typical = max(float(lengths.mean()), 1.0)
        for word, rarity in rarities.items():
            if word not in self._postings:
                continue
            rows = np.array(self._postings[word][0])
            counts = np.array(self._postings[word][1], np.float64)
            slack = SATURATION * (1.0 - LENGTH_PENALTY + LENGTH_PENALTY * lengths[rows] / typical)
            scores[rows] += rarity * counts * (SATURATION + 1.0) / (counts + slack) / whole
        return scores
