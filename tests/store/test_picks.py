"""What viewers picked, over SQLite and a real PostgreSQL."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from store.catalogue import Catalogue
from store.errors import InputError
from store.event_log import EventLog
from store.local_objects import LocalObjects
from store.picks import MOST_PICKS, Picked, PickLog
from tests.store.test_catalogue import catalogue

__all__ = ["catalogue"]


def test_picks_are_added_once_and_taken_back(catalogue: Catalogue) -> None:
    log, user = PickLog(catalogue), uuid.uuid4().hex
    assert log.of(user) == []
    log.change(user, ["cooking", "cars", "cooking"], [], 1.0)
    assert log.change(user, ["cars", "boats"], ["cooking", "none"], 2.0) == [Picked("cars", 1.0), Picked("boats", 2.0)]
    assert PickLog(catalogue).of(user) == [Picked("cars", 1.0), Picked("boats", 2.0)]
    assert log.of(user + "2") == []


def test_there_are_not_too_many_and_a_refused_change_changes_nothing(catalogue: Catalogue) -> None:
    log, user = PickLog(catalogue), uuid.uuid4().hex
    log.change(user, [f"topic {n}" for n in range(MOST_PICKS)], [], 1.0)
    with pytest.raises(InputError, match="at most 50") as raised:
        log.change(user, ["a", "b"], ["topic 0"], 2.0)
    assert raised.value.code == "request.invalid"
    assert len(log.of(user)) == MOST_PICKS
    assert "topic 0" in {picked.pick for picked in log.of(user)}


def test_they_are_forgotten_with_their_viewer_and_grow_old(catalogue: Catalogue, tmp_path: Path) -> None:
    log, events, user, other = PickLog(catalogue), EventLog(catalogue), uuid.uuid4().hex, uuid.uuid4().hex
    events.tombstones.prepare(LocalObjects(tmp_path / "objects"))
    log.change(user, ["cooking", "cars"], [], 1000.0)
    log.change(other, ["cooking"], [], 1000.0)
    assert events.held_of(user, 2000.0)["picks"] == 2
    assert events.remove_viewer(user, 2000.0)["picks"] == 2
    assert (log.of(user), events.held_of(user, 2000.0)["picks"], len(log.of(other))) == ([], 0, 1)
    with pytest.raises(InputError) as raised:
        log.change(user, ["cooking"], [], 1999.0)
    assert raised.value.code == "event.forgotten"
    assert log.change(user, ["boats"], [], 2001.0) == [Picked("boats", 2001.0)], "a new start"
    assert events.remove_before(2001.0)["picks"] >= 1
    assert (log.of(other), log.of(user)) == ([], [Picked("boats", 2001.0)])
