"""Whatever tracks a file has: the picture and the sound a player would give, or a coded error; never silent nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from store.errors import MediaError
from store.settings import Limits
from tests import clips
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling
from workers.probe import look, probe
from workers.sound_decoding import read_sound

LIMITS = Limits()
H264: dict[str, Any] = {"vcodec": "libx264", "pix_fmt": "yuv420p"}
FOLDER = [HealthCheck.function_scoped_fixture]


def pitch(samples: np.ndarray, rate_hz: int) -> float:
    """The loudest frequency of float [n] samples, in hertz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


def code_of(file: Path) -> str | None:
    try:
        probe(file, LIMITS)
    except MediaError as error:
        return error.code
    return None


def picture_property(folder: Path, data: st.DataObject) -> None:
    """Any length, size, rate, coding, turn and strategy."""
    codec, form, suffix, step = data.draw(
        st.sampled_from(
            [
                ("libx264", "yuv420p", "mp4", 2),
                ("libx264", "yuv444p", "mp4", 1),
                ("libx264", "yuv420p10le", "mkv", 2),
                ("mpeg4", "yuv420p", "avi", 1),
                ("libvpx", "yuv420p", "webm", 1),
                ("mjpeg", "yuvj420p", "mov", 1),
                ("mpeg2video", "yuv420p", "mpg", 2),
            ]
        )
    )
    width, height = (data.draw(st.integers(8, 200)) * step for _ in range(2))
    rate = 25 if codec == "mpeg2video" else data.draw(st.integers(1, 60))
    count = data.draw(st.integers(1, 40))
    picture = clips.source("testsrc", count / rate, f"{width}x{height}", rate)
    video = clips.render(folder / f"any.{suffix}", picture, vcodec=codec, pix_fmt=form)
    turned = suffix == "mp4" and data.draw(st.booleans())
    if turned:
        video = clips.with_display_matrix(folder / "turned.mp4", video, (0, 1, -1, 0))
    strategy = data.draw(st.sampled_from(["shots", "uniform", "fps", "keyframes"]))
    most = data.draw(st.integers(1, 8))
    sampling = FrameSampling.model_validate(
        {
            "strategy": strategy,
            "max_frames": most,
            "short_side": 64,
            "long_side": 128,
            "interval_seconds": 0.2,
            "fps": 5,
        }
    )
    info = look(video, LIMITS)
    assert (info.width, info.height) == (width, height)
    frames = read_frames(video, sampling, LIMITS)
    assert 1 <= len(frames.pixels) <= most
    assert np.all(np.diff(frames.seconds) > 0)
    assert frames.seconds[0] >= 0
    assert frames.seconds[-1] < frames.duration_seconds
    assert frames.duration_seconds == pytest.approx(count / rate, abs=1.5 / rate + 0.05)
    assert not frames.degraded
    assert (frames.width, frames.height) == ((height, width) if turned else (width, height))
    shown = frames.pixels.shape[2], frames.pixels.shape[1]
    assert max(shown) <= 128
    assert min(shown) <= 64
    assert shown[0] / shown[1] == pytest.approx(frames.width / frames.height, rel=1 / min(shown) + 0.01)
    assert frames.pixels.std() > 20
    if strategy == "keyframes":
        assert frames.shots == ()
    else:
        assert frames.decoded == count
        assert (frames.shots[0].start, frames.shots[-1].end) == (0.0, pytest.approx(frames.duration_seconds))
        assert frames.motion is not None
        assert 0 <= frames.motion <= 1


def sound_property(folder: Path, data: st.DataObject) -> None:
    """Any length, rate, layout and coding of the sound, longer or shorter than the picture."""
    codec, suffix = data.draw(
        st.sampled_from(
            [
                *(("pcm_u8", "mkv"), ("pcm_s16le", "mov"), ("pcm_s24le", "avi"), ("pcm_f32le", "mkv")),
                *(("pcm_f64le", "mkv"), ("aac", "mp4"), ("flac", "mkv"), ("pcm_alaw", "mov"), ("ac3", "ts")),
                ("libopus", "webm"),
            ]
        )
    )
    rate = data.draw(
        st.sampled_from(
            {"libopus": [48_000], "ac3": [32_000, 44_100, 48_000]}.get(codec, [8_000, 22_050, 44_100, 48_000])
        )
    )
    channels = data.draw(st.sampled_from([1, 2, 6]))
    seconds, picture = data.draw(st.floats(0.5, 3.0)), data.draw(st.floats(0.3, 3.0))
    hertz = data.draw(st.integers(200, 1_500))
    options: dict[str, Any] = {"ar": rate, "ac": channels, "acodec": codec}
    coded = {"vcodec": "libvpx" if suffix == "webm" else "libx264", "pix_fmt": "yuv420p"}
    streams = [clips.pattern(picture, "64x48"), clips.tone(seconds, hertz)]
    video = clips.render(folder / f"any.{suffix}", *streams, **coded, **options)
    sound = read_sound(video, 16_000, LIMITS)
    assert sound.present
    assert not sound.degraded
    assert sound.samples.shape[0] == min(2, channels)
    # Never cut to the picture; codecs pad to their block.
    assert seconds - 0.1 <= sound.seconds <= seconds + 0.2
    assert np.abs(sound.samples).max() <= 1.0
    assert pitch(sound.mono(), 16_000) == pytest.approx(hertz, abs=2.5 / seconds)
    frames = read_frames(video, FrameSampling(max_frames=1, short_side=32), LIMITS)
    assert frames.duration_seconds == pytest.approx(np.ceil(picture * 10) / 10, abs=0.21)
    info = look(video, LIMITS)
    assert (info.audio_rate, info.audio_channels) == (rate, channels)
    if suffix in ("mov", "mp4"):
        assert info.audio_duration == pytest.approx(seconds, abs=0.15)
        assert info.duration == pytest.approx(frames.duration_seconds, abs=0.15)


@settings(max_examples=12, deadline=None, suppress_health_check=FOLDER)
@given(data=st.data())
def test_any_picture_is_read(tmp_path: Path, data: st.DataObject) -> None:
    picture_property(tmp_path, data)


@settings(max_examples=12, deadline=None, suppress_health_check=FOLDER)
@given(data=st.data())
def test_any_sound_is_heard(tmp_path: Path, data: st.DataObject) -> None:
    sound_property(tmp_path, data)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=FOLDER)
@given(data=st.data())
def test_any_picture_is_read_widely(tmp_path: Path, data: st.DataObject) -> None:
    picture_property(tmp_path, data)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=FOLDER)
@given(data=st.data())
def test_any_sound_is_heard_widely(tmp_path: Path, data: st.DataObject) -> None:
    sound_property(tmp_path, data)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=FOLDER)
@given(data=st.data())
def test_damaged_files_give_frames_or_a_coded_error(tmp_path: Path, data: st.DataObject) -> None:
    source = tmp_path / "source.mp4"
    if not source.exists():
        clips.test_pattern(source, seconds=1.5, tone_hz=440.0, g=5, movflags="faststart")
    content = bytearray(source.read_bytes())
    behind = content.index(b"mdat") + 4
    for _ in range(data.draw(st.integers(0, 30))):
        # Mostly behind the index: what is damaged there opens, and is for the decoder to find.
        first = 0 if data.draw(st.integers(0, 9)) == 0 else behind
        content[data.draw(st.integers(first, len(content) - 1))] = data.draw(st.integers(0, 255))
    target = tmp_path / "damaged.mp4"
    target.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    strategy = data.draw(st.sampled_from(["shots", "keyframes"]))
    assume(code_of(target) is None)  # what probing refuses is never decoded
    try:
        frames = read_frames(target, FrameSampling.model_validate({"strategy": strategy}), LIMITS)
        assert len(frames.pixels) >= 1
        read_sound(target, 16_000, LIMITS)
    except MediaError as error:
        assert error.code.startswith("media.")


def test_the_default_sound_track_wins(tmp_path: Path) -> None:
    tones = [clips.tone(1.0, hertz) for hertz in (300, 600, 900)]

    def heard(**dispositions: str) -> float:
        flags = {f"disposition:a:{key[1]}": value for key, value in dispositions.items()}
        video = clips.render(tmp_path / "v.mkv", clips.pattern(1.0), *tones, **H264, acodec="pcm_s16le", **flags)
        return pitch(read_sound(video, 16_000, LIMITS).mono(), 16_000)

    assert heard(a0="0", a1="default", a2="0") == pytest.approx(600, abs=3)
    assert heard(a0="0", a1="0", a2="default") == pytest.approx(900, abs=3)
    assert heard(a0="0", a1="0", a2="0") == pytest.approx(300, abs=3)
    # Sound made for some people is not everybody's, though it come first.
    assert heard(a0="default+visual_impaired", a1="0", a2="0") == pytest.approx(600, abs=3)


def test_the_default_picture_wins(tmp_path: Path) -> None:
    pictures = [clips.source("color", 1.0, c=name) for name in ("red", "blue")]
    flags = {"disposition:v:0": "0", "disposition:v:1": "default"}
    video = clips.render(tmp_path / "v.mkv", *pictures, **H264, **flags)
    assert read_frames(video, FrameSampling(), LIMITS).pixels[0, 0, 0, 2] > 200


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    import ffmpeg

    cover = clips.render(tmp_path / "cover.png", clips.source("color", 0.04, "64x64", c="red"), **{"frames:v": 1})
    art, moving, tone = ffmpeg.input(str(cover)), clips.source("color", 1.0, c="blue"), clips.tone(1.0, 440)
    coded = {"c:v:0": "png", "c:v:1": "libx264", "pix_fmt:v:1": "yuv420p", "disposition:v:0": "attached_pic"}
    first = clips.render(tmp_path / "first.mp4", art, moving, tone, **coded)
    assert code_of(first) is None
    frames = read_frames(first, FrameSampling(), LIMITS)
    assert frames.decoded == 25
    assert frames.pixels[0, 0, 0, 2] > 200
    only = clips.render(tmp_path / "only.mp4", art, tone, **{"c:v:0": "png", "disposition:v:0": "attached_pic"})
    assert code_of(only) == "media.no_video"
    with pytest.raises(MediaError) as caught:
        read_frames(only, FrameSampling(), LIMITS)
    assert caught.value.code == "media.no_video"


def test_a_coding_that_nobody_knows(tmp_path: Path) -> None:
    whole = clips.test_pattern(tmp_path / "whole.mp4", seconds=1.0, tone_hz=440.0).read_bytes()
    strange = tmp_path / "strange.mp4"
    strange.write_bytes(whole.replace(b"avc1", b"zzz1"))
    assert code_of(strange) == "media.no_frames"
    with pytest.raises(MediaError) as caught:
        read_frames(strange, FrameSampling(), LIMITS)
    assert caught.value.code == "media.no_frames"
    # Sound alone: the picture is still good, and that there is sound is not hidden.
    other = clips.test_pattern(tmp_path / "whole.mkv", seconds=1.0, tone_hz=440.0).read_bytes()
    strange.write_bytes(other.replace(b"A_AAC", b"A_ZZZ"))
    assert code_of(strange) is None
    sound = read_sound(strange, 16_000, LIMITS)
    assert (sound.present, sound.degraded, sound.samples.shape) == (True, True, (1, 0))
    assert len(read_frames(strange, FrameSampling(), LIMITS).pixels) >= 1


def test_float_sound_may_hold_anything(tmp_path: Path) -> None:
    """Not-a-number, infinity and levels far beyond full: flagged, and within -1..1 all the same."""
    video = clips.render(
        tmp_path / "v.mkv", clips.pattern(1.0), clips.tone(1.0, 440), **H264, acodec="pcm_f32le", ar=16_000
    )
    data = bytearray(video.read_bytes())
    samples = read_sound(video, 16_000, LIMITS).samples[0]
    run = samples[4000:4004].astype("<f4").tobytes()
    place = data.index(run)
    data[place : place + 16] = np.array([np.nan, np.inf, -np.inf, 1e30], "<f4").tobytes()
    video.write_bytes(data)
    sound = read_sound(video, 16_000, LIMITS)
    assert sound.degraded
    assert np.isfinite(sound.samples).all()
    assert np.abs(sound.samples).max() <= 1.0
    assert (np.abs(sound.samples[0] - samples) > 1e-6).sum() <= 4


def test_varying_frame_rates_keep_their_times(tmp_path: Path) -> None:
    """Ten pictures a second at first, two later: samples are where they belong, and motion is not invented."""
    varying = clips.pattern(6.0).filter("select", "if(lt(t,2),1,not(mod(n,5)))")
    video = clips.render(tmp_path / "v.mkv", varying, **H264, fps_mode="vfr")
    frames = read_frames(video, FrameSampling(strategy="fps", fps=2), LIMITS)
    assert frames.decoded == 28
    assert frames.seconds == pytest.approx(np.arange(12) / 2, abs=0.01)


def test_real_varying_rates_and_offsets(shared_media: Path) -> None:
    for name in ("mediabunny_cursed_vfr.mp4", "decord_unordered.mov", "made_one_frame.mp4", "gradio_bad_sample.mp4"):
        frames = read_frames(shared_media / "bad" / name, FrameSampling(), LIMITS)
        assert len(frames.pixels) >= 1, name
        assert np.all(np.diff(frames.seconds) > 0), name
        assert frames.pixels.std() > 1 or name == "decord_unordered.mov", name  # which is white
