"""Library, video, upload and map as people use them: by script, by keys, and where something breaks off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from app.operations import ReelSense
from store.artifacts import source_key
from store.local_objects import LocalObjects
from store.records import Metadata
from store.settings import Settings, load_settings
from tests import clips
from tests.app.serving import Api, serving
from tests.app.understood import UPLOADED, understand
from tests.browser.watching import watched

pytestmark = pytest.mark.slow

CARDS = 24
QUICK_MS = 60_000
PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Served:
    """An installation that is served: its settings, its address, and a video with a clip that plays."""

    settings: Settings
    api: Api
    playing: str

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.api.port}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = load_settings(data=tmp_path_factory.mktemp("pages") / "data")
    reelsense = ReelSense(settings)
    clip = clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=12.0, tone_hz=440.0)
    for number in range(CARDS + 2):
        understand(
            reelsense,
            f"clip {number:02}",
            uploaded_at=UPLOADED + number,
            stages=("frames", "published"),
            topic="cars" if number % 2 else "cooking",
            tags={"cars" if number % 2 else "cooking": 1.0},
        )
    playing = understand(reelsense, "playing", clip=clip, metadata=Metadata(title="It plays"), uploaded_at=UPLOADED - 1)
    reelsense.catalogue.close()
    with serving(settings.data) as api:
        yield Served(settings, api, playing)


def test_more_cards_come_without_leaving_the_page(browser: Browser, served: Served) -> None:
    with watched(browser, served.origin) as seen:
        page = seen.open("/library")
        expect(page.locator(".card")).to_have_count(CARDS)
        page.get_by_role("link", name="More").click()
        expect(page.locator(".card")).to_have_count(CARDS + 3)
        expect(page.get_by_role("link", name="More")).to_have_count(0)
        expect(page.locator(".card h2 a").nth(CARDS)).to_be_focused()
        assert page.url.endswith("/library")
        seen.calm()


def test_what_is_said_and_seen_moves_the_player(browser: Browser, served: Served) -> None:
    with watched(browser, served.origin) as seen:
        page = seen.open(f"/videos/{served.playing}")
        player = page.locator("video")
        page.wait_for_function("document.querySelector('video').readyState >= 1", timeout=QUICK_MS)

        def stands_at() -> float:
            return float(player.evaluate("video => video.currentTime"))

        page.locator(".said-lines a").nth(1).click()
        assert 5.0 <= stands_at() < 8.0
        expect(page.locator(".said-lines li[aria-current]").first).to_contain_text("and the last")
        player.evaluate("video => video.pause()")
        page.locator(".frames a").nth(3).click()
        assert 9.5 <= stands_at() < 12.1
        player.evaluate("video => video.pause()")
        strip = page.locator("svg.strip").first
        box = strip.bounding_box()
        assert box is not None
        strip.click(position={"x": box["width"] / 4, "y": 5})
        assert 2.8 <= stands_at() < 5.5
        expect(page.locator("[data-curve] path")).to_have_count(1, timeout=QUICK_MS)
        assert "/videos/" in page.url
        assert "t=" not in page.url
        seen.calm()


def test_the_map_shows_a_frame_by_mouse_and_by_keys(browser: Browser, served: Served) -> None:
    with watched(browser, served.origin) as seen:
        page = seen.open("/map")
        canvas = page.locator("#map")
        expect(canvas).to_be_visible()
        canvas.focus()
        page.keyboard.press("ArrowRight")
        card = page.locator("#card")
        expect(card).to_be_visible()
        expect(card.locator("strong")).not_to_be_empty(timeout=QUICK_MS)
        first = card.locator("img").get_attribute("src")
        for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
            page.keyboard.press(key)
            if card.locator("img").get_attribute("src") != first:
                break
        assert card.locator("img").get_attribute("src") != first
        expect(page.locator("#near")).not_to_be_empty()
        page.keyboard.press("Escape")
        expect(card).to_be_hidden()
        chip = page.locator("[data-group]").first
        chip.click()
        expect(chip).to_have_attribute("aria-pressed", "true")
        assert page.url.endswith("/map")
        box = canvas.bounding_box()
        assert box is not None
        # Some point of the map lies under one of these.
        for step in range(1, 40):
            page.mouse.move(box["x"] + box["width"] * (step % 8 + 0.5) / 8, box["y"] + box["height"] * (step // 8) / 5)
            if card.is_visible():
                break
        expect(card).to_be_visible()
        canvas.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/videos/*")
        seen.calm()


def test_colours_are_chosen_and_kept(browser: Browser, served: Served) -> None:
    with watched(browser, served.origin) as seen:
        page = seen.open("/library")

        def ground() -> str:
            return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

        light = ground()
        page.get_by_role("button", name="Colours").click()
        dark = ground()
        assert dark != light
        seen.open("/upload")
        assert ground() == dark
        page.get_by_role("button", name="Colours").click()
        assert ground() == light


def test_an_upload_that_broke_off_goes_on_where_it_stopped(browser: Browser, served: Served, tmp_path: Path) -> None:
    clip = clips.test_pattern(tmp_path / "<b>broken< b>.mp4", seconds=1.0, tone_hz=None)
    with clip.open("ab") as stream:  # what a player ignores, so that it takes two pieces
        stream.write((PIECE_BYTES + 8).to_bytes(4, "big") + b"free" + bytes(PIECE_BYTES))
    content = clip.read_bytes()
    sent: list[tuple[str, int]] = []

    def note(request: Request) -> None:
        sent.append((request.method, int(request.headers.get("upload-offset", -1))))

    def cut(route: Route) -> None:
        if int(route.request.headers.get("upload-offset", 0)):
            route.abort()
        else:
            route.continue_()

    with watched(browser, served.origin) as seen:
        page = seen.open("/upload")
        page.on("request", note)
        page.route("**/api/v1/uploads/*", cut)
        page.locator("#file").set_input_files(clip)
        page.get_by_role("button", name="Upload", exact=True).click()
        row = page.locator("li.upload")
        expect(row.locator(".name")).to_have_text("<b>broken< b>.mp4")
        expect(row.locator(".state")).to_contain_text("The line broke", timeout=QUICK_MS)
        # Its window is closed, and another one opened.
        page.close()
        page = seen.page.context.new_page()
        page.on("request", note)
        page.goto(served.origin + "/upload")
        expect(page.locator("#broken-list")).to_contain_text("<b>broken< b>.mp4")
        page.locator("#file").set_input_files(clip)
        page.get_by_role("button", name="Upload", exact=True).click()
        row = page.locator("li.upload")
        expect(row.get_by_role("link")).to_have_text("<b>broken< b>.mp4", timeout=QUICK_MS)
        expect(page.locator("#broken")).to_be_hidden()
    assert [method for method, _ in sent].count("POST") == 1, "one upload, begun once"
    pieces = [offset for method, offset in sent if method == "PATCH"]
    assert pieces[0] == 0
    assert set(pieces[1:]) == {PIECE_BYTES}, "and what had come was not sent again"
    video = hashlib.sha256(content).hexdigest()[:32]
    objects = LocalObjects(served.settings.objects_directory())
    assert objects.get(source_key(video)) == content
    _, _, said = served.api.ask("GET", f"/api/v1/videos/{video}")
    assert json.loads(said)["file_name"] == "<b>broken< b>.mp4"
