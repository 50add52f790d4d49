"""What lists are worth beyond being right: spread over the catalogue, news, variety, surprise, fair interests.

Figures of single viewers are float64 [n], nan where a viewer gives none (a list of one video has no variety); `mean`
passes over those.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.evaluation import Float64, Lists

# The share of the viewer's own interests that is mixed into those of his list, so that an interest that is missing in
# it costs much and not infinitely much (Steck 2018, section 3.1).
SMOOTHING = 0.01


def coverage(lists: Lists) -> float:
    """The share of all videos that stand in anybody's list."""
    return float((exposure(lists) > 0).mean()) if lists.n_videos else 0.0


def exposure(lists: Lists) -> npt.NDArray[np.int64]:
    """int64 [n_videos]: in how many lists each video stands."""
    return np.bincount(lists.videos[lists.there], minlength=lists.n_videos).astype(np.int64)


def gini(lists: Lists) -> float:
    """How unevenly lists share out attention over the catalogue: 0 when every video is shown as often, near 1 when one
    is shown alone (Fleder and Hosanagar 2009). 0 of empty lists."""
    counts = np.sort(exposure(lists)).astype(np.float64)
    n = len(counts)
    if not n or not counts.sum():
        return 0.0
    return float(((2 * np.arange(1, n + 1) - n - 1) * counts).sum() / (n * counts.sum()))


def novelty(lists: Lists, seen: Any) -> Float64:
    """float64 [n], bits: the mean self-information of what is listed, -log2 of the share of viewers in training who had
    it (Zhou et al. 2010). `seen`: sparse [viewers, videos]. A video that nobody had counts as if one viewer had."""
    had = np.maximum(np.asarray((seen > 0).sum(axis=0)).ravel(), 1)
    bits = np.log2(max(seen.shape[0], 1) / had)
    return _row_means(bits[lists.videos], lists.there)


def variety(lists: Lists, features: npt.NDArray[Any]) -> Float64:
    """float64 [n] in 0..2: the mean of 1 - cosine over all pairs of a list (Ziegler et al. 2005; Smyth and McClave
    2001), by `features` [n_videos, dim]. Videos without features (rows of zeros) make no pairs."""
    lengths = np.linalg.norm(features, axis=1)
    unit = features / np.where(lengths > 0, lengths, 1)[:, None]
    found = np.full(len(lists.viewers), np.nan)
    for row, (videos, there) in enumerate(zip(lists.videos, lists.there, strict=True)):
        shown = videos[there & (lengths[videos] > 0)]
        if len(shown) > 1:
            vectors = unit[shown].astype(np.float64)
            # The sum over pairs follows from the length of the summed vector: |sum|^2 = n + 2 * sum of cosines.
            cosines = (float((vectors.sum(axis=0) ** 2).sum()) - len(shown)) / (len(shown) * (len(shown) - 1))
            found[row] = 1 - cosines
    return found


def serendipity(lists: Lists, popular: Lists, held: Any) -> Float64:
    """float64 [n] in 0..1: the share of a list that is right (in `held`, sparse [viewers, videos]) and that the list of
    popular videos of the same viewer and length does not show (Ge et al. 2010)."""
    if not np.array_equal(lists.viewers, popular.viewers):
        raise ValueError("both lists must be of the same viewers")
    found = np.zeros(len(lists.viewers))
    for row, viewer in enumerate(lists.viewers):
        shown = lists.videos[row][lists.there[row]]
        right = held.indices[held.indptr[viewer] : held.indptr[viewer + 1]]
        surprising = shown[np.isin(shown, right) & ~np.isin(shown, popular.videos[row][popular.there[row]])]
        found[row] = len(surprising) / max(lists.videos.shape[1], 1)
    return found


def miscalibration(lists: Lists, history: Any, tags: Any) -> Float64:
    """float64 [n], nats, 0 is best: the divergence KL(p | q) of the tags in a list from those in the viewer's history
    (Steck 2018, equations 2 to 6); each video spreads one unit over its tags.

    `history`: sparse [viewers, videos], its values weigh; `tags`: sparse [n_videos, n_tags]. nan where the history or
    the list has no tags."""
    total = np.maximum(np.asarray(tags.sum(axis=1), np.float64).ravel(), 1e-12)
    spread = tags.astype(np.float64).multiply(1 / total[:, None]).tocsr()
    wanted = np.asarray((history[lists.viewers] @ spread).todense(), np.float64)
    given = np.zeros_like(wanted)
    for row, (videos, there) in enumerate(zip(lists.videos, lists.there, strict=True)):
        given[row] = np.asarray(spread[videos[there]].sum(axis=0)).ravel()
    sums = wanted.sum(axis=1), given.sum(axis=1)
    p = wanted / np.where(sums[0] > 0, sums[0], 1)[:, None]
    q = given / np.where(sums[1] > 0, sums[1], 1)[:, None]
    mixed = (1 - SMOOTHING) * q + SMOOTHING * p
    ratio = np.where(p > 0, p, 1) / np.where(p > 0, mixed, 1)
    found = (p * np.log(ratio)).sum(axis=1)
    found[(sums[0] <= 0) | (sums[1] <= 0)] = np.nan
    return np.asarray(found, np.float64)


def mean(values: Float64) -> float | None:
    """The mean over the viewers who give a figure; None of none."""
    kept = values[np.isfinite(values)]
    return round(float(kept.mean()), 4) if len(kept) else None


def _row_means(values: Float64, there: npt.NDArray[np.bool_]) -> Float64:
    count = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float64)
