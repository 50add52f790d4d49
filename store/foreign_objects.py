"""Objects that others put into the store, under whatever names they like.

Everything of our own lies under plain keys (`store.objects.check_key`). What comes in from other tools does not: names
with spaces, any Unicode, control characters, `..`. A name here only ever *names*: in a bucket it is a string; in a
directory each part of it is opened below the one before, without following a link, so that no name leads elsewhere.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit

from store.errors import InputError, PassingError, SettingsError
from store.objects import ObjectStore, check_key
from store.settings import Settings

if TYPE_CHECKING:
    from store.s3_objects import S3Objects

MOST_BESIDE = 1000
LARGEST_COPY_BYTES = 5 * 2**30  # of one copy request of S3
_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class ForeignObject:
    """One object: its key, size, and `stamp`, which is another one when the object is written again.

    `changed` is when (seconds since the epoch) a file was last written or renamed, None where every write is whole.
    `words` is what the uploader's tool attached (S3 user metadata, names in lower case); only `stat` knows it.
    """

    key: str
    bytes: int
    stamp: str
    changed: float | None = None
    words: Mapping[str, str] = field(default_factory=dict)


class ForeignObjects(Protocol):
    """A store of other people's objects. Errors: `store.missing`, `store.key_invalid`, `store.unavailable`."""

    def beside(self, stem: str) -> builtins.list[str]:
        """The keys that begin with `stem` and a dot, in the same folder, sorted; a thousand at the most."""

    def list(self, prefix: str) -> Iterator[ForeignObject]:
        """All objects whose key begins with `prefix`, a whole folder (ending in `/`, or empty for all). No links, no
        folders. Lazily."""

    def stat(self, key: str) -> ForeignObject | None:
        """The object as it is now, or None."""

    def open(self, key: str) -> BinaryIO:
        """A stream of its bytes; close it."""

    def is_being_written(self, key: str) -> bool:
        """Whether somebody has it open for writing, as far as can be told."""

    def move(self, key: str, to: str) -> None:
        """Give it another key. An object already there is replaced."""

    def delete(self, key: str) -> None:
        """Remove it; removing what is not there is no error."""

    def put(self, key: str, data: bytes) -> None:
        """Write a small object."""


def open_foreign(objects: ObjectStore) -> ForeignObjects:
    """The same store, for keys of any form."""
    from store.local_objects import LocalObjects
    from store.measured_objects import bare

    objects = bare(objects)
    if isinstance(objects, LocalObjects):
        return ForeignFiles(objects.root)
    return ForeignBucket(cast("S3Objects", objects))


def presigned_put(objects: ObjectStore, settings: Settings, key: str) -> str:
    """An address to which anybody may PUT this one object for `incoming.presigned_seconds`.

    Raises `upload.not_presigned` for a store that is a directory.
    """
    from store.measured_objects import bare
    from store.s3_objects import S3Objects

    objects = bare(objects)
    if not isinstance(objects, S3Objects):
        raise InputError(
            "upload.not_presigned",
            "The object store is a directory, which has no addresses for direct upload.",
            hint="Upload to the API itself (resumable by tus), or set REELSENSE_OBJECTS=s3://BUCKET.",
        )
    client = objects.client
    if settings.incoming.presigned_endpoint:
        from minio import Minio

        endpoint = urlsplit(settings.incoming.presigned_endpoint)
        if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
            raise SettingsError("settings.invalid", "incoming.presigned_endpoint must be a URL.")
        # Signing is arithmetic: with a region given, this client never opens a connection.
        client = Minio(
            endpoint.netloc,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=endpoint.scheme == "https",
            region=settings.s3_region,
        )
    expires = timedelta(seconds=settings.incoming.presigned_seconds)
    return str(
        objects.translated(key, lambda: client.presigned_put_object(objects.bucket, check_key(key), expires=expires))
    )


class ForeignBucket:
    """`ForeignObjects` in a bucket."""

    def __init__(self, objects: S3Objects) -> None:
        self.objects = objects
        self.client = objects.client
        self.bucket = objects.bucket

    def _asked(self, key: str, call: Any) -> Any:
        def asked() -> Any:
            try:
                return call()
            except (ValueError, UnicodeError) as error:
                # The client refuses `.` and `..` as parts of a key, and what is no UTF-8.
                raise InputError("store.key_invalid", f"The key {key[:100]!a} cannot be asked for.") from error

        return self.objects.translated(ascii(key[:100]), asked)

    def beside(self, stem: str) -> builtins.list[str]:
        """One listing of a thousand at the most."""
        found = self.client.list_objects(self.bucket, prefix=stem + ".", recursive=False)
        items = self._asked(stem, lambda: list(itertools.islice(found, MOST_BESIDE)))
        return sorted(item.object_name for item in items if not item.object_name.endswith("/"))

    def list(self, prefix: str) -> Iterator[ForeignObject]:
        """A thousand at a time. Keys that end in `/` are folders to people and are left out."""
        found = self.client.list_objects(self.bucket, prefix=prefix, recursive=True)
        while (item := self._asked(prefix, lambda: next(found, None))) is not None:
            if not item.object_name.endswith("/"):
                yield ForeignObject(item.object_name, int(item.size or 0), _s3_stamp(item))

    def stat(self, key: str) -> ForeignObject | None:
        """One HEAD."""
        try:
            found = self._asked(key, lambda: self.client.stat_object(self.bucket, key))
        except InputError as error:
            if error.code == "store.missing":
                return None
            raise
        attached = {name.lower(): str(value) for name, value in (found.metadata or {}).items()}
        words = {
            name.removeprefix("x-amz-meta-"): value
            for name, value in attached.items()
            if name.startswith("x-amz-meta-")
        }
        return ForeignObject(key, int(found.size or 0), _s3_stamp(found), words=words)

    def open(self, key: str) -> BinaryIO:
        """The response body."""
        return cast(BinaryIO, self._asked(key, lambda: self.client.get_object(self.bucket, key)))

    def is_being_written(self, key: str) -> bool:  # noqa: ARG002
        """Never: a PUT is whole or nothing."""
        return False

    def move(self, key: str, to: str) -> None:
        """A copy inside the server, then a delete."""
        from minio.commonconfig import ComposeSource, CopySource

        size = (self.stat(key) or ForeignObject(key, 0, "")).bytes
        if size <= LARGEST_COPY_BYTES:
            self._asked(key, lambda: self.client.copy_object(self.bucket, to, CopySource(self.bucket, key)))
        else:
            self._asked(key, lambda: self.client.compose_object(self.bucket, to, [ComposeSource(self.bucket, key)]))
        self.delete(key)

    def delete(self, key: str) -> None:
        """One DELETE."""
        self._asked(key, lambda: self.client.remove_object(self.bucket, key))

    def put(self, key: str, data: bytes) -> None:
        """One PUT, under a key of our own."""
        self.objects.put(key, data)


def _s3_stamp(item: Any) -> str:
    # Listings give fractions of a second, HEAD does not.
    second = int(item.last_modified.timestamp()) if item.last_modified is not None else 0
    return f"{int(item.size or 0)}-{str(item.etag or '').strip(chr(34))[:100]}-{second}"


class ForeignFiles:
    """`ForeignObjects` as files below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def _folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder `parts` below the root, each opened below the one before."""
        handle = os.open(self.root, _NO_LINK | os.O_DIRECTORY if not self.root.is_symlink() else os.O_DIRECTORY)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=handle)
                below = os.open(part, _NO_LINK | os.O_DIRECTORY, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _file(self, key: str) -> Iterator[int]:
        """A descriptor of a regular file. FileNotFoundError for anything else."""
        *folders, name = _parts(key)
        with self._folder(tuple(folders)) as folder:
            # Without O_NONBLOCK, opening a named pipe would wait for a writer.
            handle = os.open(name, _NO_LINK | os.O_NONBLOCK, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise FileNotFoundError(errno.ENOENT, "not a regular file")
                yield handle
            finally:
                os.close(handle)

    def beside(self, stem: str) -> builtins.list[str]:
        """One listing of the folder."""
        folder, slash, name = stem.rpartition("/")
        with _files(stem):
            try:
                with self._folder(tuple(_parts(folder)) if folder else ()) as handle:
                    names = os.listdir(handle)  # noqa: PTH208 - of a descriptor
            except OSError as error:
                if _is_absent(error):
                    return []
                raise
        return sorted(folder + slash + each for each in names if each.startswith(name + "."))[:MOST_BESIDE]

    def list(self, prefix: str) -> Iterator[ForeignObject]:
        """Folder by folder, sorted by name within each."""
        yield from self._listed(prefix.rstrip("/"))

    def _listed(self, folder: str) -> Iterator[ForeignObject]:
        with _files(folder):
            try:
                entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                return
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._listed(key)
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    yield _of_file(key, entry.stat(follow_symlinks=False))

    def stat(self, key: str) -> ForeignObject | None:
        """The file's size and times."""
        with _files(key):
            try:
                with self._file(key) as handle:
                    return _of_file(key, os.fstat(handle))
            except OSError as error:
                if _is_absent(error):
                    return None
                raise

    def open(self, key: str) -> BinaryIO:
        """The file, opened for reading."""
        with _files(key):
            try:
                with self._file(key) as handle:
                    return cast(BinaryIO, os.fdopen(os.dup(handle), "rb"))
            except OSError as error:
                if _is_absent(error):
                    raise InputError("store.missing", f"There is no file {key[:100]!a}.") from error
                raise

    def is_being_written(self, key: str) -> bool:
        """Whether a process of this machine has it open for writing: the kernel (Linux) then refuses a read lease."""
        lease = getattr(fcntl, "F_SETLEASE", None)
        if lease is None:
            return False
        with _files(key):
            try:
                with self._file(key) as handle:
                    fcntl.fcntl(handle, lease, fcntl.F_RDLCK)
                    fcntl.fcntl(handle, lease, fcntl.F_UNLCK)
            except OSError as error:
                # EAGAIN is the answer; other errors say that this file system, or another owner's file, has no leases.
                return error.errno == errno.EAGAIN
        return False

    def move(self, key: str, to: str) -> None:
        """A rename within the directory."""
        *from_folders, from_name = _parts(key)
        *to_folders, to_name = _parts(to)
        with (
            _files(key),
            self._folder(tuple(from_folders)) as source,
            self._folder(tuple(to_folders), make=True) as target,
        ):
            os.rename(from_name, to_name, src_dir_fd=source, dst_dir_fd=target)

    def delete(self, key: str) -> None:
        """Unlink."""
        *folders, name = _parts(key)
        with _files(key), contextlib.suppress(FileNotFoundError), self._folder(tuple(folders)) as folder:
            os.unlink(name, dir_fd=folder)

    def put(self, key: str, data: bytes) -> None:
        """Written aside, then renamed."""
        *folders, name = _parts(key)
        aside = f".{name[:50]}.{os.getpid()}.aside"
        with _files(key), self._folder(tuple(folders), make=True) as folder:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644, dir_fd=folder)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)


def copy_bounded(stream: IO[bytes], target: IO[bytes], most: int) -> int | None:
    """Copy at most `most` bytes; how many there were, or None when there are more."""
    size = 0
    while chunk := stream.read(min(1 << 20, most - size + 1)):
        size += len(chunk)
        if size > most:
            return None
        target.write(chunk)
    return size


def free_bytes(folder: Path) -> int:
    """What the disk of `folder` still holds."""
    return shutil.disk_usage(folder).free


def _parts(key: str) -> list[str]:
    parts = key.split("/")
    if "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise InputError("store.key_invalid", f"The key {key[:100]!a} names no file.")
    return parts


def _of_file(key: str, found: os.stat_result) -> ForeignObject:
    # The time of change cannot be set by whoever writes the file, the time of modification can.
    stamp = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
    return ForeignObject(key, found.st_size, stamp, changed=found.st_ctime)


def _is_absent(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG)


@contextlib.contextmanager
def _files(key: str) -> Iterator[None]:
    """Errors of the file system as ours."""
    try:
        yield
    except OSError as error:
        raise PassingError(
            "store.unavailable",
            f"The file {key[:100]!a} cannot be worked with: {error.strerror or error}.",
            hint="Is the disk full, or may this user not read and write there?",
        ) from error
