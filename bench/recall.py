"""Every recall source alone and together on real behaviour: `python -m bench.recall WHEEL [DATA]` writes
results/recall.json.

WHEEL is the recbole wheel (`pip download recbole --no-deps`; never installed), DATA the folder with `tiktok` in it
(default ../shared/data). Full ranking, what was seen masked, ties to the lower place. Each source's settings are chosen
on validation NDCG@10 and test is opened once; CPU seconds are of making and asking the chosen setting.

`*_recent` is the same source asked with a history in which the last video weighs most, exp(-rank / tau), as the live
one is. `together` is a weighted sum of the sources' scores, each divided by the viewer's own largest; weights by
coordinate search on validation.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from bench.recall_data import Split, movielens_splits, tiktok_split
from bench.results import write
from ranker import item_item
from ranker.assessing import MAIN
from ranker.evaluation import Integers, Measured, Scorer, difference, measure
from ranker.item_item import ItemItemConfig
from ranker.similar_viewers import SimilarViewers, SimilarViewersConfig
from ranker.walks import WalkConfig, Walks

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TAUS = (3.0, 10.0, 30.0)
HALF_LIFE_DAYS = (3.0, 10.0, 30.0, 100.0)
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
Scores = npt.NDArray[np.float32]
Settings = dict[str, Any]
Candidate = tuple[str, Settings, Callable[[], Scorer]]


@dataclass(frozen=True, eq=False)
class Row:
    """One source on one split: its chosen `settings`, how it scores, and what that gave."""

    settings: Settings
    score: Scorer
    validation: float
    test: Measured
    cpu_seconds: float


def candidates(split: Split) -> Iterator[Candidate]:
    """(name, settings, maker) of everything that validation may choose from."""
    train = split.train.matrix
    popular = np.asarray(train.sum(axis=0), np.float32).ravel()
    yield "popularity", {}, partial(same_for_all, popular)
    yield from of_history(split, train, "", {})
    if split.order is not None:
        for tau in TAUS:
            history = split.order.copy()
            history.data = np.exp(-(split.order.data - 1) / tau).astype(np.float32)
            yield from of_history(split, history, "_recent", {"tau": tau})
        for days in HALF_LIFE_DAYS:
            fading = split.ages.copy()
            fading.data = np.exp2(-(split.ages.data - 1) / days)
            counts = np.asarray(fading.sum(axis=0), np.float32).ravel()
            yield "trending", {"half_life_days": days}, partial(same_for_all, counts)
    for asked, shrinkage in itertools.product((50, 100, 200), (0.0, 1.0, 5.0)):
        alike_by = SimilarViewersConfig(neighbours=asked, shrinkage=shrinkage)
        yield "similar_viewers", alike_by.model_dump(), partial(alike, split, alike_by)
    for modality, sharpness in itertools.product(split.features, (0.0, 10.0)):
        said = {"modality": modality, "sharpness": sharpness}
        yield "content", said, partial(content, split, modality, sharpness)


def of_history(split: Split, history: Any, suffix: str, said: Settings) -> Iterator[Candidate]:
    """The sources that start at what each viewer had; fewer settings where the history fades."""
    for neighbours, shrinkage in itertools.product(
        (50, 100) if suffix else (20, 50, 100, 200), (0.0, 5.0) if suffix else (0.0, 5.0, 20.0)
    ):
        near = ItemItemConfig(neighbours=neighbours, shrinkage=shrinkage)
        settings = said | {"neighbours": neighbours, "shrinkage": shrinkage}
        yield f"item_knn{suffix}", settings, partial(nearest, split, history, near)
    if not suffix:
        for alpha in (0.5, 0.6, 0.7, 0.8, 1.0, 1.3, 1.6):
            only = WalkConfig(alpha=alpha, second=0)
            yield "p3alpha", {"alpha": alpha}, partial(walks, split, history, only)
    for beta, second in itertools.product((0.0, 0.4, 0.6, 0.8), (0.1,) if suffix else (0.1, 1.0, 10.0)):
        both = WalkConfig(beta=beta, second=second)
        yield f"walk{suffix}", said | {"beta": beta, "second": second}, partial(walks, split, history, both)


def same_for_all(counts: Scores) -> Scorer:
    """Everybody is ranked the same."""
    return lambda viewers: np.tile(counts, (len(viewers), 1))


def nearest(split: Split, history: Any, config: ItemItemConfig) -> Scorer:
    """Item-item neighbours of what each viewer had."""
    similarity = item_item.item_item(split.train, config)
    return lambda viewers: item_item.scores(similarity, history[viewers])


def walks(split: Split, history: Any, config: WalkConfig) -> Scorer:
    """Whole random walks."""
    graph = Walks(split.train, config=config)
    return lambda viewers: graph.scores(history[viewers])


def alike(split: Split, config: SimilarViewersConfig) -> Scorer:
    """What the nearest other viewers had."""
    source = SimilarViewers(split.train, config)
    itself = sparse.identity(split.train.matrix.shape[0], format="csr", dtype=np.float32)
    return lambda viewers: source.scores(split.train.matrix[viewers], itself[viewers])


def content(split: Split, modality: str, sharpness: float) -> Scorer:
    """Cosine to what each viewer had: to the mean of it (sharpness 0), or leaning to the nearest single one, as several
    interests do: log of the mean of exp(sharpness * cosine)."""
    rows = split.features[modality]
    centred = rows - rows.mean(axis=0)
    vectors = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    train = split.train.matrix
    between = np.exp(sharpness * (vectors @ vectors.T)) if sharpness else None

    def score(viewers: Integers) -> Scores:
        if between is not None:
            return np.asarray(train[viewers] @ between, np.float32)
        wanted = train[viewers] @ vectors
        return np.asarray(wanted @ vectors.T, np.float32)

    return score


def chosen(split: Split) -> dict[str, Row]:
    """The best setting of each source by validation, opened on test once."""
    best: dict[str, tuple[float, Settings, Callable[[], Scorer], Scorer]] = {}
    for name, settings, make in candidates(split):
        score = make()
        found = measure(score, split.valid.matrix, split.train.matrix).means()["ndcg@10"]
        if name not in best or found > best[name][0]:
            best[name] = found, settings, make, score
    rows = {}
    for name, (found, settings, make, _) in best.items():
        started = time.process_time()
        score = make()
        rows[name] = Row(settings, score, found, tested(split, score), time.process_time() - started)
    return rows


def tested(split: Split, score: Scorer) -> Measured:
    """On test: what was in training or validation is not ranked."""
    return measure(score, split.test.matrix, split.train.matrix + split.valid.matrix)


def scaled_scores(split: Split, rows: dict[str, Row]) -> dict[str, Scores]:
    """What each source says to those who have something in validation, as `scaled_by_largest` makes it."""
    viewers = np.flatnonzero(np.diff(split.valid.matrix.indptr)).astype(np.int64)
    return {name: scaled_by_largest(row.score, split.train.matrix, viewers) for name, row in rows.items()}


def together(split: Split, rows: dict[str, Row], scaled: dict[str, Scores]) -> Row:
    """A weighted sum of the sources, each by its viewer's largest score; weights by coordinate search on validation."""
    started = time.process_time()
    names = list(rows)
    held = split.valid.matrix
    viewers = np.flatnonzero(np.diff(held.indptr)).astype(np.int64)

    def judged(weights: dict[str, float]) -> float:
        total = np.zeros((len(viewers), held.shape[1]), np.float32)
        for name, weight in weights.items():
            if weight:
                total += np.float32(weight) * scaled[name]
        place = np.full(held.shape[0], -1)
        place[viewers] = np.arange(len(viewers))
        return measure(lambda some: total[place[some]], held, split.train.matrix, (10,)).means()["ndcg@10"]

    first = max(names, key=lambda name: rows[name].validation)
    weights = {name: float(name == first) for name in names}
    reached = judged(weights)
    for _ in range(2):
        for name in names:
            for weight in WEIGHTS:
                tried = {**weights, name: weight}
                if any(tried.values()) and (found := judged(tried)) > reached:
                    reached, weights = found, tried

    def score(some: Integers) -> Scores:
        seen = split.train.matrix + split.valid.matrix
        total = np.zeros((len(some), seen.shape[1]), np.float32)
        for name, weight in weights.items():
            if weight:
                total += np.float32(weight) * scaled_by_largest(rows[name].score, seen, some)
        return total

    seconds = time.process_time() - started
    kept = {name: weight for name, weight in weights.items() if weight}
    return Row({"weights": kept}, score, reached, tested(split, score), seconds)


def scaled_by_largest(score: Scorer, seen: Any, viewers: Integers) -> Scores:
    """Each viewer's scores of what was not seen, divided by the largest of them."""
    found = np.maximum(np.array(score(viewers), np.float32), 0)
    rows, columns = seen[viewers].nonzero()
    found[rows, columns] = 0
    return np.asarray(found / np.maximum(found.max(axis=1, keepdims=True), 1e-12), np.float32)


def table(split: Split) -> dict[str, Any]:
    """The rows of one split, by how much all sources together are ahead of the best single one, and what each source
    adds: all together against all but that one, with weights searched anew."""
    rows = chosen(split)
    scaled = scaled_scores(split, rows)
    whole = together(split, rows, scaled)
    without = {
        left_out: together(split, {name: row for name, row in rows.items() if name != left_out}, scaled)
        for left_out in whole.settings["weights"]
    }
    rows["together"] = whole
    alone = max((name for name in rows if name != "together"), key=lambda name: rows[name].validation)
    document: dict[str, Any] = {
        "viewers": len(rows["together"].test.viewers),
        "rows": {
            name: row.test.means()
            | {
                "validation_ndcg@10": round(row.validation, 4),
                "cpu_seconds": round(row.cpu_seconds, 1),
                "settings": row.settings,
            }
            for name, row in rows.items()
        },
        f"together - {alone}": {
            metric: difference(rows["together"].test.each[metric], rows[alone].test.each[metric]) for metric in MAIN
        },
        "together - without": {
            name: {metric: difference(whole.test.each[metric], row.test.each[metric]) for metric in MAIN}
            | {"validation_ndcg@10": round(whole.validation - row.validation, 4)}
            for name, row in without.items()
        },
    }
    for name, row in rows.items():
        print(f"{split.dataset:8} {split.name:15} {name:16}", row.test.means(), row.settings, flush=True)
    return document


def main(wheel: Path, data: Path) -> None:
    document: dict[str, Any] = {}
    splits = [*movielens_splits(wheel)] if wheel.is_file() else []
    if not splits:
        print(f"MovieLens-100K is skipped: there is no wheel of recbole at {wheel}")
    if (data / "tiktok").is_dir():
        splits.append(tiktok_split(data / "tiktok"))
    else:
        print(f"TikTok is skipped: there is no data for research in {data}")
    for split in splits:
        started = time.process_time()
        document.setdefault(split.dataset, {})[split.name] = found = table(split)
        found["cpu_seconds_with_choosing"] = round(time.process_time() - started, 1)
        print(write("recall", document), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else DATA)
