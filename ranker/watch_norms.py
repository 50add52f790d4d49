"""How long videos of each length are watched, followed from the log of events: `ranker.watch_time.WatchNorms`, kept up
to date.

Each process follows by itself and all come to the same counts, as adding up has no order. What was counted stays
counted when events are deleted later (retention, a viewer forgotten) until the process starts anew: it is a histogram
over everybody and names nobody.
"""

from __future__ import annotations

import threading

from ranker.watch_time import WatchNorms
from store.event_log import EventLog, video_durations

PIECE = 50_000


class NormsFollower:
    """The norms of one installation; `norms` is a value that never changes, replaced by `refresh`.

    A profile that is folded event by event equals one that is built anew only when both use the same norms: take
    `norms` once and use it for both. Errors: `database.unavailable`.
    """

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.norms = WatchNorms()
        self._last = 0
        self._durations: dict[str, float] = {}
        self._lock = threading.Lock()

    def refresh(self) -> int:
        """Read the views since the last call; how many there were. One query when there are none."""
        seen = 0
        with self._lock:
            while piece := self.log.views_after(self._last, PIECE):
                unknown = {video for _, video, _ in piece} - self._durations.keys()
                self._durations |= video_durations(self.log.catalogue, unknown)
                self.norms = self.norms.with_views(
                    (watched, self._durations.get(video, 0.0)) for _, video, watched in piece
                )
                self._last = piece[-1][0]
                seen += len(piece)
        return seen
