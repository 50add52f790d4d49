"""Frames and sound out of a container, one pass per stream, from the start to the end.

Never by seeking: on some real files a seek returns green garbage without an error. Sampling (`frame_sampling`) goes by
time stamp, keeps what the encoders need at the size they need, and does not believe the declared duration: a truncated
file ends early, again without an error, so what was decoded is counted against what was declared. Shots and motion are
found in the same pass (`shots`), from a thumbnail of every picture; what is kept is made upright and viewable by
`pictures`.

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

from store.errors import MediaError
from store.records import Float32, Frames, Sound
from store.settings import Limits
from workers.containers import audio_stream, bound_pictures, declared_seconds, opened, video_stream
from workers.frame_sampling import FrameSampling as FrameSampling
from workers.frame_sampling import Sampler
from workers.pictures import PictureReader
from workers.shots import ShotDetector

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Less than this share of what was declared is damage; edit lists and rounding stay well above it.
WHOLE_SHARE = 0.9
WHOLE_SLACK_SECONDS = 0.5
MOST_ERRORS = 1000


def read_frames(source: BinaryIO | Path, sampling: FrameSampling, limits: Limits) -> Frames:
    """Sample one video, and find its shots and its motion on the way. Times are seconds from its first picture.

    With the strategy `keyframes` nothing else is decoded, so shots, cut rate and motion stay unknown; a file whose key
    pictures are not marked is read by `uniform` instead.

    Raises `media.no_frames`, `media.too_long`, `media.too_many_frames`, `media.too_many_pixels` (all by what is really
    decoded, whatever the header says), and what opening raises.
    """
    start = 0 if isinstance(source, Path) else source.tell()
    try:
        return _read_frames(source, sampling, limits)
    except MediaError as error:
        if sampling.strategy != "keyframes" or error.code != "media.no_frames":
            raise
    if not isinstance(source, Path):
        source.seek(start)
    return _read_frames(source, sampling.model_copy(update={"strategy": "uniform"}), limits)


def _read_frames(source: BinaryIO | Path, sampling: FrameSampling, limits: Limits) -> Frames:
    keys_only = sampling.strategy == "keyframes"
    with opened(source, limits) as container:
        stream = video_stream(container)
        declared, promised, step = _declared(container, stream)
        reader = PictureReader(stream.sample_aspect_ratio, sampling.short_side, sampling.long_side)
        sampler = Sampler(sampling, reader.picture)
        detector = None if keys_only else ShotDetector()
        damage = _Damage()
        decoded, start, last, size = 0, None, 0.0, (0, 0)
        for frame in _pictures(container, stream, limits, damage, keys_only):
            decoded += 1
            if decoded > limits.frames:
                raise MediaError("media.too_many_frames", f"The video has more than {limits.frames} pictures.")
            time = frame.time
            if start is None:
                start = time if time is not None else 0.0
                size = reader.size(frame)
            # Missing and backward time stamps: the clock still goes forward.
            second = max(last, time - start) if time is not None else last + (step if decoded > 1 else 0.0)
            if second > limits.seconds:
                raise MediaError("media.too_long", f"The video is longer than {limits.seconds:g} seconds.")
            last = second
            thumbnail = reader.thumbnail(frame) if detector is not None else None
            begins = detector is not None and thumbnail is not None and detector.add(second, thumbnail)
            sampler.offer(second, frame, thumbnail, begins)
        if start is None:
            raise MediaError("media.no_frames", "Not one picture could be decoded.", hint="Try to re-export the video.")
        duration = last + step
        if keys_only and damage.packets_end is not None:
            duration = max(duration, min(damage.packets_end - start, limits.seconds))
        shots = detector.shots(duration) if detector is not None else []
        kept = sampler.chosen(shots)
    if keys_only:
        declared = None  # of key pictures, nothing is declared
    short = _falls_short(duration, promised) or (declared is not None and decoded < WHOLE_SHARE * declared)
    return Frames(
        pixels=_stacked([candidate.pixels for candidate in kept]),
        seconds=np.array([candidate.second for candidate in kept], np.float64),
        duration_seconds=duration,
        decoded=decoded,
        declared=declared,
        degraded=damage.seen or short,
        width=size[0],
        height=size[1],
        shots=tuple(shots),
        motion=detector.motion() if detector is not None else None,
    )


def read_sound(source: BinaryIO | Path, rate_hz: int, limits: Limits) -> Sound:
    """Decode the main sound track at `rate_hz`: one channel stays one, two stay two, more are mixed down to two.

    The sound is never cut to the picture: it may begin and end before or after it. No track gives `present` false.
    Damage never raises: what could be decoded is returned as `degraded`, and so is a track that no decoder knows (with
    no samples). At most `limits.seconds` are read.
    """
    with opened(source, limits) as container:
        stream = audio_stream(container)
        if stream is None:
            unknown = len(container.streams.audio) > 0
            return Sound(np.zeros((1, 0), np.float32), rate_hz, present=unknown, degraded=unknown)
        declared = declared_seconds(container, stream)
        context: Any = stream.codec_context
        channels = min(2, context.channels or 1)
        damage = _Damage()
        resampler = _Resampler("mono" if channels == 1 else "stereo", rate_hz, damage)
        start, most = None, int(limits.seconds * rate_hz)
        context.thread_count = 1
        for frame in _frames_of(container, stream, damage):
            if start is None:
                start = frame.time or 0.0
            resampler.take(frame)
            if resampler.count >= most:
                damage.seen = True  # the rest is left out: more sound than a video may have
                break
        else:
            resampler.flush()
        offset = (start or 0.0) - _video_start(container)
    samples = np.concatenate(resampler.chunks, axis=1) if resampler.chunks else np.zeros((channels, 0), np.float32)
    samples = samples[:, :most]
    if not np.isfinite(samples).all():
        # Float tracks may hold anything at all.
        damage.seen = True
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return Sound(
        samples=np.ascontiguousarray(np.clip(samples, -1.0, 1.0), np.float32),
        rate_hz=rate_hz,
        present=True,
        start_seconds=offset,
        declared_seconds=declared,
        degraded=damage.seen or _falls_short(samples.shape[1] / rate_hz, declared),
    )


@dataclass
class _Damage:
    """Whether the decoder has met damage; and where the last packet ends, in seconds of the container's clock."""

    seen: bool = False
    errors: int = 0
    packets_end: float | None = None


@dataclass
class _Resampler:
    """Collects sound as float32 [channels, n] chunks of one rate and layout, though the track may change its own."""

    layout: str
    rate_hz: int
    damage: _Damage
    chunks: list[Float32] = field(default_factory=list)
    count: int = 0
    _inner: Any = None
    _form: tuple[str, str, int] | None = None

    def take(self, frame: Any) -> None:
        import av

        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            self.flush()
            self._inner = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate_hz)
            self._form = form
        self._push(frame)

    def flush(self) -> None:
        """What the filter still holds back."""
        if self._inner is not None:
            self._push(None)
            self._inner = None

    def _push(self, frame: Any) -> None:
        import av

        try:
            converted = self._inner.resample(frame)
        except (av.FFmpegError, ValueError):
            self.damage.seen = True
            return
        self.chunks += [item.to_ndarray() for item in converted]
        self.count += sum(item.samples for item in converted)


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
        if packet.pts is not None and packet.time_base:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            damage.packets_end = max(end, damage.packets_end or end)
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


def _pictures(
    container: InputContainer, stream: VideoStream, limits: Limits, damage: _Damage, keys_only: bool
) -> Iterator[VideoFrame]:
    """Every picture, or every key picture alone; some decoders give the others all the same."""
    bound_pictures(stream.codec_context, limits)
    if keys_only:
        stream.codec_context.skip_frame = "NONKEY"
    for frame in _frames_of(container, stream, damage):
        if frame.width * frame.height > limits.pixels:
            raise MediaError(
                "media.too_many_pixels",
                f"A picture has {frame.width} x {frame.height} pixels, at most {limits.pixels} in all are allowed.",
            )
        if keys_only and not frame.key_frame:
            continue
        damage.seen = damage.seen or frame.is_corrupt
        yield frame


def _stacked(pixels: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """uint8 [n, height, width, 3]. Where a stream changes its size, pictures are padded with black to the largest."""
    height, width = (max(picture.shape[axis] for picture in pixels) for axis in (0, 1))
    result = np.zeros((len(pixels), height, width, 3), np.uint8)
    for place, picture in enumerate(pixels):
        top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
        result[place, top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return result


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
