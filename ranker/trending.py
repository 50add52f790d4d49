"""What is watched now: counts that fade with time, of the world, of each region and of each language.

An event adds its value times 2^((at - landmark) / half life), and nothing else is touched: counting forward from a
landmark keeps all counts comparable without ever ageing them one by one (forward decay: Cormode et al. 2009). So an
event costs the same whatever was counted before, may come late, and the order in which events come says nothing.

The leaders of a group are kept apart: counts only grow, so whoever is not among the leaders and does not pass the least
of them cannot be one. They are cut back to the best whenever they are twice as many: a constant cost an event on
average.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable

HALF_LIFE_SECONDS = 6 * 3600.0
LEADERS = 500
# Counts are brought down when the landmark lies so many half-lives back: 2^200 is far from what a float can hold.
MOST_HALF_LIVES = 200.0
# A group in which less than this was watched lately says less than the world: it is believed mass / (mass + this).
HALF_TRUST = 20.0


class Group:
    """The counts of one region, language or the world."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}
        self.leaders: dict[str, float] = {}
        self.least = 0.0
        self.total = 0.0

    def add(self, video: str, amount: float) -> None:
        count = self.counts.get(video, 0.0) + amount
        self.counts[video] = count
        self.total += amount
        if count >= self.least or video in self.leaders:
            self.leaders[video] = count
            if len(self.leaders) > 2 * LEADERS:
                kept = heapq.nlargest(LEADERS, self.leaders.items(), key=lambda item: (item[1], item[0]))
                self.leaders, self.least = dict(kept), kept[-1][1]

    def scaled(self, factor: float) -> None:
        """Bring all counts down; those that are nothing any more are forgotten."""
        self.counts = {video: count * factor for video, count in self.counts.items() if count * factor > 0}
        self.leaders = {video: count * factor for video, count in self.leaders.items() if count * factor > 0}
        self.least *= factor
        self.total *= factor


class Trending:
    """Folded event by event; read from any thread."""

    def __init__(self, half_life_seconds: float = HALF_LIFE_SECONDS) -> None:
        self.half_life_seconds = half_life_seconds
        self._landmark: float | None = None
        self._groups: dict[tuple[str, str], Group] = {}
        self._lock = threading.Lock()

    def add(self, video: str, value: float, at: float, region: str = "", language: str = "") -> None:
        """Count one act; what speaks against a video (value not above 0) is no attention and is passed over."""
        if not value > 0:
            return
        with self._lock:
            if self._landmark is None:
                self._landmark = at
            halvings = (at - self._landmark) / self.half_life_seconds
            if halvings > MOST_HALF_LIVES:
                for group in self._groups.values():
                    group.scaled(2.0**-halvings if halvings < 1000 else 0.0)
                self._landmark, halvings = at, 0.0
            amount = value * 2.0 ** max(halvings, -1000.0)
            for key in _keys(region, language):
                self._groups.setdefault(key, Group()).add(video, amount)

    def count(self, video: str, now: float, region: str = "", language: str = "") -> float:
        """What is left at `now` of all that was counted of a video: in the region if one is given, else among speakers
        of the language if one is given, else in the world."""
        key = _keys(region, language)[-1] if not region else ("region", region)
        with self._lock:
            group = self._groups.get(key)
            return 0.0 if group is None else group.counts.get(video, 0.0) * self._left(now)

    def leading(self, now: float, region: str = "", language: str = "") -> list[tuple[str, float, str]]:
        """(video, score, place) best first, ties by video: the share of the world's attention it has, plus its share of
        the region's and of the language's, each believed as far as enough was watched there lately; and the narrowest
        of these in which it was watched at all."""
        found: dict[str, float] = {}
        # The narrowest group in which it was watched: nobody is told that it was in his region when it was elsewhere.
        places: dict[str, str] = {}
        with self._lock:
            for key in _keys(region, language):
                group = self._groups.get(key)
                mass = 0.0 if group is None else group.total * self._left(now)
                if group is None or not mass > 0:
                    continue
                trust = 1.0 if key == WORLD else mass / (mass + HALF_TRUST)
                for video, count in group.leaders.items():
                    found[video] = found.get(video, 0.0) + trust * count / group.total
                    if key[0] != "language" or video not in places or places[video] == WORLD[0]:
                        places[video] = key[1] or WORLD[0]
        order = sorted(found, key=lambda video: (-found[video], video))
        return [(video, found[video], places[video]) for video in order]

    def extend(self, acts: Iterable[tuple[str, float, float, str, str]]) -> None:
        """`add` of each."""
        for video, value, at, region, language in acts:
            self.add(video, value, at, region, language)

    def _left(self, now: float) -> float:
        if self._landmark is None:
            return 0.0
        halvings = (now - self._landmark) / self.half_life_seconds
        return float(2.0 ** -min(max(halvings, -1000.0), 1000.0))


WORLD = ("world", "")


def _keys(region: str, language: str) -> list[tuple[str, str]]:
    """The groups in which an act counts."""
    named = [("region", region)] if region else []
    return [WORLD, *named, *([("language", language)] if language else [])]
