"""Fused vectors on real behaviour: `python -m bench.fusion_behaviour [DATA]` writes results/fusion_behaviour.json.

Interactions and encoders' features of two data sets for research (DATA, by default ../shared/data beside the
repository; skipped aloud where absent). No ranking model: an item's score is the cosine of its vector and the mean of
the vectors of what the person had in training.

- **Last.fm-2K**: all items but those of training and validation; text, and two encoders of sound.
- **TikTok**: the new videos alone, that nobody had in training; pictures and sound.

Features of every row but the trained one are centred on the catalogue and brought to unit length. Settings of training
were chosen on validation, and test is opened once. The trained row has three seeds; differences from the best single
modality have a bootstrap interval over people.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bench.results import write
from fusion.attention import FusionConfig, fuse
from fusion.engagement import EngagementConfig, train_on_histories
from fusion.network import NetworkConfig
from fusion.projection import projection
from store.records import Float32, Modality, Tokens

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEEDS = (0, 1, 2)
DRAWS = 2_000
Float64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
LASTFM = EngagementConfig(steps=100, popularity=0.5)
LASTFM_NETWORK: dict[str, Any] = {}
# Training is judged by people of few videos, as those are who meet new ones, and by videos as rare as new ones are.
TIKTOK = EngagementConfig(
    steps=60,
    people=1024,
    hidden=0.25,
    popularity=0.0,
    evenness=1.0,
    temperature=0.3,
    projection_rate=1e-4,
    evaluate_every=10,
    patience=3,
)
TIKTOK_NETWORK: dict[str, Any] = {"priors": {"image": 2.0, "audio": 1.0}}
FEW, RARE, AS_NEW = 6, 3, 600


@dataclass(frozen=True, eq=False)
class Task:
    """`train`, `valid`, `test`: float32 [people, items] of zeros and ones. `ranked`: places of the items ranked.
    `features` by modality, rows of items; `as_new`: items taken out of training and ranked alone for its judge."""

    name: str
    train: Float32
    valid: Float32
    test: Float32
    ranked: Places
    features: Mapping[str, Float32]
    best_alone: str
    as_new: Places


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
    """Recall and NDCG at 10 and 20 of each person who has any of `held`, ranking `ranked` but what they have `seen`.
    Ties go to the lower item."""
    people = np.flatnonzero(held[:, ranked].any(axis=1))
    scores = (train[people] @ vectors) @ vectors[ranked].T
    scores[seen[people][:, ranked] > 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    right = held[people][:, ranked]
    hits, count = np.take_along_axis(right, order, axis=1).astype(np.float64), right.sum(axis=1).astype(int)
    found: dict[str, Float64] = {}
    for most in (10, 20):
        discount = 1 / np.log2(np.arange(most) + 2)
        found[f"recall{most}"] = hits[:, :most].sum(axis=1) / count
        found[f"ndcg{most}"] = hits[:, :most] @ discount / np.cumsum(discount)[np.minimum(count, most) - 1]
    return found


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


def trained(task: Task, config: EngagementConfig, shape: Mapping[str, Any]) -> tuple[Float32, dict[str, Any]]:
    """Vectors of a fusion trained on the task's training interactions, and what is to be said of it."""
    count = task.train.shape[1]
    videos = {f"{item:06d}": {name: token(rows[item]) for name, rows in task.features.items()} for item in range(count)}
    names = sorted(videos)
    used = task.train.copy()
    used[:, task.as_new] = 0
    held = np.zeros_like(used)
    held[:, task.as_new] = task.train[:, task.as_new]
    held[(used.sum(axis=1) == 0) | (task.train.sum(axis=1) > FEW)] = 0

    def judge(vectors: Float32) -> float:
        if len(task.as_new):
            found = measured(used, held, vectors, task.as_new, np.zeros_like(used))
        else:
            found = measured(task.train, task.valid, vectors, task.ranked, task.train)
        return float(np.mean([values.mean() for values in found.values()]))

    started = time.process_time()
    network = NetworkConfig(widths={name: rows.shape[1] for name, rows in task.features.items()}, **shape)
    histories = [[names[item] for item in np.flatnonzero(row)] for row in used]
    result = train_on_histories(videos, histories, network, config, judge)
    seconds = time.process_time() - started
    everything = [videos[name] for name in names]
    vectors = result.fusion.vectors(everything)
    weights: dict[str, list[float]] = {name: [] for name in task.features}
    for found, _ in result.fusion.attend(everything):
        for name in weights:
            weights[name].append(float(found[name].sum()))
    facts = {
        "cpu_seconds": round(seconds, 1),
        "steps": result.facts["steps"],
        "judged": [round(look["judged"], 4) for look in result.facts["history"]],
        "weights": {
            name: {"mean": round(float(np.mean(w)), 4), "between_items": round(float(np.std(w)), 4)}
            for name, w in weights.items()
        },
    }
    return vectors, facts


def rows_of(task: Task, config: EngagementConfig, shape: Mapping[str, Any]) -> dict[str, Any]:
    """The table of one data set."""
    seen = task.train + task.valid

    def on_test(vectors: Float32) -> dict[str, Float64]:
        return measured(task.train, task.test, vectors, task.ranked, seen)

    rows: dict[str, Any] = {}
    each = {name: on_test(vectors) for name, vectors in untrained(task).items()}
    for name, found in each.items():
        rows[name] = {metric: round(float(values.mean()), 4) for metric, values in found.items()}
    runs, facts = [], []
    for seed in SEEDS:
        vectors, said = trained(task, config.model_copy(update={"seed": seed}), {**shape, "seed": seed})
        found = on_test(vectors)
        runs.append(found)
        facts.append({"seed": seed, **{m: round(float(v.mean()), 4) for m, v in found.items()}, **said})
        print(task.name, facts[-1], flush=True)
    rows["trained"] = {
        metric: round(float(np.mean([found[metric].mean() for found in runs])), 4) for metric in runs[0]
    } | {"spread": {m: round(float(np.std([found[m].mean() for found in runs], ddof=1)), 4) for m in runs[0]}}
    stream = np.random.Generator(np.random.PCG64(0))
    difference: dict[str, Any] = {}
    for metric in runs[0]:
        gain = np.mean([found[metric] for found in runs], axis=0) - each[task.best_alone][metric]
        draws = [float(gain[stream.integers(len(gain), size=len(gain))].mean()) for _ in range(DRAWS)]
        low, high = np.quantile(draws, [0.025, 0.975])
        difference[metric] = {"mean": round(float(gain.mean()), 4), "interval95": [round(low, 4), round(high, 4)]}
    return {
        "people": len(gain),
        "ranked": len(task.ranked),
        "rows": rows,
        "seeds": facts,
        f"trained_minus_{task.best_alone}": difference,
        "training": config.model_dump(mode="json"),
    }


def main(folder: Path) -> None:
    if not (folder / "lastfm2k").is_dir():
        print(f"skipped: there is no data for research in {folder}")
        return
    document: dict[str, Any] = {}
    for task, config, shape in (
        (lastfm(folder / "lastfm2k"), LASTFM, LASTFM_NETWORK),
        (tiktok(folder / "tiktok"), TIKTOK, TIKTOK_NETWORK),
    ):
        document[task.name] = rows_of(task, config, shape)
        for name, row in document[task.name]["rows"].items():
            print(f"{task.name:12} {name:24}", " ".join(f"{m} {v:.4f}" for m, v in row.items() if m != "spread"))
    document["cpu_seconds"] = round(time.process_time(), 1)
    print(write("fusion_behaviour", document))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
