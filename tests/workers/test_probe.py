"""Probing: every real bad clip gives its code, every good one its header; nothing is reached but the file itself."""

from __future__ import annotations

import socket
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.errors import MediaError
from store.settings import Limits
from tests import clips
from workers.containers import sniff
from workers.probe import probe

LIMITS = Limits()
# None: accepted (what its decoding gives is held by test_decoding.py).
BAD: dict[str, str | None] = {
    "aeneas_zero_samples.wav": "media.no_video",
    "cockatoo_444_seek_green.mp4": None,
    "decord_corrupted.mp4": None,
    "decord_unordered.mov": None,
    "gomp4_truncated_596s.mp4": "media.no_frames",
    "gradio_bad_sample.mp4": None,
    "libwebm_bad_lacing.mkv": "media.no_frames",
    "made_24h_16px.mp4": "media.too_long",
    "made_8192px.mov": "media.too_many_pixels",
    "made_audio_only.mp4": "media.no_video",
    "made_av_offset_1500ms.mp4": None,
    "made_bitflips.mp4": None,
    "made_box_size_huge.mp4": "media.unreadable",
    "made_ffconcat.mp4": "media.forbidden_format",
    "made_hls_loopback_ssrf.mp4": "media.forbidden_format",
    "made_hostile_metadata.mp4": None,
    "made_no_moov.mp4": "media.unreadable",
    "made_one_frame.mp4": None,
    "made_rot90.mp4": None,
    "made_text_renamed.mp4": "media.not_media",
    "made_truncated_mid_mdat.mp4": None,
    "made_zero_bytes.mp4": "media.empty",
    "media3_avi_large_length.avi": None,
    "media3_drm_widevine.mp4": "media.encrypted",
    "media3_garbage_prefix.mp3": "media.not_media",
    "media3_long_black_363s.mp4": None,
    "media3_malformed_free_box.mp4": "media.unreadable",
    "media3_mdat_too_long.mp4": None,
    "mediabunny_annexb_truncated.mp4": None,
    "mediabunny_audio_only_two_tracks.mp4": "media.no_video",
    "mediabunny_cursed_vfr.mp4": None,
    "mediabunny_malformed_join.mp3": "media.no_video",
    "mediabunny_missing_keyflags.ts": None,
    "mediabunny_no_initial_keyframe.ts": None,
    "mediabunny_oversized_id3.wav": "media.no_video",
    "mouse_seek_green.mp4": None,
    "moviepy_failing_audio.mp4": None,
    "moviepy_transparent.webm": None,
    "mp4parse_case_1185230.mp4": "media.no_frames",
    "mp4parse_encrypted_cenc.mp4": "media.encrypted",
    "mp4parse_init_only.mp4": "media.no_video",
    "mp4parse_invalid_userdata.mp4": "media.no_frames",
    "mp4parse_no_timescale.mp4": None,
    "mp4parse_zero_empty_stsc.mp4": "media.no_frames",
    "tmh_broken.ogg": "media.unreadable",
    "tmh_playlist_variant.m3u8": "media.forbidden_format",
}


def code_of(path: Path, limits: Limits = LIMITS) -> str | None:
    try:
        probe(path, limits)
    except MediaError as error:
        assert error.message.endswith(".")
        assert "/" not in error.message.replace("x", ""), "a message must not tell where files lie"
        return error.code
    return None


def test_every_bad_clip_is_in_the_table(shared_media: Path) -> None:
    assert {file.name for file in (shared_media / "bad").iterdir()} == set(BAD)


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_clips_give_their_code(shared_media: Path, name: str) -> None:
    started = time.monotonic()
    assert code_of(shared_media / "bad" / name) == BAD[name]
    assert time.monotonic() - started < LIMITS.probe_seconds


def test_good_clips_are_what_the_index_says(shared_media: Path, media_index: dict[str, dict[str, str]]) -> None:
    good = {name: row for name, row in media_index.items() if name.startswith("good/")}
    for name, row in sorted(good.items())[::4]:  # each costs a process; all of them are decoded in test_decoding.py
        info = probe(shared_media / name, LIMITS)
        assert f"{info.width}x{info.height}" == row["resolution"], name
        assert info.duration == pytest.approx(float(row["duration_s"]), abs=0.9), name
        assert (info.audio_codec is not None) == (row["has_audio"] == "yes"), name


def test_playlists_reach_nobody(tmp_path: Path) -> None:
    """A listener on loopback, and a file beside: no playlist, and nothing dressed up as a video, makes anyone call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        port = listener.getsockname()[1]
        (tmp_path / "secret.txt").write_text("secret")
        url = f"http://127.0.0.1:{port}/x.ts"
        hostile = {
            "a.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n",
            "b.mp4": f"\ufeff  #EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.txt\n",
            "c.mp4": f"ffconcat version 1.0\nfile {tmp_path}/secret.txt\n",
            "d.mpd": f"<?xml version='1.0'?><MPD><BaseURL>{url}</BaseURL></MPD>",
            "e.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
            "f.pls": f"[playlist]\nFile1={url}\n",
        }
        for name, text in hostile.items():
            (tmp_path / name).write_text(text)
            assert code_of(tmp_path / name) == "media.forbidden_format", name
        video = clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None)
        (tmp_path / "tail.mp4").write_bytes(video.read_bytes() + f"#EXTM3U\n{url}\n".encode())
        assert code_of(tmp_path / "tail.mp4") is None
        with pytest.raises(TimeoutError):
            listener.accept()


def test_limits_are_kept(tmp_path: Path) -> None:
    video = clips.test_pattern(tmp_path / "v.mp4", seconds=1.0, tone_hz=440.0)
    for limits, code in (
        (Limits(bytes=1000), "media.too_large"),
        (Limits(seconds=0.5), "media.too_long"),
        (Limits(pixels=320 * 240 - 1), "media.too_many_pixels"),
        (Limits(frames=5), "media.too_many_frames"),
        (Limits(streams=1), "media.too_many_streams"),
    ):
        assert code_of(video, limits) == code
    exact = Limits(bytes=video.stat().st_size, seconds=1.1, pixels=320 * 240, frames=10, streams=2)
    assert code_of(video, exact) is None


def test_what_is_no_file_is_missing(tmp_path: Path) -> None:
    assert code_of(tmp_path) == "media.missing"
    assert code_of(tmp_path / "none.mp4") == "media.missing"
    assert code_of(tmp_path / ("n" * 300)) == "media.missing"


def test_names_do_not_matter(tmp_path: Path) -> None:
    video = clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None).read_bytes()
    for name in ("-i evil.mp4", "concat:a|b", "http:x.mp4", "a b'\"$(x).txt", "--limits", "ü\u202e.mp4"):
        (tmp_path / name).write_bytes(video)
        assert code_of(tmp_path / name) is None, name


def test_an_archive_is_no_video(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.mp4", "w") as archive:
        archive.writestr("video.mp4", "x" * 100)
    assert code_of(tmp_path / "a.mp4") == "media.not_media"


def test_a_subtitle_that_outlasts_the_picture_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "long.srt").write_text("1\n02:00:00,000 --> 02:00:01,000\nlate\n")
    for codec, suffix in (("mov_text", "mp4"), ("srt", "mkv")):
        video = clips.with_subtitles(tmp_path / f"v.{suffix}", tmp_path / "long.srt", codec)
        info = probe(video, LIMITS)
        assert info.duration == pytest.approx(4.0, abs=0.2)
        assert info.subtitle_streams == 1


@given(st.binary(max_size=600))
def test_sniffing_takes_any_bytes(head: bytes) -> None:
    kind, name = sniff(head)
    assert bool(name) <= (kind in ("video", "audio"))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_never_crash_the_caller(tmp_path: Path, data: st.DataObject) -> None:
    source = tmp_path / "source.mp4"
    if not source.exists():
        clips.test_pattern(source, seconds=0.5, tone_hz=440.0)
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    target = tmp_path / "mutated.mp4"
    target.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    code = code_of(target)
    assert code is None or code.startswith("media.")
