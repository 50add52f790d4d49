"""Pictures as people would see them: upright, square pixels, whole lines, everyday brightness, black behind glass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.records import Frames
from store.settings import Limits
from tests import clips
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling
from workers.pictures import HLG, PQ, tone_mapped

LIMITS = Limits()
FIRST = FrameSampling(strategy="fps", max_frames=1)
H264: dict[str, Any] = {"vcodec": "libx264", "pix_fmt": "yuv420p"}


def colour(path: Path, name: str, vf: str = "null", size: str = "320x240", **options: Any) -> Frames:
    """The frame of a clip that is one colour, after a filter."""
    return read_frames(clips.render(path, clips.source("color", 0.4, size, c=name), vf=vf, **options), FIRST, LIMITS)


def middle(frames: Frames) -> list[int]:
    picture = frames.pixels[0]
    found: list[int] = picture[picture.shape[0] // 2, picture.shape[1] // 2].tolist()
    return found


TURNS = [
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
]


@pytest.mark.parametrize("matrix", TURNS)
def test_every_display_matrix_is_obeyed_as_players_do(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Turned, mirrored or both: the same picture as the ffmpeg program shows."""
    whole = clips.render(tmp_path / "whole.mp4", clips.source("testsrc", 0.2), **H264)
    turned = clips.with_display_matrix(tmp_path / "turned.mp4", whole, matrix)
    frames = read_frames(turned, FIRST, LIMITS)
    height, width = frames.pixels.shape[1:3]
    assert (width, height) == ((240, 320) if matrix[0] == 0 else (320, 240))
    assert (frames.width, frames.height) == (width, height)
    plain = np.frombuffer(clips.plain(turned, "-frames:v", "1"), np.uint8).reshape(height, width, 3)
    assert np.abs(frames.pixels[0].astype(int) - plain.astype(int)).mean() < 4


def test_sizes_are_bounded_and_nothing_is_enlarged(tmp_path: Path) -> None:
    for size, expected in (
        ("64x48", (48, 64)),
        ("1280x720", (480, 853)),
        ("720x1280", (853, 480)),
        ("2560x320", (160, 1280)),
    ):
        assert colour(tmp_path / "v.mp4", "red", size=size, **H264).pixels.shape[1:3] == expected, size


@pytest.mark.parametrize(
    ("ratio", "shown"), [("4/3", (427, 240)), ("3/4", (320, 320)), ("1/1", (320, 240)), ("90/1", (320, 240))]
)
def test_pixels_that_are_not_square(tmp_path: Path, ratio: str, shown: tuple[int, int]) -> None:
    """The side that is stored more coarsely grows; a ratio beyond all reason is a mistake and is not obeyed."""
    frames = colour(tmp_path / "v.mp4", "red", vf=f"setsar={ratio}", **H264)
    assert (frames.width, frames.height) == shown
    assert frames.pixels.shape[1:3] == shown[::-1]


def combing(picture: np.ndarray) -> float:
    """How much neighbouring lines differ beside those two apart: far above 1 where two fields are woven."""
    lines = picture.astype(np.float64).mean(axis=2)
    return float(np.abs(lines[1:-1] - lines[:-2]).mean() / np.abs(lines[2:] - lines[:-2]).mean())


def test_two_fields_are_not_woven(tmp_path: Path) -> None:
    moving = clips.source("testsrc", 0.8, "960x240", rate=50).filter("crop", 320, 240, "t*400", 0)
    woven = moving.filter("tinterlace", "interleave_top").filter("fieldorder", "tff")
    video = clips.render(tmp_path / "v.mp4", woven, **H264, flags="+ilme+ildct+bitexact", x264opts="tff=1")
    shape = (-1, 240, 320, 3)
    raw = np.frombuffer(clips.plain(video), np.uint8).reshape(shape)
    frames = read_frames(video, FrameSampling(), LIMITS)
    assert combing(raw[-1]) > 1.5
    assert all(combing(picture) < 1.0 for picture in frames.pixels)
    # And it is still the same picture: nearer to one of its own fields than the woven one is to the smooth one.
    smooth = np.frombuffer(clips.plain(video, "-vf", "bwdif=mode=send_frame"), np.uint8).reshape(shape)
    first = np.abs(frames.pixels[0].astype(int) - smooth[round(float(frames.seconds[0]) * 25)].astype(int)).mean()
    assert first < 6


@pytest.mark.parametrize(("matrix", "space"), [("bt601", "smpte170m"), ("bt709", "bt709"), ("bt2020", "bt2020nc")])
def test_colours_are_those_that_went_in(tmp_path: Path, matrix: str, space: str) -> None:
    options = H264 | {"colorspace": space}
    frames = colour(tmp_path / "v.mp4", "0xE02040", vf=f"scale=out_color_matrix={matrix}", **options)
    assert middle(frames) == pytest.approx([0xE0, 0x20, 0x40], abs=8)


@pytest.mark.parametrize(
    ("codec", "form", "suffix"),
    [
        ("libx264", "yuv420p10le", "mp4"),
        ("libx264", "yuv444p", "mp4"),
        ("libx264", "yuvj420p", "mp4"),
        ("libvpx-vp9", "yuv422p10le", "webm"),
        ("ffv1", "gray16le", "mkv"),
        ("ffv1", "gbrp12le", "mkv"),
        ("rawvideo", "bgr24", "avi"),
        ("mjpeg", "yuvj444p", "mkv"),
    ],
)
def test_every_depth_and_layout_gives_the_picture(tmp_path: Path, codec: str, form: str, suffix: str) -> None:
    video = clips.render(tmp_path / f"v.{suffix}", clips.source("testsrc", 0.2), vcodec=codec, pix_fmt=form)
    frames = read_frames(video, FIRST, LIMITS)
    plain = np.frombuffer(clips.plain(video, "-frames:v", "1"), np.uint8).reshape(240, 320, 3)
    assert np.abs(frames.pixels[0].astype(int) - plain.astype(int)).mean() < 5


def hdr(path: Path, level: str, transfer: str) -> list[int]:
    tags = f"setparams=colorspace=bt2020nc:color_trc={transfer}:color_primaries=bt2020"
    vf = f"scale=out_color_matrix=bt2020,format=yuv420p10le,{tags}"
    return middle(colour(path, level, vf=vf, vcodec="libx264", pix_fmt="yuv420p10le"))


def test_hdr_is_shown_as_people_know_it(tmp_path: Path) -> None:
    """ITU-R BT.2408: a white page is at 203 nits, 58 % of PQ and 75 % of HLG; middle grey at 26 nits, 38 % of both."""
    for transfer, white, grey in (("smpte2084", "0x949494", "0x616161"), ("arib-std-b67", "0xBFBFBF", "0x616161")):
        assert hdr(tmp_path / "white.mp4", white, transfer) == pytest.approx([225] * 3, abs=6), transfer
        # As sRGB it is (26 / 203) of white: 0.1281, encoded 100 of 255.
        assert hdr(tmp_path / "grey.mp4", grey, transfer) == pytest.approx([100] * 3, abs=8), transfer
        assert hdr(tmp_path / "black.mp4", "black", transfer) == pytest.approx([0] * 3, abs=2), transfer
        red, green, blue = hdr(tmp_path / "red.mp4", "0x903030", transfer)
        assert red > 2 * max(green, blue)


@settings(max_examples=40, deadline=None)
@given(level=st.integers(0, 65535), above=st.integers(0, 65535), transfer=st.sampled_from([PQ, HLG]))
def test_brighter_is_never_darker(level: int, above: int, transfer: int) -> None:
    low, high = sorted((level, above))
    wide = np.array([[[low] * 3, [high] * 3]], np.uint16)
    mapped = tone_mapped(wide, transfer, 9)
    assert np.all(mapped[0, 0] <= mapped[0, 1])
    assert tone_mapped(np.full((1, 1, 3), 65535, np.uint16), transfer, 9).min() == 255


def test_glass_stands_before_black(tmp_path: Path) -> None:
    """Whatever colour is stored below what is transparent, nobody is to see it."""
    for alpha, shown in ((255, 255), (128, 128), (0, 0)):
        picture = (
            clips.source("color", 0.4, c="white").filter("format", "rgba").filter("colorchannelmixer", aa=alpha / 255)
        )
        video = clips.render(tmp_path / "v.mov", picture, vcodec="qtrle", pix_fmt="argb")
        assert middle(read_frames(video, FIRST, LIMITS)) == pytest.approx([shown] * 3, abs=2)


def test_real_transparent_clip(shared_media: Path) -> None:
    frames = read_frames(shared_media / "bad/moviepy_transparent.webm", FrameSampling(), LIMITS)
    assert frames.pixels.std() > 1
