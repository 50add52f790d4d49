"""Profiles: folding events one by one gives what building from all of them gives, in any order."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.events import KINDS, Event
from ranker.interests import MOST_LIKED
from ranker.profile_view import describe
from ranker.profiles import (
    KEPT_HISTORY,
    LONG_HALF_LIFE_SECONDS,
    RECENT_HALF_LIFE_SECONDS,
    Profile,
    build,
    fold,
    video_of,
    watched_of,
    without,
)
from ranker.video_table import VideoTable
from store.catalogue import StoredEvent
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


def folded(events: Sequence[Event | StoredEvent], table: VideoTable) -> Profile:
    profile = Profile()
    for item in events:
        profile = fold(profile, item, watched_of(table.snapshot, video_of(item)))
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
    assert_same_view(one, other)
    for video, part in one.contributions.items():
        same = other.contributions[video]
        assert (part.long, part.recent, part.negative) == pytest.approx(
            (same.long, same.recent, same.negative), abs=1e-9
        )
        assert (part.act, part.act_value, part.followed) == (same.act, same.act_value, same.followed)


def assert_same_view(one: Profile, other: Profile) -> None:
    """All that was added to the sums: history, habits, interests."""
    assert one.history == other.history
    assert one.hours == pytest.approx(other.hours, abs=1e-9)
    for name in ("regions", "languages", "devices", "systems", "networks"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-9)
    for name in ("interests", "dislikes"):
        left, right = getattr(one, name), getattr(other, name)
        # Interests of equal mass may change places by rounding.
        left, right = (sorted(interests, key=lambda item: sorted(item.videos)) for interests in (left, right))
        assert [sorted(item.videos) for item in left] == [sorted(item.videos) for item in right]
        for mine, theirs in zip(left, right, strict=True):
            assert mine.mass == pytest.approx(theirs.mass, rel=1e-6)
            assert mine.tags == pytest.approx(theirs.tags, abs=1e-6)
            assert np.allclose(mine.vector, theirs.vector, atol=1e-6)


def stored(
    name: str, kind: str, watched: float | None, at: float, region: str, language: str, device: str
) -> StoredEvent:
    return StoredEvent(
        id=f"{name}-{kind}-{at}", user_id="ana", video_id=video_id(name), kind=kind, watched_seconds=watched, at=at,
        region=region, language=language, device=device, os=device and "android", network=device and "wifi",
    )  # fmt: skip


histories = st.lists(
    st.builds(
        stored,
        st.sampled_from(NAMES),
        st.sampled_from(KINDS),
        st.one_of(st.none(), st.floats(0, 60)),
        st.floats(NOON - 200 * 86_400, NOON),
        st.sampled_from(("", "DE", "FR")),
        st.sampled_from(("", "de", "fr")),
        st.sampled_from(("", "Pixel 9", "Fairphone 6")),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(events=histories)
def test_folding_equals_building(table: VideoTable, events: list[StoredEvent]) -> None:
    assert_same(folded(events, table), build(events, table))


@settings(deadline=None, max_examples=75)
@given(events=histories, random=st.randoms(use_true_random=False))
def test_late_arrivals_make_no_difference(table: VideoTable, events: list[StoredEvent], random: Random) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)
    assert_same(folded(shuffled, table), folded(sorted(events, key=lambda item: item.at), table))


@settings(deadline=None, max_examples=75)
@given(events=histories, split=st.integers(0, 12))
def test_a_built_profile_can_be_folded_on(table: VideoTable, events: list[StoredEvent], split: int) -> None:
    profile = build(events[:split], table)
    for item in events[split:]:
        profile = fold(profile, item, watched_of(table.snapshot, item.video_id))
    assert_same(profile, build(events, table))


@settings(deadline=None, max_examples=75)
@given(events=histories, name=st.sampled_from(NAMES))
def test_without_is_the_profile_that_never_met_the_video(
    table: VideoTable, events: list[StoredEvent], name: str
) -> None:
    video = watched_of(table.snapshot, video_id(name))
    rest = [item for item in events if item.video_id != video_id(name)]
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


def test_history_is_newest_first_and_capped(table: VideoTable) -> None:
    events = [event("cooking 0", "like", at=NOON - 60.0 * place) for place in range(KEPT_HISTORY + 20)]
    profile = folded(events[::-1], table)
    assert profile.history == build(events, table).history
    assert len(profile.history) == KEPT_HISTORY
    assert profile.history[0] == (video_id("cooking 0"), NOON, 1.0)
    assert profile.history[-1][1] == NOON - 60.0 * (KEPT_HISTORY - 1)


def test_habits_are_shares_and_places_are_left_behind(table: VideoTable) -> None:
    weeks_ago = [
        stored("cooking 0", "like", None, NOON - 21 * 86_400 - place, "DE", "de", "Pixel 9") for place in (0, 1)
    ]
    profile = build([*weeks_ago, stored("clouds", "like", None, NOON, "FR", "", "")], table)
    assert list(profile.regions) == ["FR", "DE"]
    assert profile.regions["DE"] == pytest.approx(2 / 8 / (1 + 2 / 8), rel=1e-4)
    assert sum(profile.regions.values()) == pytest.approx(1.0)
    # Three videos in English were liked; the device speaks German. English counts half.
    two = 2 * 0.5**0.7
    assert profile.languages["de"] == pytest.approx(two / (two + 0.5 * two + 0.5), rel=1e-4)
    assert profile.devices == {"Pixel 9": 1.0}
    assert profile.systems == {"android": 1.0}
    assert profile.networks == {"wifi": 1.0}
    hour = int(NOON // 3600) % 24
    assert profile.hours[hour] > profile.hours[hour - 1] > 0
    assert sum(profile.hours) == pytest.approx(1.0)
    assert Profile().hours == (0.0,) * 24
    assert Profile().regions == {}


def test_folding_onto_two_thousand_events_takes_no_time(table: VideoTable) -> None:
    watched = watched_of(table.snapshot, video_id("cooking 0"))
    assert watched is not None
    generator = np.random.default_rng(3)
    videos = []
    for place in range(2100):
        vector = generator.standard_normal(256).astype(np.float32)
        tags = {f"tag {(7 * place + other * other) % 4000}": 0.5 for other in range(15)}
        videos.append(replace(watched, vector=vector / np.linalg.norm(vector), tags=tags))
    profile, taken = Profile(), []
    for place, video in enumerate(videos):
        act = stored(f"video {place}", "like", None, NOON + place, "DE", "de", "Pixel 9")
        before = time.process_time()
        profile = fold(profile, act, video)
        taken.append(time.process_time() - before)
    assert len(profile.contributions) == 2100
    assert len(profile.liked) == MOST_LIKED
    assert sum(video.vector.nbytes for video in profile.liked.values()) == MOST_LIKED * 1024
    assert all(video.vector.base is None for video in profile.liked.values())
    assert np.median(taken[2000:]) < 0.005


def test_what_was_let_go_comes_back_with_its_next_event(table: VideoTable) -> None:
    watched = watched_of(table.snapshot, video_id("cooking 0"))
    assert watched is not None
    profile = Profile()
    for place in range(MOST_LIKED + 1):
        # The first is the lightest: a second older than all others.
        profile = fold(profile, event(f"video {place}", "like", at=NOON if place else NOON - 1), watched)
    assert video_id("video 0") not in profile.liked
    profile = fold(profile, event("video 0", "like"), watched)
    assert video_id("video 0") in profile.liked
    assert len(profile.liked) == MOST_LIKED


def test_a_table_of_another_width_starts_the_vectors_anew(table: VideoTable) -> None:
    watched = watched_of(table.snapshot, video_id("cooking 0"))
    assert watched is not None
    profile = build([event("cooking 0", "like"), event("cars 0", "skip")], table)
    narrow = replace(watched, vector=np.array([1.0, 0.0], np.float32))
    profile = fold(profile, event("clouds", "like"), narrow)
    assert len(profile.long) == 2
    assert [interest.videos for interest in profile.interests] == [(video_id("clouds"),)]
    assert profile.dislikes == ()
    assert Profile().interests == Profile().dislikes == ()
