"""Every page, at the width of a phone and of a laptop, in light and in dark: it opens, says no error, asks no other
host, does not scroll sideways, and can be used with a keyboard and a screen reader (axe-core)."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser.watching import SIZES, Scheme, watched

PATHS = ("/operations", "/quality")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", PATHS)
def test_a_page_opens_without_errors_or_foreign_requests(browser: Browser, origin: str, path: str, size: str) -> None:
    with watched(browser, origin, size) as seen:
        seen.open(path)
        seen.calm()
        assert seen.overflow() <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_a_page_has_no_serious_findings(browser: Browser, origin: str, path: str, scheme: Scheme) -> None:
    with watched(browser, origin, "desktop", scheme) as seen:
        seen.open(path)
        assert seen.findings() == []
