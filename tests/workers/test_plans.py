"""Bringing a learnt model in beside the served one: all see the old one, whole, until the new one is complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from encoders.topics import TopicConfig, train_topics
from store.artifacts import learnt_model_key
from store.records import Metadata, TextPiece, TopicsAttributes
from store.settings import load_settings
from tests import clips
from tests.workers.test_graph import House
from workers import extraction, stages
from workers.plans import next_choice, plans

WORDS = {
    "harbour": "boat harbour sail mast anchor tide ship crew rope wave",
    "kitchen": "oven flour butter sugar bake dough cake recipe pan spoon",
}


def test_without_a_choice_there_is_one_plan(tmp_path: Path) -> None:
    (only,) = plans(load_settings(data=tmp_path), {})
    assert only.models == {}
    assert only.versions == stages.versions(load_settings(data=tmp_path))


def test_another_topic_model_is_another_version_of_topics_alone(tmp_path: Path) -> None:
    served, coming = plans(load_settings(data=tmp_path), {"topics": "a" * 16, "topics.next": "b" * 16})
    assert (served.models, coming.models) == ({"topics": "a" * 16}, {"topics": "b" * 16})
    assert {name for name in served.versions if served.versions[name] != coming.versions[name]} == {"topics"}


def test_the_served_model_again_is_no_other_plan(tmp_path: Path) -> None:
    assert len(plans(load_settings(data=tmp_path), {"topics": "a" * 16, "topics.next": "a" * 16})) == 1


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> extraction.Encoders:
    return extraction.Encoders(load_settings(data=tmp_path_factory.mktemp("encoders")))


@pytest.fixture
def house(tmp_path: Path, encoders: extraction.Encoders) -> Iterator[House]:
    """Two videos, ready, of which one speaks of boats and one of cakes."""
    house = House(load_settings(data=tmp_path / "data"))
    for number, (title, words) in enumerate(WORDS.items()):
        clip = clips.test_pattern(tmp_path / f"{title}.mp4", seconds=1.0, tone_hz=220.0 * (1 + number))
        house.add(clip, title=title, description=words)
    house.drain(encoders)
    yield house
    house.catalogue.close()


def trained(house: House, seed: int) -> str:
    """A topic model of the two, in storage; its version."""
    documents = {f"{title}-{copy}": _pieces(words) for title, words in WORDS.items() for copy in range(10)}
    model = train_topics(documents, TopicConfig(topics=2, seed=seed))
    house.objects.put(learnt_model_key("topics", model.version), model.to_bytes())
    return model.version


def _pieces(words: str) -> list[TextPiece]:
    return [TextPiece(source="description", text=words)]


def topics_of(house: House, title: str) -> TopicsAttributes:
    video = next(video for video in house.catalogue.videos() if video.metadata == _metadata(title))
    return TopicsAttributes.model_validate(house.graph.artifact(house.graph.key(video, "topics")).attributes)


def _metadata(title: str) -> Metadata:
    return Metadata(title=title, description=WORDS[title])


@pytest.mark.models
def test_a_new_model_is_served_when_every_video_has_what_it_makes_new(
    house: House, encoders: extraction.Encoders
) -> None:
    version = trained(house, seed=1)
    assert topics_of(house, "harbour").model is None
    house.catalogue.choose({next_choice("topics"): version})
    report = house.graph.reconcile()
    assert sorted(key.stage for key in report.sent) == ["topics", "topics"]
    assert report.served == {}
    videos = house.catalogue.videos()
    assert {state for state, _ in house.graph.states(videos).values()} == {"ready"}, "the served plan is complete"
    assert topics_of(house, "harbour").model is None, "the old one is served until the new one is whole"
    half = house.sent.pop()
    house.drain(encoders)
    assert house.graph.reconcile({"topics": 1}).served == {}, "one video is still without"
    house.sent.append(half)
    house.drain(encoders)
    assert house.graph.reconcile().served == {"topics": version}
    assert house.catalogue.choices() == {"topics": version}
    boats, cakes = topics_of(house, "harbour"), topics_of(house, "kitchen")
    assert boats.model == cakes.model == version
    assert boats.topics[0].number != cakes.topics[0].number
    assert set(boats.topics[0].words) & set(WORDS["harbour"].split())
    assert house.graph.reconcile().sent == []


@pytest.mark.models
def test_a_video_that_came_meanwhile_is_computed_by_both_plans(
    house: House, encoders: extraction.Encoders, tmp_path: Path
) -> None:
    version = trained(house, seed=1)
    house.catalogue.choose({next_choice("topics"): version})
    house.add(clips.colour_bars(tmp_path / "late.mp4", seconds=1.0), title="late")
    ran = house.drain(encoders)
    assert ran.count("topics") == 2
    assert ran.count("frames") == ran.count("text") == 1
    house.graph.reconcile()
    house.drain(encoders)
    assert house.graph.reconcile().served == {"topics": version}


@pytest.mark.models
def test_a_failed_video_does_not_hold_a_new_model_up(
    house: House, encoders: extraction.Encoders, tmp_path: Path
) -> None:
    broken = house.add(clips.colour_bars(tmp_path / "broken.mp4", seconds=1.0), title="broken")
    house.objects.put(f"sources/{broken.id}/video", b"not a video any more")
    house.drain(encoders)
    assert house.graph.states([broken])[broken.id][0] == "failed"
    version = trained(house, seed=1)
    house.catalogue.choose({next_choice("topics"): version})
    house.graph.reconcile()
    house.drain(encoders)
    assert house.graph.reconcile().served == {"topics": version}
