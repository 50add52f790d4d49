"""What axe-core finds on every page, in light and in dark, wide and narrow: nothing serious."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import VIEWER, Served
from tests.browser.test_pages import PATHS
from tests.browser.watching import watched

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", PATHS)
def test_a_page_has_no_serious_findings(browser: Browser, served: Served, path: str) -> None:
    with watched(browser, served.origin, "desktop", "light", viewer=VIEWER) as seen:
        page = seen.open(served.path(path))
        assert seen.findings() == []
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 360, "height": 740})
        assert seen.findings() == []


def test_the_check_finds_what_is_wrong(browser: Browser, served: Served) -> None:
    with watched(browser, served.origin) as seen:
        page = seen.open("/quality")
        page.evaluate("document.querySelector('h1').style.color = '#eee'; document.documentElement.lang = ''")
        found = " ".join(seen.findings())
        assert "color-contrast" in found
        assert "html-has-lang" in found


def test_the_first_tab_skips_to_the_content(browser: Browser, served: Served) -> None:
    for path in ("/library", "/operations", "/quality"):
        with watched(browser, served.origin) as seen:
            page = seen.open(path)
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.id") == "main"
