"""Whom the log knows: the names of viewers with how much they did, page by page, and those who did something last."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from store.event_log import EventLog, events
from store.own_tables import transaction
from store.picks import picks

# Of so many of the newest events those who did something last are taken.
LOOKED_AT = 2_000


@dataclass(frozen=True)
class KnownViewer:
    """A viewer's `name`, the number of `events` that count, and of `picks`; `at` of the latest of them (seconds since
    the epoch)."""

    name: str
    events: int
    picks: int
    at: float


def viewers_after(log: EventLog, after: str, limit: int, beginning: str = "") -> list[KnownViewer]:
    """The first `limit` viewers behind the name `after`, in the database's order of names; with `beginning`, only names
    that begin so. Read from the indices: no more of the log than is shown. Raises `database.unavailable`."""
    parts = []
    for table, is_event in ((events, True), (picks, False)):
        count = sa.func.count()
        query = sa.select(
            table.c.user_id,
            (count if is_event else sa.literal(0)).label("events"),
            (sa.literal(0) if is_event else count).label("picks"),
            sa.func.max(table.c.at).label("at"),
        ).where(table.c.user_id > after)
        if beginning:
            query = query.where(table.c.user_id.startswith(beginning, autoescape=True))
        # Each part is cut by itself, so that neither is grouped to its end.
        found = query.group_by(table.c.user_id).order_by(table.c.user_id).limit(limit).subquery()
        parts.append(sa.select(found))
    both = sa.union_all(*parts).subquery()
    whole = (
        sa.select(both.c.user_id, sa.func.sum(both.c.events), sa.func.sum(both.c.picks), sa.func.max(both.c.at))
        .group_by(both.c.user_id)
        .order_by(both.c.user_id)
        .limit(limit)
    )
    with transaction(log.catalogue) as connection:
        return [KnownViewer(row[0], int(row[1]), int(row[2]), float(row[3])) for row in connection.execute(whole)]


def latest_viewers(log: EventLog, limit: int) -> list[str]:
    """Who did something last, the latest first. Raises `database.unavailable`."""
    newest = sa.select(events.c.user_id, events.c.sequence).order_by(events.c.sequence.desc()).limit(LOOKED_AT)
    chosen = newest.subquery()
    last = sa.func.max(chosen.c.sequence)
    query = sa.select(chosen.c.user_id).group_by(chosen.c.user_id).order_by(last.desc()).limit(limit)
    with transaction(log.catalogue) as connection:
        return [str(name) for name in connection.execute(query).scalars()]
