"""Frames and sound out of a container, one pass per stream, from the start to the end.

Never by seeking: on some real files a seek returns green garbage without an error. Sampling goes by time stamp, keeps
what the encoders need at the size they need, and does not believe the declared duration: a truncated file ends early,
again without an error, so what was decoded is counted against what was declared.

PyAV was chosen by measurement (`bench/results/decoding.json`, `python -m bench.decoding`): the ffmpeg program pays for
carrying pictures through a pipe, and gives neither time stamps nor damage flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from store.errors import MediaError
from store.records import Float32, Frames, Sound
from store.settings import Limits
from workers.containers import bound_pictures, declared_seconds, opened, video_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Less than this share of what was declared is damage; edit lists and rounding stay well above it.
WHOLE_SHARE = 0.9
WHOLE_SLACK_SECONDS = 0.5
MOST_ERRORS = 1000


class FrameSampling(BaseModel):
    """Which frames are kept, and their size. Part of the version of the `vision` stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    interval_seconds: float = Field(0.5, gt=0, description="Time between samples of a short video, in seconds.")
    max_frames: int = Field(24, ge=1, description="Most frames of a video; a longer one is sampled more thinly.")
    short_side: int = Field(256, ge=16, description="Pixels of the shorter side of what is kept.")


@dataclass
class _Sampler:
    """Keeps the first picture of every interval; when there are too many, doubles the interval and thins out.

    The result is the same as if the final interval had been known from the start, in bounded memory.
    """

    interval: float
    most: int
    seconds: list[float] = field(default_factory=list)
    pixels: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def slot(self, second: float) -> int:
        # A time stamp that is rounded just below the boundary belongs to the slot that it begins.
        return int(second / self.interval + 1e-6)

    def wants(self, second: float) -> bool:
        return not self.seconds or self.slot(second) > self.slot(self.seconds[-1])

    def keep(self, second: float, pixels: npt.NDArray[np.uint8]) -> None:
        self.seconds.append(second)
        self.pixels.append(pixels)
        while len(self.seconds) > self.most:
            self.interval *= 2
            slots = [self.slot(kept) for kept in self.seconds]
            first = [place for place, slot in enumerate(slots) if place == 0 or slot != slots[place - 1]]
            self.seconds = [self.seconds[place] for place in first]
            self.pixels = [self.pixels[place] for place in first]


def read_frames(source: BinaryIO | Path, sampling: FrameSampling, limits: Limits) -> Frames:
    """Sample one video. Times are seconds from its first picture.

    Raises `media.no_frames`, `media.too_long`, `media.too_many_frames`, `media.too_many_pixels` (all by what is really
    decoded, whatever the header says), and what opening raises.
    """
    with opened(source, limits) as container:
        stream = video_stream(container)
        declared, promised, step = _declared(container, stream)
        sampler = _Sampler(sampling.interval_seconds, sampling.max_frames)
        damage = _Damage()
        decoded, start, last = 0, None, 0.0
        for frame in _pictures(container, stream, limits, damage):
            decoded += 1
            if decoded > limits.frames:
                raise MediaError("media.too_many_frames", f"The video has more than {limits.frames} pictures.")
            time = frame.time
            if start is None:
                start = time if time is not None else 0.0
            # Missing and backward time stamps: the clock still goes forward.
            second = max(last, time - start) if time is not None else last + (step if decoded > 1 else 0.0)
            if second > limits.seconds:
                raise MediaError("media.too_long", f"The video is longer than {limits.seconds:g} seconds.")
            last = second
            if sampler.wants(second):
                sampler.keep(second, _rgb(frame, stream, sampling.short_side))
    if not sampler.seconds:
        raise MediaError("media.no_frames", "Not one picture could be decoded.", hint="Try to re-export the video.")
    duration = last + step
    short = _falls_short(duration, promised) or (declared is not None and decoded < WHOLE_SHARE * declared)
    return Frames(
        pixels=_stacked(sampler.pixels),
        seconds=np.array(sampler.seconds, np.float64),
        duration_seconds=duration,
        decoded=decoded,
        declared=declared,
        degraded=damage.seen or short,
    )


def read_sound(source: BinaryIO | Path, rate_hz: int, limits: Limits) -> Sound:
    """Decode the main sound track at `rate_hz`: one channel stays one, two stay two, more are mixed down to two.

    No track gives `present` false. Damage never raises: what could be decoded is returned as `degraded`. At most
    `limits.seconds` are read.
    """
    import av

    with opened(source, limits) as container:
        stream = container.streams.best("audio")
        if stream is None:
            return Sound(np.zeros((1, 0), np.float32), rate_hz, present=False)
        declared = declared_seconds(container, stream)
        context: Any = stream.codec_context
        channels = min(2, context.channels or 1)
        resampler = av.AudioResampler(format="fltp", layout="mono" if channels == 1 else "stereo", rate=rate_hz)
        damage = _Damage()
        chunks: list[Float32] = []
        start, room = None, int(limits.seconds * rate_hz)
        context.thread_count = 1
        for frame in _frames_of(container, stream, damage):
            if start is None:
                start = frame.time or 0.0
            room -= _resampled(resampler, frame, chunks, damage)
            if room <= 0:
                damage.seen = True  # the rest is left out: more sound than a video may have
                break
        else:
            _resampled(resampler, None, chunks, damage)
        offset = (start or 0.0) - _video_start(container)
    samples = np.concatenate(chunks, axis=1) if chunks else np.zeros((channels, 0), np.float32)
    return Sound(
        samples=np.ascontiguousarray(samples[:, : int(limits.seconds * rate_hz)], np.float32),
        rate_hz=rate_hz,
        present=True,
        start_seconds=offset,
        declared_seconds=declared,
        degraded=damage.seen or _falls_short(samples.shape[1] / rate_hz, declared),
    )


@dataclass
class _Damage:
    """Whether the decoder has met damage."""

    seen: bool = False
    errors: int = 0


def _frames_of(container: InputContainer, stream: Any, damage: _Damage) -> Iterator[Any]:
    """Every frame that the decoder can give, in order; an error costs its packet and is noted, not raised."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            damage.seen = True  # the container itself ends here
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damage.seen = True
            damage.errors += 1
            if damage.errors > MOST_ERRORS:
                return
            continue
        damage.seen = damage.seen or packet.is_corrupt
        yield from frames


def _pictures(container: InputContainer, stream: VideoStream, limits: Limits, damage: _Damage) -> Iterator[VideoFrame]:
    bound_pictures(stream.codec_context, limits)
    for frame in _frames_of(container, stream, damage):
        if frame.width * frame.height > limits.pixels:
            raise MediaError(
                "media.too_many_pixels",
                f"A picture has {frame.width} x {frame.height} pixels, at most {limits.pixels} in all are allowed.",
            )
        damage.seen = damage.seen or frame.is_corrupt
        yield frame


def _rgb(frame: VideoFrame, stream: VideoStream, short_side: int) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3]: upright, square pixels, the size that is kept; straight from the decoder's format."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width, height = max(1.0, frame.width * float(aspect)), float(frame.height)
    scale = short_side / min(width, height)
    # Very long strips would grow huge: the long side is bounded too.
    size = [max(1, round(min(side * scale, 8.0 * short_side))) for side in (width, height)]
    picture = frame.reformat(width=size[0], height=size[1], format="rgb24", interpolation="BICUBIC").to_ndarray()
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else np.ascontiguousarray(picture)


def _stacked(pixels: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """uint8 [n, height, width, 3]. Where a stream changes its size, pictures are padded with black to the largest."""
    height, width = (max(picture.shape[axis] for picture in pixels) for axis in (0, 1))
    result = np.zeros((len(pixels), height, width, 3), np.uint8)
    for place, picture in enumerate(pixels):
        top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
        result[place, top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return result


def _resampled(resampler: Any, frame: Any, chunks: list[Float32], damage: _Damage) -> int:
    """Resample into `chunks`; the number of samples added. None for `frame` flushes."""
    import av

    try:
        converted = resampler.resample(frame)
    except (av.FFmpegError, ValueError):
        damage.seen = True
        return 0
    for item in converted:
        chunks.append(item.to_ndarray())
    return sum(item.samples for item in converted)


def _declared(container: InputContainer, stream: VideoStream) -> tuple[int | None, float | None, float]:
    """Declared pictures, declared seconds, and the seconds that one picture stands."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = 1.0 / float(rate) if 0 < float(rate) <= 1000 else 0.04
    return stream.frames or None, declared_seconds(container, stream), step


def _falls_short(decoded_seconds: float, declared_seconds: float | None) -> bool:
    if declared_seconds is None:
        return False
    return decoded_seconds < WHOLE_SHARE * declared_seconds - WHOLE_SLACK_SECONDS


def _video_start(container: InputContainer) -> float:
    try:
        stream = video_stream(container)
    except MediaError:
        return 0.0
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)
