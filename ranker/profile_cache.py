"""Profiles in memory, each followed up to the last event of its viewer that was read: no request reads all events.

Before a profile is given out, the database is asked for that viewer's newer events, so an event counts in the very next
request of every process, whoever took it in. Events that went away (a viewer who was forgotten, retention) and videos
that came, changed, or went into quarantine have the profile built anew.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from ranker.profiles import Profile, built, fold, watched_of
from ranker.video_table import Snapshot, VideoTable
from ranker.watch_norms import NormsFollower
from ranker.watch_time import Habit, Scale, WatchNorms
from store.catalogue import Catalogue, StoredEvent
from store.event_log import EventLog
from store.event_log import events as event_rows
from store.own_tables import transaction

# At 250 kB of vectors each at most: 125 MB.
MOST_PROFILES = 500
# How often the log is asked for views to measure others by; and how much more of them there must be, and how many more
# while there are few, before a profile is measured anew by them and by what the viewer's habit is then.
NORMS_SECONDS = 60.0
GROWN = 1.2
FEW_VIEWS = 200
# Folding more than so many events one by one costs more than building.
MOST_FOLDED = 50


@dataclass(frozen=True)
class NewEvents:
    """`before`: how many events up to the asked sequence there are now; `events`: those after it, in order."""

    before: int
    events: list[StoredEvent]


def new_events(catalogue: Catalogue, user: str, after: int) -> NewEvents:
    """What is new of one viewer. The count tells a reader whether anything up to `after` went away, or came late:
    PostgreSQL hands out sequences before it commits. Both are answered from the index alone but for the new rows."""
    mine = event_rows.c.user_id == user
    counting = sa.select(sa.func.count()).select_from(event_rows).where(mine, event_rows.c.sequence <= after)
    reading = sa.select(event_rows).where(mine, event_rows.c.sequence > after).order_by(event_rows.c.sequence)
    with transaction(catalogue) as connection:
        before = int(connection.execute(counting).scalar_one()) if after else 0
        return NewEvents(before, [StoredEvent.model_validate(row._asdict()) for row in connection.execute(reading)])


@dataclass(frozen=True, eq=False)
class _Followed:
    """A profile that holds `count` events up to `sequence`; `rows` are where the videos of these events stood in
    the table's snapshot (None: not published)."""

    profile: Profile
    sequence: int
    count: int
    table: weakref.ref[VideoTable]
    snapshot: weakref.ref[Snapshot]
    rows: dict[str, int | None]


class ProfileCache:
    """The profiles of the viewers who asked last, at most `most`. Safe to use from several threads."""

    def __init__(
        self, catalogue: Catalogue, most: int = MOST_PROFILES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.norms = NormsFollower(EventLog(catalogue))
        self.catalogue = catalogue
        self.most = most
        self._clock = clock
        self._looked = -NORMS_SECONDS
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Followed] = OrderedDict()

    def get(self, user: str, table: VideoTable) -> Profile:
        """The viewer's profile with every event that is stored by now; an empty one of somebody unknown.

        Raises `database.unavailable`.
        """
        with self._lock:
            old = self._kept.get(user)
        # Two threads may do the same work for one viewer; both come to the same profile.
        followed = self._follow(user, table, old)
        with self._lock:
            if followed.count:
                self._kept[user] = followed
                self._kept.move_to_end(user)
            else:
                self._kept.pop(user, None)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return followed.profile

    def forget(self, user: str) -> None:
        """Let go of a viewer's profile."""
        with self._lock:
            self._kept.pop(user, None)

    def __len__(self) -> int:
        return len(self._kept)

    def _follow(self, user: str, table: VideoTable, old: _Followed | None) -> _Followed:
        snapshot = table.snapshot
        if self._clock() - self._looked >= NORMS_SECONDS:
            self._looked = self._clock()
            self.norms.refresh()
        norms = self.norms.norms
        if old is not None and old.table() is table and not _outgrown(old.profile.scale, norms):
            news = new_events(self.catalogue, user, old.sequence)
            if news.before == old.count and len(news.events) <= MOST_FOLDED and _same_rows(old, snapshot):
                return _folded(old, news.events, snapshot)
        return _built(new_events(self.catalogue, user, 0).events, table, snapshot, norms)


def _same_rows(old: _Followed, snapshot: Snapshot) -> bool:
    """Whether every video of the profile is what it was: a new revision has another row, quarantine none."""
    if old.snapshot() is snapshot:
        return True
    return all(snapshot.row_of.get(video) == row for video, row in old.rows.items())


def _folded(old: _Followed, news: Sequence[StoredEvent], snapshot: Snapshot) -> _Followed:
    profile = old.profile
    for event in news:
        profile = fold(profile, event, watched_of(snapshot, event.video_id))
    rows = {**old.rows, **{event.video_id: snapshot.row_of.get(event.video_id) for event in news}} if news else old.rows
    last = news[-1].sequence if news else old.sequence
    return _Followed(profile, last, old.count + len(news), old.table, weakref.ref(snapshot), rows)


def _outgrown(scale: Scale, norms: WatchNorms) -> bool:
    return norms.views > GROWN * scale.norms.views + FEW_VIEWS


def scale_of(events: Sequence[StoredEvent], snapshot: Snapshot, norms: WatchNorms) -> Scale:
    """The norms, and how the viewer watches by them: all measured views of published videos."""
    views = ((event, snapshot.row(event.video_id)) for event in events if event.kind == "view")
    measured = [
        (event.watched_seconds, row.duration)
        for event, row in views
        if row is not None and event.watched_seconds is not None
    ]
    return Scale(norms, Habit.of(measured, norms))


def _built(events: Sequence[StoredEvent], table: VideoTable, snapshot: Snapshot, norms: WatchNorms) -> _Followed:
    return _Followed(
        built(events, snapshot, scale_of(events, snapshot, norms)),
        events[-1].sequence if events else 0,
        len(events),
        weakref.ref(table),
        weakref.ref(snapshot),
        {event.video_id: snapshot.row_of.get(event.video_id) for event in events},
    )
