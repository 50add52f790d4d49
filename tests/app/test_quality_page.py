"""The page `/quality`: what was measured is on it, and what was not says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app import quality
from app.api import create_api
from app.quality_parts import Picture, Table
from store.settings import load_settings

LEARNT = {
    "ml-100k": {
        "random": {
            "popularity": {"ndcg@10": 0.1, "low": 0.09, "high": 0.11, "recall@10": 0.12, "fit_seconds": 0.1},
            "hybrid": {"ndcg@10": 0.3451, "low": 0.33, "high": 0.36, "recall@10": 0.28, "fit_seconds": 61.0},
        }
    },
    "minutes": 3,
    "failed": [],
}


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(create_api(load_settings(data=tmp_path)), base_url="http://127.0.0.1")


def test_every_file_that_is_there_becomes_figures(client: TestClient) -> None:
    there = [part for part in quality.parts() if (quality.RESULTS / part.source.file).is_file()]
    assert len(there) >= 8
    page = client.get("/quality").text
    for part in there:
        assert not part.trouble
        assert part.shown
        assert f'id="{part.source.name}"' in page
    assert "reelsense train ranker" in page  # nothing was trained here, and the page says how


def test_models_are_shown_best_first_with_intervals(tmp_path: Path) -> None:
    (tmp_path / "learning.json").write_text(json.dumps(LEARNT))
    picture, table = next(part for part in quality.parts(tmp_path) if part.source.name == "models").shown
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["hybrid", "popularity"]
    assert table.rows[0][1:4] == ("0.3451", "0.3300 to 0.3600", "0.2800")
    assert isinstance(picture, Picture)
    assert picture.svg.count('class="interval"') == 2


def test_what_is_absent_says_so_and_which_command_makes_it(tmp_path: Path) -> None:
    for part in quality.parts(tmp_path):
        assert part.source.file in part.trouble
        assert part.source.command in part.trouble
    assert quality.reading(tmp_path / "quality.md")[0] is None


@pytest.mark.parametrize("text", ["{", "[]", '{"recommend": {"many": {}}}', '{"recommend": []}', "{}", "\udcff"])
def test_a_file_of_another_form_costs_its_own_part_alone(tmp_path: Path, text: str) -> None:
    shutil.copy(quality.RESULTS / "chaos.json", tmp_path)
    (tmp_path / "ranker.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    parts = {part.source.name: part for part in quality.parts(tmp_path)}
    assert "does not read as this page expects" in parts["feeds"].trouble
    assert parts["chaos"].shown


def test_figures_are_the_files_own() -> None:
    recommended = json.loads((quality.RESULTS / "ranker.json").read_text())["recommend"]
    feeds = next(part for part in quality.document()["parts"] if part["name"] == "feeds")
    rows = {row["Videos"]: row for row in feeds["tables"][0]["rows"]}
    for videos, found in recommended.items():
        assert rows[f"{int(videos):,}"]["p99, ms"] == f"{found['p99_ms']:,.0f}"
