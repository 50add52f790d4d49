"""The learning bench on a small data set made here: what is fitted, kept, blended, gathered and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from bench import learning_report
from bench.learning import PEERS, SETTINGS, document_of, held_against, hybrids, planned
from bench.learning_blend import blend
from bench.learning_data import Dataset
from bench.learning_fit import SPLITS, Fit, done, fit_new_videos, fit_of, fit_split, sources_of
from ranker.models.training_data import ActLog, Content, TrainingData
from ranker.splits import leave_last_out


def a_dataset(split: str = "random") -> Dataset:
    """Sixty viewers of two tastes."""
    stream = np.random.default_rng(0)
    videos = np.concatenate([stream.permutation(20)[:9] + viewer % 2 * 20 for viewer in range(60)])
    log = ActLog.of(np.repeat(np.arange(60), 9), videos, 60, 40, ratings=np.full(540, 4, np.float32))
    parts = leave_last_out(log)
    features = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0) + 0.1 * stream.random((40, 2)).astype(np.float32)
    tags = sparse.csr_matrix(np.repeat(np.eye(2, dtype=np.float32), 20, axis=0))
    data = TrainingData(parts.train, Content({"tags": features}, tags, ("a", "b")))
    return Dataset("ml-100k", split, data, parts.valid, parts.test, parts.later)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Settings of three rows, one of them a variant by another name."""
    everywhere = ("ml-100k/random", "ml-100k/leave_last_out")
    given = {
        "popularity": {},
        "item_knn": {},
        "ease_recent": {"model": "ease", "history": "fading", "rank": 3.0, "regularisation": 5.0},
    }
    for name, settings in given.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(dict.fromkeys(everywhere, settings)))
    return tmp_path


def test_what_is_planned(folder: Path) -> None:
    fits = planned(folder, ["ml-100k"], [], 3)
    assert {fit.name for fit in fits} == {"popularity", "item_knn", "ease_recent"}
    assert len(fits) == 6, "none of these draws, so one seed is enough"
    recent = {fit.split: fit for fit in fits if fit.name == "ease_recent"}
    assert recent["random"].model == "ease"
    assert recent["random"].settings == {"history": "fading", "rank": 3.0, "regularisation": 5.0}
    assert (recent["random"].later, recent["leave_last_out"].later) == (False, True)
    assert planned(folder, ["tiktok"], [], 3) == []
    assert {fit.name for fit in planned(folder, ["ml-100k"], ["popularity"], 3)} == {"popularity"}
    (folder / "als.json").write_text(json.dumps({"ml-100k/random": {}}))
    assert [fit.seed for fit in planned(folder, ["ml-100k"], ["als"], 3)] == [0, 1, 2]


def test_a_model_that_is_not_there_is_passed_over_aloud(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "oracle.json").write_text(json.dumps({"ml-100k/random": {}}))
    assert {fit.name for fit in planned(folder, ["ml-100k"], [], 1)} == {"popularity", "item_knn", "ease_recent"}
    assert "ml-100k/random oracle is skipped" in capsys.readouterr().out


def test_a_change_of_settings_makes_a_result_stale() -> None:
    fit = fit_of("ml-100k", "random", "ease", {"regularisation": 5.0}, 0)
    assert fit.mark() == fit_of("ml-100k", "random", "ease", {"regularisation": 5.0}, 0).mark()
    others = [fit_of("ml-100k", "random", "ease", {"regularisation": 6.0}, 0), replace(fit, seed=1)]
    others += [replace(fit, later=True), replace(fit, upon="members fitted anew")]
    assert fit.mark() not in {other.mark() for other in others}


def test_a_hybrid_is_of_every_seed(folder: Path) -> None:
    (folder / "als.json").write_text(json.dumps({"ml-100k/random": {}}))
    (folder / "hybrid.json").write_text(json.dumps({"ml-100k/random": {"members": ["als", "item_knn", "gone"]}}))
    found = {fit.split: fit.members for fit in hybrids(folder, planned(folder, ["ml-100k"], [], 2))}
    assert found["random"] == ("als@0", "als@1", "item_knn")
    assert found["leave_last_out"] == ("ease_recent", "item_knn", "popularity")


def test_a_result_depends_on_the_code_of_its_model() -> None:
    names = {path.name for path in sources_of("ease")}
    assert {"ease.py", "histories.py", "interactions.py", "evaluation.py"} <= names
    assert "blending.py" in {path.name for path in sources_of("hybrid")}
    assert "sasrec.py" not in names


def run(fits: list[Fit], dataset: Dataset, work: Path) -> None:
    for fit in fits:
        fit_split(fit, dataset, work / fit.folder)
        assert done(work / fit.folder, fit.mark())
        assert not done(work / fit.folder, "another mark")


def test_rows_are_fitted_blended_gathered_and_shown(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, dataset = tmp_path / "work", a_dataset("leave_last_out")
    fits = [fit for fit in planned(folder, ["ml-100k"], [], 3) if fit.split == "leave_last_out"]
    run(fits, dataset, work)
    (folder / "hybrid.json").write_text(json.dumps({"ml-100k/leave_last_out": {"candidates": 20}}))
    blended = hybrids(folder, fits)
    assert [fit.members for fit in blended] == [("ease_recent", "item_knn", "popularity")]
    for fit in blended:
        blend(fit, dataset, work)
    document = document_of([*fits, *blended], work)
    rows = document["ml-100k"]["leave_last_out"]
    assert set(rows) == {"popularity", "item_knn", "ease_recent", "hybrid"}
    assert rows["item_knn"]["ndcg@10"] > rows["popularity"]["ndcg@10"]
    for row in rows.values():
        assert {
            "ndcg@10",
            "recall@10",
            "precision@20",
            "map@10",
            "low",
            "high",
            "fit_seconds",
            "fit_cpu_seconds",
        } <= set(row)
        assert row["low"] <= row["ndcg@10"] <= row["high"]
        assert row["beyond"]["miscalibration@10"] >= 0
        assert {"light", "heavy"} & set(row["groups"])
    assert rows["hybrid"]["fit_cpu_seconds"] >= rows["hybrid"]["blend_cpu_seconds"]
    assert rows["hybrid"]["settings"]["candidates"] == 20
    assert rows["hybrid"]["ahead_of"].keys() == {"popularity", "item_knn", "ease_recent"}
    assert rows["hybrid"]["ahead_of"]["item_knn"].keys() == {"ndcg@10", "recall@10", "ndcg@20", "recall@20"}
    best = max(fits, key=lambda fit: rows[fit.name]["validation_ndcg@10"])
    assert rows["hybrid"]["best_single"] == best.name
    # Of two tastes that are easily told apart anybody reaches what others have on real behaviour.
    assert rows["item_knn"]["peer"]["reached"] is True
    assert "peer" not in rows["ease_recent"]
    page = tmp_path / "learning.md"
    page.write_text(f"before\n{learning_report.BEGIN}\nold\n{learning_report.END}\nafter\n")
    monkeypatch.setattr(learning_report, "PAGE", page)
    learning_report.write_table(document)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert f"| **hybrid** * | {rows['hybrid']['ndcg@10']:.4f}" in text
    assert "The hybrid is " in text
    learning_report.write_table(document)
    assert page.read_text() == text


def test_a_peer_is_reached_within_the_interval_alone() -> None:
    each = {"ndcg@10": np.linspace(0.0, 1.0, 200)}
    row = {"ndcg@10": 0.5, "rmse": 0.91}
    assert held_against(row, each, {"of": "a", "ndcg@10": 0.53})["reached"] is True
    assert held_against(row, each, {"of": "a", "ndcg@10": 0.6})["reached"] is False
    assert held_against(row, each, {"of": "a", "rmse": 0.92})["reached"] is True
    assert held_against(row, each, {"of": "a", "rmse": 0.9})["reached"] is False
    assert held_against({}, each, {"of": "a", "rmse": 0.9})["reached"] is False


def test_peers_are_of_rows_that_are_fitted() -> None:
    fits = {(f"{fit.dataset}/{fit.split}", fit.name) for fit in planned(SETTINGS, list(SPLITS), [], 1)}
    fits |= {(place, "hybrid") for place, _ in fits}
    for place, rows in json.loads(PEERS.read_text()).items():
        assert {(place, name) for name in rows} <= fits


def test_new_videos_are_ranked_by_what_validation_chose(tmp_path: Path) -> None:
    dataset = a_dataset()
    fit = fit_of("ml-100k", "new_videos", "popularity", {}, 0)
    fit_new_videos(fit, dataset, tmp_path / fit.folder)
    rows = document_of([fit], tmp_path)["ml-100k"]["new_videos"]
    assert rows["popularity"]["viewers"] > 20
    assert (tmp_path / fit.folder / "validation.safetensors").is_file()


def test_the_page_of_the_project_has_its_markers() -> None:
    text = learning_report.PAGE.read_text()
    assert text.index(learning_report.BEGIN) < text.index(learning_report.END)
