"""What the ledger says of all runs at once: how many by stage and state, since when the oldest waits, what failed.

Aggregated by the database, off one index, and outside of any transaction that writers would have to wait for: a scrape
of a million runs costs them nothing.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from store.catalogue import Catalogue, publications
from store.errors import PassingError
from store.own_tables import transaction

# The first is the same, by name and columns, as in `store/administration.py`: whichever comes first makes it. As text,
# for two declarations of one name on one table would both be made with a new database.
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS runs_waiting ON runs (state, stage, version, queued_at)",
    "CREATE INDEX IF NOT EXISTS runs_finished ON runs (finished_at)",
)
_BY_STATE = "SELECT state, stage, count(*), min(queued_at) FROM runs GROUP BY state, stage"
_FAILED = (
    "SELECT stage, error_code, count(*), max(finished_at) FROM runs "
    "WHERE state IN ('failed', 'dead') GROUP BY stage, error_code ORDER BY 3 DESC, 1, 2"
)
_RUNNING = "SELECT worker, stage, video_id, attempts, started_at FROM runs WHERE state = 'running' ORDER BY started_at"
_ENDED = (
    "SELECT stage, video_id, state, seconds, error_code, finished_at FROM runs "
    "WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT "
)


@dataclass(frozen=True)
class Running:
    """A run under way; `since` in seconds since the epoch."""

    worker: str
    stage: str
    video_id: str
    attempt: int
    since: float


@dataclass(frozen=True)
class Ended:
    """A run that has ended, `at` seconds since the epoch; `seconds` it took, `code` why it failed."""

    stage: str
    video_id: str
    state: str
    seconds: float | None
    code: str
    at: float


@dataclass(frozen=True)
class Failures:
    """Runs of a stage that failed with one code, and when the latest did."""

    stage: str
    code: str
    runs: int
    latest: float


@dataclass(frozen=True)
class LedgerFigures:
    """`runs` by (stage, state), over all versions; `oldest` queued run of each stage that has one, seconds since the
    epoch; `failures` by stage and code, most first; `videos` in the catalogue."""

    runs: dict[tuple[str, str], int] = field(default_factory=dict)
    oldest: dict[str, float] = field(default_factory=dict)
    failures: list[Failures] = field(default_factory=list)
    videos: int = 0


_indexed: weakref.WeakSet[Catalogue] = weakref.WeakSet()


def figures(catalogue: Catalogue) -> LedgerFigures:
    """The ledger in figures. Raises `database.unavailable`."""
    by_state = _read(catalogue, _BY_STATE)
    return LedgerFigures(
        runs={(stage, state): int(count) for state, stage, count, _ in by_state},
        oldest={stage: float(at) for state, stage, _, at in by_state if state == "queued" and at is not None},
        failures=[
            Failures(stage, code or "internal", int(count), float(latest or 0.0))
            for stage, code, count, latest in _read(catalogue, _FAILED)
        ],
        videos=int(_read(catalogue, "SELECT count(*) FROM videos")[0][0]),
    )


def running(catalogue: Catalogue) -> list[Running]:
    """The runs that workers hold, those begun first first."""
    return [
        Running(worker or "", stage, video, int(attempt), float(since or 0.0))
        for worker, stage, video, attempt, since in _read(catalogue, _RUNNING)
    ]


def last_ended(catalogue: Catalogue, most: int) -> list[Ended]:
    """The runs that ended last, the latest first."""
    return [
        Ended(stage, video, state, seconds, code or "", float(at))
        for stage, video, state, seconds, code, at in _read(catalogue, _ENDED + str(int(most)))
    ]


def ended_since(catalogue: Catalogue, since: float) -> dict[str, int]:
    """How many runs of each stage have ended after a time."""
    query = f"SELECT stage, count(*) FROM runs WHERE finished_at > {float(since)!r} GROUP BY stage"
    return {stage: int(count) for stage, count in _read(catalogue, query)}


def answers(catalogue: Catalogue) -> None:
    """Ask the database anything. Raises `database.unavailable`."""
    _read(catalogue, "SELECT 1")


def is_unpublished(catalogue: Catalogue, video_id: str) -> bool:
    """Whether no version of a video was ever in a feed."""
    query = sa.select(publications.c.sequence).where(publications.c.video_id == video_id).limit(1)
    with transaction(catalogue) as connection:
        return connection.execute(query).first() is None


def _read(catalogue: Catalogue, query: str) -> list[Any]:
    """The rows of a query without values from outside. The catalogue's own transactions lock SQLite against writers
    from their first statement on; here the driver's own connection reads one snapshot and locks nothing."""
    if catalogue not in _indexed:
        with transaction(catalogue) as connection:
            for index in _INDEXES:
                connection.exec_driver_sql(index)
        _indexed.add(catalogue)
    database = catalogue.engine.dialect.loaded_dbapi
    with catalogue._database():
        raw = catalogue.engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())
        except database.Error as error:
            raise PassingError("database.unavailable", f"The catalogue database does not answer: {error}.") from error
        finally:
            raw.close()
