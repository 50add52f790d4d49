"""New viewers: what others like where they are, what they picked, and that their own acts take over."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ranker.newcomers import (
    AUDIENCE_MASS,
    HALF_MASS,
    PICK_MASS,
    SHRINKAGE,
    GroupTastes,
    Picks,
    blended,
    share_of_start,
    starting_profile,
    tastes_of,
)
from ranker.profiles import Profile, build, fold, watched_of
from ranker.recommend import recommend
from store.catalogue import StoredEvent
from tests.ranker.builders import NOON, World, video_id


def act(user: str, name: str, kind: str = "like", region: str = "", at: float = NOON, **where: str) -> StoredEvent:
    return StoredEvent(
        id=f"{user} {name} {kind} {at}", user_id=user, video_id=video_id(name), kind=kind, watched_seconds=None, at=at,
        region=region, **where,
    )  # fmt: skip


def crowd(french: int, germans: int) -> list[StoredEvent]:
    """In France they like cooking, in Germany cars."""
    liked = [act(f"fr {place}", f"cooking {place % 6}", region="FR", language="fr") for place in range(french)]
    return liked + [act(f"de {place}", f"cars {place % 6}", region="DE", language="de") for place in range(germans)]


def near(profile: Profile, world: World) -> dict[str, float]:
    """Cosine of the long-term interest with the mean of each topic."""
    found = {}
    for topic in ("cooking", "cars"):
        vectors = [world.table.get(video_id(f"{topic} {place}")).vector for place in range(6)]
        mean = np.mean(vectors, axis=0)
        found[topic] = float(mean @ profile.long / np.linalg.norm(mean) / np.linalg.norm(profile.long))
    return found


def test_a_viewer_starts_with_what_is_liked_where_he_is(tastes: World) -> None:
    snapshot = tastes.table.snapshot
    audience = tastes_of(crowd(200, 200), snapshot)
    french = starting_profile(audience, snapshot, NOON, region="FR", language="fr", hour=12)
    german = starting_profile(audience, snapshot, NOON, region="DE")
    assert near(french, tastes)["cooking"] > near(french, tastes)["cars"] + 0.2
    assert near(german, tastes)["cars"] > near(german, tastes)["cooking"] + 0.2
    assert next(iter(french.tags)) in ("cooking", "kitchen")
    assert french.long_mass == AUDIENCE_MASS
    assert french.events == 0
    assert not french.seen
    feed = recommend(german, tastes.table, 6, NOON)
    cars = {video_id(f"cars {place}") for place in range(6)}
    assert {item.video for item in feed[:3]} < cars
    assert len(cars & {item.video for item in feed}) >= 4, "and a little of something else"


def test_few_viewers_say_little(tastes: World) -> None:
    snapshot = tastes.table.snapshot
    audience = tastes_of(crowd(1, 300), snapshot)
    french = starting_profile(audience, snapshot, NOON, region="FR")
    own = 1 / (1 + SHRINKAGE)
    expected = own * watched(tastes, "cooking 0") + (1 - own) * audience.everyone.mean()[0]
    assert np.allclose(french.long, AUDIENCE_MASS * expected)
    assert near(french, tastes)["cars"] > near(french, tastes)["cooking"]
    assert audience.groups["region", "FR"].acts == 1


def watched(world: World, name: str) -> np.ndarray:
    found = watched_of(world.table.snapshot, video_id(name))
    assert found is not None
    return found.vector.astype(np.float64)


def test_nobody_votes_twice_and_refusals_do_not_vote(tastes: World) -> None:
    events = [act("ana", "cooking 0", at=NOON - place, region="FR") for place in range(9)]
    events += [act("ana", "cars 0", "skip", region="FR"), act("ana", "never published", region="FR")]
    audience = tastes_of(events, tastes.table.snapshot)
    assert audience.everyone.acts == 1
    assert audience.groups["region", "FR"].acts == 1
    backwards = tastes_of(events[::-1], tastes.table.snapshot)
    assert np.array_equal(backwards.everyone.vector, audience.everyone.vector)


def test_an_unknown_place_is_everywhere_and_no_audience_is_nobody(tastes: World) -> None:
    snapshot = tastes.table.snapshot
    audience = tastes_of(crowd(30, 10), snapshot)
    somewhere = starting_profile(audience, snapshot, NOON, region="JP", device="Pixel 9")
    assert np.allclose(somewhere.long, AUDIENCE_MASS * audience.everyone.mean()[0])
    nobody = starting_profile(GroupTastes(), snapshot, NOON, region="FR")
    assert nobody.long_mass == 0
    assert len(nobody.long) == 0
    assert blended(Profile(), nobody).long_mass == 0


def test_an_empty_catalogue_starts_empty(world: World) -> None:
    snapshot = world.table.snapshot
    audience = tastes_of(crowd(3, 3), snapshot)
    start = starting_profile(audience, snapshot, NOON, region="FR", picks=Picks(("cooking",), (video_id("cooking 0"),)))
    assert start.long_mass == 0
    assert start.interests == ()


def test_picks_are_interests_and_outweigh_the_audience(tastes: World) -> None:
    snapshot = tastes.table.snapshot
    audience = tastes_of(crowd(0, 300), snapshot)
    picks = Picks((" Cooking", "never heard of"), (video_id("clouds"), video_id("deleted")))
    start = starting_profile(audience, snapshot, NOON, region="DE", picks=picks)
    assert [interest.mass for interest in start.interests] == [PICK_MASS, PICK_MASS]
    assert {next(iter(interest.tags)) for interest in start.interests} == {"cooking", "clouds"}
    assert start.long_mass == AUDIENCE_MASS + 2 * PICK_MASS
    assert near(start, tastes)["cooking"] > near(start, tastes)["cars"]
    feed = recommend(start, tastes.table, 4, NOON)
    assert sum(item.video in {video_id(f"cooking {place}") for place in range(6)} for item in feed) >= 3


def test_the_start_is_used_only_as_far_as_own_acts_are_few(tastes: World) -> None:
    snapshot = tastes.table.snapshot
    start = starting_profile(tastes_of(crowd(0, 300), snapshot), snapshot, NOON, region="DE", picks=Picks(("cars",)))
    own, shares, cooking = Profile(), [], []
    for place in range(60):
        whole = blended(own, start)
        shares.append(share_of_start(own))
        cooking.append(near(whole, tastes)["cooking"] - near(whole, tastes)["cars"])
        assert whole.long_mass == pytest.approx(own.long_mass + shares[-1] * start.long_mass)
        assert dict(whole.contributions) == dict(own.contributions)
        assert whole.seen == own.seen
        own = fold(
            own,
            act("ana", f"cooking {place % 6}", at=NOON + place),
            watched_of(snapshot, video_id(f"cooking {place % 6}")),
        )
    assert shares[0] == 1.0
    assert shares[3] == pytest.approx(HALF_MASS / (HALF_MASS + 3.0), rel=1e-4)
    assert all(later < earlier for earlier, later in pairwise(shares))
    assert cooking[0] < 0 < cooking[6]
    # After sixty acts of his own there is next to nothing left of it.
    whole = blended(own, start)
    alike = whole.long @ own.long / np.linalg.norm(whole.long) / np.linalg.norm(own.long)
    assert alike > 0.9999
    assert whole.interests[0].videos == own.interests[0].videos
    assert whole.interests[1].mass < 0.05 * whole.interests[0].mass


def test_refusals_take_room_too_and_a_start_of_another_width_is_left_out(tastes: World) -> None:
    own = build([act("ana", f"cars {place}", "not_interested") for place in range(6)], tastes.table)
    assert share_of_start(own) == pytest.approx(HALF_MASS / (HALF_MASS + 12.0))
    snapshot = tastes.table.snapshot
    start = starting_profile(GroupTastes(), snapshot, NOON, picks=Picks(("cooking",)))
    assert blended(own, start).negative_mass == own.negative_mass
    assert blended(own, start).long_mass == pytest.approx(share_of_start(own) * PICK_MASS)
    narrow = replace(start, long=start.long[:2])
    assert blended(own, narrow).long_mass == 0


def test_who_was_away_for_a_year_is_half_a_newcomer(tastes: World) -> None:
    snapshot = tastes.table.snapshot
    start = starting_profile(GroupTastes(), snapshot, NOON, picks=Picks(("cars",)))
    own = build([act("ana", f"cooking {place}", at=NOON - 365 * 86_400) for place in range(6)], tastes.table)
    assert share_of_start(own) == pytest.approx(1 / 3)
    whole = blended(own, start)
    assert whole.as_of == NOON
    assert whole.long_mass == pytest.approx(PICK_MASS, rel=0.01)
    assert [next(iter(interest.tags)) for interest in whole.interests] == ["cars", "cooking"]
