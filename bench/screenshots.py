"""A picture of every page: `python -m bench.screenshots [--data DIR]` writes docs/screenshots/PAGE-WIDTH.webp.

It runs the whole stack over the demo's clips (`--data demo-data` is where `make demo` leaves them; where there are
none, they are read first). Laptops are shown in light colours, phones in dark ones.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page

from bench.browsing import PAGES, SIZES, VIEWER, chromium, prepared, running

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
SCHEMES: dict[str, Literal["light", "dark"]] = {"desktop": "light", "phone": "dark"}
QUALITY = 82
# A long page is shown so far: what does not fit two screens is to be seen on the page itself.
MOST_SCREENS = 2
SETTLE_MS = 1500


def main() -> None:
    """Read the arguments and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("demo-data"))
    parser.add_argument("--only", action="append", default=[], metavar="PAGE", help="these pages alone")
    given = parser.parse_args()
    known = prepared(given.data)
    FOLDER.mkdir(exist_ok=True)
    with running(given.data) as origin, chromium() as browser:
        for name, pattern in PAGES.items():
            if given.only and name not in given.only:
                continue
            for size in SIZES:
                file = FOLDER / f"{name}-{size}.webp"
                taken = picture(browser, origin, pattern.format(**known), size)
                file.write_bytes(taken)
                print(f"{file.relative_to(FOLDER.parents[1])}: {len(taken) // 1024} KiB", flush=True)


def picture(browser: Browser, origin: str, path: str, size: str) -> bytes:
    """A page as WebP."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=SCHEMES[size], reduced_motion="reduce"
    )
    context.add_cookies([{"name": "reelsense_viewer", "value": VIEWER, "url": origin}])
    try:
        page = context.new_page()
        page.goto(origin + path, wait_until="networkidle" if path != "/operations" else "load")
        page.wait_for_timeout(SETTLE_MS)
        shown = min(_height(page), MOST_SCREENS * height)
        page.set_viewport_size({"width": width, "height": max(height, shown)})
        page.wait_for_timeout(SETTLE_MS // 3)
        png = page.screenshot()
    finally:
        context.close()
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(stream, "WEBP", quality=QUALITY, method=6)
    return stream.getvalue()


def _height(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollHeight")
    return found


if __name__ == "__main__":
    main()
