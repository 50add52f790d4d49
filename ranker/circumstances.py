"""When, where and on what a viewer watches: hours, regions, languages, devices, as sums that fade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

# People move; what they speak, and when they have time, changes slowly.
PLACE_HALF_LIFE_SECONDS = 7 * 86_400.0
HABIT_HALF_LIFE_SECONDS = 30 * 86_400.0
HOURS = 24
# A language that was watched says less than one that the viewer's device names.
WATCHED_LANGUAGE_WEIGHT = 0.5

Masses = Mapping[str, float]


class Happened(Protocol):
    """The time of an event, in seconds since the epoch; where it happened is read where it is said."""

    @property
    def at(self) -> float:
        """Seconds since the epoch."""


@dataclass(frozen=True)
class Circumstances:
    """Faded counts of events: by hour of the day (24, UTC), region, language, device model, operating system, network.
    A finished video adds to the languages too, by what it was worth."""

    hours: tuple[float, ...] = (0.0,) * HOURS
    regions: Masses = field(default_factory=dict)
    languages: Masses = field(default_factory=dict)
    devices: Masses = field(default_factory=dict)
    systems: Masses = field(default_factory=dict)
    networks: Masses = field(default_factory=dict)

    def aged(self, seconds: float) -> Circumstances:
        """The same, `seconds` (not negative) later."""
        place, habit = _left(seconds, PLACE_HALF_LIFE_SECONDS), _left(seconds, HABIT_HALF_LIFE_SECONDS)
        return Circumstances(
            tuple(mass * habit for mass in self.hours),
            _times(self.regions, place),
            _times(self.languages, habit),
            _times(self.devices, habit),
            _times(self.systems, habit),
            _times(self.networks, habit),
        )

    def plus(self, event: Happened, age_seconds: float, watched_language: str, worth: float) -> Circumstances:
        """With one more event, `age_seconds` (not negative) ago, of a video in `watched_language` (empty: unknown) that
        was `worth` so much to the viewer."""
        place, habit = _left(age_seconds, PLACE_HALF_LIFE_SECONDS), _left(age_seconds, HABIT_HALF_LIFE_SECONDS)
        hours = list(self.hours)
        hours[hour_of(event.at)] += habit
        languages = _with(self.languages, said(event, "language"), habit)
        if worth > 0:
            languages = _with(languages, watched_language, WATCHED_LANGUAGE_WEIGHT * worth * habit)
        return replace(
            self,
            hours=tuple(hours),
            regions=_with(self.regions, said(event, "region"), place),
            languages=languages,
            devices=_with(self.devices, said(event, "device"), habit),
            systems=_with(self.systems, said(event, "os"), habit),
            networks=_with(self.networks, said(event, "network"), habit),
        )


def said(event: object, name: str) -> str:
    """A text that an event may carry (`region`, `language`, `device`, `os`, `network`), else empty."""
    found = getattr(event, name, None)
    return found if isinstance(found, str) else ""


def hour_of(at: float) -> int:
    """The hour of the day in UTC, 0 to 23."""
    return int(at // 3600) % HOURS


def shares(masses: Masses) -> dict[str, float]:
    """Masses as shares that sum to one, largest first; empty where there is nothing."""
    total = sum(masses.values())
    if not total > 0:
        return {}
    return {name: mass / total for name, mass in sorted(masses.items(), key=lambda item: (-item[1], item[0]))}


def _left(seconds: float, half_life_seconds: float) -> float:
    return float(2.0 ** (-seconds / half_life_seconds))


def _times(masses: Masses, factor: float) -> dict[str, float]:
    return {name: left for name, mass in masses.items() if (left := mass * factor) > 0}


def _with(masses: Masses, name: str, mass: float) -> Masses:
    return {**masses, name: masses.get(name, 0.0) + mass} if name and mass > 0 else masses
