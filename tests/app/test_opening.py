"""`reelsense show --open` and `quality --open`: a page where the application runs, a file of plots where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from app.opening import plots_of
from app.operations import ReelSense
from store.catalogue import Video
from store.records import MediaInfo, Metadata
from store.settings import load_settings
from tests.app.commands import reelsense, stack

HOSTILE = "<script>alert(1)</script>"
MEDIA = MediaInfo(container="mp4", bytes=1, duration=2.0, width=2, height=2, video_codec="h264")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    house = ReelSense(load_settings(data=tmp_path))
    metadata = Metadata(title=HOSTILE)
    house.catalogue.put_video(
        Video(id="ab" * 16, revision="r", file_name="a.mp4", metadata=metadata, media=MEDIA, uploaded_at=1.0)
    )
    house.catalogue.close()
    return tmp_path


@pytest.fixture
def browser_program(tmp_path: Path) -> Path:
    """A program that stands for the browser (the standard library asks the variable BROWSER) and notes what it is
    told to open."""
    program = tmp_path / "browser.sh"
    program.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\n')
    program.chmod(0o755)
    return program


def test_without_a_stack_a_file_of_plots_is_opened(data: Path, browser_program: Path) -> None:
    for arguments, words in ((("show", "abababab"), "Nothing is understood"), (("quality",), "recall@20")):
        document = reelsense(*arguments, "--open", "--json", "--data", data, BROWSER=str(browser_program)).json
        assert (data / "opened").read_text().splitlines()[-1] == document["opened"]
        page = Path(unquote(urlsplit(document["opened"]).path)).read_text()
        assert words in page
        assert "<script" not in page


def test_plots_of_a_video_show_where_attention_went() -> None:
    document: dict[str, Any] = {
        "id": "a",
        "title": HOSTILE,
        "state": "ready",
        "duration": 10.0,
        "attention": {"vision": 0.75, "text": 0.25},
        "tokens": [
            {"modality": "vision", "start": 0.0, "end": 5.0, "weight": 0.75},
            {"modality": "text", "start": 5.0, "end": 10.0, "weight": 0.25},
        ],
        "labels": [{"name": "dog", "confidence": 0.9}],
        "objects": [],
    }
    page = "".join(plots_of(document))
    assert "<script" not in page
    assert page.count("<svg") == 3
    assert "75%" in page
    assert "dog" in page


@pytest.mark.stack
@pytest.mark.slow
def test_with_a_stack_its_page_is_opened(data: Path, browser_program: Path) -> None:
    with stack(data, REELSENSE_WORKERS="1"):
        answer = reelsense("show", "abababab", "--open", "--json", "--data", data, BROWSER=str(browser_program))
        document = answer.json
    assert document["opened"].startswith("http://127.0.0.1:")
    assert document["opened"].endswith("/videos/" + "ab" * 16)
    assert (data / "opened").read_text().strip() == document["opened"]
