"""From aligned tokens to words with times, each inside its line and where somebody speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from store.records import TranscriptSegment, Word

_SHORTEST_LINE_SECONDS = 0.02  # one step of Whisper's clock
_SAME_WORDS = 0.6  # likeness of two texts from which they are two hearings of one
_WITHOUT_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
_OPENING = frozenset("\"'“¿([{-«„‘¡")


def words_of(tokenizer: Any, tokens: Sequence[int], starts: Sequence[float], logprobs: Sequence[float]) -> list[Word]:
    """The words of one line of `tokens`, in order.

    `tokenizer` is openai-whisper's, for the language of the line. `starts` [n + 1] (seconds) are the beginnings of the
    tokens and the end of the last; `logprobs` [n] their log probabilities, whose mean is a word's confidence. A word
    keeps its punctuation in its text, but not in its time, since that is a pause. Languages that write no spaces have
    words of one sign or a few, as the tokenizer cuts them.
    """
    spaced = tokenizer.language not in _WITHOUT_SPACES
    spelled: list[tuple[str, int, int]] = []  # text, and the places of its first and behind its last token that sounds
    opening, place = "", 0
    for piece, of_piece in zip(*tokenizer.split_to_word_tokens(list(tokens)), strict=True):
        first, place = place, place + len(of_piece)
        sounds = any(sign.isalnum() for sign in piece)
        continues = spelled and not opening and not (spaced and piece.startswith(" "))
        if sounds and not (continues and spaced):
            spelled.append((opening + piece, first, place))
            opening = ""
        elif sounds or (spelled and not (set(piece.strip()) & _OPENING and not continues)):
            text, start, stop = spelled[-1]
            spelled[-1] = (text + piece, start, place if sounds else stop)
        else:
            opening += piece
    if opening and spelled:
        text, start, stop = spelled[-1]
        spelled[-1] = (text + opening, start, stop)
    return [
        Word(
            start=starts[start],
            end=starts[stop],
            text=text.strip(),
            confidence=round(math.exp(sum(logprobs[start:stop]) / (stop - start)), 4),
        )
        for text, start, stop in spelled
    ]


def settled(
    line: TranscriptSegment, spans: Sequence[tuple[float, float]], floor: float, end: float
) -> TranscriptSegment:
    """`line` with its words, and so itself, between `floor` and `end` (seconds), in order, and out of the pauses.

    The alignment gives a pause to one of the words beside it, so a word is cut back to the one of `spans` of speech in
    which most of it lies, and one that lies in none moves to the nearest. A line without words is only kept between
    the bounds.
    """
    if not line.words:
        start = min(max(line.start, floor), end)
        return line.model_copy(update={"start": start, "end": min(max(line.end, start), end)})
    words = []
    for word in line.words:
        first, last = min(max(word.start, floor), end), min(max(word.end, floor), end)
        if spans:
            low, high = max(spans, key=lambda span: (min(span[1], last) - max(span[0], first), -span[0]))
            first, last = min(max(first, low), high), min(max(last, low), high)
        first = min(max(first, floor), end)
        last = max(min(last, end), first)
        words.append(word.model_copy(update={"start": round(first, 3), "end": round(last, 3)}))
        floor = words[-1].end
    stop = min(max(words[-1].end, words[0].start + _SHORTEST_LINE_SECONDS), end)
    start = min(words[0].start, stop - _SHORTEST_LINE_SECONDS)
    return line.model_copy(update={"start": round(start, 3), "end": round(stop, 3), "words": words})


def without_echoes(lines: list[TranscriptSegment]) -> list[TranscriptSegment]:
    """`lines` of several channels in order of time, where of two that say the same at the same time (one talker, who is
    heard in both channels after all) only the more confident stays."""
    kept: list[TranscriptSegment] = []
    for line in sorted(lines, key=lambda each: -each.confidence):
        if not any(_echoes(line, other) for other in kept):
            kept.append(line)
    return sorted(kept, key=lambda each: (each.start, each.end, each.text))


def _echoes(line: TranscriptSegment, other: TranscriptSegment) -> bool:
    at_once = min(line.end, other.end) - max(line.start, other.start)
    if at_once < 0.5 * min(line.end - line.start, other.end - other.start):
        return False
    ours, theirs = (each.text.casefold().split() or [""] for each in (line, other))
    return SequenceMatcher(None, ours, theirs, autojunk=False).ratio() >= _SAME_WORDS
