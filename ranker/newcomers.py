"""Where a viewer starts of whom nothing is known yet: what others like there and then, and what was picked.

The audience. For every region, language, device model and hour of the day, the finished and approved views of all
viewers are summed: n acts with the sum of their videos' vectors and tags. Where few have watched, the mean of few says
little, so it is shrunk towards everyone's (empirical Bayes with a prior of `SHRINKAGE` acts; Efron & Morris 1975, "Data
analysis using Stein's estimator and its generalizations"):

    mean'(g) = n / (n + k) mean(g)  +  k / (n + k) mean(everyone)

The start is the average of the means of the viewer's own region, language, device and hour, as far as each is known,
with a mass of `AUDIENCE_MASS` finished views. Each pick (a topic or a video) adds `PICK_MASS`, and is an interest.

The start fades with what the viewer does, not with time: of a viewer whose own events have the mass m (for and
against), it keeps the share h / (h + m), h = `HALF_MASS`. Nothing of it is stored but what was picked
(`store.picks`): it is added when a feed is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ranker.circumstances import hour_of, said
from ranker.events import Event, value
from ranker.interests import INTEREST_TAGS, Interest
from ranker.profiles import Profile, aged, video_of, watched_of
from ranker.video_table import Snapshot
from store.catalogue import StoredEvent

Float64 = npt.NDArray[np.float64]

SHRINKAGE = 20.0
AUDIENCE_MASS = 0.5
PICK_MASS = 2.0
HALF_MASS = 3.0
# An act counts from here: half of a long video watched, or any approval.
LEAST_VALUE = 0.5
# A topic is the mean of so many videos that carry it most.
TOPIC_VIDEOS = 50
AUDIENCE_TAGS = 100
MOST_PICKS = 50
_SUMS = ("long", "recent", "negative")


@dataclass(frozen=True, eq=False)
class Taste:
    """What a group of viewers liked: `acts` in number, the sums of vectors (float64 [dim]) and of tags."""

    acts: int = 0
    vector: Float64 = field(default_factory=lambda: np.zeros(0))
    tags: Mapping[str, float] = field(default_factory=dict)

    def mean(self) -> tuple[Float64, dict[str, float]]:
        """The mean vector and the mean tags of an act."""
        return self.vector / max(self.acts, 1), {tag: total / max(self.acts, 1) for tag, total in self.tags.items()}


@dataclass(frozen=True, eq=False)
class GroupTastes:
    """The tastes of `everyone`, and of those in each `(kind, name)`: region, language, device, hour."""

    everyone: Taste = field(default_factory=Taste)
    groups: Mapping[tuple[str, str], Taste] = field(default_factory=dict)


@dataclass(frozen=True)
class Picks:
    """What a new viewer chose: names of topics (tags), and ids of videos. What is not known (any more) adds nothing."""

    topics: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()


class _Sums:
    def __init__(self, width: int) -> None:
        self.rows: list[int] = []
        self.width = width

    def taste(self, snapshot: Snapshot) -> Taste:
        tags: dict[str, float] = {}
        vector = np.zeros(self.width)
        places, counts = np.unique(np.array(self.rows, np.int64), return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            vector += count * snapshot.vectors[place].astype(np.float64)
            for tag, share in snapshot.rows[place].tags.items():
                tags[tag] = tags.get(tag, 0.0) + count * share
        order = sorted(tags.items(), key=lambda item: (-item[1], item[0]))
        return Taste(len(self.rows), vector, dict(order[:AUDIENCE_TAGS]))


def tastes_of(events: Iterable[Event | StoredEvent], snapshot: Snapshot) -> GroupTastes:
    """What viewers finish and approve of, over all and by where they are. One viewer counts a video once in a group, so
    that nobody votes twice; the order of events makes no difference."""
    width = snapshot.vectors.shape[1]
    everyone = _Sums(width)
    groups: dict[tuple[str, str], _Sums] = {}
    counted: set[tuple[str, str, str, str]] = set()
    for event in events:
        video = video_of(event)
        place = snapshot.row_of.get(video)
        if place is None or value(event, snapshot.rows[place].duration) < LEAST_VALUE:
            continue
        user = event.user if isinstance(event, Event) else event.user_id
        for kind, name in (("", ""), *_groups_of(event)):
            if (key := (user, video, kind, name)) in counted:
                continue
            counted.add(key)
            sums = everyone if not kind else groups.setdefault((kind, name), _Sums(width))
            sums.rows.append(place)
    return GroupTastes(everyone.taste(snapshot), {key: groups[key].taste(snapshot) for key in sorted(groups)})


def _groups_of(event: Event | StoredEvent) -> list[tuple[str, str]]:
    named = [(kind, said(event, kind)) for kind in ("region", "language", "device")]
    return [*((kind, name) for kind, name in named if name), ("hour", str(hour_of(event.at)))]


def starting_profile(
    audience: GroupTastes,
    snapshot: Snapshot,
    now: float,
    *,
    region: str = "",
    language: str = "",
    device: str = "",
    hour: int | None = None,
    picks: Picks | None = None,
) -> Profile:
    """The profile of a viewer without events at the time `now`: nothing seen, and the interests that were picked.

    What is empty, None or known of nobody is left out; of nobody at all comes an empty profile.
    """
    wanted = [("region", region), ("language", language), ("device", device)]
    wanted = [*wanted, ("hour", "" if hour is None else str(hour % 24))]
    known = [audience.groups[group] for group in wanted if group in audience.groups]
    profile = Profile(as_of=now)
    if audience.everyone.acts:
        shrunk = [_shrunk(taste, audience.everyone) for taste in known] or [audience.everyone.mean()]
        vector = np.mean([mean for mean, _ in shrunk], axis=0)
        tags: dict[str, float] = {}
        for _, mean in shrunk:
            for tag, weight in mean.items():
                tags[tag] = tags.get(tag, 0.0) + weight / len(shrunk)
        profile = _with(profile, vector, tags, AUDIENCE_MASS)
    for interest in _picked(picks or Picks(), snapshot):
        profile = _with(profile, interest.vector, interest.tags, interest.mass)
        profile = replace(profile, given=(*profile.given, interest))
    return profile


def blended(own: Profile, start: Profile) -> Profile:
    """The viewer's own profile, at the time of the start if that is later, with as much of the start as it leaves room
    for (`share_of_start`): who was away for a year is half a newcomer."""
    own = aged(own, max(own.as_of, start.as_of)) if own.events else replace(own, as_of=start.as_of)
    share = share_of_start(own)
    width = max(len(own.long), len(start.long))
    if not start.long_mass > 0 or len(start.long) != width:
        return own
    parts = {name: getattr(own, name) if len(getattr(own, name)) == width else np.zeros(width) for name in _SUMS}
    return replace(
        own,
        long=parts["long"] + share * start.long,
        recent=parts["recent"],
        negative=parts["negative"],
        long_mass=own.long_mass + share * start.long_mass,
        tags=_added(own.tags, share, start.tags),
        given=tuple(replace(interest, mass=share * interest.mass) for interest in start.given),
        start_tags={tag: share * weight for tag, weight in start.tags.items()},
        start_share=share * start.long_mass / (own.long_mass + share * start.long_mass),
    )


def share_of_start(own: Profile) -> float:
    """1 for a viewer without events, one half at `HALF_MASS`, near 0 for somebody well known."""
    return HALF_MASS / (HALF_MASS + own.long_mass + own.negative_mass)


def _shrunk(taste: Taste, everyone: Taste) -> tuple[Float64, dict[str, float]]:
    own = taste.acts / (taste.acts + SHRINKAGE)
    vector, tags = taste.mean()
    all_vector, all_tags = everyone.mean()
    return own * vector + (1 - own) * all_vector, _added({tag: own * w for tag, w in tags.items()}, 1 - own, all_tags)


def _picked(picks: Picks, snapshot: Snapshot) -> list[Interest]:
    found = []
    for video in list(dict.fromkeys(picks.videos))[:MOST_PICKS]:
        watched = watched_of(snapshot, video)
        if watched is not None:
            order = sorted(watched.tags.items(), key=lambda item: (-item[1], item[0]))
            found.append(Interest(watched.vector.astype(np.float64), PICK_MASS, dict(order[:INTEREST_TAGS]), (video,)))
    for topic in list(dict.fromkeys(" ".join(name.casefold().split()) for name in picks.topics))[:MOST_PICKS]:
        vector = _topic(topic, snapshot)
        if vector is not None:
            found.append(Interest(vector, PICK_MASS, {topic: 1.0}))
    return found


def _topic(topic: str, snapshot: Snapshot) -> Float64 | None:
    """The unit mean of the videos that carry the tag most, None when none does."""
    weights = snapshot.tags.matches({topic: 1.0}, len(snapshot)) * snapshot.alive
    rows = np.flatnonzero(weights > 0)
    if not len(rows):
        return None
    rows = rows[np.argsort(-weights[rows], kind="stable")[:TOPIC_VIDEOS]]
    total = (weights[rows][:, None] * snapshot.vectors[rows].astype(np.float64)).sum(axis=0)
    length = float(np.linalg.norm(total))
    return total / length if length > 0 else None


def _with(profile: Profile, vector: Float64, tags: Mapping[str, float], mass: float) -> Profile:
    wide = len(profile.long) == len(vector)
    zero = np.zeros(len(vector))
    return replace(
        profile,
        long=(profile.long if wide else zero) + mass * vector,
        recent=zero,
        negative=zero,
        long_mass=profile.long_mass + mass,
        tags=_added(profile.tags, mass, tags),
    )


def _added(tags: Mapping[str, float], weight: float, added: Mapping[str, float]) -> dict[str, float]:
    result = dict(tags)
    for tag, share in added.items():
        result[tag] = result.get(tag, 0.0) + weight * share
    return result
