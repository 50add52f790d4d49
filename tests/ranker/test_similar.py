"""Neighbours by cosine, and what each modality adds."""

from __future__ import annotations

import math

import pytest

from ranker.similar import similar
from store.artifacts import artifact_key
from store.errors import InputError, NotFoundError
from tests.ranker.builders import VERSION, World, video_id


def test_neighbours_are_of_the_same_topic_and_never_the_video_itself(tastes: World) -> None:
    found = similar(tastes.table, video_id("cars 0"), 5)
    assert {item.video for item in found} == {video_id(f"cars {place}") for place in range(1, 6)}
    scores = [item.score for item in found]
    assert scores == sorted(scores, reverse=True)
    assert len(similar(tastes.table, video_id("cars 0"), 1000)) == 12


def test_terms_are_the_modalities_and_add_up_to_the_cosine(tastes: World) -> None:
    video = tastes.table.get(video_id("cooking 0"))
    for item in similar(tastes.table, video.id, 20):
        assert set(item.terms) == {"vision", "audio", "text", "crossed"}
        assert math.isclose(math.fsum(item.terms.values()), item.score, rel_tol=1e-9)
        assert abs(item.terms["crossed"]) < 0.1
        assert item.score == pytest.approx(float(tastes.table.get(item.video).vector @ video.vector), abs=1e-5)


def test_the_modality_that_is_alike_adds_most(world: World) -> None:
    world.publish("seed", "cooking")
    world.publish("sounds alike", "other", topics={"audio": "cooking"})
    world.table.refresh()
    [item] = similar(world.table, video_id("seed"), 3)
    assert max(item.terms, key=lambda name: item.terms[name]) == "audio"


def test_unknown_videos_and_impossible_counts_are_refused(tastes: World) -> None:
    with pytest.raises(NotFoundError) as raised:
        similar(tastes.table, video_id("nobody"), 3)
    assert raised.value.code == "video.unknown"
    with pytest.raises(InputError) as refused:
        similar(tastes.table, video_id("cars 0"), 0)
    assert refused.value.code == "request.invalid"


def test_an_artifact_that_went_away_is_left_out(tastes: World) -> None:
    tastes.objects.delete(artifact_key("published", VERSION, video_id("cars 1"), "a" * 16))
    found = similar(tastes.table, video_id("cars 0"), 20)
    assert video_id("cars 1") not in {item.video for item in found}
    assert len(found) == 11
