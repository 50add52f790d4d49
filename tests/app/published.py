"""An installation with planted videos: real database, objects, vectors and fusion, without a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from app.operations import ReelSense
from ranker.video_table import VideoTable
from store.local_objects import LocalObjects
from store.settings import Settings
from tests.ranker import builders
from tests.ranker.builders import World


@contextlib.contextmanager
def published(settings: Settings) -> Iterator[World]:
    """A world whose videos are published in the version that an installation of these settings serves."""
    reelsense = ReelSense(settings)
    version = reelsense.graph.versions["published"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "VERSION", version)
        objects = LocalObjects(settings.objects_directory())
        yield World(objects, reelsense.catalogue, VideoTable(objects, reelsense.catalogue, version))
    reelsense.catalogue.close()
