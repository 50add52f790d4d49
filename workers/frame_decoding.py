"""Frames out of a container in one pass: sampled, with their shots and the motion between them.

Sampling (`frame_sampling`) goes by time stamp and keeps what the encoders need at the size they need. Shots and motion
are found in the same pass (`shots`), from a thumbnail of every picture; what is kept is made upright and viewable by
`pictures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from store.errors import MediaError
from store.records import Frames
from store.settings import Limits
from workers.containers import bound_pictures, declared_seconds, opened, video_stream
from workers.decoding import WHOLE_SHARE, Damage, falls_short, frames_of
from workers.frame_sampling import FrameSampling, Sampler
from workers.pictures import PictureReader
from workers.shots import ShotDetector

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


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
        damage = Damage()
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
    short = falls_short(duration, promised) or (declared is not None and decoded < WHOLE_SHARE * declared)
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


def _pictures(
    container: InputContainer, stream: VideoStream, limits: Limits, damage: Damage, keys_only: bool
) -> Iterator[VideoFrame]:
    """Every picture, or every key picture alone; some decoders give the others all the same."""
    bound_pictures(stream.codec_context, limits)
    if keys_only:
        stream.codec_context.skip_frame = "NONKEY"
    for frame in frames_of(container, stream, damage, limits):
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
