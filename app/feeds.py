"""Feeds, wired together: whose profile, which candidates, by which weights.

What is kept from request to request (profiles, the audience, the threads of recall) only follows the database: another
process comes to the same feed, and what is lost with this one is read again. While a process that has just begun reads
a long log of events, in the background, its feeds are made without what others do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from app.viewer_names import check_viewer
from ranker.audience import Audience
from ranker.candidates import Candidates, Gathered, Gatherer, Request
from ranker.champion import Champion
from ranker.found import WHOLE
from ranker.group_tastes import GroupTastesCache
from ranker.newcomers import Picks, blended, share_of_start, starting_profile
from ranker.objectives import Ranking, Recall
from ranker.profile_cache import ProfileCache
from ranker.profiles import Profile
from ranker.recommend import Recommendation, check, recommend
from ranker.scoring import Situation
from ranker.sources import sources, with_quotas
from ranker.video_table import Snapshot, VideoTable
from store.catalogue import Catalogue
from store.errors import ReelsenseError
from store.event_log import EventLog
from store.objects import ObjectStore
from store.picks import PickLog

# Of so few videos all are scored, whoever finds them: it costs less than choosing.
SCORED_WHOLE = 20_000
# Below this share a start says less than rounding.
LEAST_START = 0.02
FOLLOWED_AT_ONCE = 20_000
log = structlog.get_logger()


@dataclass(frozen=True)
class Feed:
    """A feed, and the sources of recall that were left out of it: error code by name."""

    items: list[Recommendation]
    left_out: Mapping[str, str]


class Feeds:
    """Makes feeds. Safe to use from several threads. `table` and `ranking` are asked at each request; `objects` is
    where trained rankers lie (None: none is served)."""

    def __init__(
        self,
        catalogue: Catalogue,
        profiles: ProfileCache,
        table: Callable[[], VideoTable],
        ranking: Callable[[], Ranking],
        objects: ObjectStore | None = None,
    ) -> None:
        self.log = EventLog(catalogue)
        self.picked = PickLog(catalogue)
        self.profiles = profiles
        self.table = table
        self.ranking = ranking
        self.audience = Audience(catalogue)
        self.tastes = GroupTastesCache(catalogue)
        self.gatherer = Gatherer()
        self._catching_up = threading.Lock()
        self.champion = None if objects is None else Champion(catalogue, objects)
        self._sources = sources(self.audience, self.champion)

    def make(
        self,
        user: str,
        k: int,
        now: float,
        region: str = "",
        language: str = "",
        device: str = "",
        picks: Sequence[str] = (),
    ) -> Feed:
        """The `k` best videos for a viewer at the time `now` (seconds since the epoch).

        `region` (`DE`), `language` (`en`) and `device` say where the request comes from; the first two default to
        those of the viewer's last event. `picks` is what a new viewer chose: topics, and ids of videos; those that
        are stored (`store.picks`) count too. Raises `request.invalid`.
        """
        check(k, now)
        check_viewer(user)
        region = region.upper()
        table = self.table()
        own = self.profiles.get(user, table)
        if not region or not language:
            last_region, last_language = self.log.last_place(user)
            region, language = region or last_region, language or last_language
        snapshot = table.snapshot
        if share_of_start(own) >= LEAST_START:
            picks = (*picks, *(picked.pick for picked in self.picked.of(user)))
        videos = tuple(name for name in picks if name in snapshot.row_of)
        chosen = Picks(tuple(name for name in picks if name not in snapshot.row_of), videos)
        profile = self._with_start(own, table, now, Situation(region, language), device, chosen)
        where = Situation(region, language)
        if not len(snapshot):
            return Feed([], {})
        self._follow(snapshot)
        ranking = self.ranking()
        gathered = self._gather(user, profile, snapshot, now, where, device, k, ranking.recall)
        found = recommend(profile, table, k, now, ranking, situation=where, gathered=gathered)
        return Feed(found, gathered.left_out)

    def _follow(self, snapshot: Snapshot) -> None:
        """Bring the audience up to date: at once when little is new, else beside the requests; and see which trained
        ranker is served."""
        if self.champion is not None:
            self.champion.refresh()
        behind = self.log.highest() - self.audience.last
        first = self.audience.crowd is None
        if behind <= FOLLOWED_AT_ONCE:
            if not self._catching_up.locked():
                self.audience.refresh(snapshot, background=not first)
        elif self._catching_up.acquire(blocking=False):
            threading.Thread(target=self._catch_up, args=(snapshot,), name="audience", daemon=True).start()

    def _catch_up(self, snapshot: Snapshot) -> None:
        try:
            self.audience.refresh(snapshot, background=False)
        except ReelsenseError as error:
            log.warning("the audience waits", code=error.code, message=error.message)
        finally:
            self._catching_up.release()

    def _with_start(
        self, own: Profile, table: VideoTable, now: float, where: Situation, device: str, picks: Picks
    ) -> Profile:
        if share_of_start(own) < LEAST_START:
            return own
        start = starting_profile(
            self.tastes.get(table),
            table.snapshot,
            now,
            region=where.region,
            language=where.language,
            device=device,
            hour=time.gmtime(now).tm_hour,
            picks=picks,
        )
        return blended(own, start)

    def _gather(
        self,
        user: str,
        profile: Profile,
        snapshot: Snapshot,
        now: float,
        where: Situation,
        device: str,
        k: int,
        recall: Recall,
    ) -> Gathered:
        unseen = snapshot.alive.copy()
        unseen[[snapshot.row_of[name] for name in profile.seen if name in snapshot.row_of]] = False
        request = Request(
            profile, snapshot, now, unseen, user, where.region, where.language, device, time.gmtime(now).tm_hour
        )
        gathered = self.gatherer.gather(with_quotas(self._sources, recall.quotas), request, recall.seconds)
        if len(snapshot) > SCORED_WHOLE and len(gathered.rows) >= k:
            return gathered
        rows = np.flatnonzero(unseen)
        whole = Candidates(WHOLE, rows, np.zeros(len(rows)))
        return Gathered((*gathered.candidates, whole), gathered.left_out, gathered.seconds)
