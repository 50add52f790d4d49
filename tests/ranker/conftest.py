"""Fixtures of the ranker's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranker.builders import World, two_tastes


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty catalogue."""
    return World.at(tmp_path)


@pytest.fixture
def tastes(world: World) -> World:
    """Six videos about cooking, six about cars, one about clouds."""
    two_tastes(world)
    return world
