"""What happened to each run, one row a change of the ledger: the history that `reelsense timeline` and the rates of
queues are read from.

The database itself writes the rows, by triggers on the ledger's table: in the same transaction as the change, whichever
part of the program made it, and nothing is missed when another way to change the ledger is added. What lies in them is
the state before and after; what that means (queued, started, handed back, ...) is said by `RunEvent.kind`. The sweep
drops rows older than the setting `history_days`.

All times are seconds since the epoch by the clock of the database.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from pydantic import BaseModel

from store.catalogue import Catalogue
from store.own_tables import create_tables, transaction

PRUNED_AT_ONCE = 20_000
# SQLite before 3.42 has no clock finer than this one: milliseconds.
_SQLITE_NOW = "((julianday('now') - 2440587.5) * 86400.0)"
_POSTGRESQL_NOW = "extract(epoch from clock_timestamp())"
_COPIED = (
    "video_id, stage, version, revision, at, state_before, state, attempts_before, attempts, worker, seconds, code"
)
_CHANGED = "OLD.state <> NEW.state OR OLD.attempts <> NEW.attempts"

tables = sa.MetaData()

run_events = sa.Table(
    "run_events",
    tables,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("video_id", sa.String(32), nullable=False, index=True),
    sa.Column("stage", sa.String(32), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("revision", sa.String(16), nullable=False),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("state_before", sa.String(8)),
    sa.Column("state", sa.String(8)),
    sa.Column("attempts_before", sa.Integer),
    sa.Column("attempts", sa.Integer),
    sa.Column("worker", sa.String(200)),
    sa.Column("seconds", sa.Float),
    sa.Column("code", sa.String(64)),
)


class RunEvent(BaseModel):
    """A row of `run_events`: the state of a run before (None: it was not in the ledger) and after (None: forgotten)."""

    sequence: int
    video_id: str
    stage: str
    version: str
    revision: str
    at: float
    state_before: str | None
    state: str | None
    attempts_before: int | None
    attempts: int | None
    worker: str | None
    seconds: float | None
    code: str | None

    @property
    def kind(self) -> str:
        """What happened: queued, started, done, failed, dead, handed back (untried or for a passing error), abandoned
        (its worker is gone), retried (after a failure), or forgotten."""
        if self.state == "running":
            return "started"
        if self.state is None:
            return "forgotten"
        if self.state != "queued":
            return self.state
        if self.state_before == "running":
            return "handed back" if (self.attempts or 0) < (self.attempts_before or 0) else "abandoned"
        return "queued" if self.state_before in (None, "queued") else "retried"


class RunHistory:
    """The history of the runs of a catalogue. Errors: `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        create_tables(catalogue, tables)
        with transaction(catalogue) as connection:
            _create_triggers(connection)

    def of_video(self, video_id: str, most: int = 10_000) -> list[RunEvent]:
        """What happened to a video's runs, oldest first; the latest `most`."""
        query = (
            sa.select(run_events)
            .where(run_events.c.video_id == video_id)
            .order_by(run_events.c.sequence.desc())
            .limit(most)
        )
        with transaction(self.catalogue) as connection:
            return [RunEvent.model_validate(row._asdict()) for row in connection.execute(query)][::-1]

    def counts(self, since: float) -> Mapping[str, tuple[int, int]]:
        """(runs that came to wait, runs that ended) of each stage after `since`. Costs what happened since then."""
        came = sa.and_(
            run_events.c.state == "queued",
            sa.or_(run_events.c.state_before.is_(None), run_events.c.state_before.in_(["failed", "dead", "done"])),
        )
        # A purge ends nothing; an artifact that was found there was not made.
        ended = sa.and_(run_events.c.state_before == "running", run_events.c.state.in_(["done", "failed", "dead"]))
        query = (
            sa.select(
                run_events.c.stage,
                sa.func.sum(sa.case((came, 1), else_=0)),
                sa.func.sum(sa.case((ended, 1), else_=0)),
            )
            .where(run_events.c.at > since)
            .group_by(run_events.c.stage)
        )
        with transaction(self.catalogue) as connection:
            return {stage: (int(arrived), int(left)) for stage, arrived, left in connection.execute(query)}

    def prune(self, before: float) -> int:
        """Drop rows from before a time, a bounded number in one transaction; how many."""
        oldest = sa.select(run_events.c.sequence).where(run_events.c.at < before).limit(PRUNED_AT_ONCE)
        with transaction(self.catalogue) as connection:
            return connection.execute(sa.delete(run_events).where(run_events.c.sequence.in_(oldest))).rowcount


def timeline(events: Sequence[RunEvent]) -> list[dict[str, object]]:
    """The events of a video as rows that people can read: `at`, `stage`, `what`, and what is known beside them."""
    return [
        {
            "at": event.at,
            "stage": event.stage,
            "version": event.version,
            "what": event.kind,
            "attempt": event.attempts,
            "worker": event.worker if event.kind not in ("queued", "retried", "forgotten") else None,
            "seconds": event.seconds if event.kind == "done" else None,
            "code": event.code if event.kind in ("failed", "dead", "handed back") else None,
        }
        for event in events
    ]


def cutoff(history_days: float) -> float:
    """The time before which events are dropped."""
    return time.time() - history_days * 86_400.0


def _values(now: str, old: bool, new: bool) -> str:
    """The values of `_COPIED` from the OLD and NEW rows that a trigger sees."""
    row = "NEW" if new else "OLD"
    return (
        f"{row}.video_id, {row}.stage, {row}.version, {row}.revision, {now}, {'OLD.state' if old else 'NULL'}, "
        f"{'NEW.state' if new else 'NULL'}, {'OLD.attempts' if old else 'NULL'}, "
        f"{'NEW.attempts' if new else 'NULL'}, {row}.worker, {row}.seconds, {row}.error_code"
    )


def _create_triggers(connection: sa.Connection) -> None:
    cases = {"INSERT": (False, True, ""), "UPDATE": (True, True, _CHANGED), "DELETE": (True, False, "")}
    for operation, (old, new, condition) in cases.items():
        name = f"run_events_{operation.lower()}"
        if connection.dialect.name == "postgresql":
            exists = "SELECT 1 FROM pg_trigger WHERE tgname = :name AND tgrelid = 'runs'::regclass"
            if connection.execute(sa.text(exists), {"name": name}).first():
                continue
            # Two processes may get here at once: one waits for the other.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7735328)")
            if connection.execute(sa.text(exists), {"name": name}).first():
                continue
            connection.exec_driver_sql(
                f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"INSERT INTO run_events ({_COPIED}) VALUES ({_values(_POSTGRESQL_NOW, old, new)}); RETURN NULL; END $$"
            )
            when = f"WHEN ({condition}) " if condition else ""
            connection.exec_driver_sql(
                f"CREATE TRIGGER {name} AFTER {operation} ON runs FOR EACH ROW {when}EXECUTE FUNCTION {name}()"
            )
        else:
            when = f"WHEN {condition} " if condition else ""
            connection.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {name} AFTER {operation} ON runs {when}BEGIN "
                f"INSERT INTO run_events ({_COPIED}) VALUES ({_values(_SQLITE_NOW, old, new)}); END"
            )
