"""Captions: files beside the video and tracks inside it, as timed lines with their exact words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from store.errors import InputError
from store.records import CaptionSegment, CaptionTrack
from store.settings import Limits
from workers.containers import opened
from workers.decoder_limits import packets_of

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
TEXT_CODECS = frozenset(("mov_text", "subrip", "webvtt", "ass", "ssa", "text", "srt"))
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_TIME = r"(-?)((?:\d{1,4}:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?)"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s|$)")
_WEBVTT = re.compile(r"WEBVTT(\s|$)")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>")
_OVERRIDE = re.compile(r"\{\\[^}]*\}")  # of ASS, which SubRip files borrow
_ANY_OVERRIDE = re.compile(r"\{[^}]*\}")
UNDETERMINED = frozenset(("und", "mul", "zxx"))
# Containers name languages by ISO 639-2, in either of its two forms; people and files by ISO 639-1.
# fmt: off
_TWO_LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "ara": "ar", "bel": "be", "ben": "bn", "bul": "bg", "cat": "ca", "ces": "cs", "cze": "cs", "cym": "cy",
        "wel": "cy", "dan": "da", "deu": "de", "ger": "de", "ell": "el", "gre": "el", "eng": "en", "est": "et",
        "eus": "eu", "baq": "eu", "fas": "fa", "per": "fa", "fin": "fi", "fra": "fr", "fre": "fr", "gle": "ga",
        "glg": "gl", "heb": "he", "hin": "hi", "hrv": "hr", "hun": "hu", "hye": "hy", "arm": "hy", "ind": "id",
        "isl": "is", "ice": "is", "ita": "it", "jpn": "ja", "kat": "ka", "geo": "ka", "kor": "ko", "lav": "lv",
        "lit": "lt", "mkd": "mk", "mac": "mk", "msa": "ms", "may": "ms", "nld": "nl", "dut": "nl", "nob": "nb",
        "nor": "no", "pol": "pl", "por": "pt", "ron": "ro", "rum": "ro", "rus": "ru", "slk": "sk", "slo": "sk",
        "slv": "sl", "spa": "es", "sqi": "sq", "alb": "sq", "srp": "sr", "swa": "sw", "swe": "sv", "tam": "ta",
        "tel": "te", "tha": "th", "tur": "tr", "ukr": "uk", "urd": "ur", "vie": "vi", "zho": "zh", "chi": "zh",
    }
)
# fmt: on


def find_sidecars(video: Path) -> list[Path]:
    """Caption files beside a video, sorted: `clip.srt` and `clip.en.vtt` for `clip.mp4`, not `clip2.srt`."""
    found = []
    for file in sorted(video.parent.glob("*")) if video.parent.is_dir() else []:
        # Not through a link: whoever fills the folder would choose which other file is read.
        if file.suffix.lower() not in SUFFIXES or file.is_symlink() or not file.is_file():
            continue
        language = file.stem.removeprefix(video.stem).removeprefix(".")
        exact = file.stem == video.stem
        if exact or (file.stem.startswith(video.stem + ".") and _LANGUAGE.fullmatch(language)):
            found.append(file)
    return found


def read_sidecar(path: Path, limits: Limits, language: str | None) -> CaptionTrack:
    """Read SubRip, WebVTT or ASS by content. `language` None: the one in the file's name (`clip.en.srt`), if any.

    Raises `caption.missing`, and `caption.unreadable` for anything else, too large or in no known encoding. A file
    without lines is a track without segments.
    """
    try:
        if not path.is_file():
            raise OSError
        with path.open("rb") as stream:
            data = stream.read(limits.caption_bytes + 1)
        if len(data) > limits.caption_bytes:
            raise _unreadable(path, f"has more than the {limits.caption_bytes} bytes that are allowed")
    except (OSError, ValueError):
        raise InputError("caption.missing", f"There is no readable caption file {path.name!r}.") from None
    text = _decoded(path, data)
    ending = path.stem.rpartition(".")[2]
    if language is None and ending != path.stem and _LANGUAGE.fullmatch(ending):
        language = ending.replace("_", "-")
    if not text.strip():
        return CaptionTrack(origin="sidecar", language=language)
    return CaptionTrack(origin="sidecar", language=language, segments=_parsed(path, text))


def _decoded(path: Path, data: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                raise _unreadable(path, f"is not the {encoding} that it says it is") from None
    try:
        text = (_unmarked_utf16(data) or data).decode("utf-8")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(data).best()
        if best is None:
            raise _unreadable(path, "is in no known character encoding") from None
        text = str(best)
    if "\0" in text:
        raise _unreadable(path, "holds bytes that are no text")
    return text


def _unmarked_utf16(data: bytes) -> bytes | None:
    """UTF-16 without its mark, as UTF-8; None for anything else. Line ends and time stamps are ASCII, so that every
    other byte of many is 0."""
    for encoding, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
        if len(data) % 2 == 0 and zeros.count(0) >= len(zeros) / 4 and data.count(0) == zeros.count(0):
            try:
                return data.decode(encoding).encode()
            except UnicodeError:
                return None
    return None


def _parsed(path: Path, text: str) -> list[CaptionSegment]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    if "[Script Info]" in lines[:1000]:
        return _parsed_ass(path, lines)
    found = list(_cues(lines.split("\n")))
    if not found and not _WEBVTT.match(lines):
        raise _unreadable(path, "is neither SubRip, WebVTT nor ASS")
    return segments(found)


def _parsed_ass(path: Path, text: str) -> list[CaptionSegment]:
    import pysubs2

    try:
        subtitles = pysubs2.SSAFile.from_string(text)
    except Exception as error:  # the parser raises many kinds on hostile text, and all mean the same
        raise _unreadable(path, "is no readable ASS") from error
    return segments(
        (event.start / 1000, event.end / 1000, _plain_ass(event.text))
        for event in subtitles.events
        if not event.is_comment
    )


def _plain_ass(text: str) -> str:
    """Not by pysubs2, which takes minutes for a line of braces that are never closed."""
    return _without(_ANY_OVERRIDE, text).replace("\\h", " ").replace("\\n", "\n").replace("\\N", "\n")


def _without(braces: re.Pattern[str], text: str) -> str:
    """`text` without what stands in braces. Behind the last that closes nothing is looked for: a search from each that
    opens to the end of the text would take the square of its length."""
    end = text.rfind("}") + 1
    return braces.sub("", text[:end]) + text[end:]


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:
        return text  # a character numbered by thousands of digits


def _cues(lines: list[str]) -> Iterator[tuple[float, float, str]]:
    """The cues of SubRip or WebVTT: a timing line and what follows it up to a blank line or the next timing line.

    Read here and not by pysubs2, which takes WebVTT's comment blocks, and cues whose timing is broken, for words of the
    cue before (seen on three real files). What stands outside a cue, or in one without a sound timing, is left out.
    """
    cue: tuple[float, float] | None = None
    words: list[str] = []
    for line in [*lines, ""]:
        timing = _TIMING.match(line)
        if timing is None and line.strip() and "-->" not in line:
            words.append(line)
            continue
        if cue is not None:
            if timing is not None and words and words[-1].strip().isdigit():
                words.pop()  # the number of the next cue, which no blank line parts from this one
            yield (*cue, "\n".join(words))
        words = []
        cue = (_clock(timing[1], timing[2]), _clock(timing[3], timing[4])) if timing is not None else None


def _clock(sign: str, time: str) -> float:
    seconds = 0.0
    for part in time.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(part)
    return -seconds if sign else seconds


def segments(lines: Iterable[tuple[float, float, str]]) -> list[CaptionSegment]:
    """Lines (start, end, text) as segments: markup and empty lines dropped, times not negative, in order."""
    result = []
    for start, end, text in lines:
        words = " ".join(_unescaped(_MARKUP.sub("", _without(_OVERRIDE, text))).split())
        if words:
            begin = max(0.0, start)
            result.append(CaptionSegment(start=round(begin, 3), end=round(max(begin, end), 3), text=words))
    return sorted(result, key=lambda segment: (segment.start, segment.end))


def read_embedded(source: BinaryIO | Path, limits: Limits) -> list[CaptionTrack]:
    """The text tracks inside a container; bitmap subtitles are left out. Raises `caption.unreadable` and
    `media.too_many_packets` for a bomb."""
    import av

    with opened(source, limits) as container:
        streams = [
            stream
            for stream in container.streams
            if stream.type == "subtitle"
            and stream.codec_context is not None
            and stream.codec_context.name in TEXT_CODECS
        ]
        lines: dict[int, list[tuple[float, float, str]]] = {stream.index: [] for stream in streams}
        total = 0
        packets = packets_of(container, streams, limits) if streams else iter(())
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                total += packet.size
                if total > limits.caption_bytes:
                    raise InputError(
                        "caption.unreadable", f"The embedded captions hold more than {limits.caption_bytes} bytes."
                    )
                lines[packet.stream.index] += _lines_of(packet)
            except av.FFmpegError:
                continue  # one damaged packet costs its own line
        return [
            CaptionTrack(origin="embedded", language=_language(stream.language), segments=segments(lines[stream.index]))
            for stream in streams
        ]


def _lines_of(packet: Any) -> list[tuple[float, float, str]]:
    if packet.pts is None:
        return []
    start = float(packet.pts * packet.time_base)
    end = start + float((packet.duration or 0) * packet.time_base)
    found = []
    for subtitle in packet.decode():
        rectangles = subtitle if hasattr(subtitle, "__iter__") else (subtitle,)
        for rectangle in rectangles:
            if rectangle.type in (b"ass", b"text"):
                text = rectangle.dialogue if rectangle.type == b"ass" else rectangle.text
                words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
                found.append((start, end, words.replace("\\N", " ").replace("\\n", " ").replace("\\h", " ")))
    return found


def base_language(tag: str | None) -> str | None:
    """The language of a tag without region and script, in two letters where there are such: `en` for `en-GB` and for
    `eng`. None for no tag."""
    base = (tag or "").replace("_", "-").split("-")[0].casefold()
    return _TWO_LETTERS.get(base, base) or None


def _language(name: str | None) -> str | None:
    return None if not name or name in UNDETERMINED else name


def _unreadable(path: Path, why: str) -> InputError:
    return InputError("caption.unreadable", f"The caption file {path.name!r} {why}.")
