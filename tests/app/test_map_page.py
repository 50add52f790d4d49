"""The map of the catalogue: every published video once, coloured by topic, renewed as videos come, however many."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from app import catalogue_map
from app.api import create_api
from app.catalogue_map import Cartographer, drawn
from app.operations import ReelSense
from store.administration import Actor
from store.artifacts import artifact_key
from store.records import Metadata
from store.settings import load_settings
from tests.app.published import published
from tests.app.reading import Page
from tests.app.understood import understand

EVIL = "</script><script>alert(1)</script>"


@pytest.fixture
def reelsense(tmp_path: Path) -> Iterator[ReelSense]:
    reelsense = ReelSense(load_settings(data=tmp_path / "data"))
    yield reelsense
    reelsense.catalogue.close()


@pytest.fixture
def client(reelsense: ReelSense) -> Iterator[TestClient]:
    with TestClient(create_api(reelsense.settings), base_url="http://127.0.0.1") as client:
        yield client


def crowd(reelsense: ReelSense, topics: dict[str, int]) -> dict[str, str]:
    """Published videos of these topics; the topic of each by its id."""
    found = {}
    with published(reelsense.settings) as world:
        for topic, count in topics.items():
            for number in range(count):
                found[world.publish(f"{topic} {number}", topic, tags={topic: 1.0, "all": 1.0})] = topic
    return found


def test_an_empty_map_says_what_to_do(client: TestClient) -> None:
    page = Page(client.get("/map").text)
    assert page.all("a", href="/upload")
    assert not page.all("canvas")
    assert client.get("/map/points").json()["ids"] == []


def test_every_video_has_a_place_near_its_like_and_a_colour_with_a_name(
    client: TestClient, reelsense: ReelSense
) -> None:
    topics = crowd(reelsense, {"cooking": 14, "cars": 11, EVIL: 9})
    answer = client.get("/map/points")
    data = answer.json()
    assert sorted(data["ids"]) == sorted(topics)
    assert {len(data[name]) for name in ("ids", "x", "y", "of")} == {34}
    assert all(0 <= value <= 1000 for value in (*data["x"], *data["y"]))
    places = np.array([data["x"], data["y"]]).T.astype(float)
    distances = ((places[:, None] - places[None, :]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    near = [topics[data["ids"][row]] == topics[data["ids"][other]] for row, other in enumerate(distances.argmin(1))]
    assert np.mean(near) > 0.95
    # Without a topic model colours are groups of like videos, named by what sets them apart.
    for video, of in zip(data["ids"], data["of"], strict=True):
        assert topics[video].casefold() in data["groups"][of]
    assert not any(name == "all" for name in data["groups"])
    page = Page(client.get("/map").text)
    assert "34 videos." in page.text
    assert [link.text.split()[-1] for link in page.all("a", data_group="")] == [
        str(data["of"].count(group)) for group in range(len(data["groups"]))
    ]
    assert EVIL.casefold() in page.text
    for address in [link["href"] for link in page.all("a") if link["href"].startswith("/videos/")]:
        assert client.get(address).status_code == 200


def test_points_are_not_sent_twice(client: TestClient, reelsense: ReelSense) -> None:
    crowd(reelsense, {"cooking": 3})
    answer = client.get("/map/points")
    assert answer.headers["cache-control"] == "private, no-cache"
    again = client.get("/map/points", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    crowd(reelsense, {"cars": 1})
    assert client.get("/map/points", headers={"if-none-match": answer.headers["etag"]}).status_code == 200


def test_learnt_topics_give_the_colours(reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch) -> None:
    a = understand(reelsense, "a", topic="animals")
    b = understand(reelsense, "b", topic="engines")
    damaged = understand(reelsense, "c", topic="engines")
    key = reelsense.graph.key(reelsense.catalogue.video(damaged), "topics")
    reelsense.objects.put(artifact_key(key.stage, key.version, key.video_id, key.revision), b"torn")
    monkeypatch.setitem(reelsense.graph.plans[0].models, "topics", "m")  # type: ignore[arg-type]
    found = drawn(reelsense, reelsense.table.snapshot)
    assert found.by == "topics"
    names = {video: found.groups[of].name for video, of in zip(found.ids, found.of.tolist(), strict=True)}
    assert names == {a: "animals", b: "engines", damaged: "other"}


def test_what_is_published_and_set_aside_comes_and_goes(client: TestClient, reelsense: ReelSense) -> None:
    first = understand(reelsense, "first", metadata=Metadata(title=EVIL))
    assert client.get("/map/points").json()["ids"] == [first]
    second = understand(reelsense, "second")
    assert client.get("/map/points").json()["ids"] == [first, second]
    assert EVIL in Page(client.get("/map").text).text
    reelsense.graph.administration.quarantine(first, [], Actor("ana", "cli"))
    assert client.get("/map/points").json()["ids"] == [second]


def test_a_large_map_is_drawn_beside_the_requests(
    reelsense: ReelSense, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(reelsense, {"cooking": 6, "cars": 6})
    monkeypatch.setattr(catalogue_map, "AT_ONCE", 5)
    monkeypatch.setattr(catalogue_map, "MOST_DRAWN", 8)
    answer = client.get("/map/points")
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "2")
    assert "being drawn" in client.get("/map").text or client.get("/map/points").status_code == 200
    deadline = time.monotonic() + 30
    while (answer := client.get("/map/points")).status_code == 202:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(answer.json()["ids"]) == 8
    assert "8 of 12 videos are drawn." in Page(client.get("/map").text).text
    # What is published within half a minute waits for the next one.
    crowd(reelsense, {"planes": 1})
    assert client.get("/map/points").json() == answer.json()


def test_a_map_that_cannot_be_drawn_is_not_tried_at_each_request(
    reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(reelsense, {"cooking": 6})
    monkeypatch.setattr(catalogue_map, "AT_ONCE", 5)
    tries = []

    def broken(*_: object) -> None:
        tries.append(1)
        raise ValueError("no map today")

    monkeypatch.setattr(catalogue_map, "drawn", broken)
    cartographer = Cartographer(reelsense)
    for _ in range(20):
        assert cartographer.current() is None
        time.sleep(0.02)
    assert len(tries) == 1
