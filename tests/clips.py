"""Small clips made with ffmpeg for tests: patterns, tones, and every kind of trouble. Same arguments, same clip.

ffmpeg comes with the imageio-ffmpeg wheel and is driven through ffmpeg-python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg


def render(path: Path, *streams: Any, **options: Any) -> Path:
    """Write the streams to `path` with flags that make the bytes depend on nothing but the arguments."""
    fixed: dict[str, Any] = {"fflags": "+bitexact", "flags": "+bitexact", "threads": 1, "loglevel": "error"}
    ffmpeg.output(*streams, str(path), **(fixed | options)).overwrite_output().run(
        cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True, capture_stderr=True
    )
    return path


def pattern(seconds: float, size: str = "320x240", rate: int = 10) -> Any:
    """A moving test picture with a counter."""
    return ffmpeg.input(f"testsrc=size={size}:rate={rate}:duration={seconds}", f="lavfi")


def tone(seconds: float, hz: float) -> Any:
    """A sine tone."""
    return ffmpeg.input(f"sine=frequency={hz}:duration={seconds}:sample_rate=44100", f="lavfi")


def test_pattern(path: Path, seconds: float, tone_hz: float | None, **options: Any) -> Path:
    """A moving test picture, with a tone or without any sound track."""
    streams = [pattern(seconds)] + ([] if tone_hz is None else [tone(seconds, tone_hz)])
    sound = {} if tone_hz is None else {"acodec": "aac"}
    return render(path, *streams, **({"vcodec": "libx264", "pix_fmt": "yuv420p"} | sound | options))


test_pattern.__test__ = False  # type: ignore[attr-defined]  # a maker of clips, not a test


def colour_bars(path: Path, seconds: float) -> Path:
    """Still colour bars without sound."""
    bars = ffmpeg.input(f"smptebars=size=320x240:rate=10:duration={seconds}", f="lavfi")
    return render(path, bars, vcodec="libx264", pix_fmt="yuv420p")


def audio_only(path: Path) -> Path:
    """A video container with sound and nothing to see."""
    return render(path, tone(1.0, 440.0), acodec="aac")


def zero_duration(path: Path) -> Path:
    """A valid MP4 with a video track that has not one picture: a fragmented file's beginning without its fragments."""
    whole = render(
        path.with_suffix(".whole.mp4"),
        pattern(0.5),
        vcodec="libx264",
        pix_fmt="yuv420p",
        movflags="frag_keyframe+empty_moov+default_base_moof",
    )
    data = whole.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    return path


def with_subtitles(path: Path, subtitles: Path, codec: str, language: str = "eng") -> Path:
    """A short clip with a subtitle track inside."""
    track = ffmpeg.input(str(subtitles))
    options = {"metadata:s:s:0": f"language={language}", "scodec": codec}
    return render(path, pattern(4.0), track, vcodec="libx264", pix_fmt="yuv420p", **options)


def spoken(path: Path, sound: Path, still: str = "gray") -> Path:
    """A sound file as the sound track of a still picture: how known words get into a video."""
    import av

    with av.open(str(sound)) as container:
        assert container.duration is not None
        seconds = container.duration / 1_000_000
    picture = ffmpeg.input(f"color=c={still}:size=160x120:rate=2:duration={seconds:.3f}", f="lavfi")
    return render(path, picture, ffmpeg.input(str(sound)), vcodec="libx264", pix_fmt="yuv420p", acodec="pcm_s16le")


def source(name: str, seconds: float, size: str = "320x240", rate: int = 25, **options: Any) -> Any:
    """A picture source of ffmpeg by its name: `testsrc`, `smptebars`, `rgbtestsrc`, `mandelbrot`, `yuvtestsrc`..."""
    described = "".join(f":{key}={value}" for key, value in options.items())
    return ffmpeg.input(f"{name}=size={size}:rate={rate}{described}", f="lavfi", t=seconds)


def scenes(path: Path, parts: list[tuple[str, float]], size: str = "320x240", rate: int = 25, **options: Any) -> Path:
    """Scenes one after the other without transition: a name of `source` and the seconds of each."""
    streams = [
        source(name, seconds, size, rate).filter("format", "yuv420p").filter("setsar", 1) for name, seconds in parts
    ]
    return render(path, ffmpeg.concat(*streams, v=1, a=0), **({"vcodec": "libx264", "pix_fmt": "yuv420p"} | options))


def with_display_matrix(path: Path, whole: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The MP4 file `whole` with the whole numbers a, b, c, d in the display matrix of its first track."""
    data = bytearray(whole.read_bytes())
    # ISO/IEC 14496-12, `tkhd` version 0: the matrix begins 40 bytes behind the name of the box.
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (number * 0x10000 for number in matrix)
    for index, number in ((0, a), (1, b), (3, c), (4, d)):
        data[place + 4 * index : place + 4 * index + 4] = number.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


def plain(path: Path, *arguments: str) -> bytes:
    """What the ffmpeg program gives as raw RGB of the whole file: the plain reference, with its own turning."""
    import subprocess

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path), *arguments]
    done = subprocess.run([*command, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], capture_output=True, check=True)
    return done.stdout
