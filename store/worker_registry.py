"""Which workers there are: each writes a row about itself now and then, and reads what administrators ask of it.

So `reelsense workers ls` needs no broker, knows workers of other machines, and tells a worker that died from one that
left. The parent process of a worker uses this between two messages, and its pool children are forked from it: so every
call here opens a connection of its own, waits for nothing longer than a second or two, and closes it again.

All times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel

from store.administration import Administration, pauses, wishes
from store.catalogue import Catalogue, _insert
from store.errors import PassingError
from store.own_tables import create_tables, transaction

tables = sa.MetaData()

workers = sa.Table(
    "workers",
    tables,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("row", sa.Text, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)

# A worker that said nothing for so long is gone or cut off; one announcement may be missed.
SILENT_SECONDS = 20.0
FORGOTTEN_SECONDS = 3600.0
WorkerState = Literal["working", "draining", "stopping", "drained"]


class WorkerRow(BaseModel):
    """A worker as it describes itself. `children` are the processes of its pool, `queues` those it takes from now,
    `memory_bytes` is resident memory of all its processes, `tasks` how many it has begun."""

    name: str
    host: str
    pid: int
    children: list[int]
    queues: list[str]
    model_set: str
    threads: int
    memory_bytes: int
    tasks: int
    state: WorkerState
    started_at: float
    seen_at: float


@dataclass(frozen=True)
class Orders:
    """What administrators ask of a worker: the `paused` queues and stages; when it was asked to drain, if it was; and
    how many pool processes it should have, if somebody said."""

    paused: frozenset[str]
    drained_at: float | None
    processes: int | None


class Registration:
    """One worker's own row. Errors: `database.unavailable`, which may pass."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            arguments: dict[str, float] = {"timeout": 1.0}
        else:
            arguments = {"connect_timeout": 2}
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
        self.url = url
        self.engine = sa.create_engine(parsed, connect_args=arguments, poolclass=sa.pool.NullPool)
        self._made = False

    def _make_tables(self) -> None:
        if not self._made:
            catalogue = Catalogue(self.url)
            try:
                WorkerRegistry(catalogue)
            finally:
                catalogue.close()
            self._made = True

    def look(self) -> Orders:
        """What is asked of this worker at the moment."""
        self._make_tables()
        mine = [f"drain:{self.name}", f"pool:{self.name}"]
        try:
            # Reads alone: SQLite readers wait for no writer.
            with self.engine.connect() as connection:
                paused = connection.execute(sa.select(pauses.c.name)).scalars().all()
                asked = {
                    row.name: row for row in connection.execute(sa.select(wishes).where(wishes.c.name.in_(mine))).all()
                }
        except sa.exc.DBAPIError as error:
            raise _away(error) from error
        drain, pool = asked.get(mine[0]), asked.get(mine[1])
        return Orders(
            frozenset(paused),
            None if drain is None else float(drain.at),
            None if pool is None else int(json.loads(pool.value)["processes"]),
        )

    def announce(self, row: WorkerRow) -> None:
        """Write this worker's row."""
        self._make_tables()
        values = {"name": row.name, "row": row.model_dump_json(), "seen_at": row.seen_at}
        try:
            with self.engine.begin() as connection:
                insert = _insert(connection, workers).values(values)
                connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values))
        except sa.exc.DBAPIError as error:
            raise _away(error) from error

    def leave(self) -> None:
        """Drop this worker's row: it ends as it should."""
        try:
            with self.engine.begin() as connection:
                connection.execute(sa.delete(workers).where(workers.c.name == self.name))
        except sa.exc.DBAPIError as error:
            raise _away(error) from error


class WorkerRegistry:
    """All workers. Errors: `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.administration = Administration(catalogue)
        create_tables(catalogue, tables)

    def workers(self) -> list[WorkerRow]:
        """The workers that are there or were lately, by name."""
        query = sa.select(workers.c.row).where(workers.c.seen_at > time.time() - FORGOTTEN_SECONDS)
        with transaction(self.catalogue) as connection:
            return [WorkerRow.model_validate_json(row) for row in connection.execute(query.order_by("name")).scalars()]

    def prune(self) -> None:
        """Drop workers that have not been heard of for long."""
        with transaction(self.catalogue) as connection:
            connection.execute(sa.delete(workers).where(workers.c.seen_at < time.time() - FORGOTTEN_SECONDS))


def _away(error: sa.exc.DBAPIError) -> PassingError:
    return PassingError("database.unavailable", f"The catalogue database does not answer: {error.__cause__ or error}.")
