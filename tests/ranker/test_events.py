"""Events: what is refused at the door, and what each act is worth."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.events import KINDS, Event, checked_line, record, value
from store.errors import InputError, NotFoundError
from store.event_log import EventLog
from tests.ranker.builders import NOON, World, video_id

VIDEO = video_id("any")


def viewed(watched: float | None) -> Event:
    return Event.checked(user="ana", video=VIDEO, kind="view", watched_seconds=watched, at=NOON, now=NOON)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "adore"},
        {"kind": ""},
        {"watched_seconds": -0.1},
        {"watched_seconds": math.nan},
        {"watched_seconds": math.inf},
        {"watched_seconds": 1e9},
        {"watched_seconds": "long"},
        {"at": math.nan},
        {"at": math.inf},
        {"at": -1.0},
        {"at": NOON + 2 * 86_400},
        {"at": "yesterday"},
        {"user": ""},
        {"user": "  "},
        {"user": "an\na"},
        {"user": "a" * 201},
        {"video": ""},
        {"video": "f" * 33},
        {"id": ""},
        {"id": "i" * 65},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    given = {"user": "ana", "video": VIDEO, "kind": "view", "watched_seconds": 3.0, "at": NOON, "now": NOON} | wrong
    with pytest.raises(InputError) as raised:
        Event.checked(**given)  # type: ignore[arg-type]
    assert raised.value.code == "event.invalid"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"network": "x" * 17}, "network: more than 16 characters"),
        ({"session": "s" * 65}, "session: more than 64 characters"),
        ({"user": "u" * 201}, "user: more than 200 characters"),
        ({"id": ""}, "id: empty"),
        ({"video": 7}, "video: must be text"),
        ({"user": 7}, "The viewer's name (user) must be text."),
        ({"device": "a\tb"}, "device: holds control characters"),
    ],
)
def test_it_is_said_in_plain_words(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        checked_line({"user": "ana", "video": VIDEO, "kind": "view", "at": NOON} | wrong, NOON)


def test_a_clock_that_is_a_little_ahead_is_forgiven() -> None:
    event = Event.checked(user="ana", video=VIDEO, kind="like", at=NOON + 3600, now=NOON)
    assert event.at == NOON + 3600


def test_the_id_follows_from_user_video_kind_and_time() -> None:
    def named(**changed: object) -> str:
        given = {"user": "ana", "video": VIDEO, "kind": "like", "at": NOON, "now": NOON} | changed
        return Event.checked(**given).id  # type: ignore[arg-type]

    assert named() == named() == named(watched_seconds=4.0) == named(at=int(NOON))
    others = [named(user="ben"), named(video=video_id("other")), named(kind="share"), named(at=NOON - 1)]
    assert len({named(), *others}) == 5
    assert named(id="mine") == "mine"


def test_an_event_goes_to_json_and_back() -> None:
    event = viewed(3.5)
    assert Event.model_validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize("kind", ["like", "comment", "share", "repost", "follow", "favourite"])
def test_kind_acts_speak_for_a_video(kind: str) -> None:
    assert value(Event.checked(user="a", video=VIDEO, kind=kind, now=NOON), 20.0) > 0


@pytest.mark.parametrize("kind", ["skip", "not_interested", "report"])
def test_refusals_speak_against_it(kind: str) -> None:
    assert value(Event.checked(user="a", video=VIDEO, kind=kind, now=NOON), 20.0) < 0


def test_every_kind_has_a_worth() -> None:
    events = [Event.checked(user="a", video=VIDEO, kind=kind, watched_seconds=9.0, now=NOON) for kind in KINDS]
    assert all(value(event, 20.0) != 0 for event in events)


@given(st.floats(0.5, 3600), st.floats(0, 1), st.floats(0, 1))
def test_watching_more_is_never_worth_less(duration: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert value(viewed(low * duration), duration) <= value(viewed(high * duration), duration) + 1e-12
    assert -0.5 <= value(viewed(low * duration), duration) <= 1


@given(st.floats(0.5, 3600))
def test_a_finish_speaks_for_it_a_quick_skip_against_it_and_a_replay_is_a_finish(duration: float) -> None:
    assert value(viewed(duration), duration) > 0.1
    assert value(viewed(0.0), duration) == -0.5
    assert value(viewed(3 * duration), duration) == value(viewed(duration), duration)


def test_a_seventh_of_a_short_video_is_a_skip_and_a_minute_of_an_hour_is_not() -> None:
    assert value(viewed(2.8), 20.0) < 0 < value(viewed(3.2), 20.0)
    assert value(viewed(60.0), 3600.0) > 0


def test_finishing_a_longer_video_is_worth_more() -> None:
    assert value(viewed(4.0), 4.0) < value(viewed(15.0), 15.0) < value(viewed(60.0), 60.0) < 1


def test_a_view_of_unknown_length_is_worth_a_little() -> None:
    assert 0 < value(viewed(None), 20.0) < value(viewed(20.0), 20.0)
    assert value(viewed(5.0), None) == value(viewed(5.0), 0.0) == value(viewed(None), 20.0)


def test_an_event_is_stored_once(world: World) -> None:
    world.enter("any")
    event = viewed(3.0)
    assert record(world.catalogue, event) is True
    assert record(world.catalogue, event) is False
    [stored] = EventLog(world.catalogue).of("ana")
    assert (stored.id, stored.video_id, stored.kind, stored.watched_seconds, stored.at) == (
        event.id, VIDEO, "view", 3.0, NOON,
    )  # fmt: skip


def test_an_event_of_a_video_nobody_added_is_refused(world: World) -> None:
    with pytest.raises(NotFoundError) as raised:
        record(world.catalogue, viewed(3.0))
    assert raised.value.code == "video.unknown"
    assert EventLog(world.catalogue).of("ana") == []
