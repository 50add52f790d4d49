"""What viewers do with videos, checked at the door, and what each act says about interest."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from ranker.watch_time import NO_NORMS, NOBODY, Habit, WatchNorms
from store.artifacts import digest
from store.catalogue import Catalogue, StoredEvent
from store.errors import InputError

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
MOST_LOOPS = 1_000_000
MOST_KIND_LETTERS = 64
KINDS_SET = frozenset(KINDS)


# Free words of a sender: short, and nothing that a terminal or a log would obey.
def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds control characters")
    return text


Label = Annotated[str, AfterValidator(_printable)]


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


Number = Annotated[float, BeforeValidator(_no_truth)]


class Event(BaseModel):
    """One act of one viewer. `at` is seconds since the epoch; of a view, when the watching ended.

    `watched_seconds` may exceed the duration (replays); `loops` is how often the video began anew. The texts say where
    it happened, empty when unknown: `session` names one stretch of one player, `device` its model, `os`, `network`
    (such as wifi or 4g), `region` and `language` as on videos, of the viewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: Annotated[Label, StringConstraints(min_length=1, max_length=64)]
    user: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    video: Annotated[Label, StringConstraints(min_length=1, max_length=32)]
    kind: Kind
    watched_seconds: Number | None = Field(None, ge=0, le=LONGEST_WATCH_SECONDS, allow_inf_nan=False)
    at: Number = Field(ge=0, allow_inf_nan=False)
    loops: int | None = Field(None, ge=0, le=MOST_LOOPS)
    session: Annotated[Label, StringConstraints(max_length=64)] = ""
    device: Annotated[Label, StringConstraints(max_length=64)] = ""
    os: Annotated[Label, StringConstraints(max_length=32)] = ""
    network: Annotated[Label, StringConstraints(max_length=16)] = ""
    region: Annotated[Label, StringConstraints(max_length=16, to_upper=True)] = ""
    language: Annotated[Label, StringConstraints(max_length=16)] = ""

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
        **where: Any,
    ) -> Event:
        """An event from what a stranger sent; `where` are the other fields. Without `at` it happened now; without `id`
        its id is derived from user, video, kind and time, so that a message sent twice is one event. Raises
        `event.invalid`."""
        clock = time.time() if now is None else now
        happened = clock if at is None else at
        if kind not in KINDS:
            raise InputError("event.invalid", f"There is no event kind {str(kind)[:40]!r}.", hint=f"One of {KINDS}.")
        if not isinstance(user, str):
            raise InputError("event.invalid", "The viewer's name (user) must be text.", hint='Send "7" for 7.')
        if not (user.strip() and user.isprintable()):
            raise InputError("event.invalid", "The viewer's name is empty or holds control characters.")
        try:
            named = id if id is not None else event_id(user, video, kind, float(happened))
            event = cls.model_validate(
                {"id": named, "user": user, "video": video, "kind": kind, "watched_seconds": watched_seconds,
                 "at": happened, **where}
            )  # fmt: skip
        except (ValidationError, ValueError, TypeError, OverflowError) as error:
            raise InputError("event.invalid", f"The event makes no sense: {_first(error)}.") from None
        if event.at > clock + CLOCK_SKEW_SECONDS:
            raise InputError("event.invalid", "The event lies more than a day in the future.", hint="Check the clock.")
        return event

    def stored(self, kind: str | None = None) -> StoredEvent:
        """The event as a row of the log; `kind` in place of its own."""
        return StoredEvent.model_construct(
            sequence=0,
            id=self.id,
            user_id=self.user,
            video_id=self.video,
            kind=self.kind if kind is None else kind,
            watched_seconds=self.watched_seconds,
            at=self.at,
            loops=self.loops,
            session=self.session,
            device=self.device,
            os=self.os,
            network=self.network,
            region=self.region,
            language=self.language,
        )


def checked_line(line: Any, now: float) -> StoredEvent:
    """The event of one line of a batch, an object with the fields of `Event` (`watched` may stand for
    `watched_seconds`; null is as good as nothing). A kind that is not known passes, so that it can be set aside rather
    than lost: the sender may be newer than this program. Raises `event.invalid`."""
    if not isinstance(line, dict):
        raise InputError("event.invalid", "The line is no object with the fields of an event.")
    given = {name: value for name, value in line.items() if value is not None}
    if "watched" in given:
        if "watched_seconds" in given:
            raise InputError("event.invalid", "The event has both `watched` and `watched_seconds`.")
        given["watched_seconds"] = given.pop("watched")
    missing = [name for name in ("user", "video", "kind") if name not in given]
    if missing:
        raise InputError("event.invalid", f"The event has no {missing[0]}.")
    unknown = sorted(str(name)[:40] for name in given.keys() - Event.model_fields.keys())
    if unknown:
        raise InputError("event.invalid", f"There is no field {unknown[0]!r} in an event.")
    kind = given["kind"]
    if isinstance(kind, str) and kind in KINDS_SET:
        return Event.checked(now=now, **given).stored()
    if not (isinstance(kind, str) and 0 < len(kind) <= MOST_KIND_LETTERS and kind.isprintable()):
        raise InputError("event.invalid", f"There is no event kind {str(kind)[:40]!r}.", hint=f"One of {KINDS}.")
    given.setdefault("at", now)
    if "id" not in given:
        given["id"] = _named(given)
    return Event.checked(now=now, **(given | {"kind": "view"})).stored(kind)


def _named(given: dict[str, Any]) -> str:
    try:
        return event_id(given["user"], given["video"], given["kind"], float(given["at"]))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError("event.invalid", f"The event makes no sense: {error}.") from None


def event_id(user: str, video: str, kind: str, at: float) -> str:
    """32 hex digits: the same act at the same time has the same id. Raises ValueError for a time that is no number."""
    return digest([user, video, kind, at], 32)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {_said(first['type'], first)}"
    return str(error)


def _said(kind: str, first: Any) -> str:
    """Our words where pydantic speaks of strings and items."""
    if kind in ("string_too_long", "too_long"):
        return f"more than {first['ctx']['max_length']} characters"
    if kind in ("string_too_short", "too_short"):
        return "empty"
    return "must be text" if kind == "string_type" else str(first["msg"]).removeprefix("Value error, ")


def value(
    event: Event | StoredEvent,
    duration_seconds: float | None,
    norms: WatchNorms = NO_NORMS,
    habit: Habit = NOBODY,
) -> float:
    """How much the act speaks for (above 0) or against (below 0) the video; a finished view of a long video is near 1.

    A view counts by completion c = watched / duration, at most 1. Below q it is a quick skip, worth -0.5 (at 0) to 0
    (at q); above, it rises evenly to 1. q is 15 % of the duration and at most 10 seconds: a minute of an hour is no
    quick skip. Finishing five seconds is easier than finishing a minute (duration bias: Zhan et al. 2022,
    "Deconfounding duration bias in watch-time prediction"), so what speaks for a video is scaled by
    duration / (duration + 3 s). A view of unknown length says little: 0.3.

    That scale is a guess. As `norms` holds views of videos of like length, what speaks for the video becomes the
    quantile of the seconds among those (`ranker.watch_time`), rescaled to 0 at q, and seen against the viewer's `habit`
    where one is given; n views count as n / (n + 50). Without norms and habit the guess alone counts.
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
    guess = (completion - quick) / (1.0 - quick) * duration_seconds / (duration_seconds + SHORT_SECONDS)
    trust = norms.trust(duration_seconds)
    if trust == 0:
        return guess
    reached = habit.relative(norms.quantile(event.watched_seconds, duration_seconds))
    floor = habit.relative(norms.quantile(quick * duration_seconds, duration_seconds))
    measured = (reached - floor) / (1.0 - floor) if floor < 1 else 0.0
    return (1.0 - trust) * guess + trust * min(max(measured, 0.0), 1.0)


def completion_of(watched_seconds: float, duration_seconds: float) -> float:
    """The share of the video that was watched, 0..1; replays do not count twice."""
    return min(watched_seconds / duration_seconds, 1.0) if math.isfinite(duration_seconds) else 0.0


def record(catalogue: Catalogue, event: Event) -> bool:
    """Store the event; true when it is new and counts (false: it was known already, or is set aside). Raises
    `video.unknown` when nobody ever added the video; one that is still being processed is fine."""
    from ranker.cleaning import take_one

    return take_one(catalogue, event).state == "new"
