"""What each part of the two towers is worth: `python -m bench.two_tower_ablation WHEEL [DATA] [DATASET/SPLIT ...]`
writes results/two_tower_ablation.json.

WHEEL and DATA as in `bench.recall`; of the data sets named, or of all. Each row is the chosen setting of
`learning_settings/two_tower.json` with one part taken away, learnt again with early stopping by validation, and
measured on validation and test; new videos likewise, on `bench.new_videos`' tasks. Nothing is chosen here, so that test
is only looked at. The popularity correction exists for rivals out of the batch: its rows are learnt with those.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning_data import Dataset, judge_of, lastfm_dataset, movielens_datasets, tiktok_dataset
from bench.new_videos import judge_of_new, measure_new, new_video_tasks
from bench.results import write
from ranker.evaluation import Measured, measure
from ranker.models.model import Run
from ranker.models.two_tower import TwoTower

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETTINGS = Path(__file__).parent / "learning_settings"
CUTOFFS = (10, 20)
Settings = dict[str, Any]


def variants(settings: Settings, modalities: list[str]) -> Iterator[tuple[str, Settings]]:
    """(name, settings) of the whole and of what is taken away. `only ids` is without any modality."""
    yield "whole", settings
    for name in modalities:
        kept = [other for other in modalities if other != name]
        yield ("only ids" if not kept else f"without {name}"), settings | {"modalities": kept}
    if len(modalities) > 1:
        yield "only ids", settings | {"modalities": []}
        yield "uniform attention to modalities", settings | {"attention": "uniform"}
    yield "one interest", settings | {"interests": 1}
    yield "batch negatives", settings | {"negatives": "batch", "correction": 1.0}
    yield "batch negatives, no popularity correction", settings | {"negatives": "batch", "correction": 0.0}
    yield "random start of ids", settings | {"start": "random"}


def row(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Validation, test and the CPU seconds of the fit."""
    model, started = TwoTower(**settings), time.process_time()
    facts = model.fit(dataset.data, Run(judge=judge_of(dataset)))
    seconds = time.process_time() - started
    log = dataset.data.log
    found = {
        part: measure(lambda viewers: model.score(log, viewers), held.binary, seen.binary, CUTOFFS)
        for part, held, seen in (("validation", dataset.valid, log), ("test", dataset.test, dataset.later))
    }
    return {name: figures(one) for name, one in found.items()} | {
        "epochs": facts["best_epoch"],
        "fit_seconds": round(seconds, 1),
    }


def new_row(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """The same for new videos, ranked among themselves: test's model stops where validation's did best."""
    asked, tested = new_video_tasks(dataset)
    model = TwoTower(**settings)
    facts = model.fit(asked.data, Run(judge=judge_of_new(asked)))
    last = TwoTower(**settings | {"epochs": facts["best_epoch"]})
    last.fit(tested.data)
    return {"validation": figures(measure_new(asked, model)), "test": figures(measure_new(tested, last))}


def figures(measured: Measured) -> dict[str, float]:
    """Means of Recall and NDCG."""
    return {name: round(float(np.mean(each)), 4) for name, each in measured.each.items() if not name.startswith("hr")}


def table(dataset: Dataset, settings: Settings, cold: Settings) -> dict[str, Any]:
    """All rows of one data set."""
    modalities = sorted(dataset.data.content.features)
    rows: dict[str, Any] = {"all videos": {}, "new videos": {}}
    for name, tried in variants(settings, modalities):
        rows["all videos"][name] = row(dataset, tried)
        print(dataset.name, name, json.dumps(rows["all videos"][name]), flush=True)
    for name, tried in variants(cold, modalities):
        if name != "only ids":
            rows["new videos"][name] = new_row(dataset, tried)
            print(dataset.name, "new", name, json.dumps(rows["new videos"][name]), flush=True)
    return rows


def main(wheel: str, data: str = str(DATA), *only: str) -> None:
    """Every data set of which there are settings, or those named."""
    chosen = json.loads((SETTINGS / "two_tower.json").read_text())
    datasets: dict[str, Callable[[], Dataset]] = {
        "ml-100k/random": lambda: next(one for one in movielens_datasets(Path(wheel)) if one.split == "random"),
        "tiktok/given": lambda: tiktok_dataset(Path(data) / "tiktok"),
        "lastfm2k/given": lambda: lastfm_dataset(Path(data) / "lastfm2k"),
    }
    rows: dict[str, Any] = {}
    for name, make in datasets.items():
        if not only or name in only:
            cold = chosen.get(f"{name.partition('/')[0]}/new_videos", chosen[name])
            rows[name] = table(make(), chosen[name], cold)
            print(write("two_tower_ablation", {"seeds": 1, "rows": rows}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
