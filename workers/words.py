"""Words into pieces: which text tokens a video has, from what its uploader wrote and what is said in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from store.records import CaptionSegment, CaptionTrack, Metadata, TextPiece, TextSource

PIECE_CHARACTERS = 240
PIECE_SECONDS = 15.0
MOST_PIECES = 96


@dataclass(frozen=True)
class TimedPiece:
    """A text piece and its span on the video's clock, in seconds."""

    piece: TextPiece
    start: float
    end: float


def pieces_of(
    metadata: Metadata, captions: Sequence[CaptionTrack], transcript: Sequence[CaptionSegment], duration: float
) -> list[TimedPiece]:
    """Title, description and tags span the whole video; caption and transcript lines are joined into short passages.

    Of several caption tracks the first in the language that the uploader named is read into pieces (else the first
    track), so that the same words in five languages do not count five times. At most `MOST_PIECES` pieces: of a longer
    text, passages evenly spread over it.
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
    track = _chosen(captions, metadata.language)
    timed = [
        *_passages("caption", track.segments if track else []),
        *_passages("transcript", transcript),
    ]
    room = MOST_PIECES - len(whole)
    if len(timed) > room:
        timed = [timed[index * len(timed) // room] for index in range(room)]
    return whole + timed


def _chosen(captions: Sequence[CaptionTrack], language: str) -> CaptionTrack | None:
    spoken = [track for track in captions if track.segments]
    if language:
        wanted = language.split("-")[0].casefold()
        for track in spoken:
            if track.language and track.language.split("-")[0].casefold() == wanted:
                return track
    return spoken[0] if spoken else None


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
