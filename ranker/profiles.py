"""What is known of a viewer: interests, negative interest, tags, history and habits, folded from events one by one.

Every event adds its value (`ranker.events.value`) times the video's vector to one sum and its tags to another, and all
sums fade exponentially with time. The fading of an event depends on its own age alone, so events can arrive late and
in any order, and folding one more event onto a profile gives what building it anew from all events gives.

The profile keeps what each watched video contributes. So the sums are the contributions' sums, and taking one video out
again (`without`) is exact: that is how an explanation knows whether the video it names mattered. Of the heaviest
videos it keeps the vectors too, and clusters them into interests when somebody asks (`ranker.interests`): all long-term
weights fade alike, so which are heaviest changes by events alone, and what was let go comes back with its next event.

Formulas, half-lives and sources: docs/profiles.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ranker import circumstances
from ranker.circumstances import Circumstances
from ranker.contributions import Contribution, Contributions
from ranker.events import Event, completion_of, value
from ranker.interests import MOST_DISLIKED, MOST_INTERESTS, MOST_LIKED, Interest, interests_of
from ranker.video_table import Snapshot, VideoTable
from ranker.watch_time import GUESSED, Scale
from store.catalogue import StoredEvent
from store.records import Float32

Float64 = npt.NDArray[np.float64]
Entry = tuple[str, float, float]

LONG_HALF_LIFE_SECONDS = 30 * 86_400.0
RECENT_HALF_LIFE_SECONDS = 2 * 3600.0
NEGATIVE_HALF_LIFE_SECONDS = 60 * 86_400.0
FINISHED_SHARE = 0.9
KEPT_HISTORY = 200
# What is left of a tag after the video that brought it is taken out again: rounding.
NOTHING = 1e-12
LONG, NEGATIVE = 0, 2


@dataclass(frozen=True, eq=False)
class Watched:
    """What folding an event needs of its video: vector float32 [dim] unit, tags, duration in seconds, creator, and the
    language spoken in it (empty: unknown)."""

    vector: Float32
    tags: Mapping[str, float]
    duration: float
    creator: str
    language: str = ""


@dataclass(frozen=True, eq=False)
class Profile:
    """A viewer at the time `as_of` (seconds since the epoch): the sums of what each seen video contributes.

    `long`, `recent` and `negative` are float64 [dim] sums of weight times vector, not normalised; `*_mass` the sums of
    the weights alone; `tags` and `negative_tags` the same sums over the videos' tags. `seen` holds every video with any
    event. `history` are the latest events, newest first: video, time, value. `liked` and `disliked` hold what is known
    of the at most `MOST_LIKED` and `MOST_DISLIKED` heaviest videos: 1 kB each at 256 numbers, so no profile holds more
    than 250 kB of vectors. `given` are interests that were not watched, and `start_share` how much
    of `long_mass` and (`start_tags`) of each tag was not (`ranker.newcomers`). A profile of nobody has
    zero-width vectors. `scale` measures its views, those to come as well.
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
    contributions: Contributions = field(default_factory=Contributions)
    seen: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    history: tuple[Entry, ...] = ()
    habits: Circumstances = field(default_factory=Circumstances)
    liked: Mapping[str, Watched] = field(default_factory=dict)
    disliked: Mapping[str, Watched] = field(default_factory=dict)
    given: tuple[Interest, ...] = ()
    start_share: float = 0.0
    start_tags: Mapping[str, float] = field(default_factory=dict)
    scale: Scale = GUESSED

    @property
    def events(self) -> int:
        """How many events were folded."""
        return sum(self.counts.values())

    @property
    def creators(self) -> frozenset[str]:
        """The creators whom the viewer follows."""
        return frozenset(self.contributions.follows.values())

    @property
    def follows(self) -> frozenset[str]:
        """The same."""
        return self.creators

    @cached_property
    def interests(self) -> tuple[Interest, ...]:
        """What the viewer likes, heaviest first, at most `MOST_INTERESTS`."""
        weights = {name: self.contributions.of(name)[LONG] for name in self.liked}
        both = [*interests_of(weights, self.liked), *self.given]
        both.sort(key=lambda interest: (-interest.mass, interest.videos, next(iter(interest.tags), "")))
        return tuple(both[:MOST_INTERESTS])

    @cached_property
    def dislikes(self) -> tuple[Interest, ...]:
        """What the viewer refuses, heaviest first, at most `MOST_INTERESTS`."""
        return interests_of({name: self.contributions.of(name)[NEGATIVE] for name in self.disliked}, self.disliked)

    @cached_property
    def hours(self) -> tuple[float, ...]:
        """The share of each hour of the day (24, UTC); they sum to one, or are all 0."""
        total = sum(self.habits.hours)
        return tuple(mass / total if total > 0 else 0.0 for mass in self.habits.hours)

    @cached_property
    def regions(self) -> Mapping[str, float]:
        """Shares of where the viewer is, largest first; they sum to one, or there are none."""
        return circumstances.shares(self.habits.regions)

    @cached_property
    def languages(self) -> Mapping[str, float]:
        """Shares of the languages of the viewer's device and of what was watched."""
        return circumstances.shares(self.habits.languages)

    @cached_property
    def devices(self) -> Mapping[str, float]:
        """Shares of device models."""
        return circumstances.shares(self.habits.devices)

    @cached_property
    def systems(self) -> Mapping[str, float]:
        """Shares of operating systems."""
        return circumstances.shares(self.habits.systems)

    @cached_property
    def networks(self) -> Mapping[str, float]:
        """Shares of kinds of network."""
        return circumstances.shares(self.habits.networks)

    def __repr__(self) -> str:
        return f"Profile(events={self.events}, seen={len(self.seen)}, tags={len(self.tags)})"


def watched_of(snapshot: Snapshot, video_id: str) -> Watched | None:
    """The video's part in profiles, or None while it is not published."""
    place = snapshot.row_of.get(video_id)
    if place is None:
        return None
    row = snapshot.rows[place]
    return Watched(snapshot.vectors[place], row.tags, row.duration, row.creator, row.language or "")


def video_of(event: Event | StoredEvent) -> str:
    """The id of the event's video."""
    return event.video if isinstance(event, Event) else event.video_id


def fading(age_seconds: float, half_life_seconds: float) -> float:
    """What is left, 0..1, after `age_seconds` (not negative)."""
    return float(2.0 ** (-age_seconds / half_life_seconds))


def fold(profile: Profile, event: Event | StoredEvent, video: Watched | None) -> Profile:
    """The profile with one more event, which may be older than others already in it. An event of a video that is not
    published counts and marks it as seen; it says nothing of interest until the profile is built again."""
    video_id = video_of(event)
    moved = aged(profile, max(profile.as_of, event.at) if profile.events else event.at)
    worth = value(event, None if video is None else video.duration, moved.scale.norms, moved.scale.habit)
    counted = replace(
        moved,
        seen=moved.seen if video_id in moved.seen else moved.seen | {video_id},
        counts={**moved.counts, event.kind: moved.counts.get(event.kind, 0) + 1},
        history=_remembered(moved.history, (video_id, event.at, worth)),
        habits=moved.habits.plus(event, moved.as_of - event.at, "" if video is None else video.language, worth),
    )
    if video is None:
        return counted
    return _with(counted, video_id, _contribution(event, video, worth, counted.as_of), video)


def build(events: Sequence[Event | StoredEvent], table: VideoTable, scale: Scale = GUESSED) -> Profile:
    """The profile of a viewer from all events, in any order; `fold` of each gives the same within rounding."""
    return built(events, table.snapshot, scale)


def built(events: Sequence[Event | StoredEvent], snapshot: Snapshot, scale: Scale = GUESSED) -> Profile:
    """The same, from one moment of the table."""
    if not events:
        return Profile(scale=scale)
    as_of = max(event.at for event in events)
    gathered: dict[str, Contribution] = {}
    known: dict[str, Watched] = {}
    history: list[Entry] = []
    habits = Circumstances()
    for event in events:
        video_id = video_of(event)
        found = known.get(video_id) or watched_of(snapshot, video_id)
        worth = value(event, None if found is None else found.duration, scale.norms, scale.habit)
        history.append((video_id, event.at, worth))
        habits = habits.plus(event, as_of - event.at, "" if found is None else found.language, worth)
        if found is not None:
            known[video_id] = found
            added = _contribution(event, found, worth, as_of)
            gathered[video_id] = gathered.get(video_id, Contribution()).joined(added)
    profile = Profile(
        as_of=as_of,
        contributions=Contributions(gathered),
        seen=frozenset(video_of(event) for event in events),
        counts=dict(Counter(event.kind for event in events)),
        history=tuple(sorted(history, key=_newest_first)[:KEPT_HISTORY]),
        habits=habits,
        scale=scale,
    )
    return _summed(profile, known) if gathered else profile


def without(profile: Profile, video_id: str, video: Watched) -> Profile:
    """The profile as it would be had the viewer never met this video (what was followed because of it included). Its
    habits stay; an interest may miss the video that would take its place among the heaviest."""
    part = profile.contributions.get(video_id)
    if part is None:
        return profile
    return replace(
        _sums_with(profile, -part.long, -part.recent, -part.negative, video),
        contributions=profile.contributions.without(video_id),
        seen=profile.seen - {video_id},
        history=tuple(entry for entry in profile.history if entry[0] != video_id),
        liked={name: kept for name, kept in profile.liked.items() if name != video_id},
        disliked={name: kept for name, kept in profile.disliked.items() if name != video_id},
    )


def _contribution(event: Event | StoredEvent, video: Watched, worth: float, as_of: float) -> Contribution:
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


def _newest_first(entry: Entry) -> tuple[float, str, float]:
    video, at, worth = entry
    return (-at, video, worth)


def _remembered(history: tuple[Entry, ...], entry: Entry) -> tuple[Entry, ...]:
    place = bisect_left(history, _newest_first(entry), key=_newest_first)
    return (*history[:place], entry, *history[place:])[:KEPT_HISTORY]


def aged(profile: Profile, as_of: float) -> Profile:
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
        contributions=profile.contributions.aged((long, recent, negative)),
        habits=profile.habits.aged(age),
    )


def _with(profile: Profile, video_id: str, added: Contribution, video: Watched) -> Profile:
    contributions = profile.contributions.plus(video_id, added)
    # Vectors of another width are of another version of the table: they cannot be compared.
    same = len(profile.long) in (0, len(video.vector))
    liked, disliked = (profile.liked, profile.disliked) if same else ({}, {})
    return replace(
        _sums_with(profile, added.long, added.recent, added.negative, video),
        contributions=contributions,
        liked=_heaviest(liked, contributions, LONG, MOST_LIKED, video_id, video) if added.long else liked,
        disliked=(
            _heaviest(disliked, contributions, NEGATIVE, MOST_DISLIKED, video_id, video) if added.negative else disliked
        ),
    )


def _sums_with(profile: Profile, long: float, recent: float, negative: float, video: Watched) -> Profile:
    vector = video.vector.astype(np.float64)
    wide = len(profile.long) == len(vector)
    zero = np.zeros(len(vector))
    return replace(
        profile,
        long=(profile.long if wide else zero) + long * vector,
        recent=(profile.recent if wide else zero) + recent * vector,
        negative=(profile.negative if wide else zero) + negative * vector,
        long_mass=max(profile.long_mass + long, 0.0),
        recent_mass=max(profile.recent_mass + recent, 0.0),
        negative_mass=max(profile.negative_mass + negative, 0.0),
        tags=_tags_with(profile.tags, long, video.tags),
        negative_tags=_tags_with(profile.negative_tags, negative, video.tags),
    )


def _heaviest(
    kept: Mapping[str, Watched], weights: Contributions, column: int, most: int, video_id: str, video: Watched
) -> Mapping[str, Watched]:
    """`kept` with one more video, and without the lightest when there are more than `most`."""
    if video_id in kept:
        return kept
    more = {**kept, video_id: _compact(video)}
    if len(more) > most:
        del more[max(more, key=lambda name: (-weights.of(name)[column], name))]
    return more


def _compact(video: Watched) -> Watched:
    # A view of the table's matrix would keep all of it in memory for as long as the profile lives.
    return replace(video, vector=video.vector.copy())


def _tags_with(tags: Mapping[str, float], weight: float, added: Mapping[str, float]) -> Mapping[str, float]:
    if not weight:
        return tags
    result = dict(tags)
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
    weights = profile.contributions.weights()
    vectors = np.stack([known[name].vector for name in names]).astype(np.float64)
    long, recent, negative = weights.T @ vectors
    tags: dict[str, float] = {}
    negative_tags: dict[str, float] = {}
    for name, (for_it, _, against) in zip(names, weights.tolist(), strict=True):
        _gather(tags, for_it, known[name].tags)
        _gather(negative_tags, against, known[name].tags)
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
        liked=_chosen(names, weights[:, LONG], known, MOST_LIKED),
        disliked=_chosen(names, weights[:, NEGATIVE], known, MOST_DISLIKED),
    )


def _chosen(names: Sequence[str], weights: Float64, known: Mapping[str, Watched], most: int) -> dict[str, Watched]:
    order = sorted((-weight, name) for name, weight in zip(names, weights.tolist(), strict=True) if weight > 0)
    return {name: _compact(known[name]) for _, name in order[:most]}


def _gather(tags: dict[str, float], weight: float, added: Mapping[str, float]) -> None:
    if weight:
        for tag, share in added.items():
            tags[tag] = tags.get(tag, 0.0) + weight * share


def _kept(tags: Iterable[tuple[str, float]] | Mapping[str, float]) -> dict[str, float]:
    return {tag: weight for tag, weight in dict(tags).items() if weight > NOTHING}
