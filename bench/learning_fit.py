"""One fit of the learning bench, in a process of its own: `python -m bench.learning_fit` is started by bench.learning.

It fits one model on one split with one seed, measures validation and, once, test, and leaves in its folder
`facts.json` (last, so that a folder with it is done), `viewers.npz` (figures of each viewer) and the fitted model,
which the hybrid is blended from. A fit that was cut goes on from its checkpoint; its CPU seconds are counted through.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning_data import Dataset, judge_of, lastfm_dataset, movielens_datasets, tiktok_dataset
from bench.new_videos import NewVideoTask, judge_of_new, measure_new, new_video_tasks
from ranker.assessing import assessed, heads, stars
from ranker.evaluation import Float64, Measured
from ranker.models import model_file
from ranker.models.model import MODELS, Model, Progress, Run, make_model
from ranker.models.training_data import TrainingData

NEW_VIDEOS = "new_videos"
HYBRID = "hybrid"
SPLITS = {
    "ml-100k": ("random", "leave_last_out", "global_time", NEW_VIDEOS),
    "tiktok": ("given", NEW_VIDEOS),
    "lastfm2k": ("given", NEW_VIDEOS),
}
CUTOFFS = (10, 20)
# As in the anchors: models of what came last are asked with validation as history, where splits are in time. A setting
# `later` (true or false) says so of others.
SEQUENCES = ("gru", "sasrec", "sasrec_content", HYBRID)
IN_TIME = ("leave_last_out", "global_time")
SOURCES = Path(__file__).resolve().parents[1]
# What stands in settings and is none of the model's own.
OURS = ("model", "later")


@dataclass(frozen=True)
class Fit:
    """What is fitted: `name` is the row's, `model` the constructor's, `settings` the constructor's arguments without a
    seed; `later`: whether test is asked with validation as history. For the hybrid, `members`: labels of rows, and `upon`
    names what they were fitted with."""

    dataset: str
    split: str
    name: str
    model: str
    settings: Mapping[str, Any]
    later: bool
    seed: int
    members: tuple[str, ...] = ()
    upon: str = ""

    @property
    def folder(self) -> Path:
        """Where its results go, below the work folder."""
        return Path(self.dataset) / self.split / self.name / str(self.seed)

    def mark(self) -> str:
        """Names the settings and the code that a result was made with."""
        said = [self.model, self.settings, self.later, self.seed, self.members, self.upon]
        told = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for path in sources_of(self.model):
            told.update(path.read_bytes())
        return told.hexdigest()[:16]


def sources_of(model: str) -> list[Path]:
    """The files of the ranker that a model's results depend on: its own, whatever they import, and how is measured."""
    waiting = [MODELS[model].partition(":")[0], "ranker.assessing", "bench.learning_data", "bench.new_videos"]
    found: set[Path] = set()
    while waiting:
        path = SOURCES / f"{waiting.pop().replace('.', '/')}.py"
        if path in found or not path.is_file():
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ranker."):
                waiting.append(node.module)
    return sorted(found)


def fit_of(dataset: str, split: str, name: str, given: Mapping[str, Any], seed: int) -> Fit:
    """From what a file of settings holds for a split: `model` names the constructor where it is not `name`."""
    model = str(given.get("model", name))
    of_now = model in SEQUENCES or given.get("history") == "fading" or given.get("half_rank") is not None
    later = split in IN_TIME and bool(given.get("later", of_now))
    settings = {key: value for key, value in given.items() if key not in OURS}
    return Fit(dataset, split, name, model, settings, later, seed)


def stochastic(fit: Fit) -> bool:
    """Whether its model draws anything: whether it has a seed."""
    return "seed" in type(make_model(fit.model, fit.settings).config).model_fields


def dataset_of(name: str, split: str, wheel: Path, data: Path) -> Dataset:
    """New videos of MovieLens are drawn from its random split."""
    if name == "tiktok":
        return tiktok_dataset(data / "tiktok")
    if name == "lastfm2k":
        return lastfm_dataset(data / "lastfm2k")
    wanted = "random" if split == NEW_VIDEOS else split
    return next(found for found in movielens_datasets(wheel) if found.split == wanted)


def done(folder: Path, mark: str) -> bool:
    """Whether a fit is done with these settings and this code."""
    path = folder / "facts.json"
    return path.is_file() and json.loads(path.read_text())["mark"] == mark


def finish(folder: Path, facts: Mapping[str, Any], each: Mapping[str, Float64], models: Mapping[str, Model]) -> None:
    """Write a fit's results; `facts.json` comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        (folder / f"{name}.safetensors").write_bytes(model_file.to_bytes(model))
    np.savez(folder / "viewers.npz", **dict(each))  # type: ignore[arg-type]
    aside = folder / "facts.json.part"
    aside.write_text(json.dumps(facts, indent=1) + "\n")
    aside.replace(folder / "facts.json")


class Clock:
    """Wall and CPU seconds of a fit, kept over being cut in a file beside its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = json.loads(path.read_text()) if path.is_file() else {"wall": 0.0, "cpu": 0.0}
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Until now."""
        wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        return {"wall": self.before["wall"] + wall, "cpu": self.before["cpu"] + cpu}

    def keep(self, _: Progress) -> None:
        """After every epoch, when the checkpoint of the one before is written."""
        self.path.write_text(json.dumps(self.read()))


def fitted(
    fit: Fit, data: TrainingData, judge: Any, folder: Path, part: str, settings: Mapping[str, Any]
) -> tuple[Model, dict[str, Any], dict[str, float]]:
    """(the model, what it says of its training, its seconds)."""
    folder.mkdir(parents=True, exist_ok=True)
    made = make_model(fit.model, settings)
    if "seed" in type(made.config).model_fields:
        made = make_model(fit.model, {**settings, "seed": fit.seed})
    clock = Clock(folder / f"{part}.seconds.json")
    checkpoint = folder / f"{part}.{fit.mark()}.checkpoint"
    said = made.fit(data, Run(judge=judge, progress=clock.keep, checkpoint=checkpoint))
    seconds = clock.read()
    for left in (checkpoint, clock.path):
        left.unlink(missing_ok=True)
    return made, said, seconds


def fit_split(fit: Fit, dataset: Dataset, folder: Path) -> None:
    """Fit, measure validation and test, and write."""
    judge = judge_of(dataset)
    model, said, seconds = fitted(fit, dataset.data, judge, folder, "model", fit.settings)
    validation = judge(model)
    figures, each = tested(dataset, model, fit.later)
    finish(folder, _facts(fit, said, seconds, validation) | figures, each, {"model": model})


def fit_new_videos(fit: Fit, dataset: Dataset, folder: Path) -> None:
    """The same of new videos: fitted with the judge of validation's task, then to test's training for as many epochs as
    that took, and no judge."""
    asked, opened = new_video_tasks(dataset)
    judge = judge_of_new(asked)
    first, said, spent = fitted(fit, asked.data, judge, folder, "validation", fit.settings)
    settings = dict(fit.settings)
    if "best_epoch" in said and "epochs" in type(first.config).model_fields:
        settings["epochs"] = max(int(said["best_epoch"]), 1)
    model, _, seconds = fitted(fit, opened.data, None, folder, "model", settings)
    figures, each = tested_new(opened, model)
    facts = _facts(fit, said, seconds, judge(first)) | {"validation_fit_cpu_seconds": round(spent["cpu"], 1)}
    finish(folder, facts | figures, each, {"model": model, "validation": first})


def tested(dataset: Dataset, model: Model, later: bool) -> tuple[dict[str, Any], dict[str, Float64]]:
    """(figures of all, figures of each viewer) on test: what was in training or validation is not ranked."""
    history = dataset.later if later else dataset.data.log
    found = assessed(model, dataset.data, dataset.test, seen=dataset.later.binary, history=history)
    figures: dict[str, Any] = {"viewers": len(found.measured.viewers), "beyond": found.beyond, "groups": found.groups}
    figures |= stars(model, history, dataset.test)
    if told := heads(model, history, dataset.test):
        figures["heads"] = told
    return figures, found.measured.each


def tested_new(task: NewVideoTask, model: Model) -> tuple[dict[str, Any], dict[str, Float64]]:
    """The same among new videos alone."""
    found: Measured = measure_new(task, model, CUTOFFS)
    return {"viewers": len(found.viewers), "beyond": {"coverage@10": round(found.coverage[10], 4)}}, found.each


def _facts(fit: Fit, said: Mapping[str, Any], seconds: Mapping[str, float], validation: float) -> dict[str, Any]:
    return {
        "mark": fit.mark(),
        "model": fit.model,
        "settings": dict(fit.settings),
        "seed": fit.seed,
        "history": "training and validation" if fit.later else "training",
        "validation_ndcg@10": round(validation, 4),
        "fit_seconds": round(seconds["wall"], 1),
        "fit_cpu_seconds": round(seconds["cpu"], 1),
        "said": {key: value for key, value in said.items() if key != "losses"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fit", help="a Fit as JSON")
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    document = json.loads(given.fit)
    document["members"] = tuple(document["members"])
    fit = Fit(**document)
    dataset = dataset_of(fit.dataset, fit.split, given.wheel, given.data)
    if fit.model == HYBRID:
        from bench.learning_blend import blend

        blend(fit, dataset, given.work)
    elif fit.split == NEW_VIDEOS:
        fit_new_videos(fit, dataset, given.work / fit.folder)
    else:
        fit_split(fit, dataset, given.work / fit.folder)


if __name__ == "__main__":
    main()
