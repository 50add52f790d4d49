"""What all viewers together do, as recall needs it: followed from the database, event by event.

Every process follows the same events by their sequence, so they agree, and what is lost with a process is read again.
Three things are kept. *Trending* counts and the *tallies* of exploration are folded at once: an event counts in the
next feed. The *crowd* (the matrix of viewers and videos, item neighbours, the graph) is made anew in the background
every `rebuild_seconds` while there is news; whom it is asked for is always the live profile.

When events were deleted (somebody is forgotten, retention), the next rebuild notices that fewer are there than it
followed and reads all of them again from the start: nothing of a deleted event outlives it by more than that.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker.events import value
from ranker.exploration import ExplorationConfig, Tallies, prior_means, unit
from ranker.interactions import Interactions, Sparse, summed
from ranker.item_item import ItemItemConfig, item_item
from ranker.similar_viewers import SimilarViewers, SimilarViewersConfig
from ranker.trending import Trending
from ranker.video_table import Snapshot, VideoRow
from ranker.walks import WalkConfig, Walks
from store.catalogue import Catalogue, StoredEvent
from store.event_following import FollowedEvent, events_after, events_until
from store.event_log import EventLog

Float64 = npt.NDArray[np.float64]
log = logging.getLogger(__name__)

PAGE = 20_000
# A rebuild that takes longer than this comes less often in proportion: it takes a tenth of one core at the most when
# `rebuild_seconds` is 60.
LONG_SECONDS = 6.0
# Of this many videos that were shown most, what they did is the prior of new ones that resemble them.
MOST_KNOWN = 1000


class AudienceConfig(BaseModel):
    """What is made from the events, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rebuild_seconds: float = Field(60.0, ge=0, allow_inf_nan=False)
    neighbours: ItemItemConfig = ItemItemConfig()
    walks: WalkConfig = WalkConfig(widest=300, degree=100)
    viewers: SimilarViewersConfig = SimilarViewersConfig(degree=500)
    exploration: ExplorationConfig = ExplorationConfig()
    trending_half_life_seconds: float = Field(6 * 3600.0, gt=0, allow_inf_nan=False)


@dataclass(frozen=True, eq=False)
class Crowd:
    """What was made from all events at one moment; never changed after that. Columns of `interactions` are videos that
    were published then, `names` their ids. `drawn`: of little-shown videos the sum of the unit interests of those who
    liked them. `pool` int64 [p]: rows that exploration may try, newest first, and in `pool_priors` float64 [p] what
    resembling videos did. `known`: (vectors, shown, liked) of what was shown most. `table`: the rows of the snapshot it
    was made from, and how many."""

    interactions: Interactions
    names: tuple[str, ...]
    neighbours: Sparse
    walks: Walks
    viewers: SimilarViewers
    drawn: Mapping[str, Float64] = field(default_factory=dict)
    pool: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    pool_priors: Float64 = field(default_factory=lambda: np.zeros(0))
    known: tuple[npt.NDArray[np.float32], Float64, Float64] | None = None
    table: tuple[Sequence[VideoRow], int] = ((), 0)
    cpu_seconds: float = 0.0


class Folded:
    """All that is folded event by event. Thrown away and begun anew when events were deleted."""

    def __init__(self, config: AudienceConfig) -> None:
        self.trending = Trending(config.trending_half_life_seconds)
        self.tallies = Tallies()
        self.viewers: dict[str, int] = {}
        self.videos: dict[str, int] = {}
        self.cells = (array("l"), array("l"), array("f"))
        self.waiting: list[FollowedEvent] = []
        self.last = 0
        self.count = 0

    def add(self, event: FollowedEvent, duration: float) -> None:
        """Fold one event of a published video."""
        worth = value(_stored(event), duration)
        self.trending.add(event.video_id, worth, event.at, event.region, event.language)
        self.tallies.add(event.video_id, worth)
        rows, columns, values = self.cells
        rows.append(self.viewers.setdefault(event.user_id, len(self.viewers)))
        columns.append(self.videos.setdefault(event.video_id, len(self.videos)))
        values.append(worth)


class Audience:
    """Follows the events of everybody. `refresh` before each request; reading never waits for it.

    Errors of `refresh`: `database.unavailable`; what was folded before stays.
    """

    def __init__(
        self, catalogue: Catalogue, config: AudienceConfig | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.catalogue = catalogue
        EventLog(catalogue)  # makes the tables that are followed
        self.config = config or AudienceConfig()
        self.crowd: Crowd | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._folded = Folded(self.config)
        self._built: tuple[float, int, int] | None = None
        self._again = threading.Event()

    @property
    def trending(self) -> Trending:
        """The counts of what is watched now."""
        return self._folded.trending

    @property
    def tallies(self) -> Tallies:
        """How often each video was shown and liked."""
        return self._folded.tallies

    @property
    def last(self) -> int:
        """The sequence of the last event that was read."""
        return self._folded.last

    @property
    def followed(self) -> int:
        """How many events were read so far."""
        return self._folded.count

    def refresh(self, snapshot: Snapshot, background: bool = True) -> int:
        """Fold what happened since the last call; how many events were new. Starts a rebuild when one is due, in a
        thread of its own unless `background` is false. Costs one query when nothing happened."""
        with self._lock:
            if self._again.is_set():
                self._again.clear()
                self._folded = Folded(self.config)
            folded = self._folded
            new = self._follow(folded)
            waiting, folded.waiting = [*folded.waiting, *new], []
            for event in waiting:
                row = snapshot.row(event.video_id)
                if row is None:
                    # Not published yet: how long it is, and so what the act says, is not known.
                    folded.waiting.append(event)
                else:
                    folded.add(event, row.duration)
        if self._due(snapshot):
            if background:
                threading.Thread(target=self._rebuild_quietly, args=(snapshot,), name="crowd", daemon=True).start()
            else:
                self.rebuild(snapshot)
        return len(new)

    def rebuild(self, snapshot: Snapshot) -> Crowd:
        """Make the crowd from all that was folded. Two never run at once."""
        with self._building:
            started, clock = time.thread_time(), self._clock()
            with self._lock:
                folded = self._folded
                last, count = folded.last, folded.count
                cells = [np.array(part) for part in folded.cells]
                viewers, videos = dict(folded.viewers), list(folded.videos)
            if events_until(self.catalogue, last) < count:
                self._again.set()
            crowd = self._made(snapshot, cells, viewers, videos)
            crowd = replace(crowd, cpu_seconds=time.thread_time() - started)
            self.crowd = crowd
            self._built = clock, count, len(snapshot)
            return crowd

    def _follow(self, folded: Folded) -> list[FollowedEvent]:
        found: list[FollowedEvent] = []
        # The log has one writer at a time: who has read up to here never misses one below.
        after = folded.last
        while True:
            page = events_after(self.catalogue, after, PAGE)
            found += page
            if page:
                after = page[-1].sequence
            if len(page) < PAGE:
                break
        folded.last = max(folded.last, after)
        folded.count += len(found)
        return found

    def _due(self, snapshot: Snapshot) -> bool:
        if self._building.locked():
            return False
        if self._built is None:
            return True
        at, count, rows = self._built
        news = (self._folded.count, len(snapshot)) != (count, rows) or self._again.is_set()
        took = self.crowd.cpu_seconds if self.crowd is not None else 0.0
        return news and self._clock() - at >= self.config.rebuild_seconds * max(1.0, took / LONG_SECONDS)

    def _rebuild_quietly(self, snapshot: Snapshot) -> None:
        try:
            self.rebuild(snapshot)
        # The old crowd stays in use, and the next refresh tries again; the log says why.
        except Exception:
            log.exception("the crowd could not be made anew")

    def _made(
        self, snapshot: Snapshot, cells: list[npt.NDArray[np.generic]], viewers: dict[str, int], videos: list[str]
    ) -> Crowd:
        # Beside the requests of this process, loops over all videos are none of Python's: those would hold them up.
        rows = np.flatnonzero(snapshot.alive).astype(np.int64)
        names = tuple(snapshot.ids[row] for row in rows.tolist())
        columns = {name: column for column, name in enumerate(names)}
        to_column = np.array([columns.get(name, -1) for name in videos], np.int64)
        column = to_column[cells[1].astype(np.int64)] if len(videos) else np.zeros(0, np.int64)
        there = column >= 0
        matrix = summed(cells[0][there].astype(np.int64), column[there], cells[2][there], (len(viewers), len(names)))
        interactions = Interactions(matrix, viewers, columns)
        content, called = content_of(snapshot, rows)
        shown, liked = self.tallies.of(names)
        vectors = snapshot.vectors[rows]
        cold = np.flatnonzero(shown < self.config.exploration.enough)
        often = np.argsort(-shown, kind="stable")[:MOST_KNOWN]
        often = often[shown[often] > 0]
        known = vectors[often], shown[often], liked[often]
        # Those that exploration may ask for: the newest, and the newest of what was little shown.
        newest = np.argsort(-snapshot.published_at[rows], kind="stable")
        most = self.config.exploration.pool
        is_cold = shown < self.config.exploration.enough
        pool = newest[(np.cumsum(is_cold[newest]) <= most) & is_cold[newest] | (np.arange(len(newest)) < most)]
        means = prior_means(vectors[pool], *known, self.config.exploration)
        return Crowd(
            interactions,
            names,
            item_item(interactions, self.config.neighbours),
            Walks(interactions, content, self.config.walks, called),
            SimilarViewers(interactions, self.config.viewers),
            drawn_by(matrix, vectors, cold, names),
            rows[pool],
            means,
            known,
            (snapshot.rows, len(snapshot)),
        )


def content_of(snapshot: Snapshot, rows: npt.NDArray[np.int64]) -> tuple[dict[str, Sparse], dict[str, tuple[str, ...]]]:
    """The content knowledge graph of these rows: by kind of node a sparse [videos, nodes], and what each node is
    called.

    Creators, topics (a video's tags, by weight) and sounds; an empty name is none.
    """
    held = snapshot.rows
    found, called = {"topic": held.tag_weights.cells(rows)}, {"topic": tuple(held.tag_weights.known.names)}
    for kind, column, known in (
        ("creator", held.creators, held.creator_names),
        ("sound", held.sounds, held.sound_names),
    ):
        numbers, called[kind] = column.values[rows], tuple(known.names)
        named = np.flatnonzero(numbers != known.numbers.get("", -1))
        found[kind] = sparse.csr_matrix(
            (np.ones(len(named), np.float32), (named, numbers[named])), shape=(len(rows), len(called[kind]))
        )
    return found, called


def drawn_by(
    matrix: Sparse, vectors: npt.NDArray[np.float32], cold: npt.NDArray[np.int64], names: tuple[str, ...]
) -> dict[str, Float64]:
    """By little-shown video the sum of the unit interests (the mean of what they liked) of those who liked it."""
    if not len(cold) or not matrix.nnz:
        return {}
    liked = (matrix[:, cold] > 0).astype(np.float64).tocsc()
    people = np.unique(liked.indices)
    interests = unit(np.asarray(matrix[people].astype(np.float64) @ vectors.astype(np.float64)))
    sums = np.asarray((liked.tocsr()[people].T) @ interests)
    return {names[cold[place]]: sums[place] for place in np.flatnonzero(np.diff(liked.indptr))}


def _stored(event: FollowedEvent) -> StoredEvent:
    # Checked when it was stored.
    return StoredEvent.model_construct(
        id="", user_id=event.user_id, video_id=event.video_id, kind=event.kind,
        watched_seconds=event.watched_seconds, at=event.at,
    )  # fmt: skip
