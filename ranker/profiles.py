"""What is known of a viewer: long-term, recent and negative interest, folded from events one by one.

Every event adds its value (`ranker.events.value`) times the video's vector to one sum and its tags to another, and all
sums fade exponentially with time. The fading of an event depends on its own age alone, so events can arrive late and
in any order, and folding one more event onto a profile gives what building it anew from all events gives.

The profile keeps what each watched video contributes. So the sums are the contributions' sums, and taking one video out
again (`without`) is exact: that is how an explanation knows whether the video it names mattered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.events import Event, completion_of, value
from ranker.video_table import Snapshot, VideoTable
from store.catalogue import StoredEvent
from store.records import Float32

Float64 = npt.NDArray[np.float64]

LONG_HALF_LIFE_SECONDS = 30 * 86_400.0
RECENT_HALF_LIFE_SECONDS = 2 * 3600.0
NEGATIVE_HALF_LIFE_SECONDS = 60 * 86_400.0
FINISHED_SHARE = 0.9
SHOWN_TAGS = 50
# What is left of a tag after the video that brought it is taken out again: rounding.
NOTHING = 1e-12


@dataclass(frozen=True)
class Contribution:
    """What one video adds to a profile, faded to the profile's time, each at least 0; and the act that spoke loudest
    for it (`act`, with the value it had when it happened), for people to read. `followed` is the creator whom the
    viewer followed from it, or empty."""

    long: float = 0.0
    recent: float = 0.0
    negative: float = 0.0
    act: str = ""
    act_value: float = 0.0
    followed: str = ""


@dataclass(frozen=True, eq=False)
class Profile:
    """A viewer at the time `as_of` (seconds since the epoch): the sums of what each seen video contributes.

    `long`, `recent` and `negative` are float64 [dim] sums of weight times vector, not normalised; `*_mass` the sums of
    the weights alone; `tags` and `negative_tags` the same sums over the videos' tags. `seen` holds every video with any
    event. A profile of nobody has zero-width vectors.
    """

    as_of: float = 0.0
    long: Float64 = field(default_factory=lambda: np.zeros(0))
    recent: Float64 = field(default_factory=lambda: np.zeros(0))
    negative: Float64 = field(default_factory=lambda: np.zeros(0))
    long_mass: float = 0.0
    recent_mass: float = 0.0
    negative_mass: float = 0.0
    tags: Mapping[str, float] = field(default_factory=dict)
    negative_tags: Mapping[str, float] = field(default_factory=dict)
    contributions: Mapping[str, Contribution] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many events were folded."""
        return sum(self.counts.values())

    @property
    def creators(self) -> frozenset[str]:
        """The creators whom the viewer follows."""
        return frozenset(part.followed for part in self.contributions.values() if part.followed)

    def __repr__(self) -> str:
        return f"Profile(events={self.events}, seen={len(self.seen)}, tags={len(self.tags)})"


@dataclass(frozen=True, eq=False)
class Watched:
    """What folding an event needs of its video: vector float32 [dim] unit, tags, duration in seconds, creator."""

    vector: Float32
    tags: Mapping[str, float]
    duration: float
    creator: str


def watched_of(snapshot: Snapshot, video_id: str) -> Watched | None:
    """The video's part in profiles, or None while it is not published."""
    place = snapshot.row_of.get(video_id)
    if place is None:
        return None
    row = snapshot.rows[place]
    return Watched(snapshot.vectors[place], row.tags, row.duration, row.creator)


def fading(age_seconds: float, half_life_seconds: float) -> float:
    """What is left, 0..1, after `age_seconds` (not negative)."""
    return float(2.0 ** (-age_seconds / half_life_seconds))


def fold(profile: Profile, event: Event | StoredEvent, video: Watched | None) -> Profile:
    """The profile with one more event, which may be older than others already in it. An event of a video that is not
    published counts and marks it as seen; it says nothing of interest until the profile is built again."""
    video_id = event.video if isinstance(event, Event) else event.video_id
    moved = _aged(profile, max(profile.as_of, event.at) if profile.events else event.at)
    counted = replace(
        moved,
        seen=moved.seen | {video_id},
        counts={**moved.counts, event.kind: moved.counts.get(event.kind, 0) + 1},
    )
    if video is None:
        return counted
    return _with(counted, video_id, _contribution(event, video, counted.as_of), video)


def build(events: Sequence[Event | StoredEvent], table: VideoTable) -> Profile:
    """The profile of a viewer from all events, in any order; `fold` of each gives the same within rounding."""
    if not events:
        return Profile()
    snapshot = table.snapshot
    as_of = max(event.at for event in events)
    gathered: dict[str, Contribution] = {}
    known: dict[str, Watched] = {}
    seen: set[str] = set()
    for event in events:
        video_id = event.video if isinstance(event, Event) else event.video_id
        seen.add(video_id)
        if video_id not in known:
            found = watched_of(snapshot, video_id)
            if found is None:
                continue
            known[video_id] = found
        added = _contribution(event, known[video_id], as_of)
        gathered[video_id] = _joined(gathered.get(video_id, Contribution()), added)
    profile = Profile(
        as_of=as_of,
        contributions=gathered,
        seen=frozenset(seen),
        counts=dict(Counter(event.kind for event in events)),
    )
    return _summed(profile, known) if gathered else profile


def without(profile: Profile, video_id: str, video: Watched) -> Profile:
    """The profile as it would be had the viewer never met this video (what was followed because of it included)."""
    part = profile.contributions.get(video_id)
    if part is None:
        return profile
    rest = {name: item for name, item in profile.contributions.items() if name != video_id}
    less = Contribution(-part.long, -part.recent, -part.negative)
    removed = _with(profile, video_id, less, video)
    return replace(removed, contributions=rest, seen=profile.seen - {video_id})


def describe(profile: Profile, table: VideoTable) -> dict[str, Any]:
    """The profile as JSON for people: counts, strongest tags, what was seen, what weighs most, who is followed."""
    order = sorted(profile.contributions.items(), key=lambda item: (-item[1].long, item[0]))
    return {
        "as_of": profile.as_of,
        "events": profile.events,
        "counts": dict(sorted(profile.counts.items())),
        "seen": sorted(profile.seen),
        "creators": sorted(profile.creators),
        "tags": _strongest(profile.tags),
        "negative_tags": _strongest(profile.negative_tags),
        "interest": {
            "long": profile.long_mass,
            "recent": profile.recent_mass,
            "negative": profile.negative_mass,
        },
        "videos": [
            {
                "video": name,
                "title": row.title if (row := table.snapshot.row(name)) else "",
                "long": part.long,
                "recent": part.recent,
                "negative": part.negative,
                "act": part.act or None,
            }
            for name, part in order[:SHOWN_TAGS]
        ],
    }


def _strongest(tags: Mapping[str, float]) -> dict[str, float]:
    order = sorted(
        ((tag, weight) for tag, weight in tags.items() if weight > NOTHING), key=lambda item: (-item[1], item[0])
    )
    return {tag: round(weight, 6) for tag, weight in order[:SHOWN_TAGS]}


def _contribution(event: Event | StoredEvent, video: Watched, as_of: float) -> Contribution:
    worth = value(event, video.duration)
    age = max(as_of - event.at, 0.0)
    if worth < 0:
        return Contribution(negative=-worth * fading(age, NEGATIVE_HALF_LIFE_SECONDS))
    act = _act(event, video) if worth > 0 else ""
    return Contribution(
        long=worth * fading(age, LONG_HALF_LIFE_SECONDS),
        recent=worth * fading(age, RECENT_HALF_LIFE_SECONDS),
        act=act,
        act_value=worth,
        followed=video.creator if event.kind == "follow" else "",
    )


def _act(event: Event | StoredEvent, video: Watched) -> str:
    if event.kind != "view":
        return event.kind
    watched = event.watched_seconds
    finished = watched is not None and video.duration > 0 and completion_of(watched, video.duration) >= FINISHED_SHARE
    return "finish" if finished else "view"


def _joined(one: Contribution, other: Contribution) -> Contribution:
    # The louder act by value, then by name: the same whichever came first.
    louder = max(one, other, key=lambda part: (part.act_value, part.act))
    return Contribution(
        one.long + other.long,
        one.recent + other.recent,
        one.negative + other.negative,
        louder.act,
        louder.act_value,
        one.followed or other.followed,
    )


def _aged(profile: Profile, as_of: float) -> Profile:
    """The same profile seen from a later time."""
    age = as_of - profile.as_of
    if not profile.events or age <= 0:
        return replace(profile, as_of=as_of)
    long, recent, negative = (
        fading(age, half_life)
        for half_life in (LONG_HALF_LIFE_SECONDS, RECENT_HALF_LIFE_SECONDS, NEGATIVE_HALF_LIFE_SECONDS)
    )
    return replace(
        profile,
        as_of=as_of,
        long=profile.long * long,
        recent=profile.recent * recent,
        negative=profile.negative * negative,
        long_mass=profile.long_mass * long,
        recent_mass=profile.recent_mass * recent,
        negative_mass=profile.negative_mass * negative,
        tags={tag: weight * long for tag, weight in profile.tags.items()},
        negative_tags={tag: weight * negative for tag, weight in profile.negative_tags.items()},
        contributions={
            name: replace(part, long=part.long * long, recent=part.recent * recent, negative=part.negative * negative)
            for name, part in profile.contributions.items()
        },
    )


def _with(profile: Profile, video_id: str, added: Contribution, video: Watched) -> Profile:
    vector = video.vector.astype(np.float64)
    wide = len(profile.long) == len(vector)
    zero = np.zeros(len(vector))
    return replace(
        profile,
        long=(profile.long if wide else zero) + added.long * vector,
        recent=(profile.recent if wide else zero) + added.recent * vector,
        negative=(profile.negative if wide else zero) + added.negative * vector,
        long_mass=max(profile.long_mass + added.long, 0.0),
        recent_mass=max(profile.recent_mass + added.recent, 0.0),
        negative_mass=max(profile.negative_mass + added.negative, 0.0),
        tags=_tags_with(profile.tags, added.long, video.tags),
        negative_tags=_tags_with(profile.negative_tags, added.negative, video.tags),
        contributions={
            **profile.contributions,
            video_id: _joined(profile.contributions.get(video_id, Contribution()), added),
        },
    )


def _tags_with(tags: Mapping[str, float], weight: float, added: Mapping[str, float]) -> dict[str, float]:
    result = dict(tags)
    if weight:
        for tag, share in added.items():
            total = result.get(tag, 0.0) + weight * share
            if total > NOTHING:
                result[tag] = total
            else:
                result.pop(tag, None)
    return result


def _summed(profile: Profile, known: Mapping[str, Watched]) -> Profile:
    """The sums of all contributions."""
    names = list(profile.contributions)
    parts = [profile.contributions[name] for name in names]
    vectors = np.stack([known[name].vector for name in names]).astype(np.float64)
    weights = np.array([(part.long, part.recent, part.negative) for part in parts], np.float64)
    long, recent, negative = weights.T @ vectors
    tags: dict[str, float] = {}
    negative_tags: dict[str, float] = {}
    for name, part in zip(names, parts, strict=True):
        _gather(tags, part.long, known[name].tags)
        _gather(negative_tags, part.negative, known[name].tags)
    return replace(
        profile,
        long=long,
        recent=recent,
        negative=negative,
        long_mass=float(weights[:, 0].sum()),
        recent_mass=float(weights[:, 1].sum()),
        negative_mass=float(weights[:, 2].sum()),
        tags=_kept(tags),
        negative_tags=_kept(negative_tags),
    )


def _gather(tags: dict[str, float], weight: float, added: Mapping[str, float]) -> None:
    for tag, share in added.items():
        tags[tag] = tags.get(tag, 0.0) + weight * share


def _kept(tags: Iterable[tuple[str, float]] | Mapping[str, float]) -> dict[str, float]:
    return {tag: weight for tag, weight in dict(tags).items() if weight > NOTHING}
