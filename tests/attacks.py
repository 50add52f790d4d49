"""The attack corpus: files that would read what they must not, call whom they must not, or take what there is not.

Each is made here, by PyAV or box by box, the same bytes every time; `Bait` says what they may bite: a file beside them
and a port on loopback. `docs/hostile-media.md` shows the table.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

CANARY = "canary-of-the-corpus-5107"


@dataclass(frozen=True)
class Bait:
    """A file whose content must never be seen again, and a port of this machine that must never be called."""

    file: Path
    port: int

    @property
    def url(self) -> str:
        """An address of the port."""
        return f"http://127.0.0.1:{self.port}/x.ts"


@dataclass(frozen=True)
class Attack:
    """One file: what it is called, how it is made, and what must come of it.

    `code`: that of the probe, None where it passes. `later`: what decoding it gives then: a code of pictures, sound or
    captions, "degraded", or "" for nothing unusual. Where bits are flipped, any answer that has a code is right: "any".
    """

    name: str
    make: Callable[[Bait], bytes]
    code: str | None
    later: str = ""
    slow: bool = False

    @property
    def expected(self) -> str:
        """In one word, as `came_of` says it."""
        return self.code or self.later or "accepted"


# --- clips to start from ---------------------------------------------------------------------------------------------

CODECS: dict[str, tuple[str, str]] = {
    "mp4": ("mpeg4", "aac"),
    "mov": ("mjpeg", "pcm_s16le"),
    "matroska": ("mpeg4", "libmp3lame"),
    "webm": ("libvpx", "libopus"),
    "avi": ("mpeg4", "pcm_u8"),
    "mpegts": ("mpeg2video", "mp2"),
    "flv": ("flv", "libmp3lame"),
    "ogg": ("libvpx", "libopus"),
    "asf": ("msmpeg4", "libmp3lame"),
    "mpeg": ("mpeg2video", "mp2"),
}


@cache
def clip(container: str, frames: int = 20, rate: Fraction = Fraction(10), size: int = 64, title: str = "") -> bytes:
    """A small real clip with picture and sound, in a container of ffmpeg's name; same arguments, same bytes."""
    import av
    import numpy as np

    picture_codec, sound_codec = CODECS[container]
    target = io.BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(target, "w", format=container, options=options) as output:
        if title:
            output.metadata["title"] = title
        picture = output.add_stream(picture_codec, rate=25 if container in ("mpegts", "mpeg") else rate)
        assert isinstance(picture, av.VideoStream)
        picture.width = picture.height = size
        picture.pix_fmt = "yuvj420p" if picture_codec == "mjpeg" else "yuv420p"
        picture.codec_context.thread_count = 1
        picture.codec_context.gop_size = 10
        sound = output.add_stream(sound_codec, rate=48_000)
        assert isinstance(sound, av.AudioStream)
        sound.layout = "mono"
        columns, rows = np.meshgrid(np.arange(size), np.arange(size))
        for number in range(frames):
            grey = ((columns * 3 + rows * 5 + number * 11) % 256).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.stack([grey, grey.T, 255 - grey], axis=2), format="rgb24")
            output.mux(picture.encode(frame))
        output.mux(picture.encode(None))
        seconds = min(2.0, float(frames / rate))
        tone = (np.sin(np.arange(int(48_000 * seconds)) * 0.06) * 8000).astype(np.int16)
        heard = av.AudioFrame.from_ndarray(tone[None, :], format="s16", layout="mono")
        heard.sample_rate = 48_000
        heard.pts = 0
        output.mux(sound.encode(heard))
        output.mux(sound.encode(None))
    return target.getvalue()


def replaced(data: bytes, place: int, part: bytes) -> bytes:
    """`data` with `part` written over it at `place`."""
    return data[:place] + part + data[place + len(part) :]


def flipped(data: bytes, every: int = 211, start: int = 64) -> bytes:
    """One bit turned in every so many bytes behind the first ones."""
    result = bytearray(data)
    for place in range(start, len(result), every):
        result[place] ^= 1 << (place % 8)
    return bytes(result)


# --- MP4 boxes (ISO/IEC 14496-12) ------------------------------------------------------------------------------------


def box(kind: bytes, *content: bytes) -> bytes:
    """A box: its length, its name, its content."""
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *content: bytes, flags: int = 0) -> bytes:
    """A box with version 0 and flags."""
    return box(kind, struct.pack(">I", flags), *content)


_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf")
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def edited(data: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An MP4 with the content of each box called `kind` changed, and the lengths of those around it set right.

    The samples must lie before the index, as PyAV writes them, so that none of them moves.
    """
    result, place = b"", 0
    while place + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + length]
        if name == kind:
            body = change(body)
        elif name in _CONTAINERS:
            body = edited(body, kind, change)
        result += box(name, body)
        place += length
    return result


def movie(
    samples: list[bytes],
    *,
    size: int = 16,
    offsets: bytes | None = None,
    count: int | None = None,
    sizes: bytes | None = None,
    step: int = 40,
    declared: int | None = None,
    per_chunk: int = 1,
    references: bytes | None = None,
    timescale: int = 1000,
    tracks: int = 1,
    before: bytes = b"",
) -> bytes:
    """An MP4 packed by hand: MJPEG samples, one chunk each, `step` ticks of `timescale` apart, in `tracks` tracks."""
    start = box(b"ftyp", b"isom\0\0\2\0isommp41")
    media = box(b"mdat", *samples)
    count = len(samples) if count is None else count
    places, here = [], len(start) + len(before) + 8
    for sample in samples:
        places.append(here)
        here += len(sample)
    duration = min(2**32 - 2, count * step) if declared is None else declared
    offsets = struct.pack(f">{len(places)}I", *places) if offsets is None else offsets
    sizes = (
        struct.pack(">2I", 0, count) + struct.pack(f">{len(samples)}I", *map(len, samples)) if sizes is None else sizes
    )
    entry = box(
        b"jpeg",
        b"\0" * 6 + struct.pack(">H16x2H", 1, size, size),
        struct.pack(">3IH32xHh", 0x480000, 0x480000, 0, 1, 24, -1),
    )
    table = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), entry),
        full(b"stts", struct.pack(">3I", 1, count, step)),
        full(b"stsc", struct.pack(">4I", 1, 1, per_chunk, 1)),
        full(b"stsz", sizes),
        full(b"stco", struct.pack(">I", len(offsets) // 4), offsets),
    )
    reference = full(b"url ", flags=1) if references is None else references
    track = box(
        b"trak",
        full(
            b"tkhd",
            struct.pack(">5I8x4H", 0, 0, 1, 0, duration, 0, 0, 0, 0),
            _MATRIX,
            struct.pack(">2I", size << 16, size << 16),
            flags=7,
        ),
        box(
            b"mdia",
            full(b"mdhd", struct.pack(">4I2H", 0, 0, timescale, duration, 0x55C4, 0)),
            full(b"hdlr", b"\0\0\0\0vide", b"\0" * 13),
            box(
                b"minf",
                full(b"vmhd", b"\0" * 8, flags=1),
                box(b"dinf", full(b"dref", struct.pack(">I", 1), reference)),
                table,
            ),
        ),
    )
    head = full(
        b"mvhd",
        struct.pack(">4I2H8x", 0, 0, 1000, duration, 1, 0x100),
        b"\0\0",
        _MATRIX,
        b"\0" * 24,
        struct.pack(">I", 2),
    )
    return start + before + media + box(b"moov", head, track * tracks)


@cache
def picture(size: int = 16) -> bytes:
    """One JPEG."""
    import av
    import numpy as np

    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = size
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    grey = np.arange(size * size * 3, dtype=np.uint32).astype(np.uint8).reshape(size, size, 3)
    frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _pictures(count: int = 25, size: int = 16) -> list[bytes]:
    """Pictures that say of themselves that they have `size` pixels on a side (JPEG, start of frame)."""
    place = picture().index(b"\xff\xc0") + 5
    return [replaced(picture(), place, struct.pack(">2H", size, size))] * count


def _linked(reference: bytes) -> bytes:
    """A movie that says that its samples lie elsewhere."""
    return movie(_pictures(), references=reference)


def alias(file: Path) -> bytes:
    """A QuickTime alias (`alis`) to a file: the names and the path where readers look for them."""
    path = str(file).encode()
    volume, name = b"disk", file.name.encode()
    head = struct.pack(">4xHHH", 0, 2, 0) + bytes([len(volume)]) + volume.ljust(27, b"\0") + b"\0" * 12
    head += bytes([len(name)]) + name.ljust(63, b"\0") + b"\0" * 16 + struct.pack(">2H", 1, 1) + b"\0" * 16
    items = struct.pack(">2H", 2, len(path)) + path + b"\0" * (len(path) % 2)
    items += struct.pack(">2H", 18, len(path)) + path + b"\0" * (len(path) % 2) + struct.pack(">2H", 0xFFFF, 0)
    return full(b"alis", head, items)


def _reference_movie(bait: Bait) -> bytes:
    """QuickTime: a movie that is nothing but the address of another."""
    where = bait.url.encode() + b"\0"
    described = box(b"rmda", full(b"rdrf", b"url " + struct.pack(">I", len(where)) + where))
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", described))


def _nested(depth: int, kind: bytes = b"moov") -> bytes:
    """Boxes within boxes, `depth` of them."""
    whole = 8 * depth
    return b"".join(struct.pack(">I4s", whole - 8 * level, kind) for level in range(depth))


def _compressed_index(size: int) -> bytes:
    """QuickTime's compressed index (`cmov`), which says that it unpacks to `size` bytes and does: all zeros."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"\0" * 2**20) for _ in range(min(size, 2**28) // 2**20)) + packer.flush()
    inner = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", size), packed)
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"cmov", inner))


# --- Matroska elements (RFC 8794, RFC 9559) and others ---------------------------------------------------------------


def element(name: str, *content: bytes) -> bytes:
    """An EBML element with a length of eight bytes."""
    body = b"".join(content)
    return bytes.fromhex(name) + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _appended(data: bytes, more: bytes) -> bytes:
    """A Matroska file with more elements at the end of its segment."""
    place = data.index(bytes.fromhex("18538067")) + 4
    assert data[place] == 1, "the segment's length has eight bytes"
    length = int.from_bytes(data[place : place + 8], "big") & (1 << 56) - 1
    return replaced(data, place, (length + len(more) | 1 << 56).to_bytes(8, "big")) + more


def _valued(data: bytes, name: str, value: bytes) -> bytes:
    """A Matroska file with another value in the first element of this name that has as many bytes."""
    key = bytes.fromhex(name) + bytes([0x80 | len(value)])
    return replaced(data, data.index(key) + len(key), value)


def _linked_segment(bait: Bait) -> bytes:
    """A segment whose neighbours and attachment are named by paths."""
    path = str(bait.file).encode()
    info = element("1549A966", element("7384", path), element("3C83AB", path), element("3E83BB", path))
    attached = element(
        "1941A469",
        element(
            "61A7",
            element("466E", b"../../../tmp/attached"),
            element("4660", b"text/plain"),
            element("465C", b"x"),
            element("46AE", b"\1"),
        ),
    )
    return _appended(clip("matroska"), info + attached)


def _vp8_sizes(data: bytes, width: int, height: int, skip: int = 0) -> bytes:
    """The size in the key pictures of a VP8 track (RFC 6386, 9.1), the first `skip` left as they are."""
    mark, place, result = b"\x9d\x01\x2a", 0, data
    for number in range(10):
        place = data.find(mark, place + 1)
        if place < 0:
            break
        if number >= skip:
            result = replaced(result, place + 3, struct.pack("<2H", width, height))
    return result


def _avi_sound(data: bytes, rate: int | None = None, channels: int | None = None) -> bytes:
    """An AVI with another rate or number of channels in the header of its sound (`strf` behind `auds`)."""
    place = data.index(b"strf", data.index(b"auds")) + 8
    if channels is not None:
        data = replaced(data, place + 2, struct.pack("<H", channels))
        data = replaced(data, place + 12, struct.pack("<H", channels))  # bytes of one sample of all
    if rate is None:
        return data
    data = replaced(data, place + 4, struct.pack("<2I", rate, rate))
    # The track's header counts by the same rate: scale and rate.
    return replaced(data, data.rindex(b"strh", 0, place) + 8 + 20, struct.pack("<2I", 1, rate))


@cache
def _long_sound() -> bytes:
    """A Matroska clip with one packet of PCM sound of a million samples."""
    import av
    import numpy as np

    target = io.BytesIO()
    with av.open(target, "w", format="matroska", options={"fflags": "+bitexact"}) as output:
        video = output.add_stream("mjpeg", rate=10)
        assert isinstance(video, av.VideoStream)
        video.width = video.height = 16
        video.pix_fmt = "yuvj420p"
        sound = output.add_stream("pcm_u8", rate=48_000)
        assert isinstance(sound, av.AudioStream)
        sound.layout = "mono"
        for _ in range(10):
            output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        output.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.full((1, 1_000_000), 99, np.uint8), format="u8", layout="mono")
        frame.sample_rate = 48_000
        frame.pts = 0
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    return target.getvalue()


def _with_rate(rate: float) -> bytes:
    return _valued(_long_sound(), "B5", struct.pack(">d", rate))


def _subtitled(lines: int, length: int) -> bytes:
    """A Matroska clip with a track of text: so many lines of so many letters."""
    data = clip("matroska")
    track = element(
        "AE",
        element("D7", b"\3"),
        element("73C5", b"\3"),
        element("83", b"\x11"),
        element("86", b"S_TEXT/UTF8"),
    )
    text = b"x" * length
    clusters = []
    for first in range(0, lines, 30_000):
        blocks = (
            element(
                "A0", element("A1", b"\x83" + struct.pack(">h", number % 30_000) + b"\0" + text), element("9B", b"\1")
            )
            for number in range(first, min(lines, first + 30_000))
        )
        clusters.append(element("1F43B675", element("E7", struct.pack(">I", first)), *blocks))
    return _segment_of(data, track, b"".join(clusters))


def _segment_of(data: bytes, track: bytes, clusters: bytes) -> bytes:
    """A Matroska file with one more track in its list, and more clusters at its end."""
    place = data.rindex(bytes.fromhex("1654AE6B")) + 4  # the first stands in the table of contents
    width = 9 - data[place].bit_length()
    length = int.from_bytes(data[place : place + width], "big") & (1 << 7 * width) - 1
    grown = (length + len(track) | 1 << 7 * width).to_bytes(width, "big")
    end = place + width + length
    whole = data[:place] + grown + data[place + width : end] + track + data[end:]
    segment = data.index(bytes.fromhex("18538067")) + 4
    size = int.from_bytes(data[segment : segment + 8], "big") & (1 << 56) - 1
    whole = replaced(whole, segment, (size + len(track) | 1 << 56).to_bytes(8, "big"))
    return _appended(whole, clusters)


def _archive(bait: Bait) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("../../outside.html"), f"<script src='{bait.url}'></script>")
    return target.getvalue()


def _page(bait: Bait) -> bytes:
    return f"<!DOCTYPE html><html><script src='{bait.url}'></script><img src='file://{bait.file}'></html>".encode()


def _hls(bait: Bait) -> bytes:
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", bait.url, "#EXTINF:1,", f"file://{bait.file}")
    return "\n".join((*lines, "#EXT-X-ENDLIST", "")).encode()


def _dash(bait: Bait) -> bytes:
    return (
        f"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><BaseURL>{bait.url}</BaseURL><Period><AdaptationSet>"
        f"<Representation id='a'><BaseURL>file://{bait.file}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ).encode()


def _text(template: str) -> Callable[[Bait], bytes]:
    """A file of text; `FILE`, `URL` and `PORT` stand for the bait."""
    return lambda bait: (
        template.replace("FILE", str(bait.file)).replace("URL", bait.url).replace("PORT", str(bait.port)).encode()
    )


def _is(make: Callable[[], bytes]) -> Callable[[Bait], bytes]:
    return lambda bait: make()  # noqa: ARG005 - bites nothing


FORBIDDEN, NO_MEDIA = "media.forbidden_format", "media.not_media"


def _playlists() -> Iterator[Attack]:
    yield Attack("hls.m3u8", _hls, FORBIDDEN)
    yield Attack("hls_named.mp4", _hls, FORBIDDEN)
    yield Attack("hls_behind_a_mark.webm", lambda bait: b"\xef\xbb\xbf \n" + _hls(bait), FORBIDDEN)
    yield Attack(
        "hls_key.ts", _text('#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="file://FILE"\n#EXTINF:1,\nURL\n'), FORBIDDEN
    )
    yield Attack("dash.mpd", lambda bait: b"<?xml version='1.0'?>" + _dash(bait), FORBIDDEN)
    yield Attack("dash_named.mp4", _dash, FORBIDDEN)
    yield Attack("ffconcat.mkv", _text("ffconcat version 1.0\nfile 'FILE'\nfile 'URL'\n"), FORBIDDEN)
    yield Attack("concat_list.mp4", _text("file 'FILE'\nfile 'URL'\n"), NO_MEDIA)
    yield Attack("concat_protocol.mp4", _text("concat:FILE|URL"), NO_MEDIA)
    yield Attack("subfile_protocol.mov", _text("subfile,,start,0,end,64,,:FILE"), NO_MEDIA)
    yield Attack("crypto_protocol.mp4", _text("crypto+file:FILE"), NO_MEDIA)
    yield Attack("rtsp.mp4", _text("rtsp://127.0.0.1:PORT/x"), NO_MEDIA)
    yield Attack(
        "session.sdp",
        _text("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video PORT RTP/AVP 96\r\n"),
        FORBIDDEN,
    )
    yield Attack("session_named.mp4", _text("v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video PORT RTP/AVP 96\n"), FORBIDDEN)
    yield Attack("smil.avi", _text("<smil><body><video src='URL'/></body></smil>"), FORBIDDEN)
    yield Attack("asx.asf", _text("<asx version='3'><entry><ref href='URL'/></entry></asx>"), FORBIDDEN)
    yield Attack("asf_reference.asf", _text("[Reference]\r\nRef1=URL\r\n"), NO_MEDIA)
    yield Attack("playlist.pls", _text("[playlist]\nFile1=URL\nFile2=FILE\n"), FORBIDDEN)
    yield Attack("picture.svg", _text("<svg xmlns='http://www.w3.org/2000/svg'><image href='URL'/></svg>"), NO_MEDIA)
    yield Attack(
        "entity.xml", _text("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file://FILE'>]><a>&b;</a>"), FORBIDDEN
    )
    yield Attack("script.mp4", _text("#!/bin/sh\ncat FILE\n"), NO_MEDIA)


def _two_in_one() -> Iterator[Attack]:
    yield Attack("page_then_video.mp4", lambda bait: _page(bait) + clip("mp4"), NO_MEDIA)
    yield Attack("video_then_page.mp4", lambda bait: clip("mp4") + _page(bait), None)
    yield Attack("archive_then_video.mp4", lambda bait: _archive(bait) + clip("mp4"), NO_MEDIA)
    yield Attack("video_then_archive.mp4", lambda bait: clip("mp4") + _archive(bait), None)
    yield Attack("playlist_then_video.mp4", lambda bait: _hls(bait) + clip("mp4"), FORBIDDEN)
    yield Attack("video_then_playlist.mp4", lambda bait: clip("mp4") + _hls(bait), None)
    yield Attack("page_in_free_box.mp4", lambda bait: box(b"free", _page(bait)) + clip("mp4"), None, "degraded")
    yield Attack("two_videos.mkv", _is(lambda: clip("matroska") + clip("webm")), None, "degraded")


def _references() -> Iterator[Attack]:
    yield Attack("reference_to_file.mp4", lambda bait: _linked(full(b"url ", f"file://{bait.file}\0".encode())), None)
    yield Attack("reference_to_address.mp4", lambda bait: _linked(full(b"url ", f"{bait.url}\0".encode())), None)
    yield Attack("reference_alias.mov", lambda bait: _linked(alias(bait.file)), "media.no_frames")
    yield Attack("reference_movie.mov", _reference_movie, "media.unreadable")
    yield Attack("linked_segment.mkv", _linked_segment, None)


def _bombs() -> Iterator[Attack]:
    webm = "webm"
    yield Attack("pixels_65535.mp4", _is(lambda: movie(_pictures(size=65535), size=65535)), "media.no_frames")
    yield Attack("pixels_8192.mov", _is(lambda: movie(_pictures(size=8192), size=8192)), "media.too_many_pixels")
    yield Attack("pixels_8192_unsaid.mov", _is(lambda: movie(_pictures(size=8192))), "media.no_frames")
    yield Attack("pixels_8192_in_stream.webm", _is(lambda: _vp8_sizes(clip(webm), 8192, 8192)), "media.no_frames")
    yield Attack("pixels_16383_in_stream.webm", _is(lambda: _vp8_sizes(clip(webm), 16383, 16383)), "media.no_frames")
    yield Attack("pixels_grow_later.webm", _is(lambda: _vp8_sizes(clip(webm), 8192, 8192, skip=1)), None, "degraded")
    yield Attack("seconds_24h.mp4", _is(lambda: clip("mp4", frames=24, rate=Fraction(1, 3600))), "media.too_long")
    yield Attack(
        "seconds_24h_unsaid.mp4",
        _is(lambda: movie(_pictures(24), step=3_600_000, declared=1000)),
        None,
        "media.too_long",
    )
    yield Attack("seconds_136_years.mp4", _is(lambda: movie(_pictures(), declared=2**32 - 2)), None)
    yield Attack("frames_100000.mp4", _is(lambda: _frame_bomb(100_000)), "media.too_many_frames")
    yield Attack("frames_70000.mp4", _is(lambda: _frame_bomb(70_000)), None, "", slow=True)
    yield Attack(
        "frames_2147483647.mp4",
        _is(
            lambda: movie(
                _pictures(), count=2**31 - 1, sizes=struct.pack(">2I", 1, 2**31 - 1), declared=1000, per_chunk=2**31 - 1
            )
        ),
        "any",
    )
    yield Attack(
        "samples_of_no_bytes.mp4",
        _is(lambda: movie(_pictures(), count=2**28, sizes=struct.pack(">2I", 0, 2**28))),
        "media.unreadable",
    )
    yield Attack("tracks_2000.mp4", _is(lambda: movie(_pictures(), tracks=2000)), "media.unreadable")
    yield Attack("tracks_900.mp4", _is(lambda: movie(_pictures(), tracks=900)), "media.too_many_streams")
    yield Attack("boxes_10000_deep.mp4", _is(lambda: movie(_pictures(), before=_nested(10_000))), "media.unreadable")
    yield Attack(
        "boxes_10000_deep_in_user_data.mp4",
        _is(lambda: movie(_pictures(), before=_nested(10_000, b"udta"))),
        "media.unreadable",
    )
    yield Attack("index_unpacks_to_256_MB.mov", _is(lambda: _compressed_index(2**28)), "media.unreadable")
    yield Attack("index_unpacks_to_4_GB.mov", _is(lambda: _compressed_index(2**32 - 1)), "media.unreadable")
    yield Attack(
        "box_of_size_0.mp4", _is(lambda: movie(_pictures(), before=struct.pack(">I4s", 0, b"free"))), "media.unreadable"
    )
    yield Attack(
        "box_of_size_1.mp4",
        _is(lambda: movie(_pictures(), before=struct.pack(">I4sq", 1, b"free", -16))),
        "media.unreadable",
    )
    yield Attack(
        "box_of_size_4.mp4", _is(lambda: movie(_pictures(), before=struct.pack(">I4s", 4, b"free"))), "media.unreadable"
    )
    yield Attack(
        "box_of_4_GB.mp4",
        _is(lambda: movie(_pictures(), before=struct.pack(">I4s", 2**32 - 1, b"free"))),
        "media.unreadable",
    )


def _frame_bomb(count: int) -> bytes:
    """So many pictures out of one: every chunk lies at the same place."""
    whole = movie([picture()])
    place = whole.index(picture())
    return movie(
        [picture()],
        offsets=struct.pack(">I", place) * count,
        count=count,
        sizes=struct.pack(">2I", len(picture()), count),
        step=1,
    )


def _times() -> Iterator[Attack]:
    yield Attack("timescale_0.mp4", _is(lambda: movie(_pictures(), timescale=0)), "media.too_long")
    yield Attack(
        "timescale_of_clip_0.mp4",
        _is(lambda: edited(clip("mp4"), b"mdhd", lambda body: replaced(body, 12, b"\0" * 4))),
        None,
        "degraded",
    )
    yield Attack("step_0.mp4", _is(lambda: movie(_pictures(), step=0)), None)
    yield Attack("step_backwards.mp4", _is(lambda: movie(_pictures(), step=2**32 - 40)), None)
    yield Attack(
        "before_zero.mkv",
        _is(lambda: _valued(clip("matroska"), "E7", b"\xff") if b"\xe7\x81" in clip("matroska") else clip("matroska")),
        None,
    )
    yield Attack(
        "title_of_tricks.mp4",
        lambda bait: clip("mp4", title=f"../../{bait.file}\x1b[2J\u202egpj<script>%s%n{{{{7*7}}}}"),
        None,
    )


def _sounds() -> Iterator[Attack]:
    avi = "avi"
    yield Attack("sound_1_hz.mkv", _is(lambda: _with_rate(1.0)), None, "degraded")
    yield Attack("sound_50_hz.mkv", _is(lambda: _with_rate(50.0)), None, "degraded")
    yield Attack("sound_10_mhz.mkv", _is(lambda: _with_rate(1e7)), "media.sound_out_of_range")
    yield Attack("sound_0_hz.mkv", _is(lambda: _with_rate(0.0)), None, "degraded")
    yield Attack("sound_nan_hz.mkv", _is(lambda: _with_rate(float("nan"))), None)
    yield Attack("sound_1_hz.avi", _is(lambda: _avi_sound(clip(avi), rate=1)), None, "degraded")
    yield Attack("sound_4_ghz.avi", _is(lambda: _avi_sound(clip(avi), rate=2**32 - 1)), "media.unreadable")
    yield Attack("sound_255_channels.avi", _is(lambda: _avi_sound(clip(avi), channels=255)), "media.sound_out_of_range")
    yield Attack("sound_0_channels.avi", _is(lambda: _avi_sound(clip(avi), channels=0)), None, "degraded")


def _captions() -> Iterator[Attack]:
    yield Attack("captions_60000_lines.mkv", _is(lambda: _subtitled(60_000, 40)), None, "caption.unreadable")
    yield Attack("captions_3_MB_line.mkv", _is(lambda: _subtitled(1, 3_000_000)), None, "caption.unreadable")
    yield Attack("captions_empty_lines.mkv", _is(lambda: _subtitled(60_000, 0)), None)


# What is left of each container cut off after six tenths; ASF, Ogg and transport streams do not say how long they are.
_CUT = {
    **dict.fromkeys(("mp4", "mov"), ("media.unreadable", "")),
    **dict.fromkeys(("matroska", "webm", "avi", "flv", "mpeg"), (None, "degraded")),
    **dict.fromkeys(("mpegts", "ogg", "asf"), (None, "")),
}


def _damaged() -> Iterator[Attack]:
    for name, (code, later) in _CUT.items():
        yield Attack(f"cut.{name}", _is(partial(_cut, name)), code, later)
        yield Attack(f"flipped.{name}", _is(partial(_flipped, name)), "any")


def _cut(container: str) -> bytes:
    return clip(container)[: len(clip(container)) * 6 // 10]


def _flipped(container: str) -> bytes:
    return flipped(clip(container))


ATTACKS: tuple[Attack, ...] = (
    *_playlists(),
    *_two_in_one(),
    *_references(),
    *_bombs(),
    *_times(),
    *_sounds(),
    *_captions(),
    *_damaged(),
)


def came_of(found: Any) -> str:
    """What came of a file, in one word, for the table: a code, "degraded" or "accepted"."""
    for name in ("probe", "frames", "sound", "captions"):
        if found.get(name):
            return str(found[name])
    return "degraded" if found.get("degraded") else "accepted"
