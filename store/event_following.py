"""Reading the events of everybody by sequence, for what is folded from them while they come in."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from store.catalogue import Catalogue
from store.event_log import events
from store.own_tables import transaction


class FollowedEvent(NamedTuple):
    """What of a stored event is folded. The fields are those of `StoredEvent`."""

    sequence: int
    user_id: str
    video_id: str
    kind: str
    watched_seconds: float | None
    at: float
    region: str
    language: str


def events_after(catalogue: Catalogue, sequence: int, limit: int) -> list[FollowedEvent]:
    """Events of a higher sequence, in order, at most `limit`. Raises `database.unavailable`."""
    columns = [events.c[name] for name in FollowedEvent._fields]
    query = sa.select(*columns).where(events.c.sequence > sequence).order_by(events.c.sequence).limit(limit)
    with transaction(catalogue) as connection:
        return [FollowedEvent(*row) for row in connection.execute(query)]


def events_until(catalogue: Catalogue, sequence: int) -> int:
    """How many events there are up to a sequence, itself included: fewer than were followed when some were deleted."""
    query = sa.select(sa.func.count()).select_from(events).where(events.c.sequence <= sequence)
    with transaction(catalogue) as connection:
        return int(connection.execute(query).scalar_one())
