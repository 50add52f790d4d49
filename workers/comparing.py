"""Is what a re-embedding makes as good as what is served? Numbers over a sample of videos, and a verdict on them.

For the fused vectors, and for the tokens of each modality whose encoder changed:

- *finite, norm*: every number is one, and every fused vector has length 1.
- *spread*: one minus the squared length of the mean of unit vectors. An encoder that says the same of everything has
  none; given as a share of what the served ones have.
- *neighbours*: how many of a video's nearest neighbours in the sample are the same as by the served vectors, less what
  chance gives: 0 is chance, 1 all of them. A better encoder sees other neighbours, a broken one sees random ones.
- *same video*: a probe of quality that needs no labels. A video's tokens are dealt into two halves; how often is one
  half nearest to the other half of the same video? Given beside the served ones' figure.

Samples that are too small for a number leave it out (None), and the verdict says nothing on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from store.records import Float32
from store.settings import Reembedding

LEAST_VIDEOS = 8
MOST_NEIGHBOURS = 10
NORM_TOLERANCE = 1e-3
# Below this the served vectors say the same of every video themselves: there is nothing to keep.
NO_SPREAD = 1e-4


@dataclass(frozen=True, eq=False)
class Pair:
    """One video, read twice: fused vectors float32 [dim], and tokens float32 [n_tokens, dim] by modality."""

    served: Float32
    made: Float32
    served_tokens: Mapping[str, Float32] = field(default_factory=dict)
    made_tokens: Mapping[str, Float32] = field(default_factory=dict)


def compare(pairs: Sequence[Pair], modalities: Sequence[str], failed: int) -> dict[str, Any]:
    """The numbers, for JSON. `failed` more videos could not be read anew though they are served."""
    vectors = np.stack([pair.made for pair in pairs]) if pairs else np.zeros((0, 0), np.float32)
    finite = bool(np.isfinite(vectors).all()) and all(
        bool(np.isfinite(tokens).all()) for pair in pairs for tokens in pair.made_tokens.values()
    )
    whole = len(pairs) + failed
    result: dict[str, Any] = {
        "videos": whole,
        "failed": failed,
        "failed_share": round(failed / whole, 4) if whole else 0.0,
        "finite": finite,
        "norm_error": float(np.abs(np.linalg.norm(vectors, axis=1) - 1.0).max()) if finite and len(vectors) else None,
        "vector": _figures([pair.served for pair in pairs], [pair.made for pair in pairs])
        if finite and pairs
        else None,
        "modalities": {},
    }
    if finite and pairs:
        result["vector"] = _figures([pair.served for pair in pairs], [pair.made for pair in pairs])
    for modality in modalities:
        both = [pair for pair in pairs if len(pair.served_tokens.get(modality, ())) and modality in pair.made_tokens]
        both = [pair for pair in both if len(pair.made_tokens[modality])]
        if not both or not finite:
            continue
        served = [pair.served_tokens[modality] for pair in both]
        made = [pair.made_tokens[modality] for pair in both]
        figures = _figures([item.mean(axis=0) for item in served], [item.mean(axis=0) for item in made])
        result["modalities"][modality] = {
            "videos": len(both),
            **figures,
            "same_video": {"served": _same_video(served), "made": _same_video(made)},
        }
    return result


def complaints(numbers: Mapping[str, Any], limits: Reembedding) -> list[str]:
    """What is bad about the numbers, a sentence each; empty when they are good."""
    found: list[str] = []
    if numbers["failed_share"] > limits.most_failed:
        found.append(f"{numbers['failed']} of {numbers['videos']} videos failed.")
    if not numbers["finite"]:
        found.append("There are numbers that are NaN or infinite.")
    if numbers["norm_error"] is not None and numbers["norm_error"] > NORM_TOLERANCE:
        found.append(f"A vector is not of length 1 (off by {numbers['norm_error']:.3g}).")
    parts = {"fused vectors": numbers["vector"]} | {
        f"{name} tokens": part for name, part in numbers["modalities"].items()
    }
    for name, part in parts.items():
        if part is None:
            continue
        if part["spread"] is not None and part["spread"] < limits.least_spread:
            found.append(f"The {name} hardly differ between videos ({part['spread']:.2f} of the served spread).")
        if part["neighbours"] is not None and part["neighbours"] < limits.least_neighbours:
            found.append(f"The {name} keep {part['neighbours']:.2f} of the neighbours, where 0 is chance.")
        same = part.get("same_video")
        if same and None not in same.values() and same["made"] < limits.least_same_video * same["served"]:
            found.append(
                f"Halves of a video find each other {same['made']:.2f} of the time by the {name}, and "
                f"{same['served']:.2f} by the served ones."
            )
    return found


def _figures(served: Sequence[Float32], made: Sequence[Float32]) -> dict[str, Any]:
    before, after = _unit(np.stack(served)), _unit(np.stack(made))
    spread = _spread(before)
    return {
        "spread": round(_spread(after) / spread, 4) if spread > NO_SPREAD else None,
        "neighbours": _neighbours(before, after) if spread > NO_SPREAD else None,
    }


def _unit(rows: Float32) -> Float32:
    found: Float32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found


def _spread(rows: Float32) -> float:
    return float(1.0 - np.square(rows.mean(axis=0, dtype=np.float64)).sum())


def _neighbours(before: Float32, after: Float32) -> float | None:
    count = len(before)
    if count < LEAST_VIDEOS:
        return None
    k = min(MOST_NEIGHBOURS, count // 4)
    kept = [len(set(one) & set(other)) for one, other in zip(_nearest(before, k), _nearest(after, k), strict=True)]
    chance = k / (count - 1)
    return round((float(np.mean(kept)) / k - chance) / (1.0 - chance), 4)


def _nearest(rows: Float32, k: int) -> list[list[int]]:
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    found: list[list[int]] = np.argsort(-likeness, axis=1, kind="stable")[:, :k].tolist()
    return found


def _same_video(tokens: Sequence[Float32]) -> float | None:
    """How often the even tokens of a video are nearest to the odd tokens of the same video."""
    enough = [item for item in tokens if len(item) >= 2]
    if len(enough) < LEAST_VIDEOS:
        return None
    even = _unit(np.stack([item[0::2].mean(axis=0) for item in enough]))
    odd = _unit(np.stack([item[1::2].mean(axis=0) for item in enough]))
    return round(float((np.argmax(even @ odd.T, axis=1) == np.arange(len(enough))).mean()), 4)
