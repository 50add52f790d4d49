"""How light the pages are: `python -m bench.page_weight [--data DIR]` writes results/page_weight.json.

A real browser opens every page over loopback, as somebody who was never here (nothing cached) and once more. Bytes are
those over the wire with headers; what a video's player loads is counted by itself. Times are the browser's own, from
the navigation to the first paint, the median of several visits; the machine's load stands in the file.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext

from app.clips import CLIPS
from bench.browsing import PAGES, SIZES, chromium, prepared, running
from bench.results import RESULTS, write

VISITS = 3
PATIENCE_MS = 60_000
PAINT = """() => Object.fromEntries(
  performance.getEntriesByType("paint").map((entry) => [entry.name, entry.startTime]))"""


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("demo-data"))
    parser.add_argument(
        "--only", action="append", default=[], metavar="PAGE", help="these anew, the others as they were"
    )
    given = parser.parse_args()
    known = prepared(given.data)
    pages: dict[str, Any] = {}
    if given.only:
        pages = json.loads((RESULTS / "page_weight.json").read_text())["pages"]
    with running(given.data) as origin, chromium() as browser:
        for name in given.only or PAGES:
            pattern = PAGES[name]
            for size in SIZES:
                visits = [_visited(browser, origin, pattern.format(**known), size) for _ in range(VISITS)]
                row = {key: round(statistics.median(visit[key] for visit in visits), 1) for key in visits[0]}
                pages.setdefault(name, {})[size] = row
                print(f"{name:12} {size:8} {row}", flush=True)
    print(write("page_weight", {"visits": VISITS, "videos": len(CLIPS), "pages": pages}))


def _visited(browser: Browser, origin: str, path: str, size: str) -> dict[str, float]:
    """One first visit and one more."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height})
    # Somebody new at each visit: who has seen all has an empty feed.
    context.add_cookies([{"name": "reelsense_viewer", "value": secrets.token_hex(8), "url": origin}])
    try:
        first, again = _opened(context, origin + path), _opened(context, origin + path)
    finally:
        context.close()
    return {
        "bytes": first["bytes"],
        "requests": first["requests"],
        "media_bytes": first["media_bytes"],
        "first_paint_ms": first["first-paint"],
        "first_contentful_paint_ms": first["first-contentful-paint"],
        "again_bytes": again["bytes"],
        "again_first_paint_ms": again["first-paint"],
    }


def _opened(context: BrowserContext, address: str) -> dict[str, float]:
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    urls: dict[str, str] = {}
    sizes: dict[str, float] = {}
    session.on("Network.requestWillBeSent", lambda event: urls.update({event["requestId"]: event["request"]["url"]}))
    session.on("Network.dataReceived", lambda event: _add(sizes, event["requestId"], event["encodedDataLength"]))
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    try:
        page.goto(address, wait_until="load")
        # Pictures further down are fetched when they come near; a live stream never ends.
        page.wait_for_timeout(700)
        page.wait_for_function("performance.getEntriesByType('paint').length > 1", timeout=PATIENCE_MS)
        paint = page.evaluate(PAINT)
    finally:
        page.close()
    media = {request for request, url in urls.items() if url.endswith("/media")}
    own = [request for request, url in urls.items() if request not in media and not url.startswith(("data:", "blob:"))]
    return {
        "bytes": sum(sizes.get(request, 0) for request in own),
        "requests": sum(sizes.get(request, 0) > 0 for request in own),
        "media_bytes": sum(sizes.get(request, 0) for request in media),
        **paint,
    }


def _add(sizes: dict[str, float], request: str, count: float) -> None:
    sizes[request] = sizes.get(request, 0) + count


if __name__ == "__main__":
    main()
