"""What each part of the multi-task ranker is worth: `python -m bench.multitask_ablation [--wheel FILE]` writes
learning_settings/multitask_ablation.json.

MovieLens-100K by its random split, and the synthetic viewers over real clips (`bench.synthetic_viewers`). The heads of
MovieLens are stand-ins made of stars (`ranker.models.task_outcomes`): they measure the machinery, not watching. One
variant differs from `full` in one setting; the same seed, the same inputs, the same examples. Variants are compared on
validation; the test figures beside them choose nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bench import synthetic_viewers
from bench.learning_data import Dataset, judge_of, movielens_datasets
from bench.results import machine
from ranker.evaluation import measure
from ranker.models.calibration import Calibration, head_quality
from ranker.models.model import Run
from ranker.models.multitask import MultiTask
from ranker.models.task_outcomes import BINARY, HEADS, outcomes_of
from ranker.models.training_data import ActLog, TrainingData

WHEEL = Path.home() / ".cache" / "recall-ml" / "recbole-1.2.1-py3-none-any.whl"
SETTINGS = Path(__file__).parent / "learning_settings"
VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "full": {},
        "without adversarial training": {"adversarial": False},
        "without label smoothing": {"label_smoothing": 0.0},
        "without pairwise loss": {"pairwise": 0.0},
        "shared bottom": {"architecture": "shared_bottom"},
        "uncertainty weights": {"weighting": "uncertainty"},
    }
)


def heads_on(model: MultiTask, log: ActLog, held: ActLog) -> dict[str, dict[str, float]]:
    """By head: AUC, accuracy, log loss and ECE over pairs that were had (view left out: all of them were), and the ECE
    without calibration; of watch the mean absolute error."""
    outcomes = outcomes_of(held)
    predicted = model.predict(log, outcomes.viewers, outcomes.videos)
    kept, model._calibrations = model._calibrations, dict.fromkeys(model.heads, Calibration())
    raw = model.predict(log, outcomes.viewers, outcomes.videos)
    model._calibrations = kept
    found: dict[str, dict[str, float]] = {}
    for head in model.heads:
        labels = outcomes.labels[:, HEADS.index(head)].astype(np.float64)
        if head not in BINARY:
            found[head] = {"mean_absolute_error": round(float(np.abs(predicted[head] - labels).mean()), 4)}
        elif head != "view":
            quality = head_quality(predicted[head], labels)
            found[head] = {name: round(number, 4) for name, number in quality.items()}
            found[head]["ece_before_calibration"] = round(head_quality(raw[head], labels)["ece"], 4)
    return found


def run(dataset: Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One fit on one data set: validation, test, heads, CPU seconds."""
    judge, started = judge_of(dataset), time.process_time()
    model = MultiTask(**settings)
    report = model.fit(dataset.data, Run(judge=judge))
    spent = time.process_time() - started
    found = measure(lambda viewers: model.score(dataset.later, viewers), dataset.test.binary, dataset.later.binary)
    return {
        "valid ndcg@10": round(judge(model), 4),
        "test": found.means(),
        "epochs": report["epochs"],
        "best_epoch": report["best_epoch"],
        "fit_cpu_seconds": round(spent, 1),
        "heads": heads_on(model, dataset.data.log, dataset.test),
    }


def chosen(name: str) -> dict[str, Any]:
    """The settings that validation chose for a data set and split, such as ml-100k/random."""
    found: dict[str, Any] = json.loads((SETTINGS / "multitask.json").read_text())[name]
    return found


def ablation(wheel: Path, media: Path, only: list[str] | None = None) -> dict[str, Any]:
    """Every variant on both data sets; `only` names variants."""
    dataset = next(found for found in movielens_datasets(wheel) if found.split == "random")
    # Whatever was chosen in the end, the ablation takes parts away from all of it.
    base, people = chosen("ml-100k/random") | {"adversarial": True}, synthetic_viewers.settings_of()
    document: dict[str, Any] = {"ml-100k/random": {}, "synthetic viewers": {}}
    world = acts = None
    if media.is_dir():
        world = synthetic_viewers.planted(*synthetic_viewers.content_of(media))
        acts = synthetic_viewers.acts(world)
    for name, change in VARIANTS.items():
        if only and name not in only:
            continue
        document["ml-100k/random"][name] = run(dataset, base | dict(change))
        if world is not None and acts is not None:
            model = MultiTask(**people | dict(change))
            model.fit(TrainingData(acts.train, world.content))
            document["synthetic viewers"][name] = synthetic_viewers.measured(model, world, acts)
        print(name, json.dumps(document["ml-100k/random"][name]), flush=True)
    return document


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", type=Path, default=WHEEL)
    parser.add_argument("--media", type=Path, default=synthetic_viewers.MEDIA)
    parser.add_argument("--only", action="append", help="a variant; may be given several times")
    said = parser.parse_args()
    document = {"machine": machine()} | ablation(said.wheel, said.media, said.only)
    path = SETTINGS / "multitask_ablation.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
