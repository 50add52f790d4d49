"""Which events count: rules that set events aside with their reason, as they come. Nothing is dropped.

An event is judged once, when it arrives, against the stored events of the same viewer that lie near it in time, before
and after; so late and out-of-order events are as good as others, and what was stored is never judged anew. Of two
events that cannot both be true the one that arrives later is set aside; within one batch, the later in time.

The thresholds are what no person reaches, not what is unusual: an odd viewer must not be silenced. They are explained
in docs/behaviour.md.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ranker.events import KINDS_SET, Event
from store.catalogue import Catalogue, StoredEvent
from store.errors import InputError, NotFoundError
from store.event_log import EventLog, Outcome, Verdict, video_durations

REASONS: dict[str, str] = {
    "unknown_kind": "A kind of event that this version does not know.",
    "duplicate": "The same act of the same viewer on the same video within a second, under another id.",
    "impossible_wall_time": "Watched for longer than the time since the session's previous view allows.",
    "impossible_replays": "Watched at least 40 times the video's length within a minute.",
    "bot_rate": "More acts in a minute than a person can do.",
}

DUPLICATE_SECONDS = 1.0
# Players go up to double speed; what is reported is rounded and batched by networks.
FASTEST_PLAYBACK = 2.0
SLACK_SECONDS = 5.0
REPLAYS = 40.0
MINUTE = 60.0
# Five acts a second for a whole minute: a thumb swipes twice a second at the most, and a swipe is a view and a skip.
MOST_ACTS = 300
# Acts that take a decision and a tap each: two in three seconds, for a whole minute.
MOST_DELIBERATE = 100
# Comments have to be typed: one every two seconds, for a whole minute.
MOST_COMMENTS = 30
DELIBERATE = frozenset(("like", "comment", "share", "repost", "follow", "favourite", "not_interested", "report"))
# A view that was stored already is checked against a newcomer before it if it lies within so many seconds.
AHEAD_SECONDS = 600.0
# No further back than this is looked, so that one claim of a week of watching does not read a week of events.
BACK_SECONDS = 6 * 3600.0


def reach(event: StoredEvent) -> tuple[float, float]:
    """How far back and ahead, in seconds, other events bear on this one: a minute for rates, and back as far as the
    watching itself could go, within limits."""
    back = min(max(MINUTE, (event.watched_seconds or 0.0) / FASTEST_PLAYBACK), BACK_SECONDS)
    return back, AHEAD_SECONDS if event.kind == "view" and event.session else MINUTE


def judge(
    new: Sequence[StoredEvent], near: Sequence[StoredEvent], durations: Mapping[str, float]
) -> dict[int, Verdict]:
    """Which of `new` are to be set aside, by place, and why. `near` holds the stored events of the same viewers around
    them; `durations` in seconds by video, 0 where unknown."""
    past: dict[str, _Viewer] = {}
    for event in near:
        past.setdefault(event.user_id, _Viewer()).add(event)
    verdicts: dict[int, Verdict] = {}
    for place in sorted(range(len(new)), key=lambda place: (new[place].at, new[place].id)):
        event = new[place]
        viewer = past.setdefault(event.user_id, _Viewer())
        verdict = _verdict(event, viewer, durations.get(event.video_id, 0.0))
        if verdict is None:
            viewer.add(event)
        else:
            verdicts[place] = verdict
    return verdicts


@dataclass
class _Viewer:
    """The acts of one viewer that count, each list sorted by time."""

    acts: list[float] = field(default_factory=list)
    deliberate: list[float] = field(default_factory=list)
    comments: list[float] = field(default_factory=list)
    same: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    # (at, watched seconds) by session, and by video.
    sessions: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    videos: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, event: StoredEvent) -> None:
        """Note one more act that counts."""
        bisect.insort(self.acts, event.at)
        if event.kind in DELIBERATE:
            bisect.insort(self.deliberate, event.at)
        if event.kind == "comment":
            bisect.insort(self.comments, event.at)
        bisect.insort(self.same.setdefault((event.video_id, event.kind), []), event.at)
        if event.kind == "view":
            view = (event.at, event.watched_seconds or 0.0)
            bisect.insort(self.videos.setdefault(event.video_id, []), view)
            if event.session:
                bisect.insort(self.sessions.setdefault(event.session, []), view)


def _verdict(event: StoredEvent, viewer: _Viewer, duration: float) -> Verdict | None:
    if event.kind not in KINDS_SET:
        return Verdict("unknown_kind", f"There is no kind {event.kind!r}.")
    return (
        _duplicate(event, viewer)
        or _beyond_wall_time(event, viewer)
        or _too_many_replays(event, viewer, duration)
        or _too_fast(event, viewer)
    )


def _duplicate(event: StoredEvent, viewer: _Viewer) -> Verdict | None:
    times = viewer.same.get((event.video_id, event.kind), [])
    place = bisect.bisect_left(times, event.at)
    for other in times[max(place - 1, 0) : place + 1]:
        if abs(other - event.at) < DUPLICATE_SECONDS:
            return Verdict("duplicate", f"The same {event.kind} came {abs(other - event.at):.3f} seconds apart.")
    return None


def _beyond_wall_time(event: StoredEvent, viewer: _Viewer) -> Verdict | None:
    """A view ended at `at`; the session's previous view ended at its own; watching fits in between at double speed."""
    views = viewer.sessions.get(event.session, []) if event.kind == "view" and event.session else []
    watched = event.watched_seconds or 0.0
    place = bisect.bisect_right(views, (event.at, float("inf")))
    if place and watched > _room(event.at - views[place - 1][0]):
        gap = event.at - views[place - 1][0]
        return Verdict("impossible_wall_time", f"Watched {watched:.1f} s, {gap:.1f} s after the session's last view.")
    if place < len(views):
        following, its_watched = views[place]
        if its_watched > _room(following - event.at):
            return Verdict(
                "impossible_wall_time",
                f"It ends {following - event.at:.1f} s before a view of {its_watched:.1f} s in the same session.",
            )
    return None


def _room(gap: float) -> float:
    """The most seconds of video that can be watched in `gap` seconds of time."""
    return FASTEST_PLAYBACK * gap + SLACK_SECONDS


def _too_many_replays(event: StoredEvent, viewer: _Viewer, duration: float) -> Verdict | None:
    """Watched 40 times its length in a minute: all views of the video in the minute up to this one, when the viewer did
    something else in that minute (so no more than a minute can have passed), and more than a minute can hold."""
    if event.kind != "view" or not duration > 0 or not _within(viewer.acts, event.at - MINUTE, event.at):
        return None
    views = viewer.videos.get(event.video_id, [])
    low = bisect.bisect_left(views, (event.at - MINUTE, -1.0))
    high = bisect.bisect_right(views, (event.at, float("inf")))
    watched = (event.watched_seconds or 0.0) + sum(seconds for _, seconds in views[low:high])
    if watched >= REPLAYS * duration and watched > _room(MINUTE):
        return Verdict("impossible_replays", f"Watched {watched:.0f} s of a video of {duration:.1f} s in a minute.")
    return None


def _too_fast(event: StoredEvent, viewer: _Viewer) -> Verdict | None:
    kinds = [("acts", viewer.acts, MOST_ACTS)]
    if event.kind in DELIBERATE:
        kinds.append(("deliberate acts", viewer.deliberate, MOST_DELIBERATE))
    if event.kind == "comment":
        kinds.append(("comments", viewer.comments, MOST_COMMENTS))
    for name, times, most in kinds:
        # Any minute that holds this event: the most are found by sliding over those around it.
        if len(times) >= most and _densest(times, event.at) >= most:
            return Verdict("bot_rate", f"More than {most} {name} in a minute.")
    return None


def _densest(times: Sequence[float], at: float) -> int:
    """The most of the sorted `times` that any minute holds which holds `at` too."""
    starts = [*times[bisect.bisect_right(times, at - MINUTE) : bisect.bisect_right(times, at)], at]
    return max(bisect.bisect_left(times, start + MINUTE) - bisect.bisect_left(times, start) for start in starts)


def _within(times: Sequence[float], first: float, last: float) -> bool:
    """Whether one of the sorted times lies in (first, last]."""
    return bisect.bisect_right(times, last) > bisect.bisect_right(times, first)


def take_all(
    catalogue: Catalogue, events: Sequence[StoredEvent], now: float | None = None
) -> list[Outcome | InputError]:
    """Store a batch, cleaned: what became of each, in order; `video.unknown` for one whose video nobody ever added."""
    durations = video_durations(catalogue, (event.video_id for event in events))
    sound = [event for event in events if event.video_id in durations]
    outcomes = iter(
        EventLog(catalogue).take(
            sound,
            lambda new, near: judge(new, near, durations),
            reach,
            time.time() if now is None else now,
        )
    )
    return [
        next(outcomes)
        if event.video_id in durations
        else NotFoundError(
            "video.unknown", f"There is no video {event.video_id[:64]!r}.", hint="`reelsense status` lists them."
        )
        for event in events
    ]


def take_one(catalogue: Catalogue, event: Event) -> Outcome:
    """Store one event, cleaned. Raises `video.unknown`, and `event.forgotten` for an act that lies before its viewer
    was forgotten."""
    [result] = take_all(catalogue, [event.stored()])
    if isinstance(result, InputError):
        raise result
    if result.state == "forgotten":
        raise forgotten_error()
    return result


def forgotten_error() -> InputError:
    """What is said of an event of a forgotten viewer; it does not name them."""
    return InputError(
        "event.forgotten",
        "The viewer was forgotten, and the event lies before that: it is not taken.",
        hint="Take the viewer's lines out of the file. Acts after that time are welcome.",
    )


def counted(results: Iterable[Outcome | InputError]) -> dict[str, int]:
    """How many results there are of each kind: new, known, set_aside, refused."""
    counts = {"new": 0, "known": 0, "set_aside": 0, "refused": 0}
    for result in results:
        if isinstance(result, InputError) or result.state == "forgotten":
            counts["refused"] += 1
        else:
            counts[result.state] += 1
    return counts
