"""A multipart form with one video, read as it comes: the file goes to disk piece by piece and never into memory.

FastAPI's own forms are whole on disk (in the folder for temporary files) before a route can say no; this one is counted
from its first byte, and lies where admission looked for room.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.guard import MOST_CAPTIONS
from store.errors import InputError, MediaError
from store.records import WORD_FIELDS
from store.settings import Limits

WORD_BYTES = 64 * 2**10
HEADER_BYTES = 16 * 2**10
MOST_PARTS = 64
LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}")


@dataclass
class _Part:
    name: str
    file_name: str
    content: bytearray = field(default_factory=bytearray)


class FormUpload:
    """Reads one form: `write` what came, then `close`. Raises `upload.malformed`, `media.too_large`, and
    `caption.unreadable` for captions that are too large."""

    def __init__(self, content_type: str, target: Path, limits: Limits) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
            raise malformed("The body is not multipart/form-data with a boundary.")
        self.limits = limits
        self.words: dict[str, str] = {}
        self.captions: list[tuple[str, bytes]] = []
        self.file_name: str | None = None
        self.bytes = 0
        self._target: BinaryIO = target.open("wb")
        self._parts = self._header_bytes = 0
        self._part: _Part | None = None
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._header_comes(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._header_comes(1, data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": lambda data, start, end: self._data_comes(data[start:end]),
                "on_part_end": self._part_ends,
                "on_end": self._form_ends,
            },
        )

    def write(self, data: bytes) -> None:
        """The next bytes of the body."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise malformed("The form cannot be read.") from None

    def close(self) -> None:
        """The body has ended: everything of the file is on disk."""
        if not self._ended:
            raise malformed("The form was cut off.")
        if self.file_name is None:
            raise malformed("The form has no part `file` with a file.")
        self._target.flush()
        os.fsync(self._target.fileno())
        self._target.close()

    def abandon(self) -> None:
        """Close what is open."""
        with contextlib.suppress(OSError):  # a full disk says so again
            self._target.close()

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise malformed(f"The form has more than {MOST_PARTS} parts.")
        self._headers, self._header_bytes = {}, 0
        self._header = (bytearray(), bytearray())

    def _header_comes(self, which: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES:
            raise malformed("A part's headers are too long.")
        self._header[which].extend(data)

    def _header_ends(self) -> None:
        self._headers[bytes(self._header[0]).lower()] = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise malformed("A part of the form has no name.")
        file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        part = _Part(name.decode("utf-8", "replace"), file_name)
        if part.name == "file":
            if self.file_name is not None:
                raise malformed("The form has more than one part `file`.")
            self.file_name = part.file_name
        self._part = part

    def _data_comes(self, data: bytes) -> None:
        part = self._part
        assert part is not None
        if part.name == "file":
            self.bytes += len(data)
            if self.bytes > self.limits.bytes:
                raise MediaError("media.too_large", f"More than {self.limits.bytes} bytes were sent.")
            self._target.write(data)
            return
        part.content.extend(data)
        most = self.limits.caption_bytes if _is_captions(part.name) else WORD_BYTES
        if len(part.content) > most:
            if _is_captions(part.name):
                raise InputError("caption.unreadable", f"A caption file has more than {most} bytes.")
            raise malformed(f"The field {part.name[:40]!r} has more than {most} bytes.")

    def _part_ends(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        if _is_captions(part.name) and part.content:
            if len(self.captions) >= MOST_CAPTIONS:
                raise malformed(f"The form has more than {MOST_CAPTIONS} caption files.")
            self.captions.append((captions_language(part.name, part.file_name), bytes(part.content)))
        elif part.name in WORD_FIELDS:
            self.words[part.name] = part.content.decode("utf-8", "replace")

    def _form_ends(self) -> None:
        self._ended = True


def _is_captions(name: str) -> bool:
    return name == "captions" or name.startswith("captions.")


def captions_language(field_name: str, file_name: str) -> str:
    """The language of captions: `captions.en`, else of a file `clip.en.srt`, else none. Raises `metadata.invalid`."""
    named = field_name.partition(".")[2]
    if named and not LANGUAGE.fullmatch(named):
        raise InputError("metadata.invalid", f"The captions' language {named[:40]!r} is malformed.")
    if named:
        return named
    parts = file_name.rpartition("/")[2].split(".")
    return parts[-2] if len(parts) >= 3 and LANGUAGE.fullmatch(parts[-2]) else ""


def malformed(message: str) -> InputError:
    """A request that makes no sense as an upload."""
    return InputError("upload.malformed", message)
