"""The worked example of docs/encoders.md: an encoder of one's own, in one file and one entry-point line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from store.artifacts import from_bytes
from store.objects import open_objects
from store.settings import load_settings
from tests import clips
from tests.app.commands import reelsense
from tests.conftest import ROOT
from tests.plugins import EXAMPLE, install_example

PAGE = ROOT / "docs" / "encoders.md"


def test_the_page_shows_the_line_that_declares_the_example() -> None:
    declared = tomllib.loads((EXAMPLE.parent / "pyproject.toml").read_text())
    points = declared["project"]["entry-points"]["reelsense.encoders"]
    assert points == {"colour-moments": "colour_encoder:SPEC"}
    assert 'colour-moments = "colour_encoder:SPEC"' in PAGE.read_text()
    assert f"examples/{EXAMPLE.name}" in PAGE.read_text()


@pytest.mark.models
@pytest.mark.stack
@pytest.mark.slow
def test_an_encoder_of_ones_own_reads_a_video(tmp_path: Path) -> None:
    variables = {
        "PYTHONPATH": str(install_example(tmp_path / "site")),
        "REELSENSE_ENCODERS__VISION": "colour-moments",
    }
    listed = reelsense("models", "--json", "--data", tmp_path / "data", **variables).json["models"]
    assert "colour-moments" in {row["name"] for row in listed}
    clip = clips.test_pattern(tmp_path / "clip.mp4", seconds=1.0, tone_hz=None)
    answer = reelsense("add", clip, "--wait", "--json", "--data", tmp_path / "data", **variables)
    assert answer.status == 0, answer.stdout + answer.stderr
    objects = open_objects(load_settings(data=tmp_path / "data"))
    (found,) = [item.key for item in objects.list("artifacts/vision/")]
    assert from_bytes(objects.get(found)).arrays["embeddings"].shape[1] == 144
    video = answer.json["videos"][0]["id"]
    assert reelsense("show", video, "--json", "--data", tmp_path / "data", **variables).json["attention"]["vision"] > 0


def test_a_broken_entry_point_is_named(tmp_path: Path) -> None:
    site = install_example(tmp_path / "site")
    (site / "colour_encoder.py").write_text("raise RuntimeError('half written')\n")
    answer = reelsense("models", "--json", "--data", tmp_path / "data", PYTHONPATH=str(site))
    assert answer.status == 1
    assert answer.json["error"]["code"] == "model.unknown"
    assert "colour-moments" in answer.json["error"]["message"]
