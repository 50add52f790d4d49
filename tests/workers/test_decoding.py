"""Decoding: the frames that sequential decoding gives, upright, at the right times; damage counted; sound complete."""

from __future__ import annotations

from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.errors import MediaError
from store.settings import Limits
from tests import clips
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling
from workers.sound_decoding import read_sound

LIMITS = Limits()
SAMPLING = FrameSampling()


def plainly(path: Path, seconds: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The pictures at these times by the plainest sequential decode there is."""
    with av.open(str(path)) as container:
        wanted = {round(float(second), 4) for second in seconds}
        start = None
        found = []
        for frame in container.decode(video=0):
            time = float(frame.time if frame.time is not None else 0.0)
            start = time if start is None else start
            if round(time - start, 4) in wanted:
                wanted.discard(round(time - start, 4))
                picture = frame.reformat(width=size[1], height=size[0], format="rgb24", interpolation="BICUBIC")
                found.append(picture.to_ndarray())
    return found


CLIPS = (
    *("bad/cockatoo_444_seek_green.mp4", "bad/mouse_seek_green.mp4", "bad/mediabunny_missing_keyflags.ts"),
    *("good/dog_and_woman_path.mp4", "good/flower_timelapse.webm", "good/sign_language_book.mkv"),
    *("good/lecture_slides_talk.mov", "good/shuttle_orbit.webm"),
)


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_sequential_decoding(shared_media: Path, name: str) -> None:
    """Also for the two clips where a seek gives green garbage."""
    frames = read_frames(shared_media / name, SAMPLING, LIMITS)
    reference = plainly(shared_media / name, frames.seconds, frames.pixels.shape[1:3])
    assert len(reference) == len(frames.pixels)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(frames.pixels, reference, strict=True))
    assert not frames.degraded


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_good_clips_are_whole(shared_media: Path, media_index: dict[str, dict[str, str]], step: int) -> None:
    """One in seven, or all of them."""
    small = FrameSampling(max_frames=4, short_side=32)
    for file in sorted((shared_media / "good").iterdir())[::step]:
        frames = read_frames(file, small, LIMITS)
        assert not frames.degraded, file.name
        stated = float(media_index[f"good/{file.name}"]["duration_s"])
        assert frames.duration_seconds == pytest.approx(stated, abs=0.9), file.name
        assert 2 <= len(frames.pixels) <= 4


@pytest.mark.parametrize(
    ("name", "decoded", "declared"),
    [
        ("made_truncated_mid_mdat.mp4", 267, 1026),
        ("made_bitflips.mp4", 246, 247),
        ("mediabunny_annexb_truncated.mp4", 6, 745),
        ("mediabunny_no_initial_keyframe.ts", 15, None),
    ],
)
def test_damage_is_counted_and_flagged(shared_media: Path, name: str, decoded: int, declared: int | None) -> None:
    frames = read_frames(shared_media / "bad" / name, SAMPLING, LIMITS)
    assert (frames.decoded, frames.declared, frames.degraded) == (decoded, declared, True)


def test_a_truncated_sound_track_is_flagged(shared_media: Path) -> None:
    sound = read_sound(shared_media / "bad/made_truncated_mid_mdat.mp4", 16_000, LIMITS)
    assert sound.degraded
    assert 5 < sound.seconds < 15
    assert sound.declared_seconds == pytest.approx(35.0, abs=0.1)


@pytest.mark.parametrize("name", ["mp4parse_invalid_userdata.mp4", "gomp4_truncated_596s.mp4"])
def test_no_picture_at_all_is_an_error(shared_media: Path, name: str) -> None:
    with pytest.raises(MediaError) as caught:
        read_frames(shared_media / "bad" / name, SAMPLING, LIMITS)
    assert caught.value.code == "media.no_frames"


def test_a_lying_header_does_not_lift_the_limits(shared_media: Path) -> None:
    bomb = shared_media / "bad/made_24h_16px.mp4"
    for limits, code in (
        (Limits(frames=500), "media.too_many_frames"),
        (Limits(seconds=100), "media.too_long"),
        (Limits(pixels=255), "media.too_many_pixels"),
    ):
        with pytest.raises(MediaError) as caught:
            read_frames(bomb, SAMPLING, limits)
        assert caught.value.code == code


def test_pictures_are_upright(shared_media: Path) -> None:
    """A display matrix turns the picture as the ffmpeg program turns it."""
    import subprocess

    source = shared_media / "bad/made_rot90.mp4"
    frames = read_frames(source, FrameSampling(strategy="fps", max_frames=1), LIMITS)
    height, width = frames.pixels.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(source), "-frames:v", "1"]
    scaled = ["-vf", f"scale={width}:{height}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run([*command, *scaled], capture_output=True, check=True).stdout
    upright = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
    assert height > width
    difference = np.abs(frames.pixels[0].astype(int) - upright.astype(int)).mean()
    assert difference < 4
    assert difference < np.abs(frames.pixels[0][::-1, ::-1].astype(int) - upright.astype(int)).mean() / 2


def test_pixels_are_square(tmp_path: Path) -> None:
    video = clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None, vf="setsar=2/1")
    frames = read_frames(video, SAMPLING, LIMITS)
    assert frames.pixels.shape[1:3] == (240, 640)


def test_sound_keeps_its_channels_and_its_place(shared_media: Path, tmp_path: Path) -> None:
    late = read_sound(shared_media / "bad/made_av_offset_1500ms.mp4", 16_000, LIMITS)
    assert late.start_seconds == pytest.approx(1.5, abs=0.05)
    mono = read_sound(clips.test_pattern(tmp_path / "m.mp4", seconds=2.0, tone_hz=1000.0), 16_000, LIMITS)
    assert mono.samples.shape[0] == 1
    assert mono.seconds == pytest.approx(2.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(mono.mono()))
    assert np.argmax(spectrum) * 16_000 / mono.samples.shape[1] == pytest.approx(1000.0, abs=2.0)
    surround = clips.test_pattern(tmp_path / "s.mp4", seconds=1.0, tone_hz=500.0, ac=6)
    assert read_sound(surround, 22_050, LIMITS).samples.shape[0] == 2


def test_no_sound_track_is_no_sound(tmp_path: Path) -> None:
    sound = read_sound(clips.test_pattern(tmp_path / "v.mp4", seconds=0.5, tone_hz=None), 16_000, LIMITS)
    assert not sound.present
    assert sound.samples.shape == (1, 0)


def test_sound_is_bounded(tmp_path: Path) -> None:
    video = clips.test_pattern(tmp_path / "v.mp4", seconds=3.0, tone_hz=440.0)
    sound = read_sound(video, 16_000, Limits(seconds=1.0))
    assert sound.seconds <= 1.0
    assert sound.degraded


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.floats(0.1, 3.0),
    rate=st.integers(1, 30),
    most=st.integers(1, 12),
    interval=st.floats(0.05, 1.0),
)
def test_sampling_holds_for_any_clip(tmp_path: Path, seconds: float, rate: int, most: int, interval: float) -> None:
    picture = clips.pattern(round(seconds, 2), size="64x48", rate=rate)
    video = clips.render(tmp_path / "any.mp4", picture, vcodec="libx264", pix_fmt="yuv420p")
    sampling = FrameSampling(strategy="fps", fps=1 / interval, max_frames=most, short_side=16)
    frames = read_frames(video, sampling, LIMITS)
    assert 1 <= len(frames.pixels) <= most
    assert frames.seconds[0] == 0.0
    assert np.all(np.diff(frames.seconds) > 0)
    assert frames.seconds[-1] < frames.duration_seconds
    assert not frames.degraded
    # The bound is used: thinning never leaves less than a third of what it may keep, where there is so much.
    assert len(frames.pixels) >= min(frames.decoded, most, int(frames.duration_seconds / interval)) / 3


@pytest.mark.slow
def test_memory_does_not_grow_with_length(shared_media: Path) -> None:
    """Six minutes of full HD cost the memory of what may be kept (58 MiB and half of it stacked) and a decoder's."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    frames = read_frames(shared_media / "bad/media3_long_black_363s.mp4", SAMPLING, LIMITS)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert frames.decoded == 10_883
    assert grown < 400, f"{grown:.0f} MiB"


def test_containers_are_closed(tmp_path: Path) -> None:
    """Forty videos, whole and cut, leave no descriptor open and no memory behind."""
    import resource

    whole = clips.test_pattern(tmp_path / "whole.mp4", seconds=2.0, tone_hz=440.0, movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])

    def read_both() -> None:
        for file in (whole, cut):
            read_frames(file, SAMPLING, LIMITS)
            read_sound(file, 16_000, LIMITS)

    read_both()
    descriptors = len(list(Path("/dev/fd").iterdir()))
    for _ in range(10):
        read_both()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(30):
        read_both()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(list(Path("/dev/fd").iterdir())) <= descriptors
    assert grown < 16, f"{grown:.0f} MiB"
