"""Interests: several per viewer, the same in any order, and light ones beside heavy ones."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest

from ranker.interests import INTEREST_TAGS, LEAST_COSINE, MOST_INTERESTS, clusters, interests_of
from ranker.profiles import Watched, build
from tests.ranker.builders import NOON, World, video_id

WIDTH = 32


def videos_about(topics: dict[str, int], spread: float = 0.6, seed: int = 5) -> dict[str, Watched]:
    """So many videos around a direction of each topic."""
    generator = np.random.default_rng(seed)
    found = {}
    for topic, count in topics.items():
        direction = generator.standard_normal(WIDTH)
        for place in range(count):
            vector = direction + spread * generator.standard_normal(WIDTH)
            unit = (vector / np.linalg.norm(vector)).astype(np.float32)
            found[f"{topic} {place}"] = Watched(unit, {topic: 1.0}, 20.0, "")
    return found


def test_each_topic_is_an_interest_and_the_heaviest_comes_first() -> None:
    videos = videos_about({"cooking": 10, "cars": 5, "clouds": 2})
    found = interests_of(dict.fromkeys(videos, 1.0), videos)
    assert [(list(interest.tags), len(interest.videos)) for interest in found] == [
        (["cooking"], 10), (["cars"], 5), (["clouds"], 2)
    ]  # fmt: skip
    assert [interest.mass for interest in found] == pytest.approx([10.0, 5.0, 2.0])
    for interest in found:
        assert np.linalg.norm(interest.vector) == pytest.approx(1.0)
        own = [videos[name].vector @ interest.vector for name in interest.videos]
        others = [videos[name].vector @ interest.vector for name in videos if name not in interest.videos]
        assert min(own) > max(others)


def test_the_order_of_what_comes_in_makes_no_difference() -> None:
    videos = videos_about({"cooking": 8, "cars": 8, "clouds": 8}, spread=1.0)
    weights = {name: 0.5 + place / 7 for place, name in enumerate(videos)}
    first = interests_of(weights, videos)
    for seed in range(5):
        order = list(videos)
        Random(seed).shuffle(order)
        # Sums in another order differ in their last bits.
        noisy = {name: weights[name] * (1 + 1e-13 * seed) for name in order}
        again = interests_of(noisy, {name: videos[name] for name in order})
        assert [interest.videos for interest in again] == [interest.videos for interest in first]
        assert all(np.allclose(one.vector, other.vector) for one, other in zip(first, again, strict=True))


def test_fading_alike_changes_no_interest() -> None:
    videos = videos_about({"cooking": 8, "cars": 8}, spread=1.0)
    weights = {name: 0.5 + place / 7 for place, name in enumerate(videos)}
    faded = interests_of({name: weight * 1e-9 for name, weight in weights.items()}, videos)
    assert [interest.videos for interest in faded] == [interest.videos for interest in interests_of(weights, videos)]


def test_a_light_interest_is_not_lost_in_a_heavy_one() -> None:
    videos = videos_about({"cooking": 60, "cars": 2})
    weights = {name: 100.0 if name.startswith("cooking") else 0.01 for name in videos}
    found = interests_of(weights, videos)
    assert [list(interest.tags) for interest in found] == [["cooking"], ["cars"]]


def test_at_most_so_many_and_the_heaviest_stay() -> None:
    videos = videos_about({f"topic {place}": 1 for place in range(20)}, spread=0.0)
    weights = {f"topic {place} 0": 1.0 + place for place in range(20)}
    found = interests_of(weights, videos)
    assert len(found) == MOST_INTERESTS
    assert found[0].mass >= 20.0
    assert all(one.mass >= other.mass for one, other in pairwise(found))


def test_joined_until_nothing_is_near_enough() -> None:
    videos = videos_about({f"topic {place}": 6 for place in range(5)}, spread=1.2)
    vectors = np.stack([video.vector for video in videos.values()]).astype(np.float64)
    weights = np.random.default_rng(0).uniform(0.1, 3.0, len(vectors))
    found = clusters(vectors, weights)
    assert sorted(place for group in found for place in group) == list(range(len(vectors)))

    def similarity(one: list[int], other: list[int]) -> float:
        alike = vectors[one] @ vectors[other].T
        return float(weights[one] @ alike @ weights[other] / (weights[one].sum() * weights[other].sum()))

    assert 1 < len(found) < len(vectors)
    for place, one in enumerate(found):
        for other in found[:place]:
            assert similarity(one, other) < LEAST_COSINE + 1e-5


def test_nothing_and_one_and_equals() -> None:
    assert interests_of({}, {}) == ()
    one = videos_about({"cooking": 1})
    assert interests_of({"cooking 0": 0.0}, one) == ()
    assert [interest.videos for interest in interests_of({"cooking 0": 2.0}, one)] == [("cooking 0",)]
    same = dict.fromkeys(("b", "a", "c"), next(iter(one.values())))
    (interest,) = interests_of(dict.fromkeys(same, 1.0), same)
    assert interest.videos == ("a", "b", "c")


def test_the_tags_of_an_interest_are_its_own_strongest() -> None:
    (video,) = videos_about({"cooking": 1}).values()
    tagged = Watched(video.vector, {f"tag {place:02}": place / 30 for place in range(30)}, 20.0, "")
    (interest,) = interests_of({"a": 1.0}, {"a": tagged})
    assert len(interest.tags) == INTEREST_TAGS
    assert next(iter(interest.tags)) == "tag 29"


def test_two_tastes_and_a_dislike_from_real_vectors(tastes: World) -> None:
    for place in range(4):
        tastes.happens("ana", f"cooking {place}", "like", at=NOON - place)
        tastes.happens("ana", f"cars {place}", "view", 18.0, at=NOON - place)
    events = tastes.happens("ana", "clouds", "not_interested")
    profile = build(events, tastes.table)
    assert [next(iter(interest.tags)) for interest in profile.interests] == ["cooking", "cars"]
    assert profile.interests[0].videos == tuple(
        sorted((video_id(f"cooking {place}") for place in range(4)), key=lambda name: -profile.contributions[name].long)
    )
    assert [interest.videos for interest in profile.dislikes] == [(video_id("clouds"),)]
