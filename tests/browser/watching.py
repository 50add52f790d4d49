"""A page in a real browser, watched: what its console says, what it asks other hosts for, and what axe-core finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, Response

# The width of a small phone and of a laptop, in CSS pixels.
SIZES: dict[str, tuple[int, int]] = {"phone": (360, 740), "desktop": (1280, 800)}
Scheme = Literal["light", "dark"]
# Machines that run tests are busy: what takes longer is stuck, not slow.
PATIENCE_MS = 60_000
# What a screen reader's user cannot get past; `minor` and `moderate` findings are advice.
SERIOUS = ("serious", "critical")
INSIDE = ("data", "blob", "about")


@dataclass
class Watched:
    """A page, and what went wrong in it so far."""

    page: Page
    origin: str
    troubles: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        """A line of the console: errors count, and so do warnings, for a refused style is one."""
        if message.type in ("error", "warning"):
            self.troubles.append(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def request(self, request: Request) -> None:
        """A request: to another host is none of ours to make."""
        parts = urlsplit(request.url)
        if parts.scheme not in INSIDE and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.troubles.append(f"asked another host: {request.url}")

    def response(self, response: Response) -> None:
        """An answer: a broken one is a trouble even where the console says nothing."""
        if response.status >= 500:
            self.troubles.append(f"{response.status} from {response.url}")

    def dialog(self, dialog: Dialog) -> None:
        """A box of the browser's: no page of ours opens one, so it is a script that came in with somebody's words."""
        self.troubles.append(f"a {dialog.type} box: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str, status: int = 200) -> Page:
        """Open a path of the served application and wait for what it loads; fails for another status."""
        answer = self.page.goto(self.origin + path, wait_until="load")
        assert answer is not None
        assert answer.status == status, f"{path} answered {answer.status}: {answer.text()[:500]}"
        return self.page

    def calm(self) -> None:
        """Fail with all that went wrong, if anything did."""
        assert not self.troubles, "\n".join(self.troubles)
        assert self.page.evaluate("globalThis.owned === undefined"), "a script that somebody wrote has run"

    def findings(self) -> list[str]:
        """What axe-core finds that is serious or critical, one line each with the element it is about."""
        return [
            f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html'][:160]} {_why(node)}"
            for rule in Axe().run(self.page).response["violations"]
            if rule["impact"] in SERIOUS
            for node in rule["nodes"]
        ]

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window: a phone's user would have to scroll sideways."""
        wide: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wide


def _why(node: dict[str, Any]) -> str:
    return " ".join(check["message"] for check in [*node["any"], *node["all"], *node["none"]])[:240]


@contextmanager
def watched(
    browser: Browser, origin: str, size: str = "desktop", scheme: Scheme = "light", *, viewer: str = "", **options: Any
) -> Iterator[Watched]:
    """A page of a context of its own, at a width of `SIZES`, without cookies but for who watches. Nothing moves by
    itself in it unless `reduced_motion` says otherwise."""
    width, height = SIZES[size]
    settings: Any = {"viewport": {"width": width, "height": height}, "color_scheme": scheme, "reduced_motion": "reduce"}
    context = browser.new_context(**(settings | options))
    if viewer:
        context.add_cookies([{"name": "reelsense_viewer", "value": quote(viewer, safe=""), "url": origin}])
    try:
        context.set_default_timeout(PATIENCE_MS)
        seen = Watched(context.new_page(), origin)
        seen.page.on("console", seen.console)
        seen.page.on("pageerror", lambda error: seen.troubles.append(f"script error: {error}"))
        seen.page.on("dialog", seen.dialog)
        seen.page.on("request", seen.request)
        seen.page.on("response", seen.response)
        yield seen
    finally:
        context.close()
