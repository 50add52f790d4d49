"""The log of events over both databases: appended once, followed in order, completed in old databases, forgotten."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from store.catalogue import Catalogue, StoredEvent
from store.errors import PassingError
from store.event_log import CHUNK, EventLog, Verdict, events
from store.journal import Journal
from store.local_objects import LocalObjects
from store.tombstones import PREFIX, digest_of
from tests.store.test_catalogue import catalogue

__all__ = ["catalogue"]

VIDEO = "ab" * 16


def event(user: str, at: float = 1000.0, id: str = "", **more: object) -> StoredEvent:
    given = {"id": id or uuid.uuid4().hex, "user_id": user, "video_id": VIDEO, "kind": "view", "watched_seconds": 2.0}
    return StoredEvent.model_validate(given | {"at": at} | more)


def somebody() -> str:
    return uuid.uuid4().hex


def test_every_field_comes_back(catalogue: Catalogue) -> None:
    user = somebody()
    whole = event(
        user, loops=3, session="s1", device="Pixel 9", os="Android 16", network="wifi", region="DE", language="de"
    )
    log = EventLog(catalogue)
    assert log.add([whole]) == 1
    [back] = log.of(user)
    assert back.model_dump(exclude={"sequence"}) == whole.model_dump(exclude={"sequence"})
    assert back.sequence == log.highest()


def test_an_id_counts_once_even_within_one_call(catalogue: Catalogue) -> None:
    user = somebody()
    first = event(user)
    log = EventLog(catalogue)
    assert [outcome.state for outcome in log.take([first, first])] == ["new", "known"]
    assert [outcome.state for outcome in log.take([event(user, id=first.id, at=5.0)])] == ["known"]
    assert [item.at for item in log.of(user)] == [1000.0]


def test_what_is_set_aside_does_not_count_and_is_known_from_then_on(catalogue: Catalogue) -> None:
    user, odd = somebody(), somebody()

    def second(new: Sequence[StoredEvent], _: Sequence[StoredEvent]) -> Mapping[int, Verdict]:
        return {1: Verdict("duplicate", "because")} if len(new) > 1 else {}

    log = EventLog(catalogue)
    before = log.counts().get("duplicate", 0)
    outcomes = log.take([event(user), event(user, id=odd)], second, lambda _: (0.0, 0.0), now=7.0)
    assert [outcome.state for outcome in outcomes] == ["new", "set_aside"]
    assert [item.id for item in log.of(user)] != [odd]
    [aside] = log.set_aside(user_id=user)
    assert (aside.id, aside.reason, aside.detail, aside.set_aside_at) == (odd, "duplicate", "because", 7.0)
    assert log.set_aside("bot_rate", user) == []
    assert log.counts()["duplicate"] == before + 1
    assert [outcome.state for outcome in log.take([event(user, id=odd)])] == ["known"]


def test_a_judge_sees_the_neighbours_within_reach_and_no_others(catalogue: Catalogue) -> None:
    user, other = somebody(), somebody()
    log = EventLog(catalogue)
    log.add([event(user, at) for at in (10.0, 50.0, 90.0, 130.0, 400.0)] + [event(other, 90.0)])
    seen: list[float] = []

    def judge(_: Sequence[StoredEvent], near: Sequence[StoredEvent]) -> Mapping[int, Verdict]:
        seen.extend(item.at for item in near)
        assert {item.user_id for item in near} == {user}
        return {}

    log.take([event(user, 100.0), event(user, 110.0)], judge, lambda _: (50.0, 30.0))
    assert sorted(seen) == [50.0, 90.0, 130.0], "each once, though both new ones reach it"


def test_events_are_followed_by_sequence_in_pieces(catalogue: Catalogue) -> None:
    log = EventLog(catalogue)
    start, user = log.highest(), somebody()
    log.add([event(user, at=float(100 - number)) for number in range(10)])
    seen: list[StoredEvent] = []
    while piece := log.after(seen[-1].sequence if seen else start, limit=3):
        assert len(piece) <= 3
        seen += piece
    assert [item.at for item in seen if item.user_id == user] == [float(100 - number) for number in range(10)]


def test_a_follower_misses_nothing_while_many_write(catalogue: Catalogue) -> None:
    """Sequences are given before a transaction ends: a follower that sees n must never find n - 1 later."""
    log = EventLog(catalogue)
    last, writers = log.highest(), 4
    made = [[event(f"w{number}", id=somebody()) for _ in range(120)] for number in range(writers)]

    def write(mine: list[StoredEvent]) -> None:
        own = EventLog(catalogue)
        for start in range(0, len(mine), 12):
            own.add(mine[start : start + 12])

    threads = [threading.Thread(target=write, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while len(seen) < writers * 120 and time.monotonic() < deadline:
        alive = any(thread.is_alive() for thread in threads)
        piece = log.after(last, limit=37)
        seen |= {item.id for item in piece}
        last = piece[-1].sequence if piece else last
        if not alive and not piece:
            break
    for thread in threads:
        thread.join()
    assert seen == {item.id for mine in made for item in mine}


def test_ranges_come_by_time_and_id_in_pieces_of_any_size(catalogue: Catalogue) -> None:
    user, base = somebody(), 3e9 + time.time()
    made = [event(user, at=base + number // 4, id=f"{user[:20]}-{(number * 7) % 23}") for number in range(23)]
    log = EventLog(catalogue)
    log.add(made)
    expected = [item.id for item in sorted(made, key=lambda item: (item.at, item.id)) if item.at < base + 5]
    for limit in (1, 2, 3, 5, 100):
        assert [item.id for item in log.between(base, base + 5, limit)] == expected, limit


def test_days_are_those_of_utc(catalogue: Catalogue) -> None:
    log, first = EventLog(catalogue), 100_000 + int(time.time())
    edges = (first * 86_400.0, first * 86_400.0 + 86_399.75, (first + 1) * 86_400.0)
    log.add([event(somebody(), at) for at in edges])
    assert {day: count for day, count in log.days().items() if day >= first} == {first: 2, first + 1: 1}


def test_old_events_are_deleted(catalogue: Catalogue) -> None:
    user = somebody()
    log = EventLog(catalogue)
    log.add([event(user, at) for at in (-3.0, -2.0, 5.0)])
    assert log.remove_before(-1.0)["events"] == 2
    assert [item.at for item in log.of(user)] == [5.0]


def test_a_database_of_before_gets_its_columns_and_indices(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    with sqlite3.connect(path) as old:
        old.execute(
            "CREATE TABLE events (sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(64) NOT NULL UNIQUE,"
            " user_id VARCHAR(200) NOT NULL, video_id VARCHAR(32) NOT NULL, kind VARCHAR(16) NOT NULL,"
            " watched_seconds FLOAT, at FLOAT NOT NULL)"
        )
        old.execute(
            "INSERT INTO events (id, user_id, video_id, kind, watched_seconds, at) VALUES ('e', 'u', 'v', 'view', 1, 2)"
        )
    old.close()
    log = EventLog(Catalogue(f"sqlite:///{path}"))
    [kept] = log.of("u")
    assert (kept.id, kept.sequence, kept.loops, kept.session, kept.language) == ("e", 1, None, "", "")
    assert log.add([event("u", session="new", loops=2)]) == 1
    assert log.of("u")[-1].session == "new"
    with sqlite3.connect(path) as again:
        indices = {row[1] for row in again.execute("PRAGMA index_list(events)")}
    again.close()
    assert {"ix_events_user_at", "ix_events_at"} <= indices


def test_a_column_that_is_missing_is_added_on_either_database(catalogue: Catalogue) -> None:
    user = somebody()
    EventLog(catalogue).add([event(user)])
    with catalogue.engine.begin() as connection:
        for column in ("session", "loops"):
            connection.exec_driver_sql(f"ALTER TABLE events DROP COLUMN {column}")
    opened = EventLog(Catalogue(catalogue.engine.url.render_as_string(hide_password=False)))
    assert opened.add([event(user, session="s", loops=4)]) == 1
    assert [(item.session, item.loops) for item in opened.of(user)] == [("", None), ("s", 4)]


def test_views_are_followed_alone(catalogue: Catalogue) -> None:
    log = EventLog(catalogue)
    start = log.highest()
    log.add([event(somebody()), event(somebody(), kind="like"), event(somebody(), watched_seconds=None)])
    [(sequence, video, watched)] = log.views_after(start)
    assert (sequence > start, video, watched) == (True, VIDEO, 2.0)
    assert log.views_after(sequence) == []


def test_more_than_5000_events_a_second(tmp_path: Path) -> None:
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    many = [event(f"u{number % 50}", at=float(number), id=f"e{number}") for number in range(2 * CHUNK + 1)]
    began = time.process_time()
    assert log.add(many) == len(many)
    assert len(many) / (time.process_time() - began) > 5_000


def forget(log: EventLog, objects: LocalObjects, user: str, now: float) -> None:
    log.tombstones.prepare(objects)
    log.remove_viewer(user, now)
    assert log.empty_write_ahead_log()
    log.tombstones.save(objects, user)


def test_a_forgotten_viewer_stays_away_and_may_come_back(catalogue: Catalogue, tmp_path: Path) -> None:
    objects, user = LocalObjects(tmp_path / "objects"), somebody()
    log = EventLog(catalogue)
    old = event(user, 50.0)
    log.add([old, event(user, 2000.0)])  # a clock that was ahead
    forget(log, objects, user, 1000.0)
    assert log.of(user) == []
    assert log.held_of(user, 3000.0) == {"events": 0, "set_aside_events": 0, "picks": 0}
    states = [item.state for item in log.take([old, event(user, 1500.0), event(user, 2500.0), event(somebody(), 50.0)])]
    assert states == ["forgotten", "forgotten", "new", "new"], (
        "the tombstone reaches to the latest event that was there"
    )
    assert [item.at for item in log.of(user)] == [2500.0]


def test_forgetting_again_reaches_further_and_is_noticed(catalogue: Catalogue, tmp_path: Path) -> None:
    objects, user = LocalObjects(tmp_path / "objects"), somebody()
    log = EventLog(catalogue)
    numbers = []
    for now in (1000.0, 2000.0, 1500.0):
        forget(log, objects, user, now)
        numbers.append(log.tombstones.latest())
    assert sorted(set(numbers)) == numbers
    assert log.tombstones.until_of(user) == 2000.0
    assert log.tombstones.until_of(somebody()) is None


def test_a_tombstone_holds_a_keyed_hash_and_no_name(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    catalogue = Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}")
    log = EventLog(catalogue)
    name = "a-name-that-is-nowhere-else"
    log.add([event(name), event("other")])
    forget(log, objects, name, 2000.0)
    catalogue.close()
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        assert name.encode() not in path.read_bytes(), path
    [stone] = [item.key for item in objects.list(PREFIX) if "/key-" not in item.key]
    assert stone != f"{PREFIX}{digest_of('00' * 32, name)}.json", "the key is not one that all know"


def test_the_journal_loses_the_viewer_and_a_new_catalogue_does_not_bring_them_back(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    journal = Journal(objects, log.catalogue)
    log.add([event("ann", 10.0), event("ben", 11.0)])
    assert journal.write() == 2
    log.add([event("ann", 12.0, id="mine")])
    assert journal.write() == 1
    saved = {item.key: objects.get(item.key) for item in objects.list("journal/events/")}
    forget(log, objects, "ann", 2000.0)
    assert sorted(journal.remove_viewer("ann", 2000.0).values()) == [1, 1]
    assert journal.held_of("ann", 2000.0) == {}
    assert len(list(objects.list("journal/events/"))) == 1, "a segment of nothing is deleted"
    assert [b"ann" in objects.get(item.key) for item in objects.list("journal/events/")] == [False]
    for key, data in saved.items():
        objects.put(key, data)  # an old copy of the bucket
    fresh = EventLog(Catalogue(f"sqlite:///{tmp_path / 'fresh.sqlite3'}"))
    restored = Journal(objects, fresh.catalogue).restore()
    assert (restored["events"], restored["forgotten"]) == (1, 1)
    assert fresh.of("ann") == []
    assert [item.user_id for item in fresh.all()] == ["ben"]
    assert [item.state for item in fresh.take([event("ann", 12.0)])] == ["forgotten"]


def test_two_databases_of_one_bucket_find_each_other_s_tombstones(tmp_path: Path) -> None:
    """Each had a key of its own before they met; neither key is lost."""
    logs = [EventLog(Catalogue(f"sqlite:///{tmp_path / name}")) for name in ("one.sqlite3", "two.sqlite3")]
    bucket = LocalObjects(tmp_path / "bucket")
    forget(logs[0], bucket, "ann", 1000.0)
    forget(logs[1], LocalObjects(tmp_path / "elsewhere"), "ben", 1000.0)
    forget(logs[1], bucket, "cid", 1000.0)
    assert len([item for item in bucket.list(PREFIX) if "/key-" in item.key]) == 2
    fresh = EventLog(Catalogue(f"sqlite:///{tmp_path / 'three.sqlite3'}"))
    assert fresh.tombstones.restore(bucket) == 2
    assert [fresh.tombstones.until_of(name) for name in ("ann", "ben", "cid")] == [1000.0, None, 1000.0]
    assert fresh.tombstones.restore(bucket) == 0


def test_a_segment_that_was_left_unchecked_is_checked_by_the_next_journal(tmp_path: Path) -> None:
    """The writer dies between writing a segment and looking at the tombstones."""
    objects = LocalObjects(tmp_path / "objects")
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    log.add([event("ann", 10.0), event("ben", 11.0)])
    Journal(objects, log.catalogue).write()
    left = [(item.key, objects.get(item.key)) for item in objects.list("journal/events/")]
    forget(log, objects, "ann", 2000.0)
    for key, data in left:
        objects.put(key, data)
    Journal(objects, log.catalogue).write()
    assert Journal(objects, log.catalogue).held_of("ann", 2000.0) == {}
    assert Journal(objects, log.catalogue).held_of("ben", 2000.0) != {}


def test_a_segment_of_before_is_restored(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    old = {"id": "e", "user_id": "ann", "video_id": "v", "kind": "like", "watched_seconds": None, "at": 3.0}
    objects.put("journal/events/1-1-1.jsonl", json.dumps(old | {"of_tomorrow": 1}).encode() + b"\n")
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    assert Journal(objects, log.catalogue).restore()["events"] == 1
    assert Journal(objects, log.catalogue).restore()["events"] == 0
    assert [(item.id, item.loops, item.session) for item in log.of("ann")] == [("e", None, "")]


def test_a_damaged_segment_is_told(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    objects.put("journal/events/1-1-1.jsonl", b"{]")
    with pytest.raises(PassingError) as raised:
        Journal(objects, log.catalogue).held_of("ann", 1.0)
    assert raised.value.code == "store.artifact_damaged"


def test_a_segment_written_while_somebody_is_forgotten_does_not_keep_them(tmp_path: Path) -> None:
    """The journal has read the rows; then they are forgotten, the journal searched; then the segment is written."""
    inner = LocalObjects(tmp_path / "objects")
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    log.add([event("ann", 10.0), event("ben", 11.0)])

    class Late(LocalObjects):
        def put(self, key: str, data: bytes) -> None:
            if key.startswith("journal/events/") and b"ann" in data:
                forget(log, inner, "ann", 2000.0)
                assert Journal(inner, log.catalogue).remove_viewer("ann", 2000.0) == {}
            super().put(key, data)

    Journal(Late(tmp_path / "objects"), log.catalogue).write()
    assert Journal(inner, log.catalogue).held_of("ann", 2000.0) == {}
    assert Journal(inner, log.catalogue).held_of("ben", 2000.0) != {}


def test_the_journal_loses_what_is_too_old(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    journal = Journal(objects, log.catalogue)
    log.add([event("ann", 10.0), event("ben", 500.0)])
    journal.write()
    assert journal.remove_before(5.0) == {}
    assert list(journal.remove_before(100.0).values()) == [1]
    assert journal.held_of("ben", 1e9) != {}
    assert journal.held_of("ann", 1e9) == {}
    assert journal.remove_before(100.0) == {}


def test_set_aside_events_are_journaled_and_restored(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path / "objects")
    log = EventLog(Catalogue(f"sqlite:///{tmp_path / 'c.sqlite3'}"))
    log.take([event("ann")], lambda *_: {0: Verdict("bot_rate", "fast")}, lambda _: (0.0, 0.0), now=3.0)
    assert Journal(objects, log.catalogue).write() == 1
    fresh = EventLog(Catalogue(f"sqlite:///{tmp_path / 'fresh.sqlite3'}"))
    assert Journal(objects, fresh.catalogue).restore()["set-aside"] == 1
    [back] = fresh.set_aside()
    [was] = log.set_aside()
    assert back == was


def test_the_table_is_where_the_others_look_for_it() -> None:
    assert events.name == "events"
