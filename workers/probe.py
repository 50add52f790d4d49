"""Probing: whether an upload can be a video here, found out before any work and by a child process in a sandbox.

The child is given the open file, not its name; it may use so much memory and so many CPU seconds, and may open
nothing, call nobody and start nothing (`sandbox`). If it crashes or hangs, the upload is refused and nothing else
happens. Nor is it trusted: what it answers is short, and checked like any input.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from store.errors import CODES, MediaError
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
from workers.decoder_limits import check_sound, packets_of
from workers.sandbox import Bounds, bound, close_off

# An MP4's index lies at one of its ends and is rarely larger.
INDEX_BYTES = 2**20
ANSWER_BYTES = 2**16
# To start Python, and to be killed by the limit on CPU time before the limit on wall time.
START_SECONDS = 5.0
# What a Python needs to start. The rest stays out: the child has no use for secrets.
_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH")

_LATE_IMPORTS = (
    "av.audio.codeccontext",
    "av.audio.stream",
    "av.container.input",
    "av.sidedata.encparams",
    "av.sidedata.motionvectors",
    "av.sidedata.sidedata",
    "av.stream",
    "av.subtitles.codeccontext",
    "av.subtitles.stream",
    "av.video.codeccontext",
    "av.video.stream",
)


class _Refusal(BaseModel):
    model_config = ConfigDict(extra="forbid")
    code: str
    message: str
    hint: str = ""


class _Answer(BaseModel):
    """What the child prints: one of the two."""

    model_config = ConfigDict(extra="forbid")
    media: MediaInfo | None = None
    error: _Refusal | None = None


def probe(path: Path, limits: Limits) -> MediaInfo:
    """What is in this file. Raises MediaError with one of the `media.*` codes; `limits` bound what it may be."""
    with _opened_file(path) as file:
        _check_file(file, limits)
        # -P: no module is taken from the current directory, which may be one of uploads.
        command = [sys.executable, "-P", "-m", "workers.probe", limits.model_dump_json()]
        status, printed = _run(command, file, limits)
    if status == 0:
        try:
            answer = _Answer.model_validate_json(printed)
        except ValidationError:
            raise _crashed("an answer that makes no sense") from None
        if answer.media is not None:
            return answer.media
        if answer.error is None or answer.error.code not in CODES:
            raise _crashed("no answer")
        raise MediaError(answer.error.code, answer.error.message, hint=answer.error.hint)
    if status == -24:  # SIGXCPU
        raise _too_slow(limits)
    raise _crashed(f"status {status}")


def _run(command: list[str], file: BinaryIO, limits: Limits) -> tuple[int, bytes]:
    """The child's exit status and what it printed, of which no more is kept than an answer may have."""
    seconds = limits.probe_seconds + START_SECONDS
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    late = time.monotonic() + seconds
    with subprocess.Popen(
        command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as child:
        assert child.stdout is not None
        killer = threading.Timer(seconds, child.kill)
        killer.start()
        try:
            printed = child.stdout.read(ANSWER_BYTES + 1)
            if len(printed) > ANSWER_BYTES:
                child.kill()
            status = child.wait()
        finally:
            killer.cancel()
            child.kill()
    if time.monotonic() >= late:
        raise _too_slow(limits)
    return status, printed


def _crashed(how: str) -> MediaError:
    return MediaError(
        "media.decoder_crashed", f"The decoder crashed on this file ({how}).", hint="Try to re-export the video."
    )


def _opened_file(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            raise OSError
        return path.open("rb")
    except (OSError, ValueError):
        raise MediaError("media.missing", f"There is no readable file {path.name!r} at this path.") from None


def _too_slow(limits: Limits) -> MediaError:
    return MediaError("media.too_slow", f"Looking into this file took longer than {limits.probe_seconds:g} seconds.")


def _check_file(file: BinaryIO, limits: Limits) -> None:
    """All that can be told without a decoder."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise MediaError("media.empty", "The file is empty.", hint="Was the upload cut off?")
    if size > limits.bytes:
        raise MediaError(
            "media.too_large",
            f"The file has {size} bytes, at most {limits.bytes} are allowed.",
            hint="Raise REELSENSE_LIMITS__BYTES.",
        )
    container_format(file.read(HEAD_BYTES))
    file.seek(0)


def look(source: BinaryIO | Path, limits: Limits) -> MediaInfo:
    """Open the file in this process, check the header against the limits and decode one picture."""
    with opened(source, limits) as container:
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
        audio = audio_stream(container)
        sound: Any = audio.codec_context if audio is not None else None
        if sound is not None:
            check_sound(sound, limits)
        bound_pictures(context, limits)
        frame = _first_picture(container, stream, limits)
        if frame is None and not stream.frames and not duration:
            raise MediaError("media.zero_duration", "The video lasts 0 seconds.")
        if frame is None:
            raise MediaError("media.no_frames", "Not one picture could be decoded.", hint="Try to re-export the video.")
        rate = stream.average_rate
        return MediaInfo(
            container=container.format.name,
            bytes=_size(source),
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


def _size(source: BinaryIO | Path) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.seek(0, os.SEEK_END)


def _first_picture(container: Any, stream: Any, limits: Limits) -> Any:
    import av

    errors = 0
    packets = packets_of(container, stream, limits)
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


def _is_encrypted(file: BinaryIO) -> bool:
    """Whether an MP4 that could not be read names an encrypted video track (ISO/IEC 23001-7: sample entry `encv`)."""
    file.seek(0)
    start = file.read(INDEX_BYTES)
    file.seek(max(0, _size(file) - INDEX_BYTES))
    return b"encv" in start or b"encv" in file.read(INDEX_BYTES)


def import_decoders() -> None:
    """All that PyAV would import later on, when it meets a track of a kind: in the sandbox no file opens."""
    for name in _LATE_IMPORTS:
        importlib.import_module(name)


def main(arguments: list[str]) -> None:
    """The child: limits as JSON, the file as standard input; prints one JSON document."""
    import_decoders()
    limits = Limits.model_validate_json(arguments[0])
    file = open(0, "rb", closefd=False)  # noqa: SIM115 - lives as long as the process
    bound(
        Bounds(
            limits.memory_bytes,
            cpu_seconds=int(limits.probe_cpu_seconds) + 1,
            open_files=limits.probe_files,
            written_bytes=0,
        )
    )
    close_off()
    answer: dict[str, Any]
    try:
        answer = {"media": look(file, limits).model_dump(mode="json")}
    except MediaError as error:
        if error.code in ("media.unreadable", "media.no_frames", "media.no_video") and _is_encrypted(file):
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
