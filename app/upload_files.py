"""Where the bytes of uploads lie until they are taken in: `DATA/uploads/ID/upload`, and caption files beside it.

An id is 32 hex digits that this program drew; nothing else ever becomes part of a path. The folder's `lock` is held by
the request that writes, or by what takes the upload in: the kernel gives it back when that process dies, so a lock that
can be had is one that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from store.errors import NotFoundError
from store.upload_ledger import Upload

_ID = re.compile(r"[0-9a-f]{32}")
CAPTIONS = "captions-"


def new_id() -> str:
    """An id that cannot be guessed."""
    return secrets.token_hex(16)


class UploadFiles:
    """The folder of uploads of one data directory."""

    def __init__(self, data: Path) -> None:
        self.root = data / "uploads"
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def folder(self, upload_id: str) -> Path:
        """The folder of an upload. Raises `upload.unknown` for anything that is no id."""
        if not _ID.fullmatch(upload_id):
            raise unknown(upload_id)
        return self.root / upload_id

    def data(self, upload_id: str) -> Path:
        """The file that holds the upload's bytes. Its name is always the same: what the uploader calls it is words."""
        return self.folder(upload_id) / "upload"

    def make(self, upload_id: str) -> None:
        """An empty upload."""
        self.folder(upload_id).mkdir(mode=0o700)
        self.data(upload_id).touch()

    def here(self, upload_id: str) -> bool:
        """Whether the upload's bytes lie on this machine."""
        return self.data(upload_id).is_file()

    def offset(self, upload: Upload) -> int:
        """How many bytes have arrived and count."""
        if upload.state != "receiving":
            return upload.length or 0
        try:
            size = self.data(upload.id).stat().st_size
        except FileNotFoundError:
            raise unknown(upload.id) from None
        return size if upload.unverified_from is None else min(size, upload.unverified_from)

    def captions(self, upload_id: str) -> list[Path]:
        """The caption files of an upload, in the order they came."""
        return sorted(self.folder(upload_id).glob(f"{CAPTIONS}*"))

    def add_captions(self, upload_id: str, content: bytes, language: str) -> Path:
        """Keep a caption file; `language` is checked by the caller, and becomes part of the name."""
        number = len(self.captions(upload_id)) + 1
        path = self.folder(upload_id) / f"{CAPTIONS}{number}{f'.{language}' if language else ''}.txt"
        path.write_bytes(content)
        return path

    @contextlib.contextmanager
    def locked(self, upload_id: str) -> Iterator[bool]:
        """Whether the upload could be had for oneself, for the length of the block."""
        lock = self.lock(upload_id)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def lock(self, upload_id: str) -> int | None:
        """A descriptor that holds the upload until it is closed; None when another has it or the folder is gone."""
        try:
            descriptor = os.open(self.folder(upload_id) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def remove(self, upload_id: str) -> None:
        """Drop the bytes."""
        shutil.rmtree(self.folder(upload_id), ignore_errors=True)

    def folders(self) -> dict[str, float]:
        """When each upload's folder was last changed, by id."""
        found = {}
        for entry in self.root.iterdir():
            if _ID.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = entry.stat().st_mtime
        return found


def unknown(upload_id: str) -> NotFoundError:
    """The same answer for no such upload, one that expired, and one that is somebody else's."""
    return NotFoundError("upload.unknown", f"There is no upload {upload_id[:64]!r}.")
