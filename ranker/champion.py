"""The trained ranker that is served: followed from the catalogue, and one of the sources of recall.

The catalogue's choice `ranker` names it. A process asks for that at each request; when it names another one, that is
loaded in the background while the former serves on, so a switch needs no restart and no feed waits for it. Without a
champion nothing is loaded, torch least of all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ranker.candidates import Candidates, Paths, Request
from ranker.models.event_acts import log_of
from ranker.models.model import Reason
from ranker.models.training_data import ActLog
from ranker.stored_rankers import StoredRanker, load
from store.catalogue import Catalogue
from store.errors import ReelsenseError
from store.event_log import EventLog, video_durations
from store.objects import ObjectStore

CHAMPION = "ranker"
# The choice that says that there is none.
NONE = "none"
NAME = "model"
# One that could not be loaded is tried again after so long.
AGAIN_SECONDS = 30.0
# What is asked for besides the quota and what was seen: some is gone.
SPARE = 64
# Parts of a score that are named: the largest that raise it.
NAMED_PARTS = 2
log = logging.getLogger(__name__)


class Champion:
    """Follows what is served. `refresh` before each request; `current` never waits.

    A ranker that cannot be loaded leaves the former in use; without a former its error is raised to the one who asks,
    who leaves the source out.
    """

    def __init__(self, catalogue: Catalogue, objects: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self.catalogue = catalogue
        self.objects = objects
        self._clock = clock
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._served: StoredRanker | None = None
        self._failed: tuple[str, float, ReelsenseError] | None = None

    def refresh(self, background: bool = True) -> None:
        """See what is chosen by now. The first one of a process, and any with `background` false, is loaded at once."""
        wanted = self.catalogue.choices().get(CHAMPION, NONE)
        with self._lock:
            if wanted == NONE:
                self._served, self._failed = None, None
                return
            if self._served is not None and self._served.title == wanted:
                return
            if self._failed and self._failed[0] == wanted and self._clock() < self._failed[1]:
                return
            first = self._served is None
        if first or not background:
            self._load(wanted)
        elif not self._loading.locked():
            threading.Thread(target=self._load, args=(wanted,), name="champion", daemon=True).start()

    def current(self) -> StoredRanker | None:
        """What is served by this process; None without a champion. Raises what loading the first one raised."""
        with self._lock:
            if self._served is None and self._failed is not None:
                raise self._failed[2]
            return self._served

    def _load(self, title: str) -> None:
        with self._loading:
            with self._lock:
                if self._served is not None and self._served.title == title:
                    return
            try:
                found = load(self.objects, title)
            except ReelsenseError as error:
                log.warning("the ranker %s is not served: %s %s", title, error.code, error.message)
                with self._lock:
                    self._failed = title, self._clock() + AGAIN_SECONDS, error
                return
            with self._lock:
                self._served, self._failed = found, None
        log.info("the ranker %s is served", title)


@dataclass(frozen=True, eq=False)
class ModelSource:
    """What the champion ranks highest for the viewer, by all that the viewer did until now."""

    champion: Champion | None = None
    name: str = NAME

    def find(self, request: Request, quota: int) -> Candidates:
        """Best first; ties by video id, as numbers are in the order of ids. Nothing without a champion."""
        ranker = None if self.champion is None else self.champion.current()
        if ranker is None or self.champion is None or not request.viewer:
            return Candidates(self.name, np.zeros(0, np.int64), np.zeros(0))
        acts, viewer = live(ranker, self.champion.catalogue, request)
        scores = ranker.model.score(acts, np.array([viewer], np.int64))[0].astype(np.float64)
        # What ties with the lowest is what the model knows nothing of.
        scores[scores <= scores.min(initial=np.inf)] = -np.inf
        rows: list[int] = []
        numbers: list[int] = []
        most = min(len(scores), quota + len(request.profile.seen) + SPARE)
        while True:
            for number in _best(scores, most):
                row = request.snapshot.row_of.get(ranker.videos[number])
                if row is not None and request.unseen[row] and np.isfinite(scores[number]):
                    rows.append(row)
                    numbers.append(number)
                    if len(rows) == quota:
                        break
            if len(rows) == quota or most == len(scores):
                break
            # Many of the best are gone or hidden: look further.
            most, rows, numbers = min(4 * most, len(scores)), [], []
        found = np.array(rows, np.int64)
        number_of = dict(zip(rows, numbers, strict=True))
        paths = Paths(rows, lambda row: _path(ranker, acts, viewer, number_of[row]))
        return Candidates(self.name, found, scores[numbers], paths)


def live(ranker: StoredRanker, catalogue: Catalogue, request: Request) -> tuple[ActLog, int]:
    """All acts of the viewer who asks, by the ranker's numbers, and the viewer's own: the one behind all others for
    somebody who was not there when it was trained."""
    events = EventLog(catalogue).of(request.viewer)
    durations = {
        event.video_id: request.snapshot.rows[row].duration
        for event in events
        if (row := request.snapshot.row_of.get(event.video_id)) is not None
    }
    gone = {event.video_id for event in events} - durations.keys()
    if gone:
        durations |= video_durations(catalogue, gone)
    viewer = ranker.viewer_numbers.get(request.viewer, len(ranker.viewers))
    numbers = {request.viewer: viewer}
    return log_of(events, numbers, ranker.video_numbers, durations, len(ranker.viewers) + 1), viewer


def _best(scores: np.ndarray[tuple[int], np.dtype[np.float64]], most: int) -> list[int]:
    """The numbers of the `most` best, best first, ties by the lower number."""
    if most < len(scores):
        least = np.partition(scores, len(scores) - most)[len(scores) - most]
        reaching = np.flatnonzero(scores >= least)
    else:
        reaching = np.arange(len(scores))
    order: list[int] = reaching[np.argsort(-scores[reaching], kind="stable")][:most].tolist()
    return order


def _path(ranker: StoredRanker, acts: ActLog, viewer: int, number: int) -> tuple[str, ...]:
    """The way on which the model came to a video: the parts of the score that raise it most, then the model."""
    parts = ranker.model.explain(acts, viewer, number)
    named = [_step(ranker, part) for part in parts if part.share > 0][:NAMED_PARTS]
    return (*named, f"model:{ranker.model.name}", f"video:{ranker.videos[number]}")


def _step(ranker: StoredRanker, part: Reason) -> str:
    """A part as a step of a path. Videos and tags get their names; a viewer has none, as a reason names nobody."""
    if part.kind == "viewer":
        return "viewer"
    names = {"video": ranker.videos, "tag": ranker.tags}.get(part.kind)
    if names is None:
        return f"{part.kind}:{part.name}"
    place = int(part.name) if part.name.isdigit() else -1
    return f"{part.kind}:{names[place]}" if 0 <= place < len(names) else part.kind
