"""What all pages share: their frame and assets, how a key is entered, and how errors read to people and to programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from app.access import COOKIE
from app.api import create_api
from app.operations import ReelSense
from store.api_keys import ApiKeys
from store.catalogue import Catalogue
from store.settings import Settings, load_settings
from tests.app.reading import Page
from tests.app.understood import understand
from tests.store.servers import free_port

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PAGES = ("/upload", "/library", "/map", "/operations")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An installation that no test changes."""
    settings = load_settings(data=tmp_path_factory.mktemp("site") / "data")
    with TestClient(create_api(settings), base_url="http://127.0.0.1", headers=BROWSER) as client:
        yield client


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data=tmp_path / "data")


@pytest.fixture
def own(settings: Settings) -> Iterator[TestClient]:
    """An installation of a test's own."""
    with TestClient(create_api(settings), base_url="http://127.0.0.1", headers=BROWSER) as client:
        yield client


@pytest.fixture
def keys(settings: Settings) -> Iterator[ApiKeys]:
    catalogue = Catalogue(settings.database_url())
    yield ApiKeys(catalogue)
    catalogue.close()


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_its_frame_and_loads_only_what_is_there(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    page = Page(answer.text)
    assert page.one("html")["lang"] == "en"
    assert page.one("title").text.endswith("· ReelSense")
    assert page.one("a", class_="skip")["href"] == "#main"
    assert page.one("main")["id"] == "main"
    assert len(page.all("h1")) == 1
    assert [link["href"] for link in page.all("a", aria_current="page")] == [path]
    for address in page.loaded():
        assert address.startswith("/"), "nothing from another host"
        assert client.get(address).status_code == 200, address
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy


def test_assets_are_kept_by_their_digest(client: TestClient) -> None:
    sheet = next(address for address in Page(client.get("/library").text).loaded() if "site.css" in address)
    answer = client.get(sheet)
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    tag = answer.headers["etag"]
    assert tag.strip('"') == sheet.partition("?v=")[2]
    again = client.get("/assets/site.css", headers={"if-none-match": f'"other", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    # Without the digest of its content, or with an old one, it is asked for again each time.
    for address in ("/assets/site.css", "/assets/site.css?v=0000000000000000"):
        assert client.get(address).headers["cache-control"] == "public, no-cache"


@pytest.mark.parametrize("name", ["base.html", "nothing.css", "..%2fapi.py", "%2e%2e/api.py", "site.css%00", ""])
def test_nothing_else_is_an_asset(client: TestClient, name: str) -> None:
    assert client.get(f"/assets/{name}").status_code == 404


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_browser_enters_a_key_once_and_gets_where_it_wanted(own: TestClient, keys: ApiKeys) -> None:
    _, secret = keys.create("ana", ["read"])
    refused = own.get("/library?state=failed&q=a%20b")
    assert refused.status_code == 401
    page = Page(refused.text)
    assert page.one("input", name="then")["value"] == "/library?state=failed&q=a%20b"
    assert not page.all("p", role="alert"), "who has only just come is asked, not told off"
    assert own.post("/key", data={"key": "rsk_no", "then": "/library"}).status_code == 401
    entered = own.post("/key", data={"key": f" {secret} ", "then": "/library?state=failed"}, follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/library?state=failed")
    cookie = entered.headers["set-cookie"]
    assert all(part in cookie for part in (f"{COOKIE}={secret};", "HttpOnly", "SameSite=strict", "Path=/;"))
    assert own.get("/library").status_code == 200
    assert own.get("/api/v1/videos").status_code == 200, "pages load pictures and media from the API"
    scope = own.get("/upload")
    assert scope.status_code == 403
    assert "access.scope_missing" in Page(scope.text).one("p", role="alert").text
    assert own.post("/key/leave").status_code == 200
    assert own.get("/library").status_code == 401


def test_a_key_leads_to_no_other_site(own: TestClient, keys: ApiKeys) -> None:
    _, secret = keys.create("ana", ["read"])
    for then in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nX: 1", "x"):
        answer = own.post("/key", data={"key": secret, "then": then}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert Page(own.get("/key", params={"then": then}).text).one("input", name="then")["value"] == "/"


def test_a_key_that_is_gone_is_asked_for_again(own: TestClient, keys: ApiKeys) -> None:
    key, secret = keys.create("ana", ["admin"])
    own.post("/key", data={"key": secret})
    assert own.get("/operations").status_code == 200
    keys.revoke(key.id)
    answer = own.get("/operations")
    assert answer.status_code == 401
    assert "access.key_invalid" in Page(answer.text).text


def test_other_sites_enter_no_key(client: TestClient) -> None:
    for path in ("/key", "/key/leave", "/upload"):
        answer = client.post(path, headers={"sec-fetch-site": "cross-site"})
        assert (answer.status_code, answer.json()["code"]) == (403, "request.cross_site")


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nothing", 404, "request.unknown_address"),
        ("/videos/ffffffff", 404, "video.unknown"),
        ("/videos/" + quote("<script>alert(1)"), 404, "video.unknown"),
        ("/library?state=purple", 422, "request.invalid"),
        ("/library?cursor=%3Cscript%3Ealert(1)%3C/script%3E", 422, "request.invalid"),
        ("/library?where=%3Cscript%3E", 422, "filter.invalid"),
        ("/library/cards?id=x", 422, "request.invalid"),
    ],
)
def test_an_error_is_a_page_for_people_and_details_for_programs(
    client: TestClient, path: str, status: int, code: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    page = Page(answer.text)
    assert code in page.one("p", role="alert").text
    assert not [element for element in page.all("script") if not element["src"]]
    assert page.all("a", href="/library"), "and a way on"
    problem = client.get(path, headers={"accept": "application/json"})
    assert (problem.status_code, problem.json()["code"]) == (status, code)
    assert problem.headers["content-type"] == "application/problem+json"


def test_methods_and_the_programs_paths_keep_their_errors(client: TestClient) -> None:
    assert "request.method" in Page(client.put("/library").text).text
    assert client.put("/library").status_code == 405
    assert client.get("/api/v1/nothing").headers["content-type"] == "application/problem+json"
    assert client.get("/api/v1/videos/ffffffff").json()["code"] == "video.unknown"


def test_pages_say_when_the_database_is_away(own: TestClient, settings: Settings) -> None:
    assert own.get("/library").status_code == 200
    engine = sa.create_engine(settings.database_url())
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE videos RENAME TO elsewhere"))
    answer = own.get("/library")
    assert answer.status_code == 503
    assert "database.unavailable" in Page(answer.text).one("p", role="alert").text
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO videos"))
    assert own.get("/library").status_code == 200


def test_pages_read_without_a_broker_and_say_so(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path, broker=f"redis://user:secret@127.0.0.1:{free_port()}/0")
    reelsense = ReelSense(settings)
    video = understand(reelsense, "a dog")
    with TestClient(create_api(settings), base_url="http://127.0.0.1", headers=BROWSER) as client:
        for path in (*PAGES, f"/videos/{video}"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "broker.unavailable" in Page(answer.text).one("p", class_="warn").text
            assert "secret" not in answer.text
    reelsense.catalogue.close()
