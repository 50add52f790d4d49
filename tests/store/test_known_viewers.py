"""Viewers listed page by page, on both databases: everybody once, with what they did."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from store.catalogue import Catalogue, StoredEvent
from store.event_log import EventLog
from store.known_viewers import KnownViewer, latest_viewers, viewers_after
from store.picks import PickLog
from tests.store.servers import new_database

NAMES = ["a/b", "a_b", "ana", "anä", "Ben", "ben%", "日本 🎬"]


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> EventLog:
    if request.param == "postgresql":
        return EventLog(Catalogue(new_database(request.getfixturevalue("postgresql"))))
    return EventLog(Catalogue(f"sqlite:///{tmp_path / 'catalogue.sqlite3'}"))


def event(user: str, number: int) -> StoredEvent:
    return StoredEvent(
        id=f"{user} {number}", user_id=user, video_id="v", kind="like", watched_seconds=None, at=float(number)
    )


def test_pages_hold_everybody_once(log: EventLog) -> None:
    log.add([event(user, number) for number in (1, 2) for user in NAMES])
    PickLog(log.catalogue).change("only picked", ["cars", "cooking"], [], 7.0)
    PickLog(log.catalogue).change("ana", ["cars"], [], 9.0)
    found: list[KnownViewer] = []
    while page := viewers_after(log, found[-1].name if found else "", 3):
        assert len(page) <= 3
        found += page
    assert sorted(one.name for one in found) == sorted([*NAMES, "only picked"])
    known = {one.name: one for one in found}
    assert known["ana"] == KnownViewer("ana", 2, 1, 9.0)
    assert known["only picked"] == KnownViewer("only picked", 0, 2, 7.0)
    assert known["日本 🎬"] == KnownViewer("日本 🎬", 2, 0, 2.0)


def test_the_beginning_of_a_name_is_no_pattern(log: EventLog) -> None:
    log.add([event(user, 1) for user in NAMES])
    for beginning, names in (("a_", ["a_b"]), ("ben%", ["ben%"]), ("日", ["日本 🎬"]), ("%", []), ("a/", ["a/b"])):
        assert [one.name for one in viewers_after(log, "", 10, beginning)] == names


def test_who_did_something_last_is_first(log: EventLog) -> None:
    assert latest_viewers(log, 5) == []
    log.add([event(user, 1) for user in ("ana", "ben", "cy")])
    log.add([event("ana", 2)])
    assert latest_viewers(log, 2) == ["ana", "cy"]


def test_a_page_does_not_read_the_whole_log(tmp_path: Path) -> None:
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'catalogue.sqlite3'}"))
    log.add([event(f"viewer {number:06}", number) for number in range(10_000)])

    def cpu_seconds(limit: int) -> float:
        spent = []
        for _ in range(3):
            began = time.process_time()
            page = viewers_after(log, "viewer 000099", limit)
            spent.append(time.process_time() - began)
            assert page[0].name == "viewer 000100"
        return min(spent)

    assert cpu_seconds(50) < cpu_seconds(10_000) / 4
