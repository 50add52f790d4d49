"""The bytes of an upload on their way from a request to the disk: in pieces, compared with their checksum, and never
more than were announced."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from io import FileIO
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.admission import BusyError
from app.form_upload import malformed
from app.intaking import Intaking
from store.errors import InputError
from store.upload_ledger import Upload

PIECE_BYTES = 2**20
CHECKSUMS = ("sha1", "sha256", "md5")
_DIGITS = 18


async def receive(intaking: Intaking, request: Request, upload: Upload, offset: int) -> int:
    """Write the body behind `offset`; the new offset. The caller holds the upload.

    What came before the client vanished stays, unless it came with a checksum: then it was not compared, and goes.
    """
    most = (intaking.settings.limits.bytes if upload.length is None else upload.length) - offset
    announced = number(request, "content-length")
    if announced is not None and announced > most:
        raise malformed(f"The piece has {announced} bytes, at most {most} are missing.")
    checksum, expected = _checksum(request)
    with await run_in_threadpool(_opened, intaking, upload, offset, checksum is not None) as target:
        size = 0
        kept = False
        try:
            async for piece in pieces(request):
                size += len(piece)
                if size > most:
                    raise malformed(f"The piece has more bytes than the {most} that are missing.")
                await run_in_threadpool(_write, target, piece, checksum)
            if checksum is not None and checksum.digest() != expected:
                raise InputError("upload.checksum_mismatch", "The piece's bytes do not have this checksum.")
            kept = True
        except ClientDisconnect:
            kept = checksum is None
            raise
        except InputError as error:
            kept = checksum is None and error.code == "request.too_slow"
            raise
        except OSError as error:
            kept = checksum is None
            raise disk_full(intaking) from error
        finally:
            if not kept:
                target.truncate(offset)
            with suppress(OSError):
                os.fsync(target.fileno())
    await run_in_threadpool(_came, intaking, upload, offset + size)
    return offset + size


def _opened(intaking: Intaking, upload: Upload, offset: int, checked: bool) -> FileIO:
    target = intaking.files.data(upload.id).open("r+b", buffering=0)
    target.truncate(offset)
    target.seek(offset)
    # Before the first byte: if this process dies, what came with a checksum does not count.
    intaking.ledger.touch(upload.id, offset if checked else None)
    return target


def _write(target: FileIO, piece: bytes, checksum: Any) -> None:
    left = memoryview(piece)
    while left:
        left = left[target.write(left) :]
    if checksum is not None:
        checksum.update(piece)


def _came(intaking: Intaking, upload: Upload, offset: int) -> None:
    if offset == upload.length:
        intaking.ledger.received(upload.id, offset)
    else:
        intaking.ledger.touch(upload.id, None)


def _checksum(request: Request) -> tuple[Any, bytes]:
    """A hash to feed and what it should come to; None without the header Upload-Checksum."""
    header = request.headers.get("upload-checksum")
    if header is None:
        return None, b""
    name, _, text = header.partition(" ")
    if name not in CHECKSUMS:
        raise malformed(f"The checksum is one of {', '.join(CHECKSUMS)}.")
    try:
        return hashlib.new(name, usedforsecurity=False), base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise malformed("Upload-Checksum is not base64.") from None


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces of about a mebibyte: few visits to the disk, little memory. What came before the client
    vanished is given out before ClientDisconnect is raised."""
    buffer = bytearray()
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= PIECE_BYTES:
                yield bytes(buffer)
                buffer.clear()
    except (ClientDisconnect, InputError):
        if buffer:
            yield bytes(buffer)
        raise
    if buffer:
        yield bytes(buffer)


def disk_full(intaking: Intaking) -> BusyError:
    """The disk refused what admission had thought to fit."""
    seconds = intaking.settings.intake.retry_seconds
    return BusyError("intake.disk_full", "The disk of this machine could not take the upload.", retry_seconds=seconds)


def number(request: Request, name: str) -> int | None:
    """A header that is a whole number; None without it. Raises `upload.malformed`."""
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise malformed(f"The header {name} is no whole number.")
    return int(text)
