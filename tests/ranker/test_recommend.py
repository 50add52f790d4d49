"""Feeds: the right videos first, terms that add up, and reasons that matter."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.events import KINDS, Event
from ranker.profiles import build
from ranker.recommend import Recommendation, recommend
from ranker.refusals import refused_of
from ranker.scoring import TERMS, RankerConfig, score_terms
from ranker.video_table import VideoTable
from store.catalogue import publications
from store.errors import InputError
from tests.ranker.builders import NOON, World, two_tastes, video_id


def event(name: str, kind: str, watched: float | None = None, at: float = NOON) -> Event:
    return Event.checked(user="ana", video=video_id(name), kind=kind, watched_seconds=watched, at=at, now=NOON)


def titles(table: VideoTable, feed: list[Recommendation]) -> list[str]:
    return [table.get(item.video).attributes.title for item in feed]


def kinds(item: Recommendation) -> list[str]:
    return [reason["kind"] for reason in item.reasons]


FINISHES_COOKING_SKIPS_CARS = [
    event("cooking 0", "view", 20.0),
    event("cooking 1", "view", 19.0),
    event("cars 0", "view", 0.5),
    event("cars 1", "skip", 0.3),
]


def test_who_finishes_cooking_and_skips_cars_gets_cooking_first(tastes: World) -> None:
    feed = recommend(FINISHES_COOKING_SKIPS_CARS, tastes.table, 20, NOON)
    shown = titles(tastes.table, feed)
    assert sorted(shown[:4]) == ["cooking 2", "cooking 3", "cooking 4", "cooking 5"]
    assert sorted(shown[-4:]) == ["cars 2", "cars 3", "cars 4", "cars 5"]
    assert shown[4] == "clouds"


def test_seen_videos_stay_away_and_a_large_k_gives_what_is_left(tastes: World) -> None:
    feed = recommend(FINISHES_COOKING_SKIPS_CARS, tastes.table, 10_000, NOON)
    assert len(feed) == 13 - 4
    assert not {item.video for item in feed} & {item.video for item in FINISHES_COOKING_SKIPS_CARS}
    everything = [event(name, "view", 20.0) for name in map(str, titles(tastes.table, feed))]
    assert recommend([*FINISHES_COOKING_SKIPS_CARS, *everything], tastes.table, 10, NOON) == []


def test_events_count_in_the_next_feed_through_the_catalogue(tastes: World) -> None:
    events = tastes.happens("ben", "cars 0", "view", 20.0)
    assert titles(tastes.table, recommend(events, tastes.table, 1, NOON))[0].startswith("cars")
    events = tastes.happens("ben", "cars 1", "not_interested")
    events = tastes.happens("ben", "cooking 0", "share")
    assert titles(tastes.table, recommend(events, tastes.table, 1, NOON))[0].startswith("cooking")


def test_not_interested_pushes_its_neighbours_down(tastes: World) -> None:
    liked = [event("cooking 0", "like"), event("cars 0", "like")]

    def score(events: list[Event], name: str) -> float:
        feed = recommend(events, tastes.table, 50, NOON)
        return {item.video: item.score for item in feed}[video_id(name)]

    after = [*liked, event("cars 1", "not_interested")]
    assert score(after, "cars 2") < score(liked, "cars 2") - 0.2
    assert score(after, "cooking 2") == pytest.approx(score(liked, "cooking 2"), abs=0.05)
    assert "cars" not in "".join(titles(tastes.table, recommend(after, tastes.table, 4, NOON)))


@pytest.fixture(scope="module")
def shared_table(tmp_path_factory: pytest.TempPathFactory) -> VideoTable:
    folder: Path = tmp_path_factory.mktemp("recommend")
    world = World.at(folder)
    two_tastes(world)
    return world.table


@settings(deadline=None, max_examples=60)
@given(
    events=st.lists(
        st.builds(
            event,
            st.sampled_from([*(f"cooking {n}" for n in range(4)), *(f"cars {n}" for n in range(4)), "clouds"]),
            st.sampled_from(KINDS),
            st.one_of(st.none(), st.floats(0, 60)),
            st.floats(NOON - 100 * 86_400, NOON),
        ),
        max_size=10,
    ),
    k=st.integers(1, 20),
)
def test_terms_add_up_scores_fall_and_every_reason_is_a_sentence(
    shared_table: VideoTable, events: list[Event], k: int
) -> None:
    feed = recommend(events, shared_table, k, NOON)
    seen = {item.video for item in events}
    assert len(feed) == min(k, 13 - len(seen))
    assert not seen & {item.video for item in feed}
    for item in feed:
        assert set(item.terms) == set(TERMS)
        assert math.isclose(math.fsum(item.terms.values()), item.score, rel_tol=1e-9, abs_tol=1e-12)
        assert item.terms["negative_interest"] <= 0
        assert item.terms["negative_tags"] <= 0
        assert item.reasons
        assert all(reason["text"].endswith(".") and reason["kind"] for reason in item.reasons)
        assert json.loads(json.dumps(item.as_json(), allow_nan=False)) == item.as_json()
    scores = [item.score for item in feed]
    assert all(one >= other - 1e-9 for one, other in itertools.pairwise(scores))
    assert [item.as_json() for item in recommend(events, shared_table, k, NOON)] == [item.as_json() for item in feed]


@settings(deadline=None, max_examples=40)
@given(
    events=st.lists(
        st.builds(
            event,
            st.sampled_from([*(f"cooking {n}" for n in range(4)), *(f"cars {n}" for n in range(4)), "clouds"]),
            st.sampled_from(KINDS),
            st.one_of(st.none(), st.floats(0, 60)),
            st.floats(NOON - 100 * 86_400, NOON),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_without_the_named_video_the_score_is_lower_by_what_the_reason_says(
    shared_table: VideoTable, events: list[Event]
) -> None:
    for item in recommend(events, shared_table, 50, NOON):
        for reason in item.reasons:
            if reason["kind"] != "watched_video":
                continue
            assert reason["effect"] > 0
            rest = [kept for kept in events if kept.video != reason["video"]]
            snapshot, config = shared_table.snapshot, RankerConfig()
            row, profile = np.array([snapshot.row_of[item.video]]), build(rest, shared_table)
            refused = refused_of(profile, snapshot, NOON, config, shared_table)
            terms = score_terms(profile, snapshot, row, NOON, config, refused=refused)
            # What else is in the list stays as it is, and so do the viewer's habits.
            apart = ("diversity", "rules", "region", "language")
            score = sum(float(values[0]) for name, values in terms.items() if name not in apart)
            before = sum(value for name, value in item.terms.items() if name not in apart)
            assert score == pytest.approx(before - reason["effect"], abs=1e-6)


def test_the_named_video_is_the_one_it_resembles(tastes: World) -> None:
    world = tastes
    twin = world.artifact("cooking twin", "cooking", noise=0.4)
    original = world.publish("cooking original", "cooking", noise=2.0)
    world.enter("cooking twin")
    arrays = twin.arrays | {name: world.artifact_of(original)[name] for name in ("vector", "weights", "token_vectors")}
    world.put(replace(twin, arrays=arrays))
    world.catalogue.publish(twin.video_id, twin.version, twin.revision)
    world.table.refresh()
    events = [event(f"cooking {place}", "view", 20.0) for place in range(3)] + [event("cooking original", "view", 18.5)]
    feed = {item.video: item for item in recommend(events, world.table, 50, NOON)}
    reason = next(reason for reason in feed[twin.video_id].reasons if reason["kind"] == "watched_video")
    assert reason["video"] == original
    assert reason["similarity"] == pytest.approx(1, abs=1e-5)
    assert "“cooking original”" in reason["text"]
    assert "you finished" in reason["text"]


def test_the_moment_names_the_modality_that_is_alike(world: World) -> None:
    world.publish("seed", "cooking")
    world.publish("looks alike", "other", topics={"vision": "cooking"}, tags={})
    world.publish("sounds alike", "another", topics={"audio": "cooking"}, quiet=["vision", "text"], tags={})
    world.publish("reads alike", "third", topics={"text": "cooking"}, tags={})
    world.table.refresh()
    feed = recommend([event("seed", "like")], world.table, 10, NOON)
    found = {}
    for item in feed:
        moment = next(reason for reason in item.reasons if reason["kind"] == "moment")
        found[item.video] = moment["modality"]
        assert 0 <= moment["start"] < moment["end"] <= 20
        assert moment["video"] == video_id("seed")
        assert "“seed”" in moment["text"]
        assert moment["share"] > 0
    assert found == {
        video_id("looks alike"): "vision",
        video_id("sounds alike"): "audio",
        video_id("reads alike"): "text",
    }


def test_the_moment_names_the_second_that_is_alike(world: World) -> None:
    """One frame of four shows what was liked; it is found at its own seconds."""
    world.publish("seed", "cooking")
    world.table.refresh()
    seed = world.table.get(video_id("seed"))
    artifact = world.artifact("mixed", "other", tags={})
    vectors, weights = artifact.arrays["token_vectors"].copy(), artifact.arrays["weights"]
    vectors[2] = seed.token_vectors[1]
    pooled = weights @ vectors
    arrays = artifact.arrays | {
        "token_vectors": vectors,
        "vector": (pooled / np.linalg.norm(pooled)).astype(np.float32),
    }
    world.enter("mixed")
    world.put(replace(artifact, arrays=arrays))
    world.catalogue.publish(artifact.video_id, artifact.version, "a" * 16)
    world.table.refresh()
    [item] = recommend([event("seed", "like")], world.table, 10, NOON)
    moment = next(reason for reason in item.reasons if reason["kind"] == "moment")
    assert (moment["modality"], moment["start"], moment["end"]) == ("vision", 10.0, 15.0)
    assert (moment["there"]["start"], moment["there"]["end"]) == (5.0, 10.0)
    assert moment["text"] == "The picture at 0:10 is like 0:05 of “seed”."


def test_shared_tags_are_named_with_what_they_add(tastes: World) -> None:
    feed = recommend([event("cooking 0", "share")], tastes.table, 1, NOON)
    reason = next(reason for reason in feed[0].reasons if reason["kind"] == "tags")
    assert set(reason["tags"]) == {"cooking", "kitchen"}
    assert sum(reason["tags"].values()) == pytest.approx(feed[0].terms["tags"])
    assert reason["text"] == "You watch videos about cooking and kitchen."


def test_followed_creators_are_lifted_and_named(tastes: World) -> None:
    feed = recommend([event("cooking 0", "like"), event("cars 0", "follow")], tastes.table, 12, NOON)
    cars = [item for item in feed if item.terms["followed_creator"] > 0]
    assert sorted(titles(tastes.table, cars)) == [f"cars {place}" for place in range(1, 6)]
    assert all("followed_creator" in kinds(item) for item in cars)
    assert all("followed_creator" not in kinds(item) for item in feed if item not in cars)


def test_recent_interest_leads_over_older_interest_of_the_same_weight(tastes: World) -> None:
    events = [event("cars 0", "like", at=NOON - 86_400), event("cooking 0", "like", at=NOON)]
    assert titles(tastes.table, recommend(events, tastes.table, 1, NOON))[0].startswith("cooking")
    swapped = [event("cooking 0", "like", at=NOON - 86_400), event("cars 0", "like", at=NOON)]
    assert titles(tastes.table, recommend(swapped, tastes.table, 1, NOON))[0].startswith("cars")


def test_a_new_viewer_gets_fresh_videos_that_differ_and_is_told_so(tastes: World) -> None:
    feed = recommend([], tastes.table, 3, NOON)
    topics = {title.split()[0] for title in titles(tastes.table, feed)}
    assert topics == {"cooking", "cars", "clouds"}
    assert all(kinds(item) == ["new_viewer", "fresh"] for item in feed)
    assert feed[0].terms["diversity"] == 0
    assert feed[0].terms["freshness"] > 0


def test_fresher_comes_first_among_equals(world: World) -> None:
    for name in ("old", "new", "middle"):
        world.publish(name, name, tags={})
    ages = {"old": 30, "new": 0, "middle": 7}
    with world.catalogue.engine.begin() as connection:
        for name, days in ages.items():
            connection.execute(
                sa.update(publications)
                .where(publications.c.video_id == video_id(name))
                .values(published_at=NOON - days * 86_400)
            )
    world.table.refresh()
    feed = recommend([], world.table, 3, NOON, RankerConfig(diversity=0))
    assert titles(world.table, feed) == ["new", "middle", "old"]
    assert feed[0].terms["freshness"] == pytest.approx(2 * feed[1].terms["freshness"])
    assert "7 days ago" in feed[1].reasons[1]["text"]


def test_who_only_refuses_is_still_unknown_and_gets_less_of_what_was_refused(tastes: World) -> None:
    feed = recommend([event("cars 0", "not_interested")], tastes.table, 12, NOON)
    assert "new_viewer" in kinds(feed[0])
    shown = titles(tastes.table, feed)
    assert not shown[0].startswith("cars")
    cars = [item.score for item in feed if titles(tastes.table, [item])[0].startswith("cars")]
    assert max(cars) < 0


def test_what_is_left_over_says_that_nothing_nearer_is_left(world: World) -> None:
    world.publish("one", "cooking", tags={"cooking": 1.0})
    artifact = world.artifact("opposite", "other", tags={"other": 1.0})
    turned = {name: -world.artifact_of(video_id("one"))[name] for name in ("vector", "token_vectors")}
    world.enter("opposite")
    silent = artifact.attributes | {"language": None}
    world.put(replace(artifact, arrays=artifact.arrays | turned, attributes=silent))
    world.catalogue.publish(artifact.video_id, artifact.version, artifact.revision)
    world.table.refresh()
    [item] = recommend([event("one", "like")], world.table, 5, NOON, RankerConfig(language=0))
    assert kinds(item) == ["unexplored"]
    assert item.score < 0


@pytest.mark.parametrize("k", [0, -1])
def test_k_must_be_positive(tastes: World, k: int) -> None:
    with pytest.raises(InputError) as raised:
        recommend([], tastes.table, k, NOON)
    assert raised.value.code == "request.invalid"


def test_an_empty_catalogue_gives_an_empty_feed(world: World) -> None:
    world.table.refresh()
    assert recommend([], world.table, 5, NOON) == []
    world.enter("waiting")
    assert recommend([event("waiting", "like")], world.table, 5, NOON) == []


def test_a_profile_gives_the_same_feed_as_its_events(tastes: World) -> None:
    profile = build(FINISHES_COOKING_SKIPS_CARS, tastes.table)
    assert recommend(profile, tastes.table, 5, NOON) == recommend(FINISHES_COOKING_SKIPS_CARS, tastes.table, 5, NOON)


def test_scores_do_not_depend_on_how_many_are_asked_for_or_on_order_of_publication(
    world: World, tmp_path: Path
) -> None:
    other = World.at(tmp_path / "other")
    names = [f"{topic} {place}" for topic in ("cooking", "cars") for place in range(5)]
    artifacts = {name: world.artifact(name, name.split()[0]) for name in names}
    for place, order in ((world, names), (other, names[::-1])):
        for name in order:
            place.enter(name)
            place.put(artifacts[name])
            place.catalogue.publish(video_id(name), artifacts[name].version, artifacts[name].revision)
        place.table.refresh()
    events = [event("cooking 0", "like"), event("cars 0", "view", 12.0)]
    flat = RankerConfig(freshness=0)
    one = recommend(events, world.table, 8, NOON, flat)
    reversed_order = recommend(events, other.table, 8, NOON, flat)
    assert [item.video for item in one] == [item.video for item in reversed_order]
    assert [item.score for item in one] == pytest.approx([item.score for item in reversed_order], abs=1e-12)
    assert recommend(events, world.table, 3, NOON, flat) == one[:3]


def test_the_quick_pass_over_all_rows_agrees_with_the_exact_one(tastes: World) -> None:
    profile = build([*FINISHES_COOKING_SKIPS_CARS, event("cooking 2", "follow")], tastes.table)
    snapshot = tastes.table.snapshot
    quick = score_terms(profile, snapshot, None, NOON, RankerConfig())
    exact = score_terms(profile, snapshot, np.arange(len(snapshot)), NOON, RankerConfig())
    for name in TERMS:
        assert np.allclose(quick[name], exact[name], atol=1e-6), name
    assert any(values.any() for values in quick.values())


def test_a_large_catalogue_is_cut_to_a_shortlist_without_losing_the_best(world: World) -> None:
    for place in range(220):
        world.publish(f"filler {place}", f"topic {place}", tags={})
    two_tastes(world, each=3)
    events = [event("cooking 0", "view", 20.0)]
    feed = recommend(events, world.table, 2, NOON)
    assert sorted(titles(world.table, feed)) == ["cooking 1", "cooking 2"]
    whole = recommend(events, world.table, 1000, NOON)
    assert whole[:2] == feed
    assert len(whole) == 220 + 7 - 1
