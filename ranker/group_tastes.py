"""The audience of new viewers (`ranker.newcomers`), from the latest events of everybody, made anew now and then.

Unlike a profile it need not be true to the second: it is a mean over thousands of acts.
"""

from __future__ import annotations

import threading
import time
import weakref

import sqlalchemy as sa

from ranker.newcomers import GroupTastes, tastes_of
from ranker.video_table import VideoTable
from store.catalogue import Catalogue, StoredEvent
from store.event_log import EventLog
from store.event_log import events as event_rows
from store.own_tables import transaction

MOST_EVENTS = 50_000
REFRESH_SECONDS = 600.0
ENOUGH_ACTS = 2_000
FEW_SECONDS = 1.0


def latest_events(catalogue: Catalogue, most: int) -> list[StoredEvent]:
    """The `most` events that were stored last, of all viewers."""
    query = sa.select(event_rows).order_by(event_rows.c.sequence.desc()).limit(most)
    with transaction(catalogue) as connection:
        return [StoredEvent.model_validate(row._asdict()) for row in connection.execute(query)]


class GroupTastesCache:
    """One audience for each table, at most `refresh_seconds` old. One thread makes it anew; others take the old one."""

    def __init__(
        self, catalogue: Catalogue, refresh_seconds: float = REFRESH_SECONDS, most_events: int = MOST_EVENTS
    ) -> None:
        self.catalogue = catalogue
        EventLog(catalogue)  # makes the table that is read
        self.refresh_seconds = refresh_seconds
        self.most_events = most_events
        self._lock = threading.Lock()
        self._made: tuple[weakref.ref[VideoTable], float, GroupTastes] | None = None

    def _kept_seconds(self, tastes: GroupTastes) -> float:
        """A mean over few acts is soon another, and quickly made."""
        return self.refresh_seconds if tastes.everyone.acts >= ENOUGH_ACTS else min(self.refresh_seconds, FEW_SECONDS)

    def get(self, table: VideoTable) -> GroupTastes:
        """The audience as this table's videos tell it. Raises `database.unavailable`."""
        made = self._made
        if made is not None and made[0]() is table:
            if time.monotonic() - made[1] < self._kept_seconds(made[2]) or not self._lock.acquire(blocking=False):
                return made[2]
        else:
            self._lock.acquire()
        try:
            made = self._made
            if made is None or made[0]() is not table or time.monotonic() - made[1] >= self._kept_seconds(made[2]):
                events = latest_events(self.catalogue, self.most_events)
                made = (weakref.ref(table), time.monotonic(), tastes_of(events, table.snapshot))
                self._made = made
            return made[2]
        finally:
            self._lock.release()
