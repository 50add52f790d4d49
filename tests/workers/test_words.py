"""Which words become tokens, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.records import CaptionSegment, CaptionTrack, Metadata
from workers.words import MOST_PIECES, PIECE_CHARACTERS, PIECE_SECONDS, pieces_of


def lines(*texts: str, seconds: float = 2.0) -> list[CaptionSegment]:
    return [
        CaptionSegment(start=index * seconds, end=(index + 1) * seconds, text=text) for index, text in enumerate(texts)
    ]


def track(language: str | None, *texts: str) -> CaptionTrack:
    return CaptionTrack(origin="sidecar", language=language, segments=lines(*texts))


def test_what_the_uploader_wrote_spans_the_video() -> None:
    pieces = pieces_of(Metadata(title="T", description="D", tags=("a", "b")), [], [], 12.5)
    assert [(item.piece.source, item.piece.text, item.start, item.end) for item in pieces] == [
        ("title", "T", 0.0, 12.5),
        ("description", "D", 0.0, 12.5),
        ("tags", "a, b", 0.0, 12.5),
    ]


def test_short_lines_are_joined_and_keep_their_span() -> None:
    pieces = pieces_of(Metadata(), [], lines("one", "two", "three"), 6.0)
    assert [(item.piece.text, item.start, item.end) for item in pieces] == [("one two three", 0.0, 6.0)]


def test_the_track_in_the_stated_language_is_read() -> None:
    tracks = [track("de", "Garten"), track("en-GB", "garden")]
    assert [item.piece.text for item in pieces_of(Metadata(language="en"), tracks, [], 2.0)] == ["garden"]
    assert [item.piece.text for item in pieces_of(Metadata(), tracks, [], 2.0)] == ["Garten"]
    assert [item.piece.text for item in pieces_of(Metadata(), [track("de"), tracks[1]], [], 2.0)] == ["garden"]


@given(st.lists(st.text(min_size=1, max_size=200), max_size=200), st.floats(0.1, 20.0))
def test_passages_stay_short_in_order_and_few(texts: list[str], seconds: float) -> None:
    pieces = pieces_of(Metadata(), [], lines(*texts, seconds=seconds), len(texts) * seconds)
    assert len(pieces) <= MOST_PIECES
    assert [item.start for item in pieces] == sorted(item.start for item in pieces)
    for item in pieces:
        assert item.piece.text.strip()
        assert item.start <= item.end
        single = item.end - item.start <= seconds * 1.001
        assert single or item.end - item.start <= PIECE_SECONDS * 1.001
        assert len(item.piece.text) <= max(PIECE_CHARACTERS * 2, 200)


def test_nothing_said_is_nothing() -> None:
    assert pieces_of(Metadata(), [], lines("", "  "), 4.0) == []
