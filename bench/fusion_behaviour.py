"""Fused vectors on real behaviour: `python -m bench.fusion_behaviour [DATA]` writes results/fusion_behaviour.json.

Interactions and encoders' features of two data sets for research (DATA, by default ../shared/data beside the
repository; skipped aloud where absent). No ranking model: an item's score is the cosine of its vector and the mean of
the vectors of what the person had in training.

- **Last.fm-2K**: all items but those of training and validation; text, and two encoders of sound.
- **Last.fm-2K, new**: a fifth of the artists, that nobody had in training, ranked alone.
- **TikTok, new**: the videos that nobody had in training, ranked alone; pictures and sound.

Features of every row but the mapped and the trained one are centred on the catalogue and brought to unit length.
`mapped` is where training begins (`fusion.mapping`), `trained` where it ends. Settings of training were chosen on
validation, and test is opened once. Both have three seeds; differences from the best single modality have a bootstrap
interval over people. On all of Last.fm's items, content is also blended with EASE (Steck 2019), each row by its own
weight chosen on validation.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from bench.results import write
from fusion.attention import FusionConfig, fuse
from fusion.engagement import EngagementConfig, train_on_histories
from fusion.mapping import MappingConfig
from fusion.network import NetworkConfig
from fusion.projection import projection
from fusion.starts import StartConfig
from store.records import Float32, Modality, Tokens

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEEDS = (0, 1, 2)
DRAWS = 2_000
Float64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
# Among artists that people had, what is known of each is worth knowing by heart: nothing is left out or blanked.
LASTFM = EngagementConfig(
    steps=60,
    hidden=0.5,
    popularity=0.0,
    modality_dropout=0.0,
    feature_dropout=0.0,
    projection_rate=0.02,
    mapping=MappingConfig(share=1.0, ridge=0.3),
)
LASTFM_NEW = EngagementConfig(
    steps=40, popularity=0.0, projection_rate=0.003, mapping=MappingConfig(share=1.0, ridge=3.0)
)
# Training is judged by people of few videos, as those are who meet new ones, and by videos as rare as new ones are.
TIKTOK = EngagementConfig(
    steps=10,
    people=512,
    hidden=0.25,
    popularity=0.0,
    evenness=1.0,
    temperature=0.3,
    projection_rate=0.001,
    evaluate_every=5,
    start=StartConfig(strength=0.01, shrinkage=10.0),
    mapping=MappingConfig(share=0.3, ridge=10.0),
)
PRIORS: dict[str, dict[str, float]] = {"lastfm2k": {}, "lastfm2k_new": {}, "tiktok_new": {"image": 2.5, "audio": 1.0}}
FEW, RARE, AS_NEW = 6, 3, 600
NEW_SHARE = 0.2  # of Last.fm's artists
EASE_RIDGES, BLENDS = (100.0, 250.0, 500.0), (0.0, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, eq=False)
class Task:
    """`train`, `valid`, `test`: float32 [people, items] of zeros and ones. `ranked`: places of the items ranked.
    `features` by modality, rows of items; `as_new`: items taken out of training and ranked alone for its judge, by
    people of at most `few` videos."""

    name: str
    train: Float32
    valid: Float32
    test: Float32
    ranked: Places
    features: Mapping[str, Float32]
    best_alone: str
    as_new: Places
    few: int = FEW


def lastfm(folder: Path) -> Task:
    with (folder / "lfm2k.inter").open() as lines:
        rows = np.array(
            [[int(row[0]), int(row[1]), int(row[3])] for row in list(csv.reader(lines, delimiter="\t"))[1:]]
        )
    parts = [_matrix(rows[rows[:, 2] == part, :2], rows[:, 0].max() + 1, rows[:, 1].max() + 1) for part in range(3)]
    files = {"text": "all-MiniLM-L6-v2", "vggish": "vggish", "whisper": "whisper"}
    features = {name: np.load(folder / f"{file}.npy").astype(np.float32) for name, file in files.items()}
    train, valid, test = parts
    return Task("lastfm2k", train, valid, test, np.arange(train.shape[1]), features, "text", np.zeros(0, int))


def lastfm_new(folder: Path) -> Task:
    """The same, with a fifth of the artists new: all that people had of them is test. A quarter of the others is taken
    out of training for its judge."""
    task = lastfm(folder)
    order = np.random.Generator(np.random.PCG64(7)).permutation(task.train.shape[1])
    count = round(NEW_SHARE * len(order))
    new, train, test = np.sort(order[:count]), task.train.copy(), np.zeros_like(task.train)
    train[:, new] = 0
    test[:, new] = (task.train + task.valid + task.test)[:, new]
    test[train.sum(axis=1) == 0] = 0
    as_new = np.sort(order[count : 2 * count])
    nothing = np.zeros_like(train)
    return Task("lastfm2k_new", train, nothing, test, new, task.features, "text", as_new, len(order))


def tiktok(folder: Path) -> Task:
    features = {name: np.load(folder / f"{name}_feat.npy").astype(np.float32) for name in ("image", "audio")}
    pairs = [np.loadtxt(folder / f"{part}.csv", int, delimiter=",", skiprows=1) for part in ("train", "valid", "test")]
    people = max(int(part[:, 0].max()) for part in pairs) + 1
    train, valid, test = (_matrix(part, people, len(features["image"])) for part in pairs)
    count, by_few = train.sum(axis=0), train[train.sum(axis=1) <= FEW].sum(axis=0)
    rare = np.flatnonzero((count > 0) & (count <= RARE) & (by_few > 0))
    as_new = np.random.Generator(np.random.PCG64(2)).permutation(rare)[:AS_NEW]
    return Task("tiktok_new", train, valid, test, np.flatnonzero(count == 0), features, "image", as_new)


def _matrix(pairs: npt.NDArray[np.int_], people: int, items: int) -> Float32:
    found = np.zeros((people, items), np.float32)
    found[pairs[:, 0], pairs[:, 1]] = 1
    return found


def measured(train: Float32, held: Float32, vectors: Float32, ranked: Places, seen: Float32) -> dict[str, Float64]:
    """`metrics` of ranking by the cosine to what each person had in `train`."""
    people = np.flatnonzero(held[:, ranked].any(axis=1))
    return metrics(by_cosine(train[people], vectors, ranked), held, ranked, seen)


def by_cosine(train: Float32, vectors: Float32, ranked: Places) -> Float32:
    """[people, ranked]: cosine to the mean of the vectors of what they had; 0 for those who had nothing."""
    scores: Float32 = unit(train @ unit(vectors)) @ unit(vectors)[ranked].T
    return scores


def metrics(scores: Float32, held: Float32, ranked: Places, seen: Float32) -> dict[str, Float64]:
    """Recall and NDCG at 10 and 20 of each person who has any of `held`, who are the rows of `scores`, ranking `ranked`
    but what they have `seen`. Ties go to the lower item."""
    people = np.flatnonzero(held[:, ranked].any(axis=1))
    scores = np.where(seen[people][:, ranked] > 0, -np.inf, scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    right = held[people][:, ranked]
    hits, count = np.take_along_axis(right, order, axis=1).astype(np.float64), right.sum(axis=1).astype(int)
    found: dict[str, Float64] = {}
    for most in (10, 20):
        discount = 1 / np.log2(np.arange(most) + 2)
        found[f"recall{most}"] = hits[:, :most].sum(axis=1) / count
        found[f"ndcg{most}"] = hits[:, :most] @ discount / np.cumsum(discount)[np.minimum(count, most) - 1]
    return found


def ease(train: Float32, ridge: float) -> Float32:
    """[people, items]: EASE's scores."""
    inverse = np.linalg.inv(train.T.astype(np.float64) @ train + ridge * np.eye(train.shape[1]))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    scores: Float32 = train @ weights.astype(np.float32)
    return scores


def unit(rows: Float32) -> Float32:
    found: Float32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return found


def centred(rows: Float32) -> Float32:
    return unit(rows - rows.mean(axis=0))


def untrained(task: Task) -> dict[str, Float32]:
    """The vectors of each modality and of fusions that learn nothing."""
    alone = {name: centred(rows) for name, rows in task.features.items()}
    projected = [rows @ projection(name, rows.shape[1], 256, 0) for name, rows in alone.items()]
    names = {"image": "vision", "audio": "audio", "text": "text"}
    # The training-free attention knows one kind of sound: both encoders' features, side by side.
    sound = [rows for name, rows in alone.items() if name not in names]
    parts = {names[name]: rows for name, rows in alone.items() if name in names}
    if sound:
        parts["audio"] = unit(np.concatenate(sound, axis=1))
    sources = {name: (name,) for name in parts}
    fused = [
        fuse(
            cast("dict[Modality, Tokens]", {name: token(rows[item]) for name, rows in parts.items()}),
            cast("dict[Modality, tuple[str, ...]]", sources),
            FusionConfig(),
        ).vector
        for item in range(task.train.shape[1])
    ]
    return alone | {
        "concatenation": np.concatenate(list(alone.values()), axis=1),
        "mean of projections": unit(np.mean(projected, axis=0)),
        "training-free attention": np.stack(fused),
    }


def token(row: Float32) -> Tokens:
    """A whole item as one token."""
    return Tokens(row[None].astype(np.float32), np.zeros(1, np.float32), np.ones(1, np.float32), np.ones(1, np.float32))


@dataclass(frozen=True, eq=False)
class Learnt:
    """Vectors where training began and where it ended, and what is to be said of it."""

    mapped: Float32
    trained: Float32
    facts: dict[str, Any]


def trained(task: Task, config: EngagementConfig, priors: Mapping[str, float]) -> Learnt:
    """A fusion trained on the task's training interactions."""
    count = task.train.shape[1]
    videos = {f"{item:06d}": {name: token(rows[item]) for name, rows in task.features.items()} for item in range(count)}
    names = sorted(videos)
    used = task.train.copy()
    used[:, task.as_new] = 0
    held = np.zeros_like(used)
    held[:, task.as_new] = task.train[:, task.as_new]
    held[(used.sum(axis=1) == 0) | (task.train.sum(axis=1) > task.few)] = 0
    begun: list[Float32] = []

    def judge(vectors: Float32) -> float:
        begun.append(vectors)
        if len(task.as_new):
            found = measured(used, held, vectors, task.as_new, np.zeros_like(used))
        else:
            found = measured(task.train, task.valid, vectors, task.ranked, task.train)
        return float(np.mean([values.mean() for values in found.values()]))

    started = time.process_time()
    network = NetworkConfig(
        widths={name: rows.shape[1] for name, rows in task.features.items()}, priors=dict(priors), seed=config.seed
    )
    histories = [[names[item] for item in np.flatnonzero(row)] for row in used]
    result = train_on_histories(videos, histories, network, config, judge)
    seconds = time.process_time() - started
    everything = [videos[name] for name in names]
    weights: dict[str, list[float]] = {name: [] for name in task.features}
    vectors = []
    for found, values in result.fusion.attend(everything):
        vectors.append(sum(found[name] @ values[name] for name in found))
        for name in weights:
            weights[name].append(float(found[name].sum()))
    facts = {
        "cpu_seconds": round(seconds, 1),
        "steps": result.facts["steps"],
        "best_step": result.facts["best_step"],
        "judged": [round(look["judged"], 4) for look in result.facts["history"]],
        "weights": {
            name: {"mean": round(float(np.mean(w)), 4), "between_items": round(float(np.std(w)), 4)}
            for name, w in weights.items()
        },
    }
    return Learnt(begun[0], unit(np.stack(vectors)), facts)


def rows_of(task: Task, config: EngagementConfig) -> dict[str, Any]:
    """The table of one data set."""
    seen = task.train + task.valid

    def on_test(vectors: Float32) -> dict[str, Float64]:
        return measured(task.train, task.test, vectors, task.ranked, seen)

    plain = untrained(task)
    each = {name: on_test(vectors) for name, vectors in plain.items()}
    rows: dict[str, Any] = {name: _means(found) for name, found in each.items()}
    runs, facts = [], []
    for seed in SEEDS:
        learnt = trained(task, config.model_copy(update={"seed": seed}), PRIORS[task.name])
        runs.append(learnt)
        facts.append({"seed": seed, **_means(on_test(learnt.trained)), **learnt.facts})
        print(task.name, facts[-1], flush=True)
    alone = each[task.best_alone]
    differences: dict[str, Any] = {}
    for name, vectors in (("mapped", [r.mapped for r in runs]), ("trained", [r.trained for r in runs])):
        found = [on_test(one) for one in vectors]
        rows[name] = _spread(found)
        differences[f"{name} - {task.best_alone}"] = _difference(found, [alone])
        if name == "trained":
            differences["trained - concatenation"] = _difference(found, [each["concatenation"]])
    document = {
        "people": len(alone["recall10"]),
        "ranked": len(task.ranked),
        "rows": rows,
        "differences": differences,
        "seeds": facts,
        "priors": PRIORS[task.name],
        "training": config.model_dump(mode="json"),
    }
    if task.valid.any() and len(task.ranked) == task.train.shape[1]:
        document["hybrid"] = hybrid(task, plain[task.best_alone], [run.trained for run in runs])
    return document


def hybrid(task: Task, alone: Float32, fused: Sequence[Float32]) -> dict[str, Any]:
    """EASE by itself, and with the cosine of the best single modality and of each fusion, all chosen on validation."""
    chosen = np.flatnonzero(task.valid.any(axis=1))
    opened = np.flatnonzero(task.test.any(axis=1))
    seen = task.train + task.valid

    def on_validation(scores: Float32) -> float:
        return float(metrics(scores[chosen], task.valid, task.ranked, task.train)["ndcg10"].mean())

    scores_of = {ridge: ease(task.train, ridge) for ridge in EASE_RIDGES}
    ridge = max(EASE_RIDGES, key=lambda ridge: on_validation(scores_of[ridge]))
    base = scores_of[ridge]
    blends: dict[str, list[dict[str, Float64]]] = {"ease": [metrics(base[opened], task.test, task.ranked, seen)]}
    shares: dict[str, list[float]] = {}
    for name, vectors in ((f"ease + {task.best_alone}", [alone]), ("ease + trained", list(fused))):
        blends[name], shares[name] = [], []
        for one in vectors:
            content = by_cosine(task.train, one, task.ranked)
            share = max(BLENDS, key=lambda share: on_validation(base + share * content))
            shares[name].append(share)
            blends[name].append(metrics((base + share * content)[opened], task.test, task.ranked, seen))
    return {
        "ease_ridge": ridge,
        "content_share": shares,
        "rows": {name: _spread(found) if len(found) > 1 else _means(found[0]) for name, found in blends.items()},
        "differences": {f"{name} - ease": _difference(blends[name], blends["ease"]) for name in shares}
        | {
            f"ease + trained - ease + {task.best_alone}": _difference(
                blends["ease + trained"], blends[f"ease + {task.best_alone}"]
            )
        },
    }


def _means(found: Mapping[str, Float64]) -> dict[str, float]:
    return {metric: round(float(values.mean()), 4) for metric, values in found.items()}


def _spread(runs: Sequence[Mapping[str, Float64]]) -> dict[str, Any]:
    """Means over people and seeds, and the standard deviation between seeds."""
    means = {metric: [float(found[metric].mean()) for found in runs] for metric in runs[0]}
    return {metric: round(float(np.mean(values)), 4) for metric, values in means.items()} | {
        "spread": {metric: round(float(np.std(values, ddof=1)), 4) for metric, values in means.items()}
    }


def _difference(ours: Sequence[Mapping[str, Float64]], theirs: Sequence[Mapping[str, Float64]]) -> dict[str, Any]:
    """By how much ours is better, averaged over seeds, with a bootstrap interval over people."""
    stream = np.random.Generator(np.random.PCG64(0))
    said: dict[str, Any] = {}
    for metric in ours[0]:
        gain = np.mean([f[metric] for f in ours], axis=0) - np.mean([f[metric] for f in theirs], axis=0)
        draws = [float(gain[stream.integers(len(gain), size=len(gain))].mean()) for _ in range(DRAWS)]
        low, high = np.quantile(draws, [0.025, 0.975])
        said[metric] = {"mean": round(float(gain.mean()), 4), "interval95": [round(low, 4), round(high, 4)]}
    return said


def main(folder: Path) -> None:
    if not (folder / "lastfm2k").is_dir():
        print(f"skipped: there is no data for research in {folder}")
        return
    torch.set_num_threads(1)  # threads that wait for each other cost more than they bring with matrices this small
    document: dict[str, Any] = {}
    for task, config in (
        (lastfm(folder / "lastfm2k"), LASTFM),
        (tiktok(folder / "tiktok"), TIKTOK),
        (lastfm_new(folder / "lastfm2k"), LASTFM_NEW),
    ):
        document[task.name] = found = rows_of(task, config)
        for name, row in (found["rows"] | found.get("hybrid", {"rows": {}})["rows"]).items():
            print(f"{task.name:12} {name:24}", " ".join(f"{m} {v:.4f}" for m, v in row.items() if m != "spread"))
        document["cpu_seconds"] = round(time.process_time(), 1)
        print(write("fusion_behaviour", document), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
