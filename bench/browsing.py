"""What looking at the pages needs: Debian's Chromium, the application over the demo's clips, and the list of pages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

from app import demo
from app.clips import CLIPS
from app.operations import ReelSense
from store.settings import load_settings

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# The width and height of a small phone and of a laptop, in CSS pixels.
SIZES: dict[str, tuple[int, int]] = {"phone": (360, 740), "desktop": (1280, 800)}
START_SECONDS = 120.0
VIEWER = demo.VIEWERS[0]
# Name, and path; `{video}` is a clip of the demo, `{viewer}` somebody who watched.
PAGES: dict[str, str] = {
    "for-you": "/",
    "who": "/who",
    "upload": "/upload",
    "library": "/library",
    "video": "/videos/{video}",
    "map": "/map",
    "viewer": "/viewers/{viewer}",
    "operations": "/operations",
    "quality": "/quality",
}


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser of the system. Ends the program where there is none."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        sys.exit("This needs Chromium (Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        # The sandbox of Chromium does not work for root; all that it opens is our own.
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.getuid() != 0)
        try:
            yield browser
        finally:
            browser.close()


def prepared(data: Path) -> dict[str, str]:
    """The demo's clips and viewers in `data`, made where they are not there yet: what fills the paths of PAGES."""
    reelsense = ReelSense(load_settings(data=data))
    if len(reelsense.catalogue.videos()) < len(CLIPS):
        subprocess.run([sys.executable, "-m", "app.demo", "--data", str(data)], check=True, stdout=subprocess.DEVNULL)
    videos = {video.file_name: video.id for video in reelsense.catalogue.videos()}
    reelsense.catalogue.close()
    return {"video": videos["obama_speech.mp4"], "viewer": quote(VIEWER, safe="")}


@contextlib.contextmanager
def running(data: Path) -> Iterator[str]:
    """`reelsense up` on a data directory, until the block ends: the address of the application."""
    command = [sys.executable, "-m", "app.cli", "up", "--data", str(data), "--port", "0", "--json"]
    with (data / "up.log").open("wb") as log:
        stack = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert stack.stdout is not None
        # One JSON document of several lines, printed when all runs; nothing, when it could not start.
        said = ""
        for line in stack.stdout:
            said += line
            if line == "}\n":
                break
        origin = str(json.loads(said)["api"])
        _await(origin)
        yield origin
    finally:
        stack.terminate()
        stack.wait(60)


def _await(origin: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"{origin}/health/live", timeout=5).status == 200:
                return
        time.sleep(0.2)
    sys.exit(f"The application at {origin} does not answer.")
