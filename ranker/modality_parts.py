"""What each modality adds to a fused vector, worked out once for each published video that is read."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ranker.video_table import PublishedVideo
from store.records import MODALITIES

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_KNOWN: WeakKeyDictionary[PublishedVideo, tuple[Int64, Float64]] = WeakKeyDictionary()
_NUMBERS = {modality: number for number, modality in enumerate(MODALITIES)}


def weighted_tokens(video: PublishedVideo) -> Float64:
    """float64 [n_tokens, dim]: each token times its weight; they sum to the direction of the video's vector."""
    return video.weights.astype(np.float64)[:, None] * video.token_vectors.astype(np.float64)


def modality_sums(video: PublishedVideo) -> tuple[Int64, Float64]:
    """(int64 [n_tokens]: the number of each token's modality in `MODALITIES`; float64 [3, dim]: the sum of its weighted
    tokens for each modality)."""
    known = _KNOWN.get(video)
    if known is None:
        numbers = np.array([_NUMBERS[token.modality] for token in video.attributes.tokens], np.int64)
        weighted = weighted_tokens(video)
        sums = np.stack([weighted[numbers == number].sum(axis=0) for number in range(len(MODALITIES))])
        known = _KNOWN[video] = (numbers, sums)
    return known
