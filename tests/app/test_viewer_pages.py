"""The pages of viewers: any name reads, what was learnt is shown, picks change, and forgetting asks first."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from app.feed_pages import WHO
from app.viewer_pages import PAGE
from store.settings import load_settings
from tests.app.published import published
from tests.app.serving import Api, serving
from tests.ranker.builders import two_tastes, video_id

DAY = 86_400.0
NAMES = ["a/b", "a/forget", "forget", "x/picks", "/a", "a b?#%2F", "ä 日本 🎬", "<i>me</i>", "%", "a/../b"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    data = tmp_path_factory.mktemp("viewers") / "data"
    with published(load_settings(data=data)) as world:
        two_tastes(world, each=3)
        with serving(data) as api:
            yield api


def get(api: Api, path: str) -> tuple[int, str]:
    """A page, asked for as a browser does: the path goes out as it is written."""
    status, _, body = api.ask("GET", path, {"Accept": "text/html"})
    return status, body.decode()


def post(api: Api, path: str, cookie: str = "", **form: str) -> tuple[int, dict[str, str], str]:
    """A form."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html", "Cookie": cookie}
    status, answered, body = api.ask("POST", path, headers, urlencode(form).encode())
    return status, answered, body.decode()


def profile(api: Api, user: str) -> Any:
    return json.loads(api.ask("GET", f"/api/v1{at(user)}/profile")[2])


def act(api: Api, user: str, name: str, kind: str, **more: object) -> None:
    event = {"user": user, "video": video_id(name), "kind": kind, **more}
    body = json.dumps(event).encode()
    assert api.ask("POST", "/api/v1/events", {"Content-Type": "application/json"}, body)[0] == 201


def at(user: str) -> str:
    return f"/viewers/{quote(user, safe='')}"


@pytest.mark.parametrize("user", NAMES)
def test_any_name_has_its_page_its_picks_and_its_end(api: Api, user: str) -> None:
    act(api, user, "cooking 0", "like")
    status, text = get(api, at(user))
    assert status == 200
    assert f"<h1>{escape(user)}</h1>" in text
    assert "<i>me</i>" not in text
    status, answered, _ = post(api, f"{at(user)}/picks", pick="cars")
    assert (status, answered["location"]) == (303, f"{at(user)}#picks")
    assert [one["pick"] for one in profile(api, user)["picks"]] == ["cars"]
    assert post(api, f"{at(user)}/picks", unpick="cars")[0] == 303
    assert profile(api, user)["picks"] == []
    status, _, text = post(api, f"{at(user)}/forget", typed="somebody")
    assert status == 422
    assert "nothing was forgotten" in text
    assert profile(api, user)["events"] == 1
    status, answered, text = post(api, f"{at(user)}/forget", f"{WHO}={quote(user, safe='')}", typed=user)
    assert status == 200
    assert "removed from database/events" in text
    assert answered["set-cookie"].startswith(f'{WHO}=""'), "the browser forgets them too"
    status, text = get(api, at(user))
    assert (status, "user.unknown" in text) == (404, True)


def test_what_was_learnt_stands_beside_each_event(api: Api) -> None:
    now = time.time()
    act(api, "ana", "cooking 0", "like", at=now - 40 * DAY)
    act(api, "ana", "cooking 1", "view", watched_seconds=20.0, at=now - 9 * DAY)
    act(api, "ana", "cars 0", "follow", at=now - DAY)
    act(api, "ana", "cars 1", "not_interested", at=now - 60)
    act(api, "ana", "cars 1", "not_interested", at=now - 60.5)  # set aside: the same within a second
    text = get(api, at("ana"))[1]
    rows = re.findall(r'<tr class="(for|against|neither)">(.*?)</tr>', text, re.DOTALL)
    assert [how for how, _ in rows] == ["against", "for", "for", "for"]
    said = [" ".join(re.sub(r"<[^>]+>", "", row).split()) for _, row in rows]
    assert "less cars -2.00, road -1.00" in said[0]
    assert "follows driver" in said[1]
    assert "20.0 s of 20.0" in said[2]
    assert "more cooking" in said[2]
    assert re.search("in interest [12]", said[3])
    assert "duplicate" in text
    assert text.count('<path class="series-') == 2, "one band for each interest"
    assert re.findall(r'<text x="[\d.]+"[^>]*>(\d{4}-\d\d-\d\d)</text>', text), "with the days below it"
    assert 'class="w5"' in text


def test_only_picked_reads_too(api: Api) -> None:
    assert post(api, f"{at('new')}/picks", pick="cooking")[0] == 303
    text = get(api, at("new"))[1]
    assert "No events yet." in text
    assert "nothing moved" in text


@pytest.mark.parametrize(("path", "status"), [("nobody", 404), ("x" * 201, 422), ("a%00b", 422)])
def test_nobody_and_no_name(api: Api, path: str, status: int) -> None:
    answered, text = get(api, f"/viewers/{path}")
    assert answered == status
    assert "<h1>" in text


def test_the_list_goes_page_by_page(api: Api) -> None:
    names = [f"list/{number:03} <b>" for number in range(PAGE + 5)]
    for name in names:
        act(api, name, "cooking 0", "like")
    found: list[str] = []
    path = "/viewers?beginning=list%2F"
    while path:
        text = get(api, path)[1]
        found += re.findall(r'<th scope="row"><a href="/viewers/([^"]+)">', text)
        more = re.search(r'<a class="button" href="(/viewers\?[^"]+after=[^"]+)">More', text)
        path = more.group(1).replace("&amp;", "&") if more else ""
    assert found == [quote(name, safe="") for name in names]
    assert "No viewer whose name begins with" in get(api, "/viewers?beginning=%3Cnobody")[1]
    assert get(api, "/viewers?after=" + "x" * 900)[0] == 422
    assert get(api, "/viewers?after=a%00")[0] == 422
