"""An installation whose intake is under test: stores of three kinds, and what other people's tools do to them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from store.catalogue import Catalogue, RunKey
from store.foreign_objects import open_foreign
from store.objects import ObjectStore, open_objects
from store.settings import Settings, load_settings
from tests.store.servers import ACCESS_KEY, SECRET_KEY, moto_s3, rclone_s3
from workers.graph import Graph
from workers.incoming import Incoming, open_incoming, open_watched


class House:
    """One installation; `sent` collects the messages of the stages."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.objects: ObjectStore = open_objects(settings)
        self.catalogue = Catalogue(settings.database_url())
        self.sent: list[RunKey] = []
        self.graph = Graph(settings, self.objects, self.catalogue, self.sent.append)
        self.incoming: Incoming = open_incoming(settings, self.objects, self.catalogue, self.graph)
        self.foreign = open_foreign(self.objects)

    def watched(self) -> Incoming:
        """The intake of the watched folder."""
        return open_watched(self.settings, self.objects, self.catalogue, self.graph)

    def drop(self, key: str, data: bytes, words: dict[str, str] | None = None) -> None:
        """What anybody's tool does: write an object under a name of any form."""
        if self.settings.objects.startswith("s3://"):
            client: Any = self.objects.client  # type: ignore[attr-defined]
            client.put_object("bucket", key, io.BytesIO(data), len(data), metadata=words)
        else:
            path = self.settings.objects_directory() / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def left(self) -> list[str]:
        """The keys that still wait below the prefix."""
        return sorted(item.key for item in self.foreign.list("incoming/"))

    def quarantined(self) -> dict[str, bytes]:
        """What was set aside, by key."""
        return {item.key: self.objects.get(item.key) for item in self.objects.list("quarantine/")}


@contextlib.contextmanager
def settings_of(kind: str, folder: Path, **given: Any) -> Iterator[Settings]:
    """Settings over a `directory`, `rclone` or `moto`; files count as still at once, unless told otherwise."""
    incoming = {"settle_seconds": 0.0} | given.pop("incoming", {})
    if kind == "directory":
        yield load_settings(data=folder / "data", incoming=incoming, **given)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (rclone_s3 if kind == "rclone" else moto_s3)(folder) as url:
        yield load_settings(
            data=folder / "data",
            objects="s3://bucket",
            s3_endpoint=url,
            s3_access_key=ACCESS_KEY,
            s3_secret_key=SECRET_KEY,
            incoming=incoming,
            **given,
        )
