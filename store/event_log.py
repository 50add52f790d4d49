"""The log of what viewers did: appended, followed by sequence, never changed; and beside it the events set aside.

Two tables of the catalogue's database. `events` holds what counts; `set_aside_events` what was judged impossible,
doubled, unknown or not human (`ranker.cleaning`), each with its reason. An id stands in one of the two, once: an event
that comes again is known, whatever became of it.

Writers go one at a time (SQLite has one transaction at a time; under PostgreSQL they take an advisory lock), so events
become visible in the order of their sequences: who has read up to n with `after` never misses one below n, and a
judgement never races another. Viewers who were forgotten stay so: see `store.tombstones`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from store import picks
from store.catalogue import Catalogue, StoredEvent, videos
from store.own_tables import alone, create_tables, transaction
from store.tombstones import Tombstones

# SQLite takes 32,766 variables in a statement.
_IDS = 10_000
# One transaction holds so many events at the most, so that a long import does not keep others waiting.
CHUNK = 5_000

State = Literal["new", "known", "set_aside", "forgotten"]
_T = TypeVar("_T")

tables = sa.MetaData()


def _columns(kind_length: int) -> list[sa.Column[Any]]:
    return [
        # AUTOINCREMENT: a follower that has read up to n must never miss a reused number.
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("user_id", sa.String(200), nullable=False),
        sa.Column("video_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(kind_length), nullable=False),
        sa.Column("watched_seconds", sa.Float),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("loops", sa.Integer),
        *(
            sa.Column(name, sa.String(length), nullable=False, server_default="")
            for name, length in (
                ("session", 64), ("device", 64), ("os", 32), ("network", 16), ("region", 16), ("language", 16),
            )
        ),
    ]  # fmt: skip


events = sa.Table(
    "events",
    tables,
    *_columns(16),
    sa.Index("ix_events_user_at", "user_id", "at"),
    # For those who follow one viewer: what is new since, in order.
    sa.Index("ix_events_user_sequence", "user_id", "sequence"),
    sa.Index("ix_events_at", "at"),
    sqlite_autoincrement=True,
)
set_aside_events = sa.Table(
    "set_aside_events",
    tables,
    *_columns(64),
    sa.Column("reason", sa.String(32), nullable=False, index=True),
    sa.Column("detail", sa.String(200), nullable=False, server_default=""),
    sa.Column("set_aside_at", sa.Float, nullable=False),
    sa.Index("ix_set_aside_events_user", "user_id"),
    sqlite_autoincrement=True,
)


# All that hold a viewer's name.
VIEWER_TABLES = (events, set_aside_events, picks.picks)


class SetAsideEvent(StoredEvent):
    """A row of `set_aside_events`: the event as it came, `reason` (a word of `ranker.cleaning.REASONS`), `detail` for
    people, and when it was set aside (seconds since the epoch)."""

    reason: str
    detail: str
    set_aside_at: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an event is set aside."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event: `new`, `known` (its id came before), `set_aside` with its verdict, or `forgotten` (it
    lies before the viewer's wish to be forgotten, and was not stored)."""

    state: State
    verdict: Verdict | None = None


# What is to be set aside of `new` (place and why), given the events of the same viewers that lie near them in time.
Judge = Callable[[Sequence[StoredEvent], Sequence[StoredEvent]], Mapping[int, Verdict]]
# How far back and how far ahead in time, in seconds, an event has to be looked at to be judged.
Reach = Callable[[StoredEvent], tuple[float, float]]


class EventLog:
    """The log of one installation. Each write of up to `CHUNK` events is one transaction. Errors:
    `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.tombstones = Tombstones(catalogue)
        create_tables(catalogue, picks.tables)
        create_tables(catalogue, tables, _complete)

    # --- writing -----------------------------------------------------------------------------------------------------

    def add(self, new: Sequence[StoredEvent]) -> int:
        """Append events unjudged; one whose id is known already, or whose viewer was forgotten, is skipped. Returns how
        many were new."""
        return sum(outcome.state == "new" for outcome in self.take(new))

    def take(
        self, new: Sequence[StoredEvent], judge: Judge | None = None, reach: Reach | None = None, now: float = 0.0
    ) -> list[Outcome]:
        """Append what is new and sound, set aside what `judge` says; what became of each, in the order given."""
        outcomes: list[Outcome] = []
        for chunk in _chunks(new, CHUNK):
            with transaction(self.catalogue) as connection:
                alone(connection)
                outcomes += self._take(connection, chunk, judge, reach, now)
        return outcomes

    def _take(
        self,
        connection: sa.Connection,
        chunk: Sequence[StoredEvent],
        judge: Judge | None,
        reach: Reach | None,
        now: float,
    ) -> list[Outcome]:
        known = _known(connection, [event.id for event in chunk])
        forgotten = self.tombstones.until(connection, {event.user_id for event in chunk})
        states: list[State] = []
        for event in chunk:
            if event.id in known:
                states.append("known")
            elif event.at <= forgotten.get(event.user_id, -math.inf):
                states.append("forgotten")
            else:
                known.add(event.id)
                states.append("new")
        places = [place for place, state in enumerate(states) if state == "new"]
        fresh = [chunk[place] for place in places]
        verdicts: Mapping[int, Verdict] = {}
        if judge is not None and reach is not None and fresh:
            verdicts = judge(fresh, _near(connection, fresh, reach))
        sound = [_row(event) for number, event in enumerate(fresh) if number not in verdicts]
        if sound:
            connection.execute(sa.insert(events), sound)
        aside = [
            _row(fresh[number]) | {"reason": verdict.reason, "detail": verdict.detail[:200], "set_aside_at": now}
            for number, verdict in sorted(verdicts.items())
        ]
        if aside:
            connection.execute(sa.insert(set_aside_events), aside)
        outcomes = [Outcome(state) for state in states]
        for number, verdict in verdicts.items():
            outcomes[places[number]] = Outcome("set_aside", verdict)
        return outcomes

    def restore(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Append rows of the journal to one of the two tables: how many were new. Those of forgotten viewers are not
        brought back."""
        names = {column.name for column in table.columns} - {"sequence"}
        added = 0
        for chunk in _chunks(rows, CHUNK):
            with transaction(self.catalogue) as connection:
                alone(connection)
                known = _known(connection, [row["id"] for row in chunk])
                forgotten = self.tombstones.until(connection, {row["user_id"] for row in chunk})
                fresh = {
                    row["id"]: {name: row.get(name, _default(table, name)) for name in names}
                    for row in chunk
                    if row["id"] not in known and row["at"] > forgotten.get(row["user_id"], -math.inf)
                }
                if fresh:
                    connection.execute(sa.insert(table), list(fresh.values()))
                added += len(fresh)
        return added

    # --- reading -----------------------------------------------------------------------------------------------------

    def of(self, user_id: str) -> list[StoredEvent]:
        """All events of one viewer that count, by time and then by arrival."""
        query = sa.select(events).where(events.c.user_id == user_id).order_by(events.c.at, events.c.sequence)
        with transaction(self.catalogue) as connection:
            return [StoredEvent.model_validate(row._asdict()) for row in connection.execute(query)]

    def all(self) -> Iterator[StoredEvent]:
        """All events of all viewers that count, by viewer, then by time and arrival. One viewer's at a time are in
        memory."""
        with transaction(self.catalogue) as connection:
            users = (
                connection.execute(sa.select(events.c.user_id).distinct().order_by(events.c.user_id)).scalars().all()
            )
        for user in users:
            yield from self.of(user)

    def after(self, sequence: int, limit: int = 10_000) -> list[StoredEvent]:
        """The first `limit` events with a sequence above this one, in order. Follow it with the last one's sequence:
        no event ever appears below one that was seen."""
        query = sa.select(events).where(events.c.sequence > sequence).order_by(events.c.sequence).limit(limit)
        with transaction(self.catalogue) as connection:
            return [StoredEvent.model_validate(row._asdict()) for row in connection.execute(query)]

    def highest(self) -> int:
        """The highest sequence there is, 0 without events."""
        with transaction(self.catalogue) as connection:
            return connection.execute(sa.select(sa.func.max(events.c.sequence))).scalar_one_or_none() or 0

    def last_place(self, user_id: str) -> tuple[str, str]:
        """Region and language of the viewer's newest event that names them; empty where none does."""
        found = []
        with transaction(self.catalogue) as connection:
            for column in (events.c.region, events.c.language):
                query = sa.select(column).where(events.c.user_id == user_id, column != "").order_by(events.c.at.desc())
                found.append(connection.execute(query.limit(1)).scalar_one_or_none() or "")
        return found[0], found[1]

    def views_after(self, sequence: int, limit: int = 50_000) -> list[tuple[int, str, float]]:
        """(sequence, video, watched seconds) of the first `limit` measured views with a sequence above this one."""
        query = (
            sa.select(events.c.sequence, events.c.video_id, events.c.watched_seconds)
            .where(events.c.sequence > sequence, events.c.kind == "view", events.c.watched_seconds.is_not(None))
            .order_by(events.c.sequence)
            .limit(limit)
        )
        with transaction(self.catalogue) as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

    def days(self) -> dict[int, int]:
        """How many events lie on each day (days since the epoch, UTC)."""
        day = sa.cast(sa.func.floor(events.c.at / 86_400), sa.Integer).label("day")
        if self.catalogue.engine.dialect.name == "sqlite":
            day = sa.cast(events.c.at / 86_400, sa.Integer).label("day")
        with transaction(self.catalogue) as connection:
            rows = connection.execute(sa.select(day, sa.func.count()).group_by(day).order_by(day)).all()
        return {int(row[0]): int(row[1]) for row in rows}

    def between(self, first: float, end: float, limit: int = 20_000) -> Iterator[StoredEvent]:
        """The events with `first` <= at < `end`, by time and then by id, the same on every database; about `limit` at a
        time are in memory."""
        while True:
            query = (
                sa.select(events).where(events.c.at >= first, events.c.at < end).order_by(events.c.at).limit(limit + 1)
            )
            with transaction(self.catalogue) as connection:
                rows = [StoredEvent.model_validate(row._asdict()) for row in connection.execute(query)]
                more = len(rows) > limit
                last = rows[-1].at if rows else end
                if more and rows[0].at == last:
                    # One moment holds more than a chunk: all of that moment at once.
                    same = connection.execute(sa.select(events).where(events.c.at == last))
                    rows = [StoredEvent.model_validate(row._asdict()) for row in same]
                    yield from sorted(rows, key=lambda event: event.id)
                    remaining = sa.select(sa.func.min(events.c.at)).where(events.c.at > last, events.c.at < end)
                    following = connection.execute(remaining).scalar_one_or_none()
                    if following is None:
                        return
                    first = following
                    continue
            yield from sorted(
                (event for event in rows if not more or event.at < last), key=lambda event: (event.at, event.id)
            )
            if not more:
                return
            first = last

    def set_aside(
        self, reason: str | None = None, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SetAsideEvent]:
        """Events set aside, the latest first, of one reason and of one viewer where given."""
        query = sa.select(set_aside_events).order_by(set_aside_events.c.sequence.desc()).limit(limit)
        if reason is not None:
            query = query.where(set_aside_events.c.reason == reason)
        if user_id is not None:
            query = query.where(set_aside_events.c.user_id == user_id)
        if before is not None:
            query = query.where(set_aside_events.c.sequence < before)
        with transaction(self.catalogue) as connection:
            return [SetAsideEvent.model_validate(row._asdict()) for row in connection.execute(query)]

    def counts(self) -> dict[str, int]:
        """How many events are set aside, by reason."""
        column = set_aside_events.c.reason
        with transaction(self.catalogue) as connection:
            rows = connection.execute(sa.select(column, sa.func.count()).group_by(column).order_by(column)).all()
        return {row[0]: int(row[1]) for row in rows}

    def held_of(self, user_id: str, until: float) -> dict[str, int]:
        """How many rows each table holds of a viewer up to that time."""
        with transaction(self.catalogue) as connection:
            return {
                table.name: connection.execute(
                    sa.select(sa.func.count()).select_from(table).where(table.c.user_id == user_id, table.c.at <= until)
                ).scalar_one()
                for table in VIEWER_TABLES
            }

    # --- removing ----------------------------------------------------------------------------------------------------

    def remove_viewer(self, user_id: str, now: float) -> dict[str, int]:
        """Delete every row of a viewer and leave a tombstone, in one transaction: how many rows went from each table.
        The tombstone reaches to the latest of them, or to `now`."""
        removed: dict[str, int] = {}
        with transaction(self.catalogue) as connection:
            alone(connection)
            if connection.dialect.name == "sqlite":
                # Overwrite what is deleted with zeros instead of leaving it in free pages.
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            latest = [
                connection.execute(sa.select(sa.func.max(table.c.at)).where(table.c.user_id == user_id)).scalar()
                for table in VIEWER_TABLES
            ]
            until = max([now, *(at for at in latest if at is not None)])
            self.tombstones.put(connection, user_id, until, now)
            for table in VIEWER_TABLES:
                removed[table.name] = connection.execute(sa.delete(table).where(table.c.user_id == user_id)).rowcount
        return removed

    def empty_write_ahead_log(self) -> bool:
        """SQLite: its write-ahead log still holds what was deleted, until it is emptied; false when readers kept it
        from being so. True on other databases, where there is nothing to do here."""
        if self.catalogue.engine.dialect.name != "sqlite":
            return True
        with self.catalogue._database(), self.catalogue.engine.connect() as plain:
            # By the driver itself: it must not run inside of a transaction.
            driver = plain.connection.driver_connection
            assert driver is not None
            return bool(driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    def remove_before(self, at: float) -> dict[str, int]:
        """Delete events and picks older than this time: how many of each table."""
        removed = {table.name: 0 for table in VIEWER_TABLES}
        for table in (events, set_aside_events):
            while True:
                old = sa.select(table.c.sequence).where(table.c.at < at).limit(CHUNK)
                with transaction(self.catalogue) as connection:
                    count = connection.execute(sa.delete(table).where(table.c.sequence.in_(old))).rowcount
                removed[table.name] += count
                if count < CHUNK:
                    break
        with transaction(self.catalogue) as connection:
            gone = sa.delete(picks.picks).where(picks.picks.c.at < at)
            removed[picks.picks.name] = connection.execute(gone).rowcount
        return removed


def video_durations(catalogue: Catalogue, ids: Iterable[str]) -> dict[str, float]:
    """The length in seconds of those videos that anybody ever added; 0 where it is not known."""
    found: dict[str, float] = {}
    for chunk in _chunks(sorted(set(ids)), _IDS):
        with transaction(catalogue) as connection:
            for row in connection.execute(sa.select(videos.c.id, videos.c.media).where(videos.c.id.in_(chunk))):
                found[row.id] = float(json.loads(row.media).get("duration") or 0.0)
    return found


def _complete(catalogue: Catalogue) -> None:
    """Add the columns and indices that an older database does not have yet."""
    with catalogue._database():
        for table in (events, set_aside_events):
            for column in table.columns:
                if column.name in _present(catalogue, table):
                    continue
                words = sa.schema.CreateColumn(column).compile(dialect=catalogue.engine.dialect)
                try:
                    with catalogue.engine.begin() as connection:
                        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {words}")
                except (sa.exc.OperationalError, sa.exc.ProgrammingError):
                    # Another process was faster, or the database has a trouble that is to be told.
                    if column.name not in _present(catalogue, table):
                        raise
            for index in table.indexes:
                try:
                    index.create(catalogue.engine, checkfirst=True)
                except (sa.exc.OperationalError, sa.exc.ProgrammingError):
                    index.create(catalogue.engine, checkfirst=True)


def _present(catalogue: Catalogue, table: sa.Table) -> set[str]:
    return {column["name"] for column in sa.inspect(catalogue.engine).get_columns(table.name)}


def _known(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for table in (events, set_aside_events):
        for chunk in _chunks(ids, _IDS):
            found |= set(connection.execute(sa.select(table.c.id).where(table.c.id.in_(chunk))).scalars())
    return found


def _near(connection: sa.Connection, fresh: Sequence[StoredEvent], reach: Reach) -> list[StoredEvent]:
    """The stored events of the same viewers that lie within reach, each once."""
    spans = sorted(
        (event.user_id, event.at - back, event.at + ahead) for event in fresh for back, ahead in [reach(event)]
    )
    windows: list[tuple[str, float, float]] = []
    for user, group in groupby(spans, key=lambda span: span[0]):
        start, end = float("inf"), float("-inf")
        for _, low, high in group:
            if low > end:
                if end >= start:
                    windows.append((user, start, end))
                start, end = low, high
            else:
                end = max(end, high)
        windows.append((user, start, end))
    # One parameter, however many windows: a list of thousands of values costs more to write down than to look up.
    found = connection.execute(_NEAR[connection.dialect.name], {"spans": json.dumps(windows)})
    # Rows of our own table: checked when they came.
    return [StoredEvent.model_construct(**row) for row in found.mappings()]


_NEAR = {
    # SQLite keeps the order of a CROSS JOIN: each window looks into the index.
    "sqlite": sa.text(
        "SELECT events.* FROM json_each(:spans) AS span CROSS JOIN events"
        " WHERE events.user_id = json_extract(span.value, '$[0]')"
        " AND events.at >= json_extract(span.value, '$[1]') AND events.at <= json_extract(span.value, '$[2]')"
    ),
    "postgresql": sa.text(
        "SELECT events.* FROM jsonb_array_elements(CAST(:spans AS jsonb)) AS span JOIN events"
        " ON events.user_id = span.value ->> 0"
        " AND events.at >= CAST(span.value ->> 1 AS double precision)"
        " AND events.at <= CAST(span.value ->> 2 AS double precision)"
    ),
}


def _row(event: StoredEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in _FIELDS}


_FIELDS = tuple(name for name in StoredEvent.model_fields if name != "sequence")


def _default(table: sa.Table, name: str) -> Any:
    """What stands in a column that a row of an older journal does not have."""
    return None if table.c[name].nullable else ""


def _chunks(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
