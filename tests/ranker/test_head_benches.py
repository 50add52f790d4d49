"""The benches of the heads: planted viewers, what is measured of them, and what is taken away from the ranker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from bench import learning_report, multitask_ablation
from bench.multitask_ablation import BEGIN, END, FULL, tables, variants_of
from bench.synthetic_viewers import Acts, Planted, acts, expected_share, measured, planted, seconds_of, settings_of
from ranker.models.calibration import Calibration, area_under_curve
from ranker.models.multitask import MultiTask
from ranker.models.task_outcomes import DURATION, HEADS, outcomes_of, watch_norms
from ranker.models.training_data import Content, TrainingData

SMALL: dict[str, Any] = {
    "inputs": ("ease",), "dim": 4, "width": 16, "experts": 2, "tower": 4, "folds": 2, "drawn": 2, "epochs": 6,
    "batch": 128, "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> tuple[Planted, Acts]:
    """Sixty viewers over forty videos of six subjects."""
    stream = np.random.default_rng(3)
    seconds = stream.uniform(5, 60, 40)
    tags = sparse.csr_matrix(np.eye(6, dtype=np.float32)[np.arange(40) % 6])
    names = tuple(f"subject {number}" for number in range(6))
    made = planted(Content({DURATION: seconds[:, None].astype(np.float32)}, tags, names), seconds, viewers=60)
    return made, acts(made, shown=30)


def test_planted_viewers_do_what_their_chances_say(world: tuple[Planted, Acts]) -> None:
    made, found = world
    outcomes = outcomes_of(found.train, watch_norms(found.train, made.seconds), made.seconds)
    each = np.bincount(outcomes.viewers)
    assert (each.min() >= 8, each.max() <= 32, np.ptp(each) > 10) == (True, True, True)
    for head in ("finish", "like", "not_interested"):
        chances = made.chances[head][outcomes.viewers, outcomes.videos]
        labels = outcomes.labels[:, HEADS.index(head)]
        assert abs(labels.mean() - chances.mean()) < 0.04
        assert area_under_curve(chances, labels) > 0.6
    shares = expected_share(made, outcomes.viewers, outcomes.videos)
    watched = found.train.watched[np.isfinite(found.train.watched)]
    assert abs(np.minimum(watched, 1).mean() - shares.mean()) < 0.05
    pairs = {(int(v), int(w)) for v, w in zip(found.train.viewers, found.train.videos, strict=True)}
    assert not pairs & {(int(v), int(w)) for v, w in zip(found.test.viewers, found.test.videos, strict=True)}


def test_heads_are_measured_against_the_oracle_before_and_after_calibration(world: tuple[Planted, Acts]) -> None:
    made, found = world
    model = MultiTask(**SMALL)
    model.fit(TrainingData(found.train, made.content))
    rows = measured(model, made, found)
    assert set(rows) == set(model.heads) - {"view"}
    assert rows["finish"]["auc"] > 0.55
    assert all(row["oracle_auc"] > 0.6 for head, row in rows.items() if head != "watch")
    watch = rows["watch"]
    assert watch["oracle_seconds_mean_absolute_error"] < watch["half_seconds_mean_absolute_error"]
    assert watch["mean_absolute_error"] < watch["mean_absolute_error_of_one_half"]
    model._calibrations["like"] = Calibration(1.0, 5.0)
    worse = measured(model, made, found)["like"]
    assert worse["ece"] > 0.5 > worse["ece_before_calibration"] == rows["like"]["ece_before_calibration"]
    assert worse["auc"] == rows["like"]["auc"], "a line keeps the order"


def test_a_quantile_of_the_watch_time_is_seconds_again(world: tuple[Planted, Acts]) -> None:
    made, found = world
    norms = watch_norms(found.train, made.seconds)
    assert norms is not None
    lengths = np.array([10.0, 10.0, 40.0])
    seconds = np.array([2.0, 8.0, 30.0])
    quantiles = np.array([norms.quantile(*pair) for pair in zip(seconds.tolist(), lengths.tolist(), strict=True)])
    assert seconds_of(quantiles, lengths, norms) == pytest.approx(seconds, abs=0.2)


def test_a_variant_differs_in_one_thing() -> None:
    base = settings_of() | {"input_settings": {"als": {"factors": 8}}}
    found = variants_of(base)
    assert found.pop(FULL) == base
    for name, settings in found.items():
        MultiTask(**settings)
        changed = {key for key in settings if settings[key] != base.get(key)}
        assert len(changed - {"input_settings"}) == 1, name
    assert found["without als"]["inputs"] == ["ease", "item_knn"]
    assert found["without als"]["input_settings"] == {}
    assert found["without ease"]["input_settings"] == {"als": {"factors": 8}}


def test_the_table_goes_between_its_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "validation_ndcg@10": 0.25,
        "heads": {
            "like": dict.fromkeys(("auc", "accuracy", "log_loss", "ece", "base_rate"), 0.5)
            | {"ece_before_calibration": 0.7, "oracle_auc": 0.9},
            "watch": {"mean_absolute_error": 0.125},
        },
    }
    other = row | {"ahead_of_full": {"mean": -0.01, "interval95": [-0.02, 0.005]}}
    text = tables({"ml-100k/random": {FULL: row, "shared bottom": other}})
    assert "| like | 0.500 | 0.500 | 0.900 | 0.500 | 0.500 | 0.700 | 0.500 |" in text
    assert "| shared bottom | 0.2500 | -0.0100 (-0.0200 to +0.0050) | 0.5000 |" in text
    assert text.count("| 0.1250 |") == 2
    page = tmp_path / "page.md"
    page.write_text(f"a\n{learning_report.BEGIN}\nkept\n{learning_report.END}\n{BEGIN}\nold\n{END}\nz\n")
    monkeypatch.setattr(learning_report, "PAGE", page)
    for _ in range(2):
        multitask_ablation.put(text, BEGIN, END)
    said = page.read_text()
    assert "kept" in said
    assert "old" not in said
    assert said.count(text) == 1
    assert said.endswith("\nz\n")
    page.write_text("no markers")
    with pytest.raises(ValueError, match="lacks its markers"):
        multitask_ablation.put(text, BEGIN, END)
