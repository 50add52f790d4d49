"""Object storage behind one interface: a local directory or any S3.

What is promised: a `put` is atomic (a reader sees the old object, the new one or none, never half), listings are
sorted by key, and a missing object is `store.missing`. What is *not* promised: conditional writes, versions,
notifications. A key names exactly what made its content, so a second writer puts the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from store.errors import InputError
from store.settings import Settings

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class ObjectInfo:
    """One line of a listing: key and size in bytes."""

    key: str
    bytes: int


class ObjectStore(Protocol):
    """A flat store of named bytes. Errors: `store.missing`, `store.unavailable` (may pass), `store.key_invalid`."""

    def put(self, key: str, data: bytes) -> None:
        """Write the whole object at once."""

    def put_file(self, key: str, path: Path) -> None:
        """Write the whole object from a file, without reading it into memory."""

    def get(self, key: str) -> bytes:
        """The whole object."""

    def open(self, key: str) -> BinaryIO:
        """A stream of the object from its start, for large ones; close it."""

    def open_part(self, key: str, first: int, length: int) -> BinaryIO:
        """A stream of at most `length` bytes (1 or more) from the byte `first`, empty behind the end; close it. What
        else there is of the object is neither read nor sent."""

    def download(self, key: str, path: Path) -> None:
        """Write the object to a new file."""

    def size(self, key: str) -> int | None:
        """Its size in bytes, or None when it does not exist."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix` (a whole folder, ending in `/`), sorted by key."""

    def delete(self, key: str) -> None:
        """Remove it; removing what is not there is no error."""


def check_key(key: str) -> str:
    """`key` itself when every part between slashes is plain: letters, digits, `.`, `_`, `-`, no dot first."""
    if len(key) > 900 or not all(_SEGMENT.fullmatch(part) for part in key.split("/")):
        raise InputError("store.key_invalid", f"The key {key[:100]!r} is not allowed in the object store.")
    return key


def open_objects(settings: Settings) -> ObjectStore:
    """The store that the settings name: `objects` is a directory, or `s3://BUCKET`."""
    if settings.objects.startswith("s3://"):
        from store.s3_objects import S3Objects

        return S3Objects.from_settings(settings)
    from store.local_objects import LocalObjects

    return LocalObjects(settings.objects_directory())
