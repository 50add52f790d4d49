"""What the catalogue knows and object storage would not: copied there, so that object storage alone is a backup.

Artifacts, sources and words are objects already. Events, the times of publications, which learnt models and which
encoding are served, and what each encoding is, live in the database alone; the sweep copies them out, a segment of JSON
lines for what is new since the last time. A segment is never changed, and reading one twice adds nothing: events have
ids, publications are named by their video.

    journal/events/TIME-FIRST-LAST.jsonl   journal/publications/TIME-FIRST-LAST.jsonl
    journal/choices.json                   journal/encodings.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from store.catalogue import Catalogue, _create_tables, _insert, events, publications, tables
from store.errors import InputError
from store.jobs import Jobs
from store.objects import ObjectStore

CHOICES_KEY = "journal/choices.json"
ENCODINGS_KEY = "journal/encodings.json"
# The mark of a database that has had choices: where it has none now, they were taken back, not lost.
CHOICES_MARK = "choices"
MOST_ROWS = 20_000
_JOURNALED: dict[str, sa.Table] = {"events": events, "publications": publications}

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
        with catalogue._database():
            _create_tables(catalogue.engine)

    def write(self) -> int:
        """Copy what is new; how many rows. Two at once write the same rows twice, which does no harm."""
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
            lines = "".join(json.dumps({k: v for k, v in row.items() if k != "sequence"}) + "\n" for row in rows)
            self.objects.put(f"journal/{name}/{time.time_ns():020d}-{first}-{mark}.jsonl", lines.encode())
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

    def restore(self) -> dict[str, int]:
        """Bring into the catalogue what the journal has and it has not: how many rows of each table were new, and how
        many choices. Choices that the catalogue has made are left as they are."""
        restored = {name: self._restore_table(name) for name in _JOURNALED}
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
        for rows in self._segments(name):
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

    def _segments(self, name: str) -> Iterator[list[dict[str, Any]]]:
        for item in self.objects.list(f"journal/{name}/"):
            yield [json.loads(line) for line in self.objects.get(item.key).splitlines() if line]
