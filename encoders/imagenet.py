"""ImageNet's 1,000 classes: their names, the everyday words they fall under, and labels out of their probabilities.

`imagenet_groups.json` holds the names in their order, each with a word out of WordNet's hypernyms ("dog" for
"Staffordshire bullterrier") or null where the name is such a word; `bench/imagenet_groups.py` makes it and says how.

Evidence for a word is the sum over its classes: six breeds at a tenth each are a dog, though nobody knows which. A word
is a label of its own where its evidence is sure enough and none of its classes is; where one of them is, the word is
that label's group.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store.records import Float32, Label

GROUPS_FILE = "imagenet_groups.json"


@dataclass(frozen=True)
class Classes:
    """Names [1000], the group of each (or None), and for each word the indices of its classes: those that have it as
    their group, and one that has it as its name."""

    names: tuple[str, ...]
    groups: tuple[str | None, ...]
    members: dict[str, tuple[int, ...]]


@cache
def read_classes() -> Classes:
    """The classes of `imagenet_groups.json`."""
    rows = json.loads(Path(__file__).with_name(GROUPS_FILE).read_text(encoding="utf-8"))["classes"]
    names = tuple(name for _, name, _ in rows)
    groups = tuple(group for _, _, group in rows)
    words = [group or name for name, group in zip(names, groups, strict=True)]
    members = {
        group: tuple(index for index, word in enumerate(words) if word == group)
        for group in sorted({group for group in groups if group})
    }
    return Classes(names, groups, members)


def by_group(probabilities: Float32) -> Float32:
    """[n, n_groups]: the evidence for each word of `Classes.members`, in their order, summed over its classes."""
    members = read_classes().members
    result = np.zeros((len(probabilities), len(members)), np.float32)
    for column, indices in enumerate(members.values()):
        result[:, column] = probabilities[:, indices].sum(axis=1, dtype=np.float64)
    return result


def labels(
    probabilities: Float32,
    seconds: npt.NDArray[np.float64],
    *,
    count: int,
    min_confidence: float,
    min_group_confidence: float,
    peak_share: float,
    label_seconds: int,
) -> list[Label]:
    """At most `count` labels for frames of `probabilities` [n, 1000] at `seconds` [n], the surest first.

    The confidence of a class, or of a word, is its mean over that `peak_share` of the frames in which it is highest. A
    class needs `min_confidence`; a word none of whose classes has that needs `min_group_confidence`. With each stand up
    to `label_seconds` times at which it is at least half as sure as at its best.
    """
    if not len(probabilities):
        return []
    classes = read_classes()
    peaks = math.ceil(len(probabilities) * peak_share)
    sure = _peaks(probabilities, peaks)
    found = [
        Label(
            name=classes.names[index],
            confidence=_rounded(sure[index]),
            seconds=_best(probabilities[:, index], seconds, label_seconds),
            group=classes.groups[index],
        )
        for index in np.flatnonzero(sure >= min_confidence).tolist()
    ]
    evidence = by_group(probabilities)
    together = _peaks(evidence, peaks)
    for column, (word, indices) in enumerate(classes.members.items()):
        if together[column] >= min_group_confidence and sure[list(indices)].max() < min_confidence:
            found.append(
                Label(
                    name=word,
                    confidence=_rounded(together[column]),
                    seconds=_best(evidence[:, column], seconds, label_seconds),
                )
            )
    return sorted(found, key=lambda label: -label.confidence)[:count]


def _peaks(values: Float32, count: int) -> npt.NDArray[np.float64]:
    """Mean of the `count` highest values in each column."""
    result: npt.NDArray[np.float64] = np.sort(values, axis=0)[-count:].mean(axis=0, dtype=np.float64)
    return result


def _rounded(confidence: float) -> float:
    return round(min(float(confidence), 1.0), 4)


def _best(seen: Float32, seconds: npt.NDArray[np.float64], count: int) -> list[float]:
    best = np.argsort(-seen, kind="stable")[:count]
    return sorted(round(float(seconds[frame]), 3) for frame in best if seen[frame] >= seen[best[0]] / 2)
