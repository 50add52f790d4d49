"""Probing: whether an upload can be a video here, found out before any work and by a child process with limits.

The child may use so much memory, so many CPU seconds and no new files; if it crashes or hangs, the upload is refused
and nothing else happens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from store.errors import MediaError
from store.records import MediaInfo
from store.settings import Limits
from workers.containers import (
    HEAD_BYTES,
    audio_stream,
    bound_pictures,
    container_format,
    declared_seconds,
    opened,
    video_stream,
)

OPEN_FILES = 64
# An MP4's index lies at one of its ends and is rarely larger.
INDEX_BYTES = 2**20


def probe(path: Path, limits: Limits) -> MediaInfo:
    """What is in this file. Raises MediaError with one of the `media.*` codes; `limits` bound what it may be."""
    _check_file(path, limits)
    command = [sys.executable, "-m", "workers.probe", limits.model_dump_json(), str(path.absolute())]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limits.probe_seconds + 5, check=False
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(limits) from None
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout)
        if "error" in answer:
            raise MediaError(**answer["error"])
        return MediaInfo.model_validate(answer["media"])
    if done.returncode == -24:  # SIGXCPU
        raise _too_slow(limits)
    raise MediaError(
        "media.decoder_crashed",
        f"The decoder crashed on this file (status {done.returncode}).",
        hint="Try to re-export the video.",
    )


def _too_slow(limits: Limits) -> MediaError:
    return MediaError("media.too_slow", f"Looking into this file took longer than {limits.probe_seconds:g} seconds.")


def _check_file(path: Path, limits: Limits) -> None:
    """All that can be told without a decoder."""
    try:
        if not path.is_file():
            raise OSError
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except (OSError, ValueError):
        raise MediaError("media.missing", f"There is no readable file {path.name!r} at this path.") from None
    if size == 0:
        raise MediaError("media.empty", "The file is empty.", hint="Was the upload cut off?")
    if size > limits.bytes:
        raise MediaError(
            "media.too_large",
            f"The file has {size} bytes, at most {limits.bytes} are allowed.",
            hint="Raise REELSENSE_LIMITS__BYTES.",
        )
    container_format(head)


def look(path: Path, limits: Limits) -> MediaInfo:
    """Open the file in this process, check the header against the limits and decode one picture."""

    with opened(path, limits) as container:
        stream = video_stream(container)
        context = stream.codec_context
        if context.width * context.height > limits.pixels:
            raise MediaError(
                "media.too_many_pixels",
                f"The video has {context.width} x {context.height} pixels, at most {limits.pixels} in all are allowed.",
                hint="Scale it down, or raise REELSENSE_LIMITS__PIXELS.",
            )
        duration = declared_seconds(container, stream)
        if duration is not None and duration > limits.seconds:
            raise MediaError(
                "media.too_long",
                f"The video lasts {duration:.0f} seconds, at most {limits.seconds:g} are allowed.",
                hint="Cut it, or raise REELSENSE_LIMITS__SECONDS.",
            )
        if stream.frames > limits.frames:
            raise MediaError(
                "media.too_many_frames", f"The video has {stream.frames} pictures, at most {limits.frames} are allowed."
            )
        bound_pictures(context, limits)
        frame = _first_picture(container, stream)
        if frame is None and not stream.frames and not duration:
            raise MediaError("media.zero_duration", "The video lasts 0 seconds.")
        if frame is None:
            raise MediaError("media.no_frames", "Not one picture could be decoded.", hint="Try to re-export the video.")
        audio = audio_stream(container)
        sound: Any = audio.codec_context if audio is not None else None
        rate = stream.average_rate
        return MediaInfo(
            container=container.format.name,
            bytes=path.stat().st_size,
            duration=duration,
            width=frame.width,
            height=frame.height,
            rotation=int(frame.rotation) % 360,
            video_codec=context.name,
            declared_frames=stream.frames or None,
            frame_rate=float(rate) if isinstance(rate, Fraction) and 0 < rate <= 1000 else None,
            audio_codec=sound.name if sound is not None else None,
            audio_rate=sound.sample_rate if sound is not None else None,
            audio_channels=sound.channels if sound is not None else None,
            audio_duration=declared_seconds(container, audio) if audio is not None else None,
            subtitle_streams=sum(item.type == "subtitle" for item in container.streams),
        )


def _first_picture(container: Any, stream: Any) -> Any:
    import av

    errors = 0
    packets = container.demux(stream)
    while errors < 100:
        try:
            packet = next(packets, None)
            if packet is None:
                return None
            for frame in packet.decode():
                return frame
        except av.FFmpegError:
            errors += 1
    return None


def _is_encrypted(path: Path) -> bool:
    """Whether an MP4 that could not be read names an encrypted video track (ISO/IEC 23001-7: sample entry `encv`)."""
    with path.open("rb") as stream:
        start = stream.read(INDEX_BYTES)
        stream.seek(max(0, path.stat().st_size - INDEX_BYTES))
        return b"encv" in start or b"encv" in stream.read(INDEX_BYTES)


def _limit_self(limits: Limits) -> None:
    """Bound this very process, before it touches the hostile file."""
    import resource

    import av  # noqa: F401 - loaded before the limit on files: its libraries are files too

    seconds = int(limits.probe_seconds) + 1
    for what, amount in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, limits.memory_bytes),
    ):
        soft, hard = resource.getrlimit(what)
        bounded = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(what, (bounded, bounded if what != resource.RLIMIT_CPU else bounded + 1))
        del soft


def main(arguments: list[str]) -> None:
    """The child: limits as JSON, then a path; prints one JSON document."""
    limits = Limits.model_validate_json(arguments[0])
    _limit_self(limits)
    path = Path(arguments[1])
    answer: dict[str, Any]
    try:
        answer = {"media": look(path, limits).model_dump(mode="json")}
    except MediaError as error:
        if error.code in ("media.unreadable", "media.no_frames", "media.no_video") and _is_encrypted(path):
            error = MediaError("media.encrypted", "The video track is encrypted.", hint="Upload it without DRM.")
        answer = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    except MemoryError:
        answer = {
            "error": {
                "code": "media.too_many_pixels",
                "message": f"Opening this file takes more than {limits.memory_bytes} bytes of memory.",
            }
        }
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    # No clean-up that a damaged decoder state could crash in.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
