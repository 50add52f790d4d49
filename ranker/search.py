"""Free text against what videos say and show: by meaning, and by the words themselves.

    score = 0.6 semantic + 0.4 lexical, each in 0..1

Meaning finds "a man on a bicycle" under "cyclist"; words find names and numbers that no sentence encoder knows. The
parts are absolute, not relative to the best hit: when nothing fits, all scores are low.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ranker.phrase_index import words_of
from ranker.video_table import PublishedVideo, VideoTable
from store.errors import InputError
from store.records import Float32

SEMANTIC_WEIGHT = 0.6
LEXICAL_WEIGHT = 0.4
# Words that say nothing of what is sought. They count only when a query has no others.
EMPTY_WORDS = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "is", "it", "of", "on", "or", "that"),
        *("the", "this", "to", "was", "with", "der", "die", "das", "und", "ist", "im", "mit", "von", "ein", "eine"),
        *("le", "la", "les", "de", "des", "du", "et", "un", "une", "el", "los", "las", "y", "en", "con"),
    }
)


@dataclass(frozen=True)
class Match:
    """The phrase that fits best: its source, words, span in seconds, and `similarity`, its cosine with the query."""

    source: str
    text: str
    start: float
    end: float
    similarity: float


@dataclass(frozen=True)
class Hit:
    """One found video. `terms` (semantic, lexical) add up to `score` in 0..1; `match` is None without phrases."""

    video: str
    score: float
    terms: dict[str, float]
    match: Match | None

    def as_json(self) -> dict[str, Any]:
        """The record as JSON."""
        match = None if self.match is None else asdict(self.match)
        return {"video": self.video, "score": self.score, "terms": self.terms, "match": match}


def search(table: VideoTable, query: str, query_embedding: Float32, k: int) -> list[Hit]:
    """The `k` best videos (fewer only when fewer are published), best first, ties by video id.

    `query_embedding` float32 [width] is the unit-length sentence embedding of `query`, by the encoder that embedded
    the phrases. Raises `request.invalid` for an empty query or k below 1, ValueError for an embedding that is not one.
    """
    if k < 1 or not query.strip():
        raise InputError("request.invalid", f"There must be words to search for, and k at least 1 (got {k}).")
    length = float(np.linalg.norm(query_embedding))
    if not math.isfinite(length) or length == 0:
        raise ValueError("query_embedding must be a finite direction")
    direction = (query_embedding / length).astype(np.float32)
    snapshot, index = table.snapshot, table.phrases
    with table.phrases_lock:
        index.follow(table)
        semantic = index.semantic(direction)
        words = _telling(words_of(query))
        lexical = index.lexical(words)
        rarities = index.rarities(sorted(set(words)))
    places = np.flatnonzero(snapshot.alive).tolist()
    # Another thread may have taken the index further than this snapshot.
    totals = SEMANTIC_WEIGHT * semantic + LEXICAL_WEIGHT * lexical
    order = sorted(places, key=lambda place: (-totals[place], snapshot.ids[place]))[:k]
    hits = []
    for place in order:
        terms = {
            "semantic": SEMANTIC_WEIGHT * float(semantic[place]),
            "lexical": LEXICAL_WEIGHT * float(lexical[place]),
        }
        match = _match(table.find(snapshot.ids[place]), direction, rarities)
        hits.append(Hit(snapshot.ids[place], math.fsum(terms.values()), terms, match))
    return hits


def _telling(words: list[str]) -> list[str]:
    return [word for word in words if word not in EMPTY_WORDS] or words


def _match(video: PublishedVideo | None, direction: Float32, rarities: Mapping[str, float]) -> Match | None:
    """The phrase to show: the best by the same two parts, words counted as the share of the query's rarity it has."""
    if video is None or not video.attributes.phrases:
        return None
    whole = sum(rarities.values())
    cosines = (video.phrase_embeddings @ direction).astype(np.float64)
    ranks = []
    for place, phrase in enumerate(video.attributes.phrases):
        said = sum(rarities.get(word, 0.0) for word in set(words_of(phrase.text))) / whole if whole > 0 else 0.0
        meant = max(float(cosines[place]), 0.0) * math.sqrt(min(max(phrase.weight, 0.0), 1.0))
        ranks.append((SEMANTIC_WEIGHT * meant + LEXICAL_WEIGHT * said, -place))
    best = -max(ranks)[1]
    phrase = video.attributes.phrases[best]
    return Match(phrase.source, phrase.text, phrase.start, phrase.end, float(cosines[best]))
