"""How many workers the embedded stack runs: what the settings say, or what administrators wish, and none of those that
were drained.

With bounds to scale between, one more is started while more runs wait than workers are there, and one less is kept
after half a minute with one to spare.
"""

from __future__ import annotations

import time

from celery.utils.nodenames import host_format

from store.administration import Administration
from store.errors import PassingError
from store.settings import Settings
from workers.admission import pause_names
from workers.stages import BY_NAME

LOOK_SECONDS = 1.0
GROW_SECONDS = 5.0
SHRINK_SECONDS = 30.0


def worker_name(number: int) -> str:
    """The name under which workers know themselves (`NAME@HOST`)."""
    return str(host_format(f"worker-{number}@%h"))


class Scaling:
    """Decides which workers of a stack, numbered from 1, should run."""

    def __init__(self, settings: Settings, administration: Administration) -> None:
        self.settings = settings
        self.administration = administration
        self.level = settings.workers
        self._wanted: frozenset[int] = frozenset()
        self._next = 0.0
        self._grown = 0.0
        self._busy = time.monotonic()

    def wanted(self) -> frozenset[int]:
        """The numbers of the workers that should run; asked of the database each second, and kept when that is away."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            try:
                self._look(now)
            except PassingError:
                # Its sweep says so already.
                self._wanted = self._wanted or frozenset(range(1, self.level + 1))
        return self._wanted

    def _look(self, now: float) -> None:
        wish = self.administration.scaled()
        least, most = (self.settings.workers,) * 2 if wish is None else (wish.least, wish.most)
        if least < most:
            self._adapt(least, most, now)
        self.level = min(max(self.level, least), most)
        drained = self.administration.drained()
        self._wanted = frozenset(number for number in range(1, self.level + 1) if worker_name(number) not in drained)

    def _adapt(self, least: int, most: int, now: float) -> None:
        work = self._work()
        if work >= self.level or self.level == least:
            self._busy = now
        if work > self.level and self.level < most and now - self._grown >= GROW_SECONDS:
            self.level += 1
            self._grown = now
        elif now - self._busy >= SHRINK_SECONDS:
            self.level -= 1
            self._busy = now

    def _work(self) -> int:
        """Runs that wait or are under way, those of paused stages not counted."""
        paused = self.administration.pauses()
        return sum(
            load.running + (load.queued if pause_names(load.stage).isdisjoint(paused) else 0)
            for load in self.administration.loads()
            if load.stage in BY_NAME
        )
