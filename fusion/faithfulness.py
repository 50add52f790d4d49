"""Whether the weights say what mattered: take tokens away, fuse what is left, and see how far the vector has moved.

A *deletion curve* (after RISE, Petsiuk et al. 2018, and the comprehensiveness of ERASER, DeYoung et al. 2020) is the
distance 1 - cosine from the whole video's vector, against the share of tokens that are gone, 0..1. Weights are faithful
when taking the tokens of the highest weight moves the vector further than taking as many at random: `gain` is the area
between the two curves. The vector is fused anew each time: what is left is attended to as if the rest had never been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion.views import generator_for
from store.records import Float32, Tokens

Float64 = npt.NDArray[np.float64]
TokenSet = Mapping[str, Tokens]
# Vector of unit length, and the weights by modality, of a token set; `TrainedFusion.fuse_any` is one.
Fuse = Callable[[TokenSet], tuple[Float32, Mapping[str, Float32]]]
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class Deletion:
    """Mean deletion curves of several videos over `SHARES`, and the areas under them from 0.1 to 0.9."""

    by_weight: Float64
    at_random: Float64
    by_weight_area: float
    random_area: float

    @property
    def gain(self) -> float:
        """Area between the curves: positive is faithful."""
        return self.by_weight_area - self.random_area


def deletion(videos: Sequence[TokenSet], fuse: Fuse, seed: int = 0, draws: int = 8) -> Deletion:
    """Curves over the videos of three tokens or more; `draws` random orders for each. ValueError without any."""
    weighty, random = [], []
    for number, tokens in enumerate(videos):
        places = [(name, index) for name in sorted(tokens) for index in range(len(tokens[name]))]
        if len(places) < 3:
            continue
        vector, weights = fuse(tokens)
        flat = np.array([float(weights[name][index]) for name, index in places])
        weighty.append(_curve(tokens, places, np.argsort(-flat, kind="stable"), vector, fuse))
        for draw in range(draws):
            order = generator_for(seed, draw, f"deletion/{number}").permutation(len(places))
            random.append(_curve(tokens, places, order, vector, fuse))
    if not weighty:
        raise ValueError("no video has three tokens")
    by_weight, at_random = np.mean(weighty, axis=0), np.mean(random, axis=0)
    return Deletion(by_weight, at_random, _area(by_weight), _area(at_random))


def _curve(
    tokens: TokenSet, places: Sequence[tuple[str, int]], order: npt.NDArray[np.intp], vector: Float32, fuse: Fuse
) -> Float64:
    moved = []
    for share in SHARES:
        # At least one goes and at least one stays.
        count = min(max(1, round(share * len(places))), len(places) - 1)
        gone = {places[index] for index in order[:count]}
        moved.append(1.0 - float(_without(tokens, gone, fuse) @ vector))
    return np.array(moved)


def _without(tokens: TokenSet, gone: set[tuple[str, int]], fuse: Fuse) -> Float32:
    left = {}
    for name, part in tokens.items():
        kept = np.array([index for index in range(len(part)) if (name, index) not in gone], np.intp)
        if len(kept):
            left[name] = Tokens(
                part.embeddings[kept], part.start_seconds[kept], part.end_seconds[kept], part.salience[kept]
            )
    if not any(((part.salience > 0) & part.embeddings.any(axis=1)).any() for part in left.values()):
        return np.zeros_like(fuse(tokens)[0])
    return fuse(left)[0]


def _area(curve: Float64) -> float:
    return float(np.trapezoid(curve, SHARES))
