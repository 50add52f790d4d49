"""Captions are read exactly: words, times, languages; and what is no caption file says so."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError
from store.records import CaptionTrack
from store.settings import Limits
from tests import clips
from workers.captions import base_language, find_sidecars, read_embedded, read_sidecar, segments

LIMITS = Limits()
THREE = "1\n00:00:00,000 --> 00:00:01,234\nFirst line.\n\n2\n00:00:01,500 --> 00:00:02,500\nSecond,\nin two lines.\n"


def read(path: Path) -> CaptionTrack:
    return read_sidecar(path, LIMITS, None)


def words(track: CaptionTrack) -> list[str]:
    return [segment.text for segment in track.segments]


def test_exact_words_and_times(shared_media: Path) -> None:
    track = read(shared_media / "captions/media3_typical.srt")
    assert [(line.start, line.end, line.text) for line in track.segments] == [
        (0.0, 1.234, "This is the first subtitle."),
        (2.345, 3.456, "This is the second subtitle. Second subtitle with second line."),
        (7204.567, 7208.901, "This is the third subtitle."),
    ]


@pytest.mark.parametrize("name", ["utf16be", "utf16le", "with_byte_order_mark", "missing_sequence"])
def test_encodings_and_small_faults_change_nothing(shared_media: Path, name: str) -> None:
    expected = words(read(shared_media / "captions/media3_typical.srt"))
    assert words(read(shared_media / f"captions/media3_typical_{name}.srt")) == expected


def test_comments_and_voice_tags_are_no_words(shared_media: Path) -> None:
    track = read(shared_media / "captions/sintel_en.vtt")
    assert words(track)[:3] == ["[Test]", "This blade has a dark past.", "It has shed much innocent blood."]
    assert len(track.segments) == 14


def test_other_scripts_are_kept(shared_media: Path) -> None:
    assert words(read(shared_media / "captions/elephantsdream_ja.vtt"))[0] == "左に見えるのは…"
    assert words(read(shared_media / "captions/elephantsdream_ru.vtt"))[0] == "Слева мы видим..."


def test_entities_are_letters(shared_media: Path) -> None:
    assert words(read(shared_media / "captions/mediaelement.srt"))[0].startswith("HTML5 <video> and <audio> was")


def test_ass_is_read(shared_media: Path) -> None:
    track = read(shared_media / "captions/jellyfin_example.ass")
    assert words(track) == ["Like an Angel with pity on nobody The second line in subtitle"]
    assert (track.segments[0].start, track.segments[0].end) == (1.18, 6.85)


def test_a_broken_cue_costs_itself(shared_media: Path) -> None:
    assert words(read(shared_media / "captions/media3_with_bad_cue_header.vtt")) == [
        "This is the first subtitle.",
        "This is the third subtitle.",
    ]


def test_negative_times_begin_at_zero(shared_media: Path) -> None:
    for line in read(shared_media / "captions/media3_typical_negative_timestamps.srt").segments:
        assert 0 <= line.start <= line.end


def test_every_caption_file_is_a_track_or_a_coded_error(shared_media: Path) -> None:
    refused = set()
    for file in sorted((shared_media / "captions").iterdir()):
        try:
            track = read(file)
        except InputError as error:
            assert error.code == "caption.unreadable"
            refused.add(file.name)
            continue
        starts = [line.start for line in track.segments]
        assert starts == sorted(starts), file.name
        assert all(line.text.strip() for line in track.segments)
    assert refused == {"vttjs_garbage-signature.vtt"}


def test_an_empty_file_is_a_track_without_lines(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("")
    assert read(tmp_path / "a.srt").segments == []


@pytest.mark.parametrize(
    "content", [b"just some prose\nwithout times", b"\x00\x01\x02" * 50, b"\xff\xfe\x00", b"PK\x03\x04"]
)
def test_what_is_no_caption_file_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.srt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.srt")
    assert caught.value.code == "caption.unreadable"


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "none.srt")
    assert caught.value.code == "caption.missing"
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert caught.value.code == "caption.missing"
    (tmp_path / "big.srt").write_text(THREE)
    with pytest.raises(InputError) as caught:
        read_sidecar(tmp_path / "big.srt", Limits(caption_bytes=10), None)
    assert caught.value.code == "caption.unreadable"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252", "utf-8-sig"])
def test_old_encodings_are_guessed(tmp_path: Path, encoding: str) -> None:
    text = "Der Bär läuft über die große Brücke, während die Mädchen fröhlich Äpfel pflücken."
    (tmp_path / "a.srt").write_bytes(f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n".encode(encoding))
    assert words(read(tmp_path / "a.srt")) == [text]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_read_without_its_mark(tmp_path: Path, encoding: str) -> None:
    for text in ("Der Bär läuft über die große Brücke. Дом.", "Plain letters alone"):
        (tmp_path / "a.srt").write_bytes(f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n".encode(encoding))
        assert words(read(tmp_path / "a.srt")) == [text]


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("ru", "cp1251"), ("ru", "koi8-r"), ("ja", "shift_jis"), ("ja", "euc_jp"), ("ar", "cp1256")],
)
def test_old_encodings_of_other_scripts_are_guessed(
    shared_media: Path, tmp_path: Path, name: str, encoding: str
) -> None:
    original = shared_media / f"captions/elephantsdream_{name}.vtt"
    text = original.read_text("utf-8").encode(encoding, "ignore").decode(encoding)
    (tmp_path / "a.vtt").write_bytes(text.encode(encoding))
    (tmp_path / "b.vtt").write_text(text, "utf-8")
    assert words(read(tmp_path / "a.vtt")) == words(read(tmp_path / "b.vtt"))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + THREE.encode() + "Brücke".encode("cp1252"),
        b"\xff\xfe" + THREE.encode("utf-16-le")[:-1],
        b"\xff\xfe\x00\x00" + THREE.encode("utf-32-le"),
    ],
)
def test_an_encoding_that_the_bytes_belie_is_a_coded_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.srt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.srt")
    assert caught.value.code == "caption.unreadable"


def test_overlapping_and_backward_times_are_kept_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(
        "1\n00:00:05,000 --> 00:00:09,000\nlate\n\n2\n00:00:01,000 --> 00:00:07,000\nearly\n\n"
        "3\n00:00:08,000 --> 00:00:02,000\nbackward\n\n4\n --> 00:00:03,000\nno start\n\n5\nno time\n"
    )
    assert [(line.start, line.end, line.text) for line in read(tmp_path / "a.srt").segments] == [
        (1.0, 7.0, "early"),
        (5.0, 9.0, "late"),
        (8.0, 8.0, "backward"),
    ]


def test_languages_have_one_name_whatever_the_form() -> None:
    forms = {"eng": "en", "EN": "en", "en-GB": "en", "pt_BR": "pt", "ger": "de", "deu": "de", "zh-Hans-CN": "zh"}
    assert {form: base_language(form) for form in forms} == forms
    assert base_language("gsw") == "gsw"
    assert base_language(None) is base_language("") is None


def test_sidecars_are_those_of_this_video(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.srt", "clip.en.vtt", "clip.pt-BR.ass", "clip2.srt", "clip.notes.srt", "other.srt"):
        (tmp_path / name).write_text("")
    assert [file.name for file in find_sidecars(tmp_path / "clip.mp4")] == ["clip.en.vtt", "clip.pt-BR.ass", "clip.srt"]
    assert find_sidecars(tmp_path / "nowhere" / "clip.mp4") == []


def test_the_language_stands_in_the_name(tmp_path: Path) -> None:
    for name, language in (("clip.en.srt", "en"), ("clip.pt-BR.srt", "pt-BR"), ("clip.srt", None)):
        (tmp_path / name).write_text(THREE)
        assert read(tmp_path / name).language == language
    assert read_sidecar(tmp_path / "clip.en.srt", LIMITS, "de").language == "de"


@pytest.mark.parametrize(("codec", "suffix"), [("mov_text", "mp4"), ("srt", "mkv"), ("ass", "mkv"), ("webvtt", "mkv")])
def test_embedded_tracks_are_read_exactly(tmp_path: Path, codec: str, suffix: str) -> None:
    (tmp_path / "a.srt").write_text(THREE)
    video = clips.with_subtitles(tmp_path / f"v.{suffix}", tmp_path / "a.srt", codec, language="deu")
    (track,) = read_embedded(video, LIMITS)
    assert words(track) == ["First line.", "Second, in two lines."]
    assert track.segments[0].end == pytest.approx(1.234, abs=0.011)
    assert track.segments[1].start == pytest.approx(1.5, abs=0.011)
    assert (track.origin, track.language) == ("embedded", "deu")
    with pytest.raises(InputError) as caught:
        read_embedded(video, Limits(caption_bytes=10))
    assert caught.value.code == "caption.unreadable"


def test_no_track_is_no_caption(tmp_path: Path) -> None:
    assert read_embedded(clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None), LIMITS) == []


def test_a_caption_never_opens_an_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        (tmp_path / "a.srt").write_text(
            f"1\n00:00:01,000 --> 00:00:02,000\n<img src=http://127.0.0.1:{listener.getsockname()[1]}>x\n"
        )
        assert words(read(tmp_path / "a.srt")) == ["x"]
        with pytest.raises(TimeoutError):
            listener.accept()


@given(st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.text(max_size=40))))
def test_segments_are_in_order_and_never_negative(lines: list[tuple[float, float, str]]) -> None:
    result = segments(lines)
    assert [item.start for item in result] == sorted(item.start for item in result)
    assert all(0 <= item.start <= item.end and item.text.strip() for item in result)


@given(st.binary(max_size=2000))
def test_hostile_bytes_are_a_track_or_a_coded_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"hostile-{os.getpid()}.srt"
    path.write_bytes(data)
    try:
        read(path)
    except InputError as error:
        assert error.code == "caption.unreadable"
