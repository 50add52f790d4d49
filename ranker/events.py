"""What viewers do with videos, checked at the door, and what each act says about interest."""

from __future__ import annotations

import math
import time
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from store.artifacts import digest
from store.catalogue import Catalogue, StoredEvent
from store.errors import InputError, NotFoundError

Kind = Literal[
    "view", "like", "comment", "share", "repost", "follow", "favourite", "skip", "not_interested", "report"
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)

# A finished view is worth 1. Rarer and more costly acts say more; refusals say it twice as loud.
ACT_VALUES: dict[str, float] = {
    "like": 1.0,
    "comment": 1.0,
    "favourite": 1.5,
    "repost": 1.5,
    "share": 2.0,
    "follow": 2.0,
    "skip": -0.5,
    "not_interested": -2.0,
    "report": -3.0,
}
UNMEASURED_VIEW_VALUE = 0.3
QUICK_SKIP_SHARE = 0.15
QUICK_SKIP_SECONDS = 10.0
SHORT_SECONDS = 3.0
CLOCK_SKEW_SECONDS = 86_400.0
LONGEST_WATCH_SECONDS = 7 * 86_400.0


class Event(BaseModel):
    """One act of one viewer. `watched_seconds` may exceed the duration (replays); `at` is seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    user: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    video: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    kind: Kind
    watched_seconds: float | None = Field(None, ge=0, le=LONGEST_WATCH_SECONDS, allow_inf_nan=False)
    at: float = Field(ge=0, allow_inf_nan=False)

    @classmethod
    def checked(
        cls,
        *,
        user: str,
        video: str,
        kind: str,
        watched_seconds: float | None = None,
        at: float | None = None,
        id: str | None = None,
        now: float | None = None,
    ) -> Event:
        """An event from what a stranger sent. Without `at` it happened now; without `id` its id is derived from user,
        video, kind and time, so that a message sent twice is one event. Raises `event.invalid`."""
        clock = time.time() if now is None else now
        happened = clock if at is None else at
        if kind not in KINDS:
            raise InputError("event.invalid", f"There is no event kind {str(kind)[:40]!r}.", hint=f"One of {KINDS}.")
        if not (isinstance(user, str) and user.strip() and user.isprintable()):
            raise InputError("event.invalid", "The viewer's name is empty or holds control characters.")
        try:
            named = id if id is not None else event_id(user, video, kind, float(happened))
            event = cls.model_validate(
                {"id": named, "user": user, "video": video, "kind": kind, "watched_seconds": watched_seconds,
                 "at": happened}
            )  # fmt: skip
        except (ValidationError, ValueError, TypeError) as error:
            raise InputError("event.invalid", f"The event makes no sense: {_first(error)}.") from None
        if event.at > clock + CLOCK_SKEW_SECONDS:
            raise InputError("event.invalid", "The event lies more than a day in the future.", hint="Check the clock.")
        return event


def event_id(user: str, video: str, kind: str, at: float) -> str:
    """32 hex digits: the same act at the same time has the same id. Raises ValueError for a time that is no number."""
    return digest([user, video, kind, at], 32)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)


def value(event: Event | StoredEvent, duration_seconds: float | None) -> float:
    """How much the act speaks for (above 0) or against (below 0) the video; a finished view of a long video is near 1.

    A view counts by completion c = watched / duration, at most 1. Below q it is a quick skip, worth -0.5 (at 0) to 0
    (at q); above, it rises evenly to 1. q is 15 % of the duration and at most 10 seconds: a minute of an hour is no
    quick skip. Finishing five seconds is easier than finishing a minute (duration bias: Zhan et al. 2022,
    "Deconfounding duration bias in watch-time prediction"), so what speaks for a video is scaled by
    duration / (duration + 3 s). A view of unknown length says little: 0.3.
    """
    if event.kind != "view":
        # A kind that a newer version stored says nothing here.
        return ACT_VALUES.get(event.kind, 0.0)
    if event.watched_seconds is None or duration_seconds is None or not duration_seconds > 0:
        return UNMEASURED_VIEW_VALUE
    completion = completion_of(event.watched_seconds, duration_seconds)
    quick = min(QUICK_SKIP_SHARE, QUICK_SKIP_SECONDS / duration_seconds)
    if completion < quick:
        return ACT_VALUES["skip"] * (1.0 - completion / quick)
    return (completion - quick) / (1.0 - quick) * duration_seconds / (duration_seconds + SHORT_SECONDS)


def completion_of(watched_seconds: float, duration_seconds: float) -> float:
    """The share of the video that was watched, 0..1; replays do not count twice."""
    return min(watched_seconds / duration_seconds, 1.0) if math.isfinite(duration_seconds) else 0.0


def record(catalogue: Catalogue, event: Event) -> bool:
    """Store the event; false when it was known already. It counts in the next feed. Raises `video.unknown` when nobody
    ever added the video; one that is still being processed is fine."""
    if not catalogue.videos([event.video]):
        raise NotFoundError(
            "video.unknown", f"There is no video {event.video!r}.", hint="`reelsense status` lists them."
        )
    stored = StoredEvent(
        id=event.id,
        user_id=event.user,
        video_id=event.video,
        kind=event.kind,
        watched_seconds=event.watched_seconds,
        at=event.at,
    )
    return catalogue.add_events([stored]) == 1
