"""Shots: cuts found to the picture; none in pans, fades, flashes, fast motion; real clips as people would cut them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.records import Frames
from store.settings import Limits
from tests import clips
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling
from workers.shots import RETURN_SECONDS

LIMITS = Limits()
SMALL = FrameSampling(max_frames=2, short_side=32)
PATTERNS = ("testsrc", "smptebars", "rgbtestsrc", "mandelbrot", "yuvtestsrc")


def cuts(frames: Frames) -> list[float]:
    """Where the shots after the first begin."""
    return [shot.start for shot in frames.shots[1:]]


def found_in(path: Path) -> list[float]:
    return cuts(read_frames(path, SMALL, LIMITS))


def filtered(path: Path, stream: Any) -> Path:
    return clips.render(path, stream, vcodec="libx264", pix_fmt="yuv420p")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.permutations(PATTERNS),
    lengths=st.lists(st.integers(6, 30), min_size=2, max_size=5),
    rate=st.sampled_from([10, 24, 30]),
)
def test_cuts_are_found_to_the_picture(tmp_path: Path, names: list[str], lengths: list[int], rate: int) -> None:
    lengths = [max(length, int(RETURN_SECONDS * rate) + 1) for length in lengths]
    parts = [(name, length / rate) for name, length in zip(names, lengths, strict=False)]
    frames = read_frames(clips.scenes(tmp_path / "v.mp4", parts, rate=rate), SMALL, LIMITS)
    expected, place = [], 0
    for length in lengths[:-1]:
        place += length
        expected.append(place / rate)
    assert cuts(frames) == pytest.approx(expected, abs=1e-3)
    assert frames.shots[0].start == 0.0
    assert frames.shots[-1].end == pytest.approx(frames.duration_seconds)
    assert all(one.end == other.start for one, other in zip(frames.shots, frames.shots[1:], strict=False))


def test_a_cut_in_the_midst_of_motion_is_found(tmp_path: Path) -> None:
    moving = [
        clips.source(name, 1.0, "1600x240").filter("crop", 320, 240, "t*900", 0).filter("setsar", 1)
        for name in ("testsrc", "smptebars")
    ]
    import ffmpeg

    assert found_in(filtered(tmp_path / "v.mp4", ffmpeg.concat(*moving, v=1, a=0))) == pytest.approx([1.0], abs=1e-3)


def test_blank_pictures_are_shots_too(tmp_path: Path) -> None:
    """A second of black between two scenes, and plain cards one after the other."""
    import ffmpeg

    def made(names: list[str]) -> list[float]:
        streams = []
        for name in names:
            stream = clips.source(name, 1.0) if name in PATTERNS else clips.source("color", 1.0, c=name)
            streams.append(stream.filter("format", "yuv420p").filter("setsar", 1))
        return found_in(filtered(tmp_path / "v.mp4", ffmpeg.concat(*streams, v=1, a=0)))

    assert made(["testsrc", "black", "mandelbrot"]) == pytest.approx([1.0, 2.0])
    assert made(["red", "blue", "white"]) == pytest.approx([1.0, 2.0])


def test_no_cut_where_there_is_none(tmp_path: Path) -> None:
    wide = clips.source("testsrc", 3.0, "1600x240")
    still = clips.source("smptebars", 3.0)
    picture = clips.source("testsrc", 3.0)
    made = {
        "slow pan": wide.filter("crop", 320, 240, "t*60", 0),
        "fast pan": wide.filter("crop", 320, 240, "abs(mod(t*1500,2560)-1280)", 0),
        "fade in and out": picture.filter("fade", "in", 0, 25).filter("fade", "out", 50, 25),
        "quick fade": picture.filter("fade", "in", 0, 8),
        "flash": picture.filter("drawbox", color="white", t="fill", enable="between(n,30,31)"),
        "flash over a still": still.filter("drawbox", color="white", t="fill", enable="between(n,30,34)"),
        "lights go up": still.filter("eq", brightness="if(gt(t,1.5),0.35,0)", eval="frame"),
        "zoom": clips.source("mandelbrot", 3.0),
        "still": still,
        "noise": still.filter("noise", alls=40, allf="t"),
    }
    for name, stream in made.items():
        assert found_in(filtered(tmp_path / "v.mp4", stream)) == [], name


def test_a_dissolve_is_no_cut(tmp_path: Path) -> None:
    import ffmpeg

    both = [clips.source(name, 3.0).filter("format", "yuv420p").filter("setsar", 1) for name in PATTERNS[:2]]
    mixed = ffmpeg.filter(both, "xfade", transition="fade", duration=1, offset=2)
    assert found_in(filtered(tmp_path / "v.mp4", mixed)) == []


def test_repeated_pictures_are_no_calm(tmp_path: Path) -> None:
    """Animation drawn at 8 pictures a second and shown at 24: every third one jumps, and none is a cut."""
    drawn = clips.source("testsrc", 4.0, "1600x240", rate=8).filter("crop", 320, 240, "t*700", 0).filter("fps", 24)
    assert found_in(filtered(tmp_path / "v.mp4", drawn)) == []


def test_motion_does_not_depend_on_the_rate(tmp_path: Path) -> None:
    def motion(speed: int, rate: int) -> float:
        pan = clips.source("testsrc", 3.0, "1600x240", rate=rate).filter("crop", 320, 240, f"t*{speed}", 0)
        found = read_frames(filtered(tmp_path / "v.mp4", pan), SMALL, LIMITS).motion
        assert found is not None
        return found

    slow, fast = ([motion(speed, rate) for rate in (10, 25, 50)] for speed in (40, 200))
    assert max(slow) < 1.2 * min(slow)
    assert max(fast) < 1.2 * min(fast)
    assert 0.01 < max(slow) < min(fast) < max(fast) <= 1.0
    grain = clips.source("smptebars", 2.0, rate=50).filter("noise", alls=20, allf="t")
    grainy = read_frames(filtered(tmp_path / "v.mp4", grain), SMALL, LIMITS).motion
    assert grainy is not None
    assert grainy < 0.06  # ten times that, were neighbouring pictures compared
    still = read_frames(filtered(tmp_path / "v.mp4", clips.source("smptebars", 2.0)), SMALL, LIMITS)
    assert still.motion == pytest.approx(0.0, abs=1e-4)


# Seen by eye, picture by picture, on contact sheets of every jump.
CUTS: dict[str, list[float]] = {
    "ad_chrome_browser.mp4": [7.44, 9.34, 10.54, 13.15, 16.15, 21.19],
    "cartoon_bunny_20s.mp4": [12.1, 15.9],
    "mixed_book_machine.webm": [5.0, 10.04, 13.74],
    "office_intro_googlework.mp4": [
        *(0.57, 1.2, 1.8, 2.44, 3.1, 3.7, 4.34, 4.97, 5.57, 6.21, 6.81, 7.41),  # photographs, one after the other
        *(9.71, 14.41, 18.02, 20.32, 23.69, 25.66, 27.33, 31.66),
    ],
}
ONE_SHOT = (
    *("beetle_on_flower.mp4", "cars_parking.mp4", "cups_shell_game.mp4", "flower_timelapse.webm", "kids_jump_bed.mp4"),
    *(
        "man_green_wall.mp4",
        "shuttle_orbit.webm",
        "sign_language_book.mkv",
        "ski_mountain_panorama.mp4",
        "toy_frog.mp4",
    ),
    *("toy_blocks_letters.mp4", "toy_crystal.mp4", "toy_robot_bricks.mp4", "woman_phone_train.mp4"),
)


@pytest.mark.parametrize("name", sorted(CUTS))
def test_real_clips_are_cut_where_people_would(shared_media: Path, name: str) -> None:
    assert found_in(shared_media / "good" / name) == pytest.approx(CUTS[name], abs=0.03)


def test_a_battle_is_cut_without_its_explosions(shared_media: Path) -> None:
    """24 cuts were found and all of them are some; the gun fire and the explosion at 69.4 s are none."""
    found = found_in(shared_media / "good/film_scifi_battle.webm")
    assert 22 <= len(found) <= 27
    for certain in (2.17, 9.21, 12.88, 50.12, 53.5, 56.04, 57.42):
        assert any(abs(cut - certain) < 0.03 for cut in found), certain
    assert not any(abs(cut - 69.38) < 0.1 for cut in found)


def test_static_shots_stay_whole(shared_media: Path) -> None:
    for name in ("bottles_conveyor.mp4", "toy_frog.mp4"):
        assert found_in(shared_media / "good" / name) == [], name


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_SHOT)
def test_clips_of_one_shot(shared_media: Path, name: str) -> None:
    assert found_in(shared_media / "good" / name) == []
