"""What the catalogue knows and object storage would not: copied there, so that object storage alone is a backup.

Artifacts, sources and words are objects already. Events, the times of publications, which learnt models and which
encoding are served, and what each encoding is, live in the database alone; the sweep copies them out, a segment of JSON
lines for what is new since the last time. A segment is not changed, and reading one twice adds nothing: events have
ids, publications are named by their video.

    journal/events/TIME-FIRST-LAST.jsonl      journal/publications/TIME-FIRST-LAST.jsonl   journal/choices.json
    journal/set-aside/TIME-FIRST-LAST.jsonl   journal/encodings.json   journal/forgotten/DIGEST.json (store.tombstones)

The one exception: segments of events are rewritten without the events of a viewer who is forgotten, and without those
that are older than they may be.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import sqlalchemy as sa

from store.catalogue import Catalogue, _create_tables, _insert, publications, tables
from store.errors import InputError, PassingError
from store.event_log import EventLog, events, set_aside_events
from store.jobs import Jobs
from store.objects import ObjectStore

CHOICES_KEY = "journal/choices.json"
ENCODINGS_KEY = "journal/encodings.json"
# The mark of a database that has had choices: where it has none now, they were taken back, not lost.
CHOICES_MARK = "choices"
MOST_ROWS = 20_000
_EVENTS: dict[str, sa.Table] = {"events": events, "set-aside": set_aside_events}
_JOURNALED: dict[str, sa.Table] = {**_EVENTS, "publications": publications}

marks = sa.Table(
    "journal_marks",
    tables,
    sa.Column("name", sa.String(32), primary_key=True),
    # The highest sequence of that table which is in the journal.
    sa.Column("sequence", sa.BigInteger, nullable=False),
)


def record_key(video_id: str) -> str:
    """Where the row of a video lies beside its source, as JSON: its name, when it came, what probing found."""
    return f"sources/{video_id}/record.json"


class Journal:
    """The journal of one installation. Errors: `database.unavailable`, `store.unavailable`, which may pass."""

    def __init__(self, objects: ObjectStore, catalogue: Catalogue) -> None:
        self.objects = objects
        self.catalogue = catalogue
        self.jobs = Jobs(catalogue)
        self._written: dict[str, Any] = {}
        self._highest: dict[str, int] = {}
        self.log = EventLog(catalogue)
        # The oldest event of each segment that was read for its age.
        self._oldest: dict[str, float] = {}
        self._checked = False
        with catalogue._database():
            _create_tables(catalogue.engine)

    def write(self) -> int:
        """Copy what is new; how many rows. Two at once write the same rows twice, which does no harm."""
        if not self._checked:
            self._check_last()
            self._checked = True
        written = sum(self._write_table(name) for name in _JOURNALED)
        # First what an encoding is, then the choice of it: a copy never names what it does not know.
        if encodings := self.jobs.encodings():
            self._write_whole(ENCODINGS_KEY, encodings)
        choices = self.catalogue.choices()
        # No choices at all may be a database that was lost: that must not wipe out the copy it is to be made from.
        known = self._marked(CHOICES_MARK)
        if choices and not known:
            self._mark(CHOICES_MARK, 1)
        if choices or known:
            self._write_whole(CHOICES_KEY, choices)
        return written

    def _write_whole(self, key: str, document: dict[str, Any]) -> None:
        if self._written.get(key) != document:
            self.objects.put(key, json.dumps(document, sort_keys=True).encode())
            self._written[key] = document

    def _write_table(self, name: str) -> int:
        table = _JOURNALED[name]
        written = 0
        with self.catalogue._begin() as connection:
            highest = connection.execute(sa.select(sa.func.max(table.c.sequence))).scalar_one_or_none() or 0
        mark = self._marked(name)
        # Transactions of PostgreSQL may end in another order than that of their sequences: what was the highest the
        # last time has none under way below it. SQLite has one transaction at a time.
        limit = highest if self.catalogue.engine.dialect.name == "sqlite" else self._highest.get(name, 0)
        self._highest[name] = highest
        while mark < limit:
            query = (
                sa.select(table)
                .where(table.c.sequence > mark, table.c.sequence <= limit)
                .order_by(table.c.sequence)
                .limit(MOST_ROWS)
            )
            with self.catalogue._begin() as connection:
                rows = [row._asdict() for row in connection.execute(query)]
            if not rows:
                break
            first, mark = rows[0]["sequence"], rows[-1]["sequence"]
            key = f"journal/{name}/{time.time_ns():020d}-{first}-{mark}.jsonl"
            self.objects.put(key, _lines(rows))
            if name in _EVENTS:
                self._drop_forgotten(key, rows)
            self._mark(name, mark)
            written += len(rows)
        return written

    def _marked(self, name: str) -> int:
        with self.catalogue._begin() as connection:
            query = sa.select(marks.c.sequence).where(marks.c.name == name)
            return connection.execute(query).scalar_one_or_none() or 0

    def _mark(self, name: str, sequence: int) -> None:
        with self.catalogue._begin() as connection:
            insert = _insert(connection, marks).values(name=name, sequence=sequence)
            connection.execute(
                insert.on_conflict_do_update(index_elements=["name"], set_={"sequence": insert.excluded.sequence})
            )

    def _drop_forgotten(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Somebody may have been forgotten between reading the rows and writing the segment: then whoever removed them
        from the journal did not see it. Their tombstone came before that, so looking now is late enough."""
        with self.catalogue._begin() as connection:
            until = self.log.tombstones.until(connection, {row["user_id"] for row in rows})
        if until:
            self._replace(key, [row for row in rows if row["at"] > until.get(row["user_id"], -math.inf)])

    def _check_last(self) -> None:
        """A writer may have died between a segment and the look at the tombstones: look now."""
        for name in _EVENTS:
            keys = [item.key for item in self.objects.list(f"journal/{name}/")]
            if keys and (rows := self._rows(keys[-1])):
                self._drop_forgotten(keys[-1], rows)

    def _replace(self, key: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            self.objects.put(key, _lines(rows))
        else:
            self.objects.delete(key)

    def remove_viewer(self, user_id: str, until: float) -> dict[str, int]:
        """Rewrite the segments that hold events of this viewer up to that time, without them: how many rows each lost,
        by key."""
        return self._remove(lambda row: row["user_id"] == user_id and row["at"] <= until)

    def remove_before(self, at: float) -> dict[str, int]:
        """The same for events older than `at`. A segment is read once, and again when its oldest event has that age."""
        young = {key for key, oldest in self._oldest.items() if oldest >= at}
        return self._remove(lambda row: row["at"] < at, passed_over=young)

    def _remove(self, gone: Callable[[dict[str, Any]], bool], passed_over: Collection[str] = ()) -> dict[str, int]:
        removed: dict[str, int] = {}
        for name in _EVENTS:
            for key, rows in self._segments(name, passed_over):
                kept = [row for row in rows if not gone(row)]
                if len(kept) < len(rows):
                    self._replace(key, kept)
                    removed[key] = len(rows) - len(kept)
                self._oldest[key] = min((row["at"] for row in kept), default=math.inf)
        return removed

    def held_of(self, user_id: str, until: float) -> dict[str, int]:
        """How many rows of a viewer up to that time each segment holds, by key; segments without any are left out."""
        found: dict[str, int] = {}
        for name in _EVENTS:
            for key, rows in self._segments(name):
                if count := sum(row["user_id"] == user_id and row["at"] <= until for row in rows):
                    found[key] = count
        return found

    def segments(self) -> int:
        """How many segments of events there are."""
        return sum(1 for name in _EVENTS for _ in self.objects.list(f"journal/{name}/"))

    def restore(self) -> dict[str, int]:
        """Bring into the catalogue what the journal has and it has not: how many rows of each table were new, and how
        many choices. Choices that the catalogue has made are left as they are; forgotten viewers stay forgotten."""
        forgotten = self.log.tombstones.restore(self.objects)
        restored = {name: self._restore_table(name) for name in _JOURNALED}
        restored["forgotten"] = forgotten
        restored["choices"] = 0
        self.jobs.know(self._read_whole(ENCODINGS_KEY))
        if not self.catalogue.choices() and not self._marked(CHOICES_MARK):
            choices = self._read_whole(CHOICES_KEY)
            self.catalogue.choose(choices)
            if choices:
                self._mark(CHOICES_MARK, 1)
            restored["choices"] = len(choices)
        return restored

    def _read_whole(self, key: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.objects.get(key))
        except InputError:
            return {}
        return found

    def _restore_table(self, name: str) -> int:
        table = _JOURNALED[name]
        known = {column.name for column in table.columns}
        added = 0
        for _, rows in self._segments(name):
            if name in _EVENTS:
                added += self.log.restore(table, rows)
                continue
            with self.catalogue._begin() as connection:
                for row in rows:
                    values = {column: value for column, value in row.items() if column in known}
                    result = connection.execute(
                        _insert(connection, table).values(values).on_conflict_do_nothing().returning(table.c.sequence)
                    )
                    added += len(result.all())
        with self.catalogue._begin() as connection:
            highest = connection.execute(sa.select(sa.func.max(table.c.sequence))).scalar_one_or_none() or 0
        if added:
            self._mark(name, highest)
        return added

    def _segments(self, name: str, passed_over: Collection[str] = ()) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Key and rows of every segment, in the order in which they were written."""
        for item in list(self.objects.list(f"journal/{name}/")):
            if item.key not in passed_over and (rows := self._rows(item.key)) is not None:
                yield item.key, rows

    def _rows(self, key: str) -> list[dict[str, Any]] | None:
        """The rows of a segment, None when it is gone. Raises `store.artifact_damaged`."""
        try:
            return [json.loads(line) for line in self.objects.get(key).splitlines() if line]
        except InputError as error:
            if error.code == "store.missing":
                return None
            raise
        except ValueError as error:
            raise PassingError(
                "store.artifact_damaged",
                f"The segment {key} of the journal cannot be read.",
                hint="Bring it back from a copy, or delete it: its rows are lost then.",
            ) from error


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps({k: v for k, v in row.items() if k != "sequence"}) + "\n" for row in rows).encode()
