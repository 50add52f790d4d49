"""What viewers picked (topics, and ids of videos): one row for each, until it is taken back, or its viewer forgotten.

A table of its own beside the events: a pick is no act on a video, and it says what somebody wants to begin with, not
what they did. Writers take their turn with those of events, so that none races a viewer's wish to be forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from store.catalogue import Catalogue
from store.errors import InputError
from store.own_tables import alone, create_tables, transaction
from store.tombstones import Tombstones

# One viewer's, at a time.
MOST_PICKS = 50
LONGEST_PICK = 100

tables = sa.MetaData()
picks = sa.Table(
    "picks",
    tables,
    sa.Column("user_id", sa.String(200), primary_key=True),
    sa.Column("pick", sa.String(LONGEST_PICK), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Picked:
    """A topic, or the id of a video, and when it was picked (seconds since the epoch)."""

    pick: str
    at: float


class PickLog:
    """The picks of one installation. Errors: `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.tombstones = Tombstones(catalogue)
        create_tables(catalogue, tables)

    def of(self, user_id: str) -> list[Picked]:
        """The viewer's picks, in the order in which they were made."""
        with transaction(self.catalogue) as connection:
            return _of(connection, user_id)

    def change(self, user_id: str, add: Sequence[str], remove: Sequence[str], now: float) -> list[Picked]:
        """Take picks away, then add others; what there is then. What is there already keeps its time, and what is not
        there cannot be missed. Raises `request.invalid` when there would be too many, `event.forgotten`."""
        with transaction(self.catalogue) as connection:
            alone(connection)
            if now <= self.tombstones.until(connection, [user_id]).get(user_id, -math.inf):
                raise InputError("event.forgotten", "The pick lies before its viewer was forgotten.")
            mine = picks.c.user_id == user_id
            connection.execute(sa.delete(picks).where(mine, picks.c.pick.in_(list(remove))))
            there = {picked.pick for picked in _of(connection, user_id)}
            new = [name for name in dict.fromkeys(add) if name not in there]
            if len(there) + len(new) > MOST_PICKS:
                raise InputError("request.invalid", f"A viewer has at most {MOST_PICKS} picks.", hint="Take some back.")
            if new:
                connection.execute(sa.insert(picks), [{"user_id": user_id, "pick": name, "at": now} for name in new])
            return _of(connection, user_id)


def _of(connection: sa.Connection, user_id: str) -> list[Picked]:
    query = sa.select(picks.c.pick, picks.c.at).where(picks.c.user_id == user_id).order_by(picks.c.at, picks.c.pick)
    return [Picked(row.pick, row.at) for row in connection.execute(query)]
