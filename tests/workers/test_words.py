"""Which words become tokens, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.records import CaptionSegment, CaptionTrack, Metadata, ScreenPhrase
from workers.words import (
    MOST_PIECES,
    MOST_SCREEN_PIECES,
    PIECE_CHARACTERS,
    PIECE_SECONDS,
    TimedPiece,
    chosen_track,
    pieces_of,
)


def lines(*texts: str, seconds: float = 2.0) -> list[CaptionSegment]:
    return [
        CaptionSegment(start=index * seconds, end=(index + 1) * seconds, text=text) for index, text in enumerate(texts)
    ]


def track(language: str | None, *texts: str) -> CaptionTrack:
    return CaptionTrack(origin="sidecar", language=language, segments=lines(*texts))


def shown(*phrases: tuple[str, float, float]) -> list[ScreenPhrase]:
    return [ScreenPhrase(text=text, start=start, end=end, confidence=0.9) for text, start, end in phrases]


def said(pieces: list[TimedPiece]) -> list[tuple[str, str]]:
    return [(item.piece.source, item.piece.text) for item in pieces]


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


def test_the_setting_goes_before_the_uploader_and_the_order_of_the_tracks() -> None:
    tracks = [track("fr", "jardin"), track("eng", "garden"), track("pt-BR", "horta"), track("pt-PT", "quintal")]
    wanted = {
        (): "fr",
        ("en",): "eng",
        ("en-GB", "fr"): "eng",
        ("ko", "pt"): "pt-BR",
        ("pt-PT",): "pt-PT",
        ("pt_pt",): "pt-PT",
        ("ko",): "fr",
    }
    for languages, expected in wanted.items():
        chosen = chosen_track(tracks, languages, "")
        assert chosen is not None
        assert chosen.language == expected
    assert chosen_track(tracks, ("ko",), "pt") == tracks[2]
    assert chosen_track(tracks, ("fr",), "pt") == tracks[0]
    assert chosen_track([track("en")], ("en",), "en") is None
    assert chosen_track([], ("en",), "en") is None


def test_a_track_without_a_tag_is_known_by_its_words() -> None:
    english = "we are at the left and this is what you can see of it when they come to the garden in the morning again"
    german = "wir sind auf der linken Seite und das ist was man davon sehen kann wenn sie in den Garten kommen und so"
    tracks = [track(None, german), track(None, english)]
    assert chosen_track(tracks, ("en",), "") == tracks[1]
    assert chosen_track(tracks, ("de",), "en") == tracks[0]
    assert chosen_track([track(None, "Гори"), track(None, english)], (), "en") is not None


def test_a_spoken_line_that_repeats_a_caption_counts_once() -> None:
    captions = [track("en", "The ocean floor rises five miles", "to the shores")]
    heard = [
        CaptionSegment(start=0.4, end=2.4, text="the ocean flaw rises five miles"),
        CaptionSegment(start=2.4, end=4.0, text="of what people call the seven mile miracle"),
        CaptionSegment(start=60.0, end=62.0, text="The ocean floor rises five miles"),
    ]
    assert said(pieces_of(Metadata(), captions, heard, 70.0)) == [
        ("caption", "The ocean floor rises five miles to the shores"),
        ("transcript", "of what people call the seven mile miracle"),
        ("transcript", "The ocean floor rises five miles"),
    ]


def test_captions_in_another_language_do_not_hide_what_is_said() -> None:
    found = pieces_of(Metadata(), [track("de", "Der Garten ist groß")], lines("the garden is large"), 2.0)
    assert [source for source, _ in said(found)] == ["caption", "transcript"]


def test_screen_text_is_read_and_burned_in_subtitles_are_not_read_twice() -> None:
    heard = lines("this blade has a dark past", "it has shed much innocent blood")
    seen = shown(("This blade has a dark past.", 0.0, 2.0), ("SINTEL", 0.0, 9.0), ("Blender Foundation", 0.5, 9.0))
    assert said(pieces_of(Metadata(title="Sintel"), [], heard, 9.0, screen=seen)) == [
        ("title", "Sintel"),
        ("transcript", "this blade has a dark past it has shed much innocent blood"),
        ("screen", "SINTEL Blender Foundation"),
    ]
    captions = [track("en", "this blade has a dark past")]
    assert said(pieces_of(Metadata(), captions, [], 9.0, screen=seen[:1])) == [
        ("caption", "this blade has a dark past")
    ]


def test_words_without_spaces_are_compared_too() -> None:
    captions = [track("ja", "左に見えるのは塔です")]
    heard = [CaptionSegment(start=0.0, end=2.0, text="左に見えるのは、塔です。")]
    assert said(pieces_of(Metadata(), captions, heard, 2.0)) == [("caption", "左に見えるのは塔です")]


def test_lines_that_appear_together_are_one_piece_for_as_long_as_they_stand() -> None:
    seen = shown(
        ("Path expressions", 1.5, 40.0), ("Second order", 1.5, 30.0), ("  ", 1.5, 2.0), ("Questions?", 40.0, 41.0)
    )
    found = pieces_of(Metadata(), [], [], 41.0, screen=seen)
    assert [(item.piece.text, item.start, item.end) for item in found] == [
        ("Path expressions Second order", 1.5, 40.0),
        ("Questions?", 40.0, 41.0),
    ]


@given(st.lists(st.text(min_size=1, max_size=300), max_size=120), st.floats(0.0, 3.0))
def test_screen_pieces_stay_short_in_order_and_few(texts: list[str], step: float) -> None:
    seen = shown(*((text, index * step, index * step + 5.0) for index, text in enumerate(texts)))
    found = pieces_of(Metadata(), [], [], 400.0, screen=seen)
    assert len(found) <= MOST_SCREEN_PIECES
    assert [item.start for item in found] == sorted(item.start for item in found)
    assert all(item.piece.text.strip() and item.start <= item.end for item in found)
    assert all(len(item.piece.text) <= max(300, 2 * PIECE_CHARACTERS) for item in found)


def test_a_long_text_leaves_room_for_what_stands_on_the_screen() -> None:
    heard = lines(*(f"number {index} " * 20 for index in range(300)))
    seen = shown(*((f"Board {index} {'ab' * index}", index * 10.0, index * 10.0 + 9) for index in range(60)))
    found = pieces_of(Metadata(title="T"), [], heard, 600.0, screen=seen)
    assert len(found) == MOST_PIECES
    assert sum(item.piece.source == "screen" for item in found) >= 5
