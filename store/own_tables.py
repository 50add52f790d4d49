"""Tables that live in the catalogue's database and belong to a module of their own: made at first use, one transaction
for each method, and `database.unavailable` where the database does not answer."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from store.catalogue import Catalogue

# Any number that no other advisory lock of this database has.
_WRITER_LOCK = 0x65766E74


_prepared: weakref.WeakKeyDictionary[sa.Engine, set[sa.MetaData]] = weakref.WeakKeyDictionary()


def create_tables(
    catalogue: Catalogue, tables: sa.MetaData, complete: Callable[[Catalogue], None] | None = None
) -> None:
    """Make the tables that are not there yet, and `complete` those of an older version; once for each engine."""
    done = _prepared.setdefault(catalogue.engine, set())
    if tables in done:
        return
    with catalogue._database():
        try:
            tables.create_all(catalogue.engine)
        except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
            # Two processes made the tables at the same moment; the loser looks again.
            tables.create_all(catalogue.engine)
    if complete is not None:
        complete(catalogue)
    done.add(tables)


@contextlib.contextmanager
def transaction(catalogue: Catalogue) -> Iterator[sa.Connection]:
    """One transaction, with the errors of the catalogue."""
    with catalogue._begin() as connection:
        yield connection


def alone(connection: sa.Connection) -> None:
    """Let no other writer of what viewers do in until this transaction ends, so that sequences become visible in
    order. SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER_LOCK)))
