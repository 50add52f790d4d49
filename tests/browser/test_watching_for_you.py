"""For You in a real browser: it plays, and what is done is sent by itself, once, and answered by the feed.

Sixteen clips made by ffmpeg, published with planted tastes through the real fusion: cooking lasts two seconds, so that
it can be watched to its end; cars last a minute, so that leaving within nine seconds is a skip on a slow machine too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.feed_pages import WHO
from app.operations import ReelSense
from store.artifacts import source_key
from store.catalogue import StoredEvent
from store.settings import load_settings
from tests import clips
from tests.app.commands import until
from tests.app.published import published
from tests.app.serving import Api, serving
from tests.browser.watching import SIZES, watched
from tests.ranker.builders import video_id

pytestmark = pytest.mark.slow

SHORT, LONG = 2.0, 60.0
EACH = 8
# A machine that does much else beside is slow, and that is no failure.
PATIENCE_SECONDS = 60
expect.set_options(timeout=1000 * PATIENCE_SECONDS)


@dataclass(frozen=True)
class Theatre:
    """The application over these clips, and the log that it writes."""

    api: Api
    reelsense: ReelSense

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.api.port}"

    def events(self, user: str) -> list[StoredEvent]:
        return self.reelsense.event_log.of(user)

    def kinds(self, user: str) -> list[tuple[str, str]]:
        return [(event.kind, event.video_id) for event in self.events(user)]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    folder = tmp_path_factory.mktemp("theatre")
    settings = load_settings(data=folder / "data")
    short = clips.test_pattern(folder / "short.mp4", SHORT, 440.0, movflags="faststart")
    long = clips.test_pattern(folder / "long.mp4", LONG, 220.0, movflags="faststart")
    with published(settings) as world:
        for place in range(EACH):
            for topic, clip, length in (("cooking", short, SHORT), ("cars", long, LONG)):
                name = f"{topic} {place}"
                world.publish(
                    name, topic, tags={topic: 1.0, f"{topic} {place % 3}": 0.5}, creator=topic, duration=length
                )
                world.objects.put_file(source_key(video_id(name)), clip)
        with serving(settings.data) as api:
            yield Theatre(api, ReelSense(settings))


@contextmanager
def watching(
    browser: Browser, theatre: Theatre, user: str, pick: str = "", **options: Any
) -> Iterator[tuple[Page, list[str]]]:
    """The feed of a viewer who picked a topic, and the errors that its script had; fails when there were any."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, **options)
    errors: list[str] = []
    try:
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        page = entered(context, theatre, user, pick)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{theatre.origin}/")
        yield page, errors
        assert errors == []
    finally:
        context.close()


def entered(context: BrowserContext, theatre: Theatre, user: str, pick: str) -> Page:
    if pick:
        theatre.api.ask(
            "POST",
            f"/api/v1/viewers/{quote(user, safe='')}/picks",
            {"Content-Type": "application/json"},
            f'{{"pick": ["{pick}"]}}'.encode(),
        )
    context.add_cookies([{"name": WHO, "value": quote(user, safe=""), "url": theatre.origin}])
    return context.new_page()


def current(page: Page) -> str:
    """The video of the card in sight."""
    return str(page.locator(".card.current").get_attribute("data-video"))


def plays(page: Page, least: float = 0.05) -> None:
    """Wait until the card in sight plays, and no other does."""
    page.wait_for_function(
        """least => {
          const playing = [...document.querySelectorAll("video")].filter((video) => !video.paused);
          return playing.length === 1 && playing[0].closest(".card.current") && playing[0].currentTime >= least;
        }""",
        arg=least,
    )


def goes_on(page: Page, act: Callable[[], object]) -> str:
    """Do something that brings another card into sight; the new one."""
    before = current(page)
    act()
    page.wait_for_function("before => document.querySelector('.card.current').dataset.video !== before", arg=before)
    return current(page)


def waiting(page: Page) -> list[str]:
    """The videos below the card in sight, in their order."""
    found: list[str] = page.evaluate(
        """() => {
          const all = [...document.querySelectorAll(".card")];
          const below = all.findIndex((card) => card.classList.contains("current")) + 1;
          return all.slice(below).map((card) => card.dataset.video);
        }"""
    )
    return found


def test_a_newcomer_picks_and_what_was_picked_plays_muted(browser: Browser, theatre: Theatre) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    page = context.new_page()
    page.goto(f"{theatre.origin}/")
    expect(page.get_by_role("heading", name="Who watches?")).to_be_visible()
    page.get_by_label("Name").fill("new / 日本")
    page.get_by_label("cars", exact=True).check()
    page.get_by_role("button", name="Begin").click()
    plays(page)
    assert str(page.locator(".card.current").get_attribute("data-title")).startswith("cars")
    video = page.locator(".card.current video")
    assert video.evaluate("video => [video.muted, video.controls, video.textTracks.length]") == [True, False, 1]
    page.locator(".card.current").get_by_role("button", name="Sound").click()
    assert video.evaluate("video => video.muted") is False
    page.keyboard.press("m")
    assert video.evaluate("video => video.muted") is True
    page.keyboard.press("c")
    assert video.evaluate("video => video.textTracks[0].mode") == "disabled"
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('.card.current video').paused")
    page.get_by_role("link", name="new / 日本").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("new / 日本")
    context.close()


def test_finishing_is_measured_sent_and_answered(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "finisher", "cooking") as (page, _):
        first = current(page)
        waited = waiting(page)
        goes_on(page, lambda: None)
        until(lambda: bool(theatre.events("finisher")), PATIENCE_SECONDS, "no event came")
        [event] = theatre.events("finisher")
        assert (event.kind, event.video_id) == ("view", first)
        assert event.watched_seconds == pytest.approx(SHORT, abs=0.35)
        assert event.session
        expect(page.locator("#said")).to_contain_text("You finished “cooking")
        assert first not in waiting(page)
        assert waiting(page) != waited[1:]


def test_a_skip_changes_what_waits(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "skipper", "cars") as (page, _):
        plays(page, 0.0)
        first, waited = current(page), waiting(page)
        second = goes_on(page, lambda: page.keyboard.press("ArrowDown"))
        assert second == waited[0]
        expect(page.locator("#said")).to_contain_text("You skipped “cars")
        plays(page)
        [event] = theatre.events("skipper")
        assert (event.kind, event.video_id) == ("skip", first)
        assert event.watched_seconds is not None
        assert 0 <= event.watched_seconds < 0.15 * LONG
        assert waiting(page) != waited[1:], "the list that waits is another"
        # Up again: no second skip, for it is left where it was watched for longer than that.
        goes_on(page, lambda: page.keyboard.press("ArrowUp"))
        assert current(page) == first


def test_what_is_jumped_over_is_not_watched(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "jumper", "cars") as (page, _):
        plays(page)
        first = current(page)
        jump = "(video, at) => { video.currentTime = at; }"
        goes_on(page, lambda: page.locator(".card.current video").evaluate(jump, LONG - 2))
        until(lambda: bool(theatre.events("jumper")), PATIENCE_SECONDS, "no event came")
        [event] = theatre.events("jumper")
        assert (event.kind, event.video_id) == ("view", first)
        assert event.watched_seconds is not None
        assert 1.5 < event.watched_seconds < LONG / 2, "not what was jumped over"


def test_keys_do_each_act_once(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "fan", "cars") as (page, _):
        plays(page)
        first = current(page)
        for key in ("l", "l", "f", "s"):
            page.keyboard.press(key)
        until(lambda: len(theatre.events("fan")) >= 3, PATIENCE_SECONDS, "not all events came")
        assert sorted(theatre.kinds("fan")) == [("follow", first), ("like", first), ("share", first)]
        like = page.locator(".card.current").get_by_role("button", name="Like")
        expect(like).to_have_attribute("aria-pressed", "true")
        second = goes_on(page, lambda: page.keyboard.press("ArrowDown"))
        third = goes_on(page, lambda: page.keyboard.press("n"))
        assert third != second
        expect(page.locator("#said")).to_contain_text("You are not interested in “")
        assert ("not_interested", second) in theatre.kinds("fan")
        # Keys that are switched off do nothing.
        page.locator("#up-next").click()
        page.get_by_label("Keys", exact=True).uncheck()
        page.keyboard.press("l")
        page.wait_for_timeout(300)
        assert ("like", third) not in theatre.kinds("fan")


def test_why_this_opens_takes_the_score_apart_and_seeks(browser: Browser, theatre: Theatre) -> None:
    for name in ("cars 0", "cars 1"):
        theatre.reelsense.event("asker", video_id(name), "like", None)
    with watching(browser, theatre, "asker") as (page, _):
        plays(page)
        page.locator(".card.current").get_by_text("Why this?").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_role("heading", name="The video that matched")).to_be_visible()
        assert "You liked" in dialog.inner_text()
        numbers = [float(text) for text in dialog.locator(".terms tbody td").all_inner_texts()]
        score = float(dialog.locator("[data-score]").inner_text())
        assert len(numbers) >= 3
        assert sum(numbers) == pytest.approx(score, abs=1e-4 * len(numbers))
        assert dialog.locator(".lanes rect.moment").count() >= 1
        assert {"Pictures", "Sound", "Words"} <= set(dialog.locator(".bars dt").all_inner_texts())
        seek = dialog.locator("[data-seek]")
        if seek.count():
            at = float(str(seek.first.get_attribute("data-seek")))
            seek.first.click()
            expect(dialog).to_be_hidden()
            page.wait_for_function("at => document.querySelector('.card.current video').currentTime >= at", arg=at)
            page.keyboard.press("w")
            expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()


def test_a_video_deleted_while_it_plays_is_stepped_over_with_a_word(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "unlucky", "cars") as (page, _):
        plays(page)
        first = current(page)
        title = str(page.locator(".card.current").get_attribute("data-title"))
        status, _, body = theatre.api.ask("DELETE", f"/api/v1/videos/{first}")
        assert status in (200, 204), body
        second = goes_on(page, lambda: page.keyboard.press("l"))
        expect(page.locator("#said")).to_contain_text(f"“{title}” was deleted")
        plays(page)
        assert theatre.events("unlucky") == []
        # And one that is gone before it is come to.
        page.route("**/feed/cards*", lambda route: route.abort())
        _, *between, last = waiting(page)[:4]
        theatre.api.ask("DELETE", f"/api/v1/videos/{last}")
        goes_on(page, lambda: page.keyboard.press("ArrowDown"))
        for video in between:
            assert goes_on(page, lambda: page.keyboard.press("ArrowDown")) == video
        expect(page.locator(f"#card-{last} .gone")).to_contain_text("was deleted")
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(500)
        assert current(page) not in (second, last)


def test_leaving_the_page_loses_nothing(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "leaver", "cars") as (page, _):
        plays(page, 1.0)
        first = current(page)
        page.goto(f"{theatre.origin}/viewers")
        until(lambda: bool(theatre.events("leaver")), PATIENCE_SECONDS, "the beacon did not come")
        [event] = theatre.events("leaver")
        assert (event.kind, event.video_id) == ("view", first)
        assert event.watched_seconds is not None
        assert event.watched_seconds >= 0.8
        # What came is known when it is sent again by the next page.
        page.goto(f"{theatre.origin}/")
        page.wait_for_load_state("networkidle")
        assert len(theatre.events("leaver")) == 1


def test_without_a_network_it_is_kept_and_sent_once(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "traveller", "cars") as (page, _):
        plays(page)
        first = current(page)
        page.context.set_offline(True)
        page.keyboard.press("l")
        expect(page.locator("#said")).to_contain_text("it is kept")
        assert theatre.events("traveller") == []
        page.context.set_offline(False)
        until(lambda: bool(theatre.events("traveller")), PATIENCE_SECONDS, "it was not sent when the network was back")
        assert theatre.kinds("traveller") == [("like", first)]


def test_without_script_it_reads_and_forms_do_it(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "plain", "cooking", java_script_enabled=False) as (page, _):
        assert page.locator("article.card").count() == 6
        first = str(page.locator("article.card").first.get_attribute("data-video"))
        page.locator("article.card").first.get_by_text("Why this?").click()
        expect(page.get_by_text("Together: the score").first).to_be_visible()
        page.get_by_role("button", name="I watched it to the end").first.click()
        expect(page.get_by_role("status").last).to_contain_text("noted")
        assert theatre.kinds("plain") == [("view", first)]
        assert page.locator(f"#card-{first}").count() == 0


def test_who_asks_for_calm_starts_each_video(browser: Browser, theatre: Theatre) -> None:
    with watching(browser, theatre, "calm", "cars", reduced_motion="reduce") as (page, _):
        play = page.locator(".card.current").get_by_role("button", name="Play", exact=True)
        expect(play).to_be_visible()
        assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.paused)")
        play.click()
        plays(page)


@pytest.mark.parametrize("size", SIZES)
def test_all_of_it_can_be_used(browser: Browser, theatre: Theatre, size: str) -> None:
    for name, kind in (("cars 0", "like"), ("cooking 0", "skip")):
        theatre.reelsense.event(f"reader {size}", video_id(name), kind, None)
    scheme: Any = "dark" if size == "phone" else "light"
    with watched(browser, theatre.origin, size, scheme) as seen:
        for path in (f"/viewers/reader%20{size}",):
            seen.open(path)
            assert (path, seen.findings(), seen.overflow() <= 0) == (path, [], True)
        cookie = {"name": WHO, "value": f"reader%20{size}", "url": theatre.origin}
        seen.page.context.add_cookies([cookie])  # type: ignore[list-item]
        page = seen.open("/")
        assert ("/", seen.findings(), seen.overflow() <= 0) == ("/", [], True)
        page.keyboard.press("w")
        expect(page.get_by_role("dialog")).to_be_visible()
        assert ("why", seen.findings(), seen.overflow() <= 0) == ("why", [], True)
        assert not [trouble for trouble in seen.troubles if not re.search("404|thumbnail", trouble)]
