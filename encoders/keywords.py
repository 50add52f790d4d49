"""Content words, and keywords made of them: unsupervised, and the same on every run.

Function words are known of a few languages (`stop_words`). Where a text is in none of them, frequency alone would call
its function words keywords; then only title and tags are asked. Scripts that put no spaces between words (Chinese,
Japanese, Thai, ...) count as content and yield no keywords: half a word is worse than none.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from encoders.stop_words import STOP_WORDS
from store.records import TextPiece

MOST_WORDS = 3
# What an uploader chose to call a video says more than one sentence out of it. A title on the screen would say as much,
# but so does every shop sign and menu entry there.
SOURCE_WEIGHT: Mapping[str, float] = MappingProxyType(
    {"title": 3.0, "tags": 3.0, "description": 2.0, "caption": 1.0, "transcript": 1.0, "screen": 1.0}
)
_SHORTEST = 3
_SHORTEST_HANGUL = 2
_HANGUL = ("\uac00", "\ud7a3")
# A text of at least so many words, of which fewer than this share are function words, is of an unknown language.
_ENOUGH_WORDS = 20
_FUNCTION_SHARE = 0.1

# Vowel signs and accents that are characters of their own; to `re` they are not part of a word.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"[^\W_](?:-?(?:[^\W_]|[{_MARKS}]))*")
# A phrase ends where the text takes a breath; an apostrophe only separates words.
_BREATH = re.compile(rf"[^\w\s'’\-{_MARKS}]+|[\r\n]+|\s[-–—]+\s")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def content_words(text: str) -> list[str]:
    """The words of `text` that are not function words, in folded case and in order. Of scripts without spaces, every
    two characters are a word, the usual length in Chinese; these come last."""
    normal = _normal(text)
    stop = _stop_words([normal])
    unspaced = _UNSPACED.findall(normal)
    pairs = ["".join(unspaced[index : index + 2]) for index in range(0, len(unspaced), 2)]
    return [word for word in _WORD.findall(_UNSPACED.sub(" ", normal)) if word not in stop] + pairs


def keywords(pieces: Sequence[TextPiece], k: int = 10) -> list[str]:
    """At most `k` words and phrases that say what the pieces are about, best first.

    Candidates are single content words; runs of two or three between function words and punctuation, as in RAKE (Rose
    et al., 2010); and parts of runs that come back. With s the sum of the weights of the sources that say it, a word
    scores log(1 + s)^2; a phrase scores the mean of log(1 + s) over its words, times the square root of their number,
    times its own log(1 + s). So a phrase beats its words where it comes back or is in the title, and a run that was
    said once does not. A candidate is left out when better ones have said more than half of its words.
    """
    texts = [_normal(piece.text) for piece in pieces]
    common = _stop_words(texts)
    known = _is_known(texts, common)
    words: dict[str, float] = {}
    phrases: dict[tuple[str, ...], float] = {}
    times: Counter[tuple[str, ...]] = Counter()
    whole: set[tuple[str, ...]] = set()
    for piece, text in zip(pieces, texts, strict=True):
        if not known and piece.source not in ("title", "tags"):
            continue
        weight = SOURCE_WEIGHT[piece.source]
        for run in _runs(text, common | _stop_words([text])):
            for word in run:
                words[word] = words.get(word, 0.0) + weight
            whole.add(run)
            for phrase in _parts(run):
                phrases[phrase] = phrases.get(phrase, 0.0) + weight
                times[phrase] += 1
    scores: dict[tuple[str, ...], float] = {(word,): math.log1p(weight) ** 2 for word, weight in words.items()}
    for phrase, weight in phrases.items():
        if times[phrase] == 1 and phrase not in whole:
            continue
        mean = sum(math.log1p(words[word]) for word in phrase) / len(phrase)
        scores[phrase] = mean * math.sqrt(len(phrase)) * math.log1p(weight)
    chosen: list[tuple[str, ...]] = []
    said: set[str] = set()
    for candidate in sorted(scores, key=lambda phrase: (-scores[phrase], phrase)):
        if len(chosen) == k:
            break
        if 2 * sum(word in said for word in candidate) <= len(candidate):
            chosen.append(candidate)
            said.update(candidate)
    return [" ".join(phrase) for phrase in chosen]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _runs(text: str, stop: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """Content words that stand side by side, without numbers and without words too short to mean much."""
    for breath in _BREATH.split(text):
        run: list[str] = []
        for word in _WORD.findall(breath):
            if word not in stop and _is_telling(word):
                run.append(word)
            elif run:
                yield tuple(run)
                run = []
        if run:
            yield tuple(run)


def _parts(run: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every stretch of two to `MOST_WORDS` words of a run, the run itself among them."""
    for length in range(2, MOST_WORDS + 1):
        for first in range(len(run) - length + 1):
            yield run[first : first + length]


def _is_telling(word: str) -> bool:
    shortest = _SHORTEST_HANGUL if _HANGUL[0] <= word[0] <= _HANGUL[1] else _SHORTEST
    return len(word) >= shortest and word[0].isalpha() and not _UNSPACED.search(word)


def language_of(text: str) -> str | None:
    """The language of a text of some length by its function words, in two letters; None where they do not tell."""
    words = _WORD.findall(_normal(text))
    language = _likeliest(words)
    return language if len(words) >= _ENOUGH_WORDS and _has_function_words(words, STOP_WORDS[language]) else None


def _stop_words(texts: Iterable[str]) -> frozenset[str]:
    """The function words of the language whose own occur most in `texts`; English where none do."""
    return STOP_WORDS[_likeliest([word for text in texts for word in _WORD.findall(text)])]


def _likeliest(found: Sequence[str]) -> str:
    hits = {language: sum(word in words for word in found) for language, words in STOP_WORDS.items()}
    return max(hits, key=hits.__getitem__)


def _has_function_words(found: Sequence[str], stop: frozenset[str]) -> bool:
    return sum(word in stop for word in found) >= _FUNCTION_SHARE * len(found)


def _is_known(texts: Iterable[str], stop: frozenset[str]) -> bool:
    """Whether the function words of `texts` are known: some are there, or the text is too short to have any."""
    found = [word for text in texts for word in _WORD.findall(text)]
    return len(found) < _ENOUGH_WORDS or _has_function_words(found, stop)
