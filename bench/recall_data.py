"""Real behaviour for offline evaluation, split as the anchors were: MovieLens-100K and TikTok.

MovieLens-100K (Harper and Konstan 2015) is read out of the recbole wheel, which is never installed: its file lies in it
under recbole/dataset_example. TikTok lies beside the repository in ../shared/data, for research only.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.interactions import Interactions

INSIDE = "recbole/dataset_example/ml-100k/ml-100k.inter"
SEED = 2026
Integers = npt.NDArray[np.int64]
Table = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """One data set split once. `train`, `valid`, `test`: interactions of the same viewers and videos. `order`: how many
    videos the viewer had after it in training (0: the last), a cell each of `train`; empty where times are not known.
    `ages`: days before the last training interaction, likewise. `features` by modality, rows of videos."""

    dataset: str
    name: str
    train: Interactions
    valid: Interactions
    test: Interactions
    order: Any = None
    ages: Any = None
    features: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def movielens(wheel: Path) -> Table:
    """int64 [n, 4] of user, item, rating, timestamp, in the order of the file."""
    with zipfile.ZipFile(wheel) as inside:
        text = inside.read(INSIDE).decode()
    # Times are whole seconds: read through float64, which holds them exactly, never float32.
    return np.loadtxt(io.StringIO(text), np.float64, delimiter="\t", skiprows=1).astype(np.int64)


def parts_of(rows: Table) -> dict[str, dict[str, Integers]]:
    """{split: {train, valid, test: places in `rows`, in order}} as ../shared/splits.py makes them."""
    user, stamp, place = rows[:, 0], rows[:, 3], np.arange(len(rows))
    by_user = np.lexsort((place, stamp, user))
    ends = np.append(np.flatnonzero(np.diff(user[by_user])), len(rows) - 1)
    from_end = np.empty(len(rows), np.int64)
    from_end[by_user] = np.repeat(ends, np.diff(np.concatenate([[-1], ends]))) - np.arange(len(rows))
    stream, label = np.random.default_rng(SEED), np.zeros(len(rows), np.int64)
    for one in np.unique(user):
        mine = stream.permutation(np.flatnonzero(user == one))
        tenth = max(1, round(0.1 * len(mine)))
        label[mine[:tenth]], label[mine[tenth : 2 * tenth]] = 2, 1
    by_time = np.lexsort((place, stamp))
    first, second = int(0.8 * len(rows)), int(0.9 * len(rows))
    warm = np.isin(user, user[by_time[:first]])
    later = {"valid": by_time[first:second], "test": by_time[second:]}
    return {
        "random": {name: np.flatnonzero(label == number) for number, name in enumerate(("train", "valid", "test"))},
        "leave_last_out": {
            "train": np.flatnonzero(from_end >= 2),
            "valid": np.flatnonzero(from_end == 1),
            "test": np.flatnonzero(from_end == 0),
        },
        "global_time": {
            "train": np.sort(by_time[:first]),
            **{name: np.sort(places[warm[places]]) for name, places in later.items()},
        },
    }


def movielens_splits(wheel: Path) -> list[Split]:
    """Random, leave-last-out and global time. Every interaction is a positive."""
    rows = movielens(wheel)
    users, items = (np.unique(rows[:, column], return_inverse=True)[1] for column in (0, 1))
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    found = []
    for name, parts in parts_of(rows).items():
        train = parts["train"]
        last = np.lexsort((-train, -rows[train, 3], users[train]))
        rank = np.empty(len(train))
        starts = np.searchsorted(users[train][last], np.arange(n_users))
        rank[last] = np.arange(len(train)) - starts[users[train][last]]
        days = (rows[train, 3].max() - rows[train, 3]) / 86_400
        of = {
            part: Interactions.from_arrays(users[places], items[places], n_users, n_items)
            for part, places in parts.items()
        }
        # One is added so that the last one is a cell too; explicit zeros do not survive.
        kept = [
            Interactions.from_arrays(users[train], items[train], n_users, n_items, values + 1).matrix
            for values in (rank, days)
        ]
        found.append(Split("ml-100k", name, of["train"], of["valid"], of["test"], kept[0], kept[1]))
    return found


def tiktok_split(folder: Path) -> Split:
    """The split that came with the data; pictures' and sounds' features."""
    pairs = {
        part: np.loadtxt(folder / f"{part}.csv", np.int64, delimiter=",", skiprows=1)
        for part in ("train", "valid", "test")
    }
    features = {name: np.load(folder / f"{name}_feat.npy").astype(np.float32) for name in ("image", "audio")}
    n_users = max(int(part[:, 0].max()) for part in pairs.values()) + 1
    of = {
        part: Interactions.from_arrays(table[:, 0], table[:, 1], n_users, len(features["image"]))
        for part, table in pairs.items()
    }
    return Split("tiktok", "given", of["train"], of["valid"], of["test"], features=features)
