"""Objects as files below one directory: written aside, then renamed into place."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from store.errors import InputError, PassingError
from store.objects import ObjectInfo, check_key

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ASIDE = ".aside"


class LocalObjects:
    """An `ObjectStore` in a directory, which is made when it is not there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            (root / _ASIDE).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PassingError(
                "store.unavailable",
                f"The object directory {root} cannot be made: {error.strerror}.",
                hint="Choose another with REELSENSE_OBJECTS.",
            ) from error

    def _require_there(self) -> None:
        """Tell an object that is missing from a whole store that is: a disk that is not mounted any more."""
        if not (self.root / _ASIDE).is_dir():
            raise PassingError(
                "store.unavailable",
                f"The object directory {self.root} is away.",
                hint="Is its disk mounted?",
            )

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def put(self, key: str, data: bytes) -> None:
        """Write aside, then rename: a reader never sees half."""
        with self._aside(key) as aside:
            aside.write_bytes(data)

    def put_file(self, key: str, path: Path) -> None:
        """Copy aside, then rename."""
        with self._aside(key) as aside:
            shutil.copyfile(path, aside)

    @contextlib.contextmanager
    def _aside(self, key: str) -> Iterator[Path]:
        target = self._path(key)
        try:
            handle, name = tempfile.mkstemp(dir=self.root / _ASIDE)
            os.close(handle)
            aside = Path(name)
            try:
                yield aside
                with aside.open("rb+") as written:
                    os.fsync(written.fileno())
                target.parent.mkdir(parents=True, exist_ok=True)
                aside.replace(target)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise PassingError(
                "store.unavailable",
                f"Writing the object {key} failed: {error.strerror or error}.",
                hint="Is the disk full, or the directory not writable?",
            ) from error

    def get(self, key: str) -> bytes:
        """The whole file."""
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        """The file, opened for reading."""
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            self._require_there()
            raise InputError("store.missing", f"There is no object {key}.") from error
        except OSError as error:
            raise PassingError("store.unavailable", f"Reading the object {key} failed: {error.strerror}.") from error

    def open_part(self, key: str, first: int, length: int) -> BinaryIO:
        """The file from there on. Removing it meanwhile takes nothing from who reads it."""
        stream = self.open(key)
        stream.seek(first)
        return cast(BinaryIO, io.BufferedReader(_Part(stream, length)))

    def download(self, key: str, path: Path) -> None:
        """Copy to `path`."""
        with self.open(key) as stream, path.open("wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)

    def size(self, key: str) -> int | None:
        """Bytes, or None."""
        path = self._path(key)
        try:
            if path.is_file():
                return path.stat().st_size
            self._require_there()
            return None
        except OSError as error:
            raise PassingError("store.unavailable", f"Looking up {key} failed: {error.strerror}.") from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All files below `prefix`, sorted by key."""
        folder = self.root / check_key(prefix.rstrip("/"))
        if not folder.is_dir():
            self._require_there()
            return
        keys = sorted(path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file())
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                yield ObjectInfo(key, (self.root / key).stat().st_size)

    def delete(self, key: str) -> None:
        """Remove the file."""
        self._path(key).unlink(missing_ok=True)


class _Part(io.RawIOBase):
    """The next `length` bytes of a stream, which is closed with it."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream = stream
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        data = self._stream.read(min(self._left, memoryview(buffer).nbytes))
        self._left -= len(data)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
