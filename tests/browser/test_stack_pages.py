"""The pages over a whole running stack: a clip is uploaded and watched until it is ready, a queue is paused and
resumed, a dead letter is tried again, and what others do shows by itself."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.operations import ReelSense
from store.dead_letters import DeadLetters
from store.errors import ReelsenseError
from store.settings import load_settings
from tests import clips as pattern
from tests.app.commands import reelsense, stack, until
from tests.browser.conftest import copied
from tests.browser.watching import watched
from workers.intake import metadata_of, take_in

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.models, pytest.mark.stack]
READY_MS = 600_000
# Not among those that are ready already: a real clip without sound, a few seconds long.
UPLOADED = "carphone_pristine.mp4"


@dataclass(frozen=True)
class Running:
    """A stack, its address, and a video whose decoding was given up before it began, with its letter."""

    data: Path
    origin: str
    given_up: str
    letter: str


@pytest.fixture(scope="module")
def running(understood: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = copied(understood, tmp_path_factory.mktemp("stack"))
    house = ReelSense(load_settings(data=data))
    clip = pattern.test_pattern(data / "given up.mp4", seconds=1.0, tone_hz=None)
    words = metadata_of(clip, title="Given up", limits=house.settings.limits)
    video = take_in(clip, words, house.settings, house.objects, house.catalogue).video
    key = house.graph.key(video, "frames")
    house.catalogue.claim(key, "host/1", 30.0)
    house.catalogue.fail(key, ReelsenseError("stage.gave_up", "It kills its worker."), "Traceback of a test", dead=True)
    letter = DeadLetters(house.catalogue).letters()[0]
    house.catalogue.close()
    with stack(data, REELSENSE_WORKERS="1"):
        origin = json.loads((data / "run" / "stack.json").read_text())["api"]
        until(lambda: answers(origin), 60, "the API of the stack does not answer")
        yield Running(data, origin, video.id, letter.id)


def answers(origin: str) -> bool:
    try:
        return urllib.request.urlopen(f"{origin}/health/live", timeout=5).status == 200
    except OSError:
        return False


def test_a_clip_is_uploaded_and_watched_until_it_is_ready(
    browser: Browser, running: Running, clips: dict[str, Path]
) -> None:
    with watched(browser, running.origin) as seen:
        page = seen.open("/upload")
        page.locator("#file").set_input_files(clips[UPLOADED])
        page.get_by_text("Say something about it").click()
        page.get_by_label("Title").fill("A talk in a car")
        page.get_by_label("Tags, with commas between").fill("car, talking")
        page.get_by_role("button", name="Upload", exact=True).click()
        row = page.locator("li.upload")
        # The stages tick off one by one, live: some are done before all are.
        expect(row.locator("[data-stage=frames]")).to_have_attribute("data-state", "done", timeout=READY_MS)
        expect(row.locator(".state")).to_have_text("Ready", timeout=READY_MS)
        assert set(row.locator("[data-stage]").evaluate_all("all => all.map((one) => one.dataset.state)")) == {"done"}
        row.get_by_role("link", name=UPLOADED).click()
        expect(page.locator("h1")).to_have_text("A talk in a car")
        page.wait_for_load_state("networkidle")
        seen.open("/library")
        expect(page.get_by_role("link", name="A talk in a car").first).to_be_visible()
        seen.calm()
    video = page_id(running)
    assert reelsense("show", video, "--json", "--data", running.data).json["metadata"]["tags"] == ["car", "talking"]


def page_id(running: Running) -> str:
    """The id of the clip that was uploaded."""
    rows = reelsense("status", "--json", "--data", running.data).json["videos"]
    return str(next(row["id"] for row in rows if row["title"] == "A talk in a car"))


def test_a_file_that_is_no_video_is_refused_with_its_code(browser: Browser, running: Running, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("This is no video.\n" * 50)
    with watched(browser, running.origin) as seen:
        page = seen.open("/upload")
        page.locator("#file").set_input_files(tmp_path / "notes.mp4")
        page.get_by_role("button", name="Upload", exact=True).click()
        expect(page.locator("li.upload .state")).to_contain_text("media.not_media", timeout=30_000)
        seen.calm()


def test_a_queue_is_paused_and_resumed(browser: Browser, running: Running) -> None:
    with watched(browser, running.origin) as seen:
        page = seen.open("/operations")
        page.get_by_role("button", name="Pause audio").click()
        expect(page.get_by_role("button", name="Resume audio")).to_be_visible()
        assert paused(running) == ["audio"]
        page.get_by_role("button", name="Resume audio").click()
        expect(page.get_by_role("button", name="Pause audio")).to_be_visible()
        assert paused(running) == []
        expect(page.locator("#audit")).to_contain_text("queue.resume")
        seen.calm()


def paused(running: Running) -> list[str]:
    queues = reelsense("queue", "ls", "--json", "--data", running.data).json["queues"]
    return [row["name"] for row in queues if row["paused"]]


def test_what_others_do_shows_by_itself_and_spares_what_is_being_typed(browser: Browser, running: Running) -> None:
    with watched(browser, running.origin) as seen:
        page = seen.open("/operations")
        page.locator("#scale").fill("7")
        page.get_by_role("button", name="Pause text").focus()
        reelsense("queue", "pause", "text", "--reason", "by somebody else", "--data", running.data)
        try:
            resume = page.get_by_role("button", name="Resume text")
            expect(resume).to_be_visible(timeout=15_000)
            expect(resume).to_be_focused()
            expect(page.locator("#queues")).to_contain_text("by somebody else")
            assert page.locator("#scale").input_value() == "7"
        finally:
            reelsense("queue", "resume", "text", "--data", running.data)
        seen.calm()


def test_a_worker_is_seen(browser: Browser, running: Running) -> None:
    with watched(browser, running.origin) as seen:
        page = seen.open("/operations")
        expect(page.locator("#workers tbody tr")).to_have_count(1)
        expect(page.locator("#workers")).to_contain_text("working")
        assert page.locator(".notice.warn").count() == 0, "a broker runs, and no page may say otherwise"
        assert seen.findings() == []
        seen.calm()


def test_a_dead_letter_is_read_and_replayed(browser: Browser, running: Running) -> None:
    with watched(browser, running.origin) as seen:
        page = seen.open("/operations")
        page.get_by_role("link", name=running.letter[:8]).click()
        expect(page.locator("pre").first).to_contain_text("Traceback of a test")
        assert seen.findings() == []
        page.get_by_role("button", name="Replay").click()
        expect(page).to_have_url(re.compile("/operations#dead"))
        expect(page.locator("#dead")).to_contain_text("Nothing has failed.", timeout=60_000)
        page.goto(f"{running.origin}/videos/{running.given_up}")
        until(lambda: state_of(running) == "ready", READY_MS / 1000, "the video did not become ready")
        seen.calm()


def state_of(running: Running) -> str:
    return str(reelsense("status", running.given_up, "--json", "--data", running.data).json["videos"][0]["state"])
