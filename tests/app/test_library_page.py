"""The library: pages of cards by time, state, tag, filter and words; whatever people call their videos."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app import library, library_pages
from app.api import create_api
from app.library import Wish, shelf
from app.operations import ReelSense
from store.administration import Actor
from store.errors import InputError
from store.records import Metadata
from store.settings import load_settings
from tests.app.reading import Page
from tests.app.understood import UPLOADED, understand

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %}",
    "\u202egnp.exe",
    "a\u0301" * 100,
    "👩‍👩‍👧‍👦 видео 動画 \u0000 \u0007",
    "x" * 500,
    "  ",
    "&lt;b&gt; &#x3c;",
    "'; DROP TABLE videos; --",
]


@pytest.fixture
def reelsense(tmp_path: Path) -> Iterator[ReelSense]:
    reelsense = ReelSense(load_settings(data=tmp_path / "data"))
    yield reelsense
    reelsense.catalogue.close()


@pytest.fixture
def client(reelsense: ReelSense) -> Iterator[TestClient]:
    with TestClient(create_api(reelsense.settings), base_url="http://127.0.0.1") as client:
        yield client


def names(page: Page) -> list[str]:
    return [element.text for element in page.all("h2") if element.text not in ("Nothing here fits", "No videos yet")]


def test_an_empty_library_says_what_to_do(client: TestClient) -> None:
    page = Page(client.get("/library").text)
    assert page.all("a", href="/upload")
    assert "No videos yet" in page.text


def test_every_video_comes_once_whatever_the_order(
    client: TestClient, reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two at one moment each, so that pages end between videos of the same time.
    for number in range(11):
        understand(reelsense, f"clip {number:02}", uploaded_at=UPLOADED + number // 2, stages=())
    monkeypatch.setattr(library_pages, "CARDS", 3)
    for order in ("newest", "oldest"):
        found: list[str] = []
        address = f"/library?order={order}"
        for _ in range(10):
            page = Page(client.get(address).text)
            found += names(page)
            more = page.all("a", class_="button")
            if not more:
                break
            part = Page(client.get(more[0]["data-part"]).text)
            address = more[0]["href"]
            assert names(part) == names(Page(client.get(address).text)), "script and link give the same"
        assert sorted(found) == [f"clip {number:02}.mp4" for number in range(11)]
        times = [int(name[5:7]) // 2 for name in found]
        assert times == sorted(times, reverse=order == "newest")


def test_states_are_told_apart(client: TestClient, reelsense: ReelSense) -> None:
    understand(reelsense, "ready one")
    understand(reelsense, "processing one", stages=("frames",))
    understand(reelsense, "waiting one", stages=())
    failed = understand(reelsense, "failed one", stages=())
    key = reelsense.graph.key(reelsense.catalogue.video(failed), "frames")
    reelsense.catalogue.mark_queued(key)
    reelsense.catalogue.fail(key, InputError("media.unreadable", "torn <b>here</b>"))
    aside = understand(reelsense, "aside one")
    reelsense.graph.administration.quarantine(aside, [], Actor("ana", "cli"), "why <i>not</i>")
    for state, found in (
        ("ready", {"ready one.mp4"}),
        ("processing", {"processing one.mp4"}),
        ("waiting", {"waiting one.mp4"}),
        ("failed", {"failed one.mp4", "aside one.mp4"}),
    ):
        answer = client.get(f"/library?state={state}")
        assert set(names(Page(answer.text))) == found
    page = Page(answer.text)
    assert "media.unreadable torn <b>here</b>" in page.text
    assert "why <i>not</i>" in page.text
    assert not page.all("i")
    assert len(names(Page(client.get("/library").text))) == 5
    # Only what there is a picture of asks for one: a broken picture is an error in the browser's console.
    pictures = re.findall(r'src="/api/v1/videos/(\w+)/thumbnail"', client.get("/library").text)
    assert len(pictures) == 3
    assert failed not in pictures


def test_a_search_of_what_is_not_ready_goes_by_name(client: TestClient, reelsense: ReelSense) -> None:
    understand(reelsense, "1", stages=(), metadata=Metadata(title="Ärger im BÜRO", tags=("Streß",)))
    understand(reelsense, "2", stages=(), metadata=Metadata(title="another"))
    for words in ("ärger", "büro ärger", "STRESS", "1.MP4"):
        page = Page(client.get("/library", params={"q": words, "state": "waiting"}).text)
        assert names(page) == ["Ärger im BÜRO"], words
    page = Page(client.get("/library", params={"q": "nobody", "state": "waiting"}).text)
    assert "Nothing here fits" in page.text
    assert page.one("input", type="search")["value"] == "nobody"


def test_a_page_that_finds_little_goes_on_from_where_it_looked(
    reelsense: ReelSense, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        understand(reelsense, f"{number}", uploaded_at=UPLOADED + number, stages=() if number else None)
    monkeypatch.setattr(library, "LOOKED_AT", 4)
    monkeypatch.setattr(library, "AT_ONCE", 3)
    found, looks, cursor = [], [], None
    while True:
        page = shelf(reelsense, Wish(state="ready"), cursor, 24)
        found += [card.title for card in page.cards]
        looks.append(page.looked_at)
        cursor = page.after
        if cursor is None:
            break
    assert (found, sum(looks)) == (["0.mp4"], 9)
    assert max(looks) == 4


def test_tags_and_filters_narrow_down(client: TestClient, reelsense: ReelSense) -> None:
    understand(reelsense, "a", shown="dog", metadata=Metadata(title="a", region="DE", tags=("pets & more",)))
    understand(reelsense, "b", shown="dog", tags={"dog": 0.9, "c++ <b>": 0.5})
    understand(reelsense, "c", shown="car", tags={"car": 0.9, "c++ <b>": 0.5})
    page = Page(client.get("/library").text)
    assert {"dog", "c++ <b>"} == {
        link.text.rpartition(" ")[0] for link in page.all("a", class_="chip") if link.text.endswith(" 2")
    }
    for link in page.all("a", class_="chip"):
        assert client.get(link["href"]).status_code == 200
    assert set(names(Page(client.get("/library", params={"tag": "Dog"}).text))) == {"a", "b.mp4"}
    assert set(names(Page(client.get("/library", params={"tag": "c++ <b>"}).text))) == {"b.mp4", "c.mp4"}
    assert names(Page(client.get("/library", params={"where": "region = 'DE'"}).text)) == ["a"]
    assert names(Page(client.get("/library", params={"where": "region = 'FR'"}).text)) == []
    wrong = client.get("/library", params={"where": "region == DE"}, headers={"accept": "text/html"})
    assert wrong.status_code == 422
    assert "filter.invalid" in wrong.text


def test_what_uploaders_write_is_only_ever_text(client: TestClient, reelsense: ReelSense) -> None:
    for number, words in enumerate(HOSTILE):
        tag = " ".join(words.split())[:100]
        understand(
            reelsense,
            f"hostile {number}",
            metadata=Metadata(title=words, creator=words[:200], tags=(tag,) if tag else ()),
            file_name=words[:200],
            tags={tag: 0.9} if tag else {},
            uploaded_at=UPLOADED + number,
            stages=("published",),
        )
    text = client.get("/library").text
    page = Page(text)
    assert len(names(page)) == len(HOSTILE)
    for words in HOSTILE:
        plain = "".join(letter for letter in words if letter not in "\x00\x07")
        assert " ".join(plain.split()) in page.text, words
    assert "\x00" not in text
    assert {element.tag for element in page.elements} <= {
        *("html", "head", "meta", "title", "link", "script", "body", "a", "header", "svg", "rect", "path", "circle"),
        *("nav", "div", "span", "button", "p", "strong", "main", "h1", "h2", "form", "label", "input", "details"),
        *("summary", "select", "option", "code", "ul", "li", "section", "bdi", "img", "time"),
    }
    for link in page.all("a", class_="chip"):
        assert client.get(link["href"]).status_code == 200


def test_bad_cursors_are_refused(client: TestClient) -> None:
    said = [
        b"{}",
        b"[1]",
        b"[-1]",
        b"[true]",
        b'["a", 1]',
        b'[Infinity, "a"]',
        b"[" * 140,
        b'[1.0, "%s"]' % (b"a" * 33),
    ]
    cursors = [base64.urlsafe_b64encode(text).decode() for text in said]
    for cursor in [*cursors, "x", "%", "AAAA", "é", "\u202e", "x" * 201]:
        answer = client.get("/library", params={"cursor": cursor}, headers={"accept": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid"), cursor


def test_cards_are_renewed_by_id_and_those_that_are_gone_left_out(client: TestClient, reelsense: ReelSense) -> None:
    changing = understand(reelsense, "changing", stages=("frames",))
    page = Page(client.get("/library").text)
    assert [card["data-changing"] for card in page.all("li", data_changing="")] == [changing]
    answer = client.get("/library/cards", params={"id": [changing, "0" * 32, changing]})
    assert [card["id"] for card in Page(answer.text).all("li", class_="card")] == [f"video-{changing}"]
    assert client.get("/library/cards").status_code == 422
    assert client.get("/library/cards", params={"id": ["0" * 32] * 201}).status_code == 422


@pytest.mark.models
@pytest.mark.slow
def test_words_find_what_videos_say_and_where(client: TestClient, reelsense: ReelSense) -> None:
    from encoders.catalogue import chosen, config_of, load
    from store.artifacts import artifact_key, from_bytes, to_bytes

    spec = chosen(reelsense.settings)["text"]
    encoder = load(spec, config_of(spec, reelsense.settings), reelsense.settings.cache, 1)
    for name, said in (("a", "the cat sleeps in the sun"), ("b", "interest rates were raised again")):
        video = reelsense.catalogue.video(understand(reelsense, name, said=said))
        key = reelsense.graph.key(video, "published")
        path = artifact_key(key.stage, key.version, key.video_id, key.revision)
        artifact = from_bytes(reelsense.objects.get(path))
        artifact.arrays["phrase_embeddings"] = encoder.embed_query([said])
        reelsense.objects.put(path, to_bytes(artifact))
    page = Page(client.get("/library", params={"q": "a sleeping cat"}).text)
    assert names(page)[0] == "a.mp4"
    assert page.all("h2")[0].text == "a.mp4"
    assert "transcript at 0:02: the cat sleeps in the sun" in page.text
    assert page.all("a", href=f"/videos/{understand(reelsense, 'a', said='the cat sleeps in the sun')}?t=2.0")
