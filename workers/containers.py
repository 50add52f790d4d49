"""What a file is by its first bytes, and how its container is opened so that it can reach nothing but itself.

The user's file name never decides anything and is never given to a decoder; the container format is forced, so that no
playlist format is ever probed, and the decoder reads from a nameless file object, so that there is no address to be
relative to. What it may open beside that is nothing (`decoder_limits`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from store.errors import MediaError
from store.settings import Limits
from workers.decoder_limits import NamelessFile, most_pixels, open_options, refuse_to_open

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

HEAD_BYTES = 4096
Kind = Literal["video", "audio", "playlist", "unknown"]

_MP4_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof", b"sidx"))
_PLAYLIST = re.compile(
    rb"(#EXTM3U|ffconcat|\[playlist\]|#EXT-X-|<\?xml|<MPD|<smil|<asx|v=0\r?\n|<SmoothStreamingMedia)", re.I
)
_MATROSKA_DURATION = re.compile(r"(\d{1,6}):(\d{2}):(\d{2}(?:\.\d+)?)")


def sniff(head: bytes) -> tuple[Kind, str]:
    """What a file beginning with `head` is, and the name of its container format for the decoder ("" if none)."""
    if _PLAYLIST.match(head.removeprefix(b"\xef\xbb\xbf").lstrip()):
        return "playlist", ""
    if head[4:8] in _MP4_BOXES:
        return "video", "mov"
    signatures: tuple[tuple[bool, Kind, str], ...] = (
        (head.startswith(b"\x1a\x45\xdf\xa3"), "video", "matroska"),
        (head.startswith(b"RIFF") and head[8:12] == b"AVI ", "video", "avi"),
        (head.startswith(b"RIFF") and head[8:12] == b"WAVE", "audio", "wav"),
        (head.startswith(b"OggS"), "video", "ogg"),
        (head.startswith(b"FLV\x01"), "video", "flv"),
        (head.startswith(b"\x00\x00\x01\xba"), "video", "mpeg"),
        (head.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "video", "asf"),
        (_is_transport_stream(head), "video", "mpegts"),
        (head.startswith((b"ID3", b"fLaC", b"#!AMR", b"FORM", b".snd")), "audio", ""),
        (len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0, "audio", "mp3"),
    )
    for matches, kind, name in signatures:
        if matches:
            return kind, name
    return "unknown", ""


def _is_transport_stream(head: bytes) -> bool:
    """A sync byte at the start of each of the first packets, of 188 bytes or of 192 with their time codes."""
    for offset, length in ((0, 188), (4, 192)):
        places = range(offset, min(len(head), offset + 5 * length), length)
        if len(places) >= 3 and all(head[place] == 0x47 for place in places):
            return True
    return False


def container_format(head: bytes) -> str:
    """The format to force. Raises `media.not_media`, `media.forbidden_format`, `media.no_video`."""
    kind, name = sniff(head)
    if kind == "playlist":
        raise MediaError(
            "media.forbidden_format",
            "The file is a playlist, which would make the decoder open other files.",
            hint="Upload the video itself.",
        )
    if kind == "audio":
        raise MediaError("media.no_video", "The file holds sound and no video track.", hint="Upload a video.")
    if kind == "unknown":
        raise MediaError(
            "media.not_media",
            "The bytes are not those of a video container (MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, Ogg, ASF).",
            hint="The file's name does not matter, its content does.",
        )
    return name


@contextlib.contextmanager
def opened(source: BinaryIO | Path, limits: Limits) -> Iterator[InputContainer]:
    """The container, opened in its forced format from a file object; closed at the end whatever happens.

    Raises `media.unreadable` when it does not open, `media.too_many_streams`, and what `container_format` raises.
    """
    import av

    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        head = stream.read(HEAD_BYTES)
        stream.seek(0)
        name = container_format(head)
        try:
            container = cast(
                "InputContainer",
                av.open(
                    NamelessFile(stream),
                    format=name,
                    options=open_options(name, limits),
                    io_open=refuse_to_open,
                    metadata_errors="replace",
                ),
            )
            stack.callback(container.close)
        except (av.FFmpegError, ValueError, MemoryError) as error:
            raise MediaError(
                "media.unreadable",
                f"The {name} container does not open: {_reason(error)}.",
                hint="Is the upload complete? Try to play or to re-export the file.",
            ) from error
        if len(container.streams) == 0:
            raise MediaError("media.unreadable", f"The {name} container holds no track at all.")
        if len(container.streams) > limits.streams:
            raise MediaError(
                "media.too_many_streams",
                f"The container has {len(container.streams)} streams, at most {limits.streams} are allowed.",
            )
        yield container


def video_stream(container: InputContainer) -> VideoStream:
    """The video track a player would show: no cover picture, the default one, else the first.

    Raises `media.no_video`, `media.encrypted`, and `media.no_frames` where no decoder knows any of the tracks.
    """
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    tracks = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not tracks:
        raise MediaError(
            "media.no_video", "The file has no video track.", hint="Sound alone cannot be added; upload a video."
        )
    known = [stream for stream in tracks if _has_decoder(stream)]
    if not known:
        raise MediaError(
            "media.no_frames", "No decoder knows how the video track is coded.", hint="Try to re-export the video."
        )
    stream = min(known, key=lambda track: (not track.disposition & Disposition.default, track.index))
    if str(stream.codec_context.codec_tag) == "encv":
        raise MediaError("media.encrypted", "The video track is encrypted.", hint="Upload it without DRM.")
    return stream


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The sound track a player would play: the default one, else the first; one for people who hear or see badly, or a
    commentary, only where there is no other. None where there is no track that a decoder knows."""
    from av.stream import Disposition

    special = (
        Disposition.comment
        | Disposition.hearing_impaired
        | Disposition.visual_impaired
        | Disposition.clean_effects
        | Disposition.descriptions
        | Disposition.dependent
    )
    tracks = [stream for stream in container.streams.audio if _has_decoder(stream)]
    return min(
        tracks,
        key=lambda track: (
            bool(track.disposition & special),
            not track.disposition & Disposition.default,
            track.index,
        ),
        default=None,
    )


def _has_decoder(stream: Any) -> bool:
    return getattr(stream, "codec_context", None) is not None


def bound_pictures(context: Any, limits: Limits) -> None:
    """Make the decoder refuse far too large pictures before it takes the memory, and use one thread.

    One thread: which pictures a damaged stream gives must not depend on how many cores there are.
    """
    context.options = {"max_pixels": most_pixels(limits)}
    context.thread_count = 1


def declared_seconds(container: InputContainer, stream: Any) -> float | None:
    """How long a track says it lasts, in seconds: the track itself, its Matroska tag, or the whole container.

    The container's own figure comes last: a subtitle track may reach far beyond the picture. For sound beside a picture
    it says nothing (AVI and some WebM files state no more): the sound may rightly be shorter.
    """
    if stream.duration and stream.duration > 0 and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = _MATROSKA_DURATION.fullmatch(str(stream.metadata.get("DURATION", "")))
    if tag is not None and (seconds := int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])) > 0:
        return seconds
    if stream.type == "audio" and container.streams.video:
        return None
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None


def _reason(error: Exception) -> str:
    text: Any = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(".")
