"""Resumable uploads by the tus protocol 1.0.0: a piece at a time, taken up again where the API stands."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reelsense.client.connection import PREFIX, Connection
from reelsense.client.errors import ApiError, Unreachable
from reelsense.client.records import UploadState

PIECE_BYTES = 4 * 2**20
_TUS = {"Tus-Resumable": "1.0.0"}
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """`sent` of `total` bytes; `address` is where the upload goes on after anything that broke it off."""

    address: str
    sent: int
    total: int


def send_file(
    connection: Connection,
    path: Path,
    words: Mapping[str, str],
    *,
    address: str | None = None,
    piece_bytes: int = PIECE_BYTES,
    on_progress: Callable[[Progress], None] | None = None,
) -> str:
    """Send a file, or what is missing of it at the `address` of an upload that broke off; the address. Raises
    ClientError; then `address` of the last progress goes on from there."""
    total = path.stat().st_size
    address = address or _begin(connection, path, words, total)
    failures = 0
    with path.open("rb") as stream:
        offset = _offset(connection, address)
        while offset < total:
            if on_progress is not None:
                on_progress(Progress(address, offset, total))
            try:
                offset = _send_piece(connection, address, stream, offset, piece_bytes)
                failures = 0
            except (Unreachable, ApiError) as error:
                # Some of the piece may have come, and the API alone knows how much.
                broken = isinstance(error, Unreachable) or error.code in ("upload.offset_mismatch", "upload.busy")
                failures += 1
                if not broken or failures > connection.retries.times:
                    raise
                connection.sleep(connection.retries.wait(failures - 1, None))
                offset = _offset(connection, address)
    if on_progress is not None:
        on_progress(Progress(address, total, total))
    return address


def _begin(connection: Connection, path: Path, words: Mapping[str, str], total: int) -> str:
    said = {"filename": path.name, **words}
    metadata = ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in said.items() if text)
    headers = _TUS | {"Upload-Length": str(total), "Upload-Metadata": metadata}
    answer = connection.send("POST", f"{PREFIX}/uploads", once=True, headers=headers)
    return str(answer.headers["location"])


def _offset(connection: Connection, address: str) -> int:
    return int(connection.send("HEAD", address, headers=_TUS).headers["upload-offset"])


def _send_piece(connection: Connection, address: str, stream: BinaryIO, offset: int, most: int) -> int:
    stream.seek(offset)
    headers = _TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    answer = connection.send("PATCH", address, headers=headers, content=stream.read(most))
    return int(answer.headers["upload-offset"])


def ended(connection: Connection, address: str, timeout_seconds: float) -> UploadState:
    """The upload when it was taken in or refused, or as it is after so long."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        state = connection.get(UploadState, address)
        if state.state in ("taken", "refused") or time.monotonic() > deadline:
            return state
        connection.sleep(_LOOK_SECONDS)
