"""An object store whose operations are timed and whose errors are counted, by operation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from store import measurements
from store.errors import ReelsenseError
from store.objects import ObjectInfo, ObjectStore, open_objects
from store.settings import Settings

_SECONDS, _ERRORS = "reelsense_store_operation_seconds", "reelsense_store_errors_total"


class MeasuredObjects:
    """The same store, measured. A missing object is an answer, no error of the store."""

    def __init__(self, objects: ObjectStore) -> None:
        self.inner = objects

    def put(self, key: str, data: bytes) -> None:
        """See ObjectStore."""
        with _measured("put"):
            self.inner.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        """See ObjectStore."""
        with _measured("put_file"):
            self.inner.put_file(key, path)

    def get(self, key: str) -> bytes:
        """See ObjectStore."""
        with _measured("get"):
            return self.inner.get(key)

    def open(self, key: str) -> BinaryIO:
        """See ObjectStore. Timed until the stream begins."""
        with _measured("open"):
            return self.inner.open(key)

    def open_part(self, key: str, first: int, length: int) -> BinaryIO:
        """See ObjectStore. Timed until the stream begins."""
        with _measured("open_part"):
            return self.inner.open_part(key, first, length)

    def download(self, key: str, path: Path) -> None:
        """See ObjectStore."""
        with _measured("download"):
            self.inner.download(key, path)

    def size(self, key: str) -> int | None:
        """See ObjectStore."""
        with _measured("size"):
            return self.inner.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore. Timed is the waiting for the store, without what the caller does between two lines."""
        seconds = 0.0
        found = self.inner.list(prefix)
        try:
            while True:
                started = time.monotonic()
                try:
                    item = next(found)
                except StopIteration:
                    return
                finally:
                    seconds += time.monotonic() - started
                yield item
        except ReelsenseError as error:
            measurements.count(_ERRORS, operation="list", code=error.code)
            raise
        finally:
            measurements.observe(_SECONDS, seconds, operation="list")

    def delete(self, key: str) -> None:
        """See ObjectStore."""
        with _measured("delete"):
            self.inner.delete(key)


def open_measured(settings: Settings) -> ObjectStore:
    """The store that the settings name, measured."""
    return MeasuredObjects(open_objects(settings))


def bare(objects: ObjectStore) -> ObjectStore:
    """The store itself, for what only one kind of store can do."""
    return objects.inner if isinstance(objects, MeasuredObjects) else objects


@contextmanager
def _measured(operation: str) -> Iterator[None]:
    with measurements.timed(_SECONDS, operation=operation):
        try:
            yield
        except ReelsenseError as error:
            if error.code != "store.missing":
                measurements.count(_ERRORS, operation=operation, code=error.code)
            raise
