"""Profiles: folding events one by one gives what building from all of them gives, in any order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.events import KINDS, Event
from ranker.profile_view import describe
from ranker.profiles import (
    LONG_HALF_LIFE_SECONDS,
    RECENT_HALF_LIFE_SECONDS,
    Profile,
    build,
    fold,
    watched_of,
    without,
)
from ranker.video_table import VideoTable
from tests.ranker.builders import NOON, World, two_tastes, video_id

NAMES = ("cooking 0", "cooking 1", "cars 0", "cars 1", "clouds", "never published")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> VideoTable:
    folder: Path = tmp_path_factory.mktemp("profiles")
    world = World.at(folder)
    two_tastes(world, each=2)
    return world.table


def event(name: str, kind: str, watched: float | None = None, at: float = NOON) -> Event:
    return Event.checked(user="ana", video=video_id(name), kind=kind, watched_seconds=watched, at=at, now=NOON)


def folded(events: Sequence[Event], table: VideoTable) -> Profile:
    profile = Profile()
    for item in events:
        profile = fold(profile, item, watched_of(table.snapshot, item.video))
    return profile


def assert_same(one: Profile, other: Profile) -> None:
    assert one.as_of == other.as_of
    assert dict(one.counts) == dict(other.counts)
    assert one.seen == other.seen
    assert one.creators == other.creators
    for name in ("long", "recent", "negative"):
        left, right = getattr(one, name), getattr(other, name)
        assert len(left) == len(right) or not (left.any() or right.any())
        assert len(left) != len(right) or np.allclose(left, right, atol=1e-9)
    for name in ("long_mass", "recent_mass", "negative_mass"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-9)
    for name in ("tags", "negative_tags"):
        left, right = getattr(one, name), getattr(other, name)
        for tag in {*left, *right}:
            assert left.get(tag, 0.0) == pytest.approx(right.get(tag, 0.0), abs=1e-9)
    assert set(one.contributions) == set(other.contributions)
    for video, part in one.contributions.items():
        same = other.contributions[video]
        assert (part.long, part.recent, part.negative) == pytest.approx(
            (same.long, same.recent, same.negative), abs=1e-9
        )
        assert (part.act, part.act_value, part.followed) == (same.act, same.act_value, same.followed)


histories = st.lists(
    st.builds(
        event,
        st.sampled_from(NAMES),
        st.sampled_from(KINDS),
        st.one_of(st.none(), st.floats(0, 60)),
        st.floats(NOON - 200 * 86_400, NOON),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(events=histories)
def test_folding_equals_building(table: VideoTable, events: list[Event]) -> None:
    assert_same(folded(events, table), build(events, table))


@settings(deadline=None, max_examples=75)
@given(events=histories, random=st.randoms(use_true_random=False))
def test_late_arrivals_make_no_difference(table: VideoTable, events: list[Event], random: Random) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)
    assert_same(folded(shuffled, table), folded(sorted(events, key=lambda item: item.at), table))


@settings(deadline=None, max_examples=75)
@given(events=histories, name=st.sampled_from(NAMES))
def test_without_is_the_profile_that_never_met_the_video(table: VideoTable, events: list[Event], name: str) -> None:
    video = watched_of(table.snapshot, video_id(name))
    rest = [item for item in events if item.video != video_id(name)]
    if video is None or not rest:
        return
    profile = build(events, table)
    # The same moment, so that only the video is different.
    profile_of_rest = build([*rest, event("never published", "view", at=profile.as_of)], table)
    reduced = without(profile, video_id(name), video)
    for part in ("long", "recent", "negative"):
        left, right = getattr(reduced, part), getattr(profile_of_rest, part)
        assert np.allclose(left, right if len(right) else 0.0, atol=1e-9)
    for tag in {*reduced.tags, *profile_of_rest.tags}:
        assert reduced.tags.get(tag, 0.0) == pytest.approx(profile_of_rest.tags.get(tag, 0.0), abs=1e-9)
    assert reduced.creators == profile_of_rest.creators
    assert reduced.seen | {video_id("never published")} == profile_of_rest.seen


def test_interest_halves_with_its_half_life(table: VideoTable) -> None:
    old = event("cooking 0", "like", at=NOON - LONG_HALF_LIFE_SECONDS)
    profile = build([old, event("cars 0", "like", at=NOON)], table)
    long = {name: part.long for name, part in profile.contributions.items()}
    assert long[video_id("cooking 0")] == pytest.approx(0.5 * long[video_id("cars 0")])
    two_hours = build([event("cooking 0", "like", at=NOON - RECENT_HALF_LIFE_SECONDS), event("cars 0", "like")], table)
    assert two_hours.contributions[video_id("cooking 0")].recent == pytest.approx(0.5)


def test_refusals_go_to_the_negative_side_only(table: VideoTable) -> None:
    profile = build([event("cars 0", "not_interested"), event("cars 1", "skip", 0.3)], table)
    assert profile.long_mass == profile.recent_mass == 0
    assert not profile.tags
    assert profile.negative_tags["cars"] == pytest.approx(2.5)
    cars = table.get(video_id("cars 0")).vector
    assert profile.negative @ cars / np.linalg.norm(profile.negative) > 0.9


def test_follow_is_remembered_by_creator_and_every_act_marks_as_seen(table: VideoTable) -> None:
    profile = build([event("cooking 0", "follow"), event("cars 0", "skip"), event("never published", "like")], table)
    assert profile.creators == {"chef"}
    assert profile.seen == {video_id("cooking 0"), video_id("cars 0"), video_id("never published")}
    assert dict(profile.counts) == {"follow": 1, "skip": 1, "like": 1}


def test_a_finish_is_told_from_a_view(table: VideoTable) -> None:
    profile = build([event("cooking 0", "view", 19.5), event("cooking 1", "view", 8.0)], table)
    assert profile.contributions[video_id("cooking 0")].act == "finish"
    assert profile.contributions[video_id("cooking 1")].act == "view"


def test_no_events_is_an_empty_profile(table: VideoTable) -> None:
    assert build([], table).events == 0
    assert describe(build([], table), table)["tags"] == {}


def test_the_description_is_json_with_the_strongest_first(table: VideoTable) -> None:
    events = [event("cooking 0", "share"), event("cars 0", "view", 12.0), event("clouds", "not_interested")]
    document = describe(build(events, table), table)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert next(iter(document["tags"])) == "cooking"
    assert document["negative_tags"] == {"clouds": pytest.approx(2.0)}
    assert document["events"] == 3
    assert len(document["seen"]) == 3
    assert document["videos"][0]["title"] == "cooking 0"
