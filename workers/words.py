"""Words into pieces: which text tokens a video has, from what its uploader wrote, what is said, and what stands in it.

The same words count once. Of several caption tracks one is read into pieces (all are kept as captions). What is said is
often there three times, in captions, in the transcript and burned into the picture; of lines that say the same at the
same time the caption is kept, then the transcript, then the screen: people are more exact than the recogniser, and the
recogniser hears what the reader of the screen has to cut into lines. What the uploader wrote is kept whatever is said:
a title that is also spoken, or shown as a card, says so twice on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from encoders.keywords import language_of
from store.records import CaptionSegment, CaptionTrack, Metadata, ScreenPhrase, TextPiece, TextSource
from workers.captions import base_language

PIECE_CHARACTERS = 240
PIECE_SECONDS = 15.0
MOST_PIECES = 96
MOST_SCREEN_PIECES = 24
# Lines say the same when this share of the words of one is in the others near it: the recogniser mishears some.
REPEATED_SHARE = 0.6
REPEATED_SECONDS = 2.0
TOGETHER_SECONDS = 1.0  # lines on the screen that appear within this time belong together

_Line = TypeVar("_Line", bound=CaptionSegment)
_WORD = re.compile(r"\w+")
# One character is a word where words stand without spaces.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


class WordsConfig(BaseModel):
    """Which words are read: `caption_languages` are language tags, the most wanted first (see `chosen_track`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    caption_languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimedPiece:
    """A text piece and its span on the video's clock, in seconds."""

    piece: TextPiece
    start: float
    end: float


def pieces_of(
    metadata: Metadata,
    captions: Sequence[CaptionTrack],
    transcript: Sequence[CaptionSegment],
    duration: float,
    *,
    screen: Sequence[ScreenPhrase] = (),
    caption_languages: Sequence[str] = (),
) -> list[TimedPiece]:
    """Title, description and tags span the whole video; caption and transcript lines are joined into short passages,
    and so are lines that appear on the screen together.

    `caption_languages` are language tags, the most wanted first: see `chosen_track`. At most `MOST_PIECES` pieces, of
    which at most `MOST_SCREEN_PIECES` from the screen: of a longer text, passages evenly spread over it.
    """
    whole: list[TimedPiece] = []
    written: tuple[tuple[TextSource, str], ...] = (
        ("title", metadata.title),
        ("description", metadata.description),
        ("tags", ", ".join(metadata.tags)),
    )
    for source, text in written:
        if text.strip():
            whole.append(TimedPiece(TextPiece(source=source, text=text.strip()), 0.0, duration))
    track = chosen_track(captions, caption_languages, metadata.language)
    captioned = list(track.segments) if track else []
    heard = _unrepeated(transcript, captioned)
    seen = _unrepeated(screen, [*captioned, *heard])
    timed = [
        *_passages("caption", captioned),
        *_passages("transcript", heard),
        *_thinned(_boards(seen), MOST_SCREEN_PIECES),
    ]
    return whole + _thinned(timed, MOST_PIECES - len(whole))


def chosen_track(tracks: Sequence[CaptionTrack], languages: Sequence[str], uploader: str) -> CaptionTrack | None:
    """The track whose words count: the first in the first of `languages` that any track has, else in the uploader's
    language, else the first; None when no track has lines.

    Regions are passed over (`en` is `en-GB`, and `eng`), but of several tracks in a language the one of the wanted
    region is taken. The language of a track without a tag is told by its words, where they tell.
    """
    spoken = [track for track in tracks if track.segments]
    for wanted in [*languages, *([uploader] if uploader else [])]:
        fitting = [track for track in spoken if _language(track) == base_language(wanted)]
        exact = [track for track in fitting if _tag(track.language) == _tag(wanted)]
        if fitting:
            return (exact or fitting)[0]
    return spoken[0] if spoken else None


def _language(track: CaptionTrack) -> str | None:
    return base_language(track.language) or language_of(" ".join(segment.text for segment in track.segments))


def _tag(language: str | None) -> str:
    return (language or "").replace("_", "-").casefold()


def _unrepeated(lines: Sequence[_Line], others: Sequence[CaptionSegment]) -> list[_Line]:
    """The lines most of whose words are in none of the `others` that stand within `REPEATED_SECONDS` of them."""
    near = [
        (other.start - REPEATED_SECONDS, other.end + REPEATED_SECONDS, frozenset(_words(other.text)))
        for other in others
    ]
    kept = []
    for line in lines:
        words = _words(line.text)
        said = frozenset[str]().union(*(found for start, end, found in near if start <= line.end and line.start <= end))
        if not words or sum(word in said for word in words) < REPEATED_SHARE * len(words):
            kept.append(line)
    return kept


def _words(text: str) -> list[str]:
    folded = text.casefold()
    return _WORD.findall(_UNSPACED.sub(" ", folded)) + _UNSPACED.findall(folded)


def _passages(source: TextSource, segments: Sequence[CaptionSegment]) -> list[TimedPiece]:
    """Join neighbouring lines while the passage stays short in characters and seconds: a line alone is often half a
    sentence, and half a sentence embeds badly."""
    passages: list[TimedPiece] = []
    words: list[str] = []
    start = end = 0.0
    for segment in segments:
        text = segment.text.strip()
        if not text:
            continue
        full = words and (sum(map(len, words)) + len(text) > PIECE_CHARACTERS or segment.end - start > PIECE_SECONDS)
        if full:
            passages.append(TimedPiece(TextPiece(source=source, text=" ".join(words)), start, end))
            words = []
        if not words:
            start = segment.start
        words.append(text)
        end = max(segment.end, start)
    if words:
        passages.append(TimedPiece(TextPiece(source=source, text=" ".join(words)), start, end))
    return passages


def _boards(phrases: Sequence[ScreenPhrase]) -> list[TimedPiece]:
    """Join lines that appear together, in their order: a slide is read as one. A piece lasts as long as any of its
    lines."""
    boards: list[list[ScreenPhrase]] = []
    for phrase in phrases:
        if not phrase.text.strip():
            continue
        together = boards and phrase.start - boards[-1][0].start <= TOGETHER_SECONDS
        if together and sum(len(line.text) for line in boards[-1]) + len(phrase.text) <= PIECE_CHARACTERS:
            boards[-1].append(phrase)
        else:
            boards.append([phrase])
    return [
        TimedPiece(
            TextPiece(source="screen", text=" ".join(line.text.strip() for line in lines)),
            min(line.start for line in lines),
            max(max(line.start, line.end) for line in lines),
        )
        for lines in boards
    ]


def _thinned(pieces: list[TimedPiece], most: int) -> list[TimedPiece]:
    """At most `most` of the pieces, evenly spread."""
    return pieces if len(pieces) <= most else [pieces[index * len(pieces) // most] for index in range(most)]
