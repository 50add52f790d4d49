"""The page For You over the real application: who watches, cards with their explanation, and how the list answers."""

from __future__ import annotations

import html.parser
import math
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from app.feed_pages import WHO
from app.for_you import CARDS, Asked, cards
from app.operations import ReelSense
from store.settings import Settings, load_settings
from tests.app.published import published
from tests.ranker.builders import World, two_tastes, video_id

HOSTILE = "<script>alert(\"1\")</script> & 'quoted' ‮\u0301 🎬"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(data=tmp_path_factory.mktemp("for-you") / "data")


@pytest.fixture(scope="module")
def world(settings: Settings) -> Iterator[World]:
    with published(settings) as world:
        two_tastes(world, each=6)
        world.publish(
            "hostile", "cooking", title=HOSTILE, tags={"cooking": 1.0, "<img src=x onerror=alert(1)>": 0.9},
            creator='"><b>',
        )  # fmt: skip
        world.table.refresh()
        yield world


@pytest.fixture(scope="module")
def client(settings: Settings, world: World) -> Iterator[TestClient]:
    assert len(world.table.ids)
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        yield client


def act(client: TestClient, user: str, name: str, kind: str, **more: object) -> None:
    event = {"user": user, "video": video_id(name), "kind": kind, **more}
    assert client.post("/api/v1/events", json=event).status_code == 201


def page(client: TestClient, user: str, path: str = "/") -> str:
    answer = client.get(path, headers={"cookie": f"{WHO}={quote(user, safe='')}"})
    assert answer.status_code == 200, answer.text
    return answer.text


def shown(text: str) -> list[str]:
    return re.findall(r'<article class="card" id="card-([0-9a-f]{32})"', text)


def test_who_has_not_said_is_asked_and_who_is_new_picks(client: TestClient) -> None:
    asked = client.get("/").text
    assert "Who watches?" in asked
    assert 'name="pick" value="cooking"' in asked
    answer = client.post("/who", data={"user": " new / one ", "pick": ["cars"]}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert f"{WHO}={quote('new / one', safe='')}" in cookie
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    feed = page(client, "new / one")
    titles = [row.title for video in shown(feed) if (row := _row(client, video))]
    assert titles[0].startswith("cars")
    assert "what you picked" in feed
    assert client.get("/api/v1/viewers/new%20%2F%20one/profile").json()["picks"][0]["pick"] == "cars"


def _row(client: TestClient, video: str) -> object:
    from ranker.video_table import VideoRow

    answer = client.get(f"/api/v1/videos/{video}").json()
    return VideoRow(video, "", answer["title"], "", "", None, 0.0, {}, {}, 0.0)


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "a\x00b", "a\nb"])
def test_no_name_that_no_viewer_can_have(client: TestClient, name: str) -> None:
    answer = client.post("/who", data={"user": name}, headers={"accept": "text/html"})
    assert answer.status_code == 422
    assert "request.invalid" in answer.text
    assert "Who watches?" in answer.text
    # And a cookie that holds one asks again.
    assert "Who watches?" in client.get("/", headers={"cookie": f"{WHO}={quote(name, safe='')}"}).text


@pytest.mark.parametrize("user", ["a/b?c#d", "ä 日本 🎬", "<script>alert(1)</script>", "e\u0301\u0301\u0301"])
def test_any_name_reads_and_nothing_of_it_is_markup(client: TestClient, user: str) -> None:
    text = page(client, user)
    assert len(shown(text)) == CARDS
    assert "<script>alert" not in text
    assert f'href="/viewers/{quote(user, safe="")}"' in text


def test_every_card_says_why_and_its_terms_add_up(client: TestClient, settings: Settings) -> None:
    act(client, "ana", "cooking 0", "like")
    act(client, "ana", "cars 0", "skip")
    reelsense = ReelSense(settings)
    found = cards(reelsense, "ana")
    assert len(found["cards"]) == CARDS
    for card in found["cards"]:
        why = card["why"]
        assert math.fsum(term["value"] for term in why["terms"]) == pytest.approx(why["score"], abs=1e-12)
        assert why["reasons"]
        assert max(term["share"] for term in why["terms"]) == 1.0
        assert sum(part["value"] for part in why["attention"]) == pytest.approx(1.0)
    first = found["cards"][0]["why"]
    match = first["match"]
    assert (match["video"], match["title"], match["act"]) == (video_id("cooking 0"), "cooking 0", "You liked")
    assert first["tags"][0]["tag"] == "cooking"
    assert first["tags"][0]["adds"] > 0
    # What the modalities do is the likeness, but for products across them.
    assert sum(part["value"] for part in match["likeness"]) == pytest.approx(match["similarity"], abs=0.1)
    for lane in (*match["lanes"]["here"], *match["lanes"]["there"]):
        for mark in lane["marks"]:
            assert 0 <= mark["start"] <= 1
            assert mark["start"] + mark["width"] <= 1 + 1e-9
            assert 0 < mark["strength"] <= 1
    strongest = max((mark["strength"], mark["start"]) for lane in match["lanes"]["here"] for mark in lane["marks"])
    assert strongest[0] == 1.0
    text = page(client, "ana")
    assert "The video that matched" in text
    assert "Together: the score" in text
    reelsense.catalogue.close()


def test_the_list_answers_to_what_was_done(client: TestClient, settings: Settings) -> None:
    act(client, "bea", "cooking 0", "like")
    reelsense = ReelSense(settings)
    before = [card["id"] for card in cards(reelsense, "bea")["cards"]]
    playing, waiting = before[0], tuple(before[1:])
    assert _titles(reelsense, before)[0].startswith(("cooking", "<script>"))
    name = next(title for title in _titles(reelsense, waiting) if title.startswith("cooking"))
    act(client, "bea", name, "not_interested")
    asked = Asked((playing,), waiting, "not_interested", video_id(name))
    after = cards(reelsense, "bea", asked=asked)
    ids = [card["id"] for card in after["cards"]]
    assert playing not in ids
    assert video_id(name) not in ids
    assert set(ids) != set(waiting)
    assert after["answer"].startswith(f"You are not interested in “{name}”: ")
    kinds = {card["change"].kind for card in after["cards"]}
    assert kinds & {"new", "up"}
    query = f"passed={playing}&before={','.join(waiting)}&kind=not_interested&video={video_id(name)}"
    part = client.get(f"/feed/cards?user=bea&{query}").text
    assert playing not in shown(part)
    assert f"You are not interested in “{name}”: " in part
    assert re.search('class="change (new|up|down)"', part)
    assert "<html" not in part
    reelsense.catalogue.close()


def _titles(reelsense: ReelSense, videos: tuple[str, ...] | list[str]) -> list[str]:
    return [row.title for video in videos if (row := reelsense.table.snapshot.row(video)) is not None]


@pytest.mark.parametrize(
    "query",
    ["user=", "user=a%00b", "user=ana&passed=../../etc", "user=ana&before=" + "a," * 5000, "user=ana&kind=" + "x" * 40],
)
def test_what_makes_no_sense_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/feed/cards?{query}").status_code == 422


def test_who_has_seen_everything_is_told(client: TestClient, world: World) -> None:
    for video in world.table.ids:
        client.post("/api/v1/events", json={"user": "full", "video": video, "kind": "like"})
    text = page(client, "full")
    assert shown(text) == []
    assert "Nothing is left to show" in text


def test_without_script_forms_do_it_once(client: TestClient, settings: Settings) -> None:
    text = page(client, "plain")
    card = text[text.index("<article") :]
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', card[: card.index("</form>")]))
    assert form["user"] == "plain"
    for said in ("noted", "known%20already"):
        answer = client.post("/feed/acts", data=form | {"kind": "like"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/?done={said}")
    # Another act with the same card is another event.
    assert client.post("/feed/acts", data=form | {"kind": "share"}, follow_redirects=False).status_code == 303
    reelsense = ReelSense(settings)
    assert [event.kind for event in reelsense.event_log.of("plain")] == ["like", "share"]
    reelsense.catalogue.close()
    wrong = client.post("/feed/acts", data=form | {"kind": "nothing"}, headers={"accept": "text/html"})
    assert wrong.status_code == 422
    assert "event.invalid" in wrong.text
    assert form["video"] not in shown(page(client, "plain"))


class Scripts(html.parser.HTMLParser):
    """Everything that a strict policy would not run: scripts and styles written into the page."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action", "poster"):
            if (address := given.get(name)) and not address.startswith(("/", "#")):
                self.foreign.append(address)


def test_a_hostile_title_is_text_and_nothing_is_inline_or_foreign(client: TestClient) -> None:
    for name in ("cooking 0", "cooking 1"):
        act(client, "eve", name, "share")
    everything = client.get("/feed/cards?user=eve").text
    assert video_id("hostile") in everything
    seen = Scripts()
    seen.feed(page(client, "eve"))
    seen.feed(everything)
    assert (seen.inline, seen.foreign) == ([], [])
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in everything
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'self'" in policy


def test_keys_hold_this_page_too(tmp_path: Path) -> None:
    from store.api_keys import ApiKeys

    settings = load_settings(data=tmp_path / "data")
    reelsense = ReelSense(settings)
    _, key = ApiKeys(reelsense.catalogue).create("viewer", ["recommend", "read"])
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        refused = client.get("/", headers={"accept": "text/html"})
        assert refused.status_code == 401
        assert 'name="key"' in refused.text
        for path in ("/feed/cards?user=ana", "/who", "/viewers", "/viewers/ana"):
            assert client.get(path).status_code == 401
        entered = {"cookie": f"reelsense_key={key}; {WHO}=ana"}
        assert client.get("/", headers=entered).status_code == 200
        assert client.post("/api/v1/events/batch", json=[], headers=entered).status_code == 200
        # Forgetting needs the scope admin.
        assert client.post("/viewers/ana/forget", data={"typed": "ana"}, headers=entered).status_code == 403
    reelsense.catalogue.close()
