"""Which videos go together because the same people finish them: what a fusion can learn from engagement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from ranker.events import completion_of
from store.catalogue import StoredEvent

FINISHED_SHARE = 0.9
# Acts of somebody who cannot have disliked the video, finished or not.
APPROVING = frozenset(("like", "comment", "share", "repost", "favourite", "follow"))
NEXT = 5

Pair = tuple[str, str]


def finished_histories(events: Iterable[StoredEvent], durations: Mapping[str, float]) -> list[list[str]]:
    """What each viewer finished or approved of, once each, by time; viewers of one video or none are left out.

    `events` are sorted by viewer, then by time (`EventLog.all`); `durations` in seconds by video. Videos that
    are not in it are passed over.
    """
    found = (
        list(dict.fromkeys(_finished(acts, durations))) for _, acts in groupby(events, key=lambda event: event.user_id)
    )
    return [history for history in found if len(history) > 1]


def finished_together(histories: Iterable[Sequence[str]]) -> list[Pair]:
    """Pairs of videos (ids in order) of one history, as often as that was so: each with the next `NEXT` in time, so
    that a viewer of a thousand videos does not outvote all others."""
    return [
        (min(video, other), max(video, other))
        for history in histories
        for place, video in enumerate(history)
        for other in history[place + 1 : place + 1 + NEXT]
    ]


def _finished(acts: Iterable[StoredEvent], durations: Mapping[str, float]) -> Iterator[str]:
    for act in acts:
        duration = durations.get(act.video_id)
        if duration is None or not duration > 0:
            continue
        watched = act.watched_seconds or 0.0
        if act.kind in APPROVING or (act.kind == "view" and completion_of(watched, duration) >= FINISHED_SHARE):
            yield act.video_id
