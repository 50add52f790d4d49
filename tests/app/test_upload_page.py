"""The page to upload from: its form takes a video without any script, and says what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from app.assets import PAGES
from app.guard import FORM_EXTRA_BYTES, FORMS, MOST_CAPTIONS, _largest
from store.api_keys import ApiKeys
from store.catalogue import Catalogue
from store.settings import Settings, load_settings
from tests import clips
from tests.app.reading import Page
from workers.stages import STAGES

SUBTITLES = b"1\n00:00:00,100 --> 00:00:00,900\n<b>hello</b> there\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data=tmp_path / "data", limits={"bytes": 200_000})


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=1.0, tone_hz=None).read_bytes()


def test_the_form_asks_for_all_that_can_be_said(client: TestClient) -> None:
    page = Page(client.get("/upload").text)
    form = page.one("form", id="upload")
    assert (form["method"], form["action"], form["enctype"]) == ("post", "/upload", "multipart/form-data")
    assert form["data-most-bytes"] == "200000"
    assert form["data-stages"].split() == [stage.name for stage in STAGES]
    named = {element["name"] for element in page.all("input", "textarea") if element["name"]}
    assert named == {"file", "title", "tags", "description", "creator", "region", "language", "captions"}
    labelled = {label["for"] for label in page.all("label")}
    assert labelled == {element["id"] for element in page.all("input", "textarea") if element["name"]}


def test_a_video_is_taken_and_its_page_opened(client: TestClient, clip: bytes) -> None:
    answer = client.post(
        "/upload",
        files=[
            ("file", ("../../<img src=x>\n\u202e.mp4", clip)),
            ("captions", ("x.en.srt", SUBTITLES)),
        ],
        data={"title": "<script>alert(1)</script>", "tags": "one, <b>two</b>", "region": "DE", "language": "en"},
        follow_redirects=False,
    )
    assert answer.status_code == 303
    video = answer.headers["location"].removeprefix("/videos/")
    page = Page(client.get(answer.headers["location"]).text)
    assert page.one("h1").text == "<script>alert(1)</script>"
    assert not page.all("img", src="x")
    shown = client.get(f"/api/v1/videos/{video}").json()
    assert shown["metadata"]["tags"] == ["one", "<b>two</b>"]
    assert (shown["metadata"]["region"], shown["metadata"]["language"]) == ("DE", "en")
    again = client.post("/upload", files={"file": ("again.mp4", clip)}, follow_redirects=False)
    assert again.headers["location"] == f"/videos/{video}", "the same bytes are the same video"


def test_what_is_wrong_stands_on_the_page(client: TestClient, clip: bytes) -> None:
    for content, data, status, code in (
        (b"", {}, 422, "media.empty"),
        (b"text", {}, 422, "media.not_media"),
        (b"x" * 300_000, {}, 413, "media.too_large"),
        (clip, {"region": "<script>"}, 422, "metadata.invalid"),
        (clip, {"title": "x" * 501}, 422, "metadata.invalid"),
    ):
        answer = client.post("/upload", files={"file": ("a.mp4", content)}, data=data)
        assert answer.status_code == status, code
        page = Page(answer.text)
        assert page.one("p", role="alert").text.split()[0] == code
        assert page.all("form", id="upload"), "and the form is there for another try"
        assert not page.all("img")
    missing = client.post(
        "/upload", data={"title": "no file"}, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert (missing.status_code, "upload.malformed" in missing.text) == (400, True)
    assert client.get("/api/v1/videos").json()["videos"] == []


def test_the_form_may_be_as_large_as_that_of_the_api(settings: Settings) -> None:
    most = settings.limits.bytes + MOST_CAPTIONS * settings.limits.caption_bytes + FORM_EXTRA_BYTES
    assert [_largest(settings, "POST", path) for path in FORMS] == [most, most]
    assert _largest(settings, "POST", "/upload/") == most
    assert _largest(settings, "GET", "/upload") == settings.intake.request_bytes
    assert _largest(settings, "POST", "/uploads") == settings.intake.request_bytes


def test_uploading_needs_its_scope(client: TestClient, settings: Settings, clip: bytes) -> None:
    catalogue = Catalogue(settings.database_url())
    keys = ApiKeys(catalogue)
    read, upload = (keys.create(scope, [scope])[1] for scope in ("read", "upload"))
    for secret, status in ((read, 403), (upload, 303)):
        headers = {"authorization": f"Bearer {secret}"}
        answer = client.post("/upload", files={"file": ("a.mp4", clip)}, headers=headers, follow_redirects=False)
        assert answer.status_code == status
    assert client.get("/upload").status_code == 401
    catalogue.close()


def test_the_script_speaks_as_the_server_does() -> None:
    script = (PAGES / "upload.js").read_text()
    assert re.search(r'const API = "/api/v1/uploads"', script)
    for name in (
        "Tus-Resumable",
        "Upload-Length",
        "Upload-Metadata",
        "Upload-Offset",
        "application/offset+octet-stream",
    ):
        assert name in script
    assert "innerHTML" not in script
