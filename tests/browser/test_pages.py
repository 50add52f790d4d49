"""Every page, at the width of a phone and of a laptop: it opens, says no error, asks no other host, does not scroll
sideways, and says what is not there. Nothing that people write in words runs in it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import ODD_VIEWER, SCRIPT, VIEWER, Served
from tests.browser.watching import SIZES, watched

pytestmark = pytest.mark.slow

PATHS = (
    "/",
    "/who",
    "/upload",
    "/library",
    "/videos/{video}",
    "/map",
    "/viewers",
    "/viewers/{viewer}",
    "/operations",
    "/quality",
    "/key",
)
# The same pages about something else; one width will do.
VARIANTS = ("/videos/{attacked}", "/viewers/{odd}", "/library?state=failed")


@pytest.mark.parametrize(
    ("path", "size"), [(path, size) for path in PATHS for size in SIZES] + [(path, "phone") for path in VARIANTS]
)
def test_a_page_opens_without_errors(browser: Browser, served: Served, path: str, size: str) -> None:
    with watched(browser, served.origin, size, viewer=VIEWER) as seen:
        page = seen.open(served.path(path))
        page.wait_for_load_state("networkidle")
        seen.calm()
        assert seen.overflow() <= 0
        assert page.locator("h1").count() == 1
        assert page.title().endswith("ReelSense")
        # No broker runs here: every page reads all the same, and says so.
        assert path == "/key" or "stack.not_running" in page.locator("body").inner_text()


def test_what_people_write_is_shown_and_never_run(browser: Browser, served: Served) -> None:
    for path, times in (("/library", 1), ("/videos/{attacked}", 3), ("/", 1), ("/viewers/{viewer}", 1)):
        with watched(browser, served.origin, viewer=ODD_VIEWER) as seen:
            page = seen.open(served.path(path))
            page.wait_for_load_state("networkidle")
            assert page.locator("body").inner_text().count(SCRIPT) >= times, path
            assert page.locator("img[src=x]").count() == 0
            seen.calm()


def test_a_viewer_of_an_odd_name_is_called_by_it(browser: Browser, served: Served) -> None:
    with watched(browser, served.origin, viewer=ODD_VIEWER) as seen:
        page = seen.open("/")
        link = page.locator(".watching a").first
        assert link.inner_text() == ODD_VIEWER
        link.click()
        page.wait_for_load_state("load")
        assert ODD_VIEWER in page.locator("h1").inner_text()
        seen.calm()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/videos/ffffffff", 404),
        ("/videos/<img src=x onerror=owned=1>", 404),
        ("/library?cursor=<b>", 422),
        ("/viewers/%00", 422),
        ("/operations/letters/ffff", 404),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(browser: Browser, served: Served, path: str, status: int) -> None:
    with watched(browser, served.origin) as seen:
        page = seen.open(path, status)
        assert page.locator("h1").count() == 1
        # The browser itself notes an answer of 404 or 422 in its console; nothing else may be there.
        seen.troubles = [trouble for trouble in seen.troubles if "Failed to load resource" not in trouble]
        seen.calm()
