"""How much each of several rankings should count, found on acts that were held back.

Scores of unlike models are first made alike, viewer by viewer, over the videos that he has not had:

    z      (score - mean) / standard deviation
    rank   1 - log(1 + place) / log(1 + videos), ties share their middle place

and a blend is a sum with weights of 0 and above. A search that goes by NDCG@10 directly believes what it happens to
see; three things hold it back. It starts where a conditional logit (McFadden 1974) over the held acts ends, which is
smooth and convex. It is run on halves of the viewers, and what it promises is measured on the other half. And the
weights that are kept are the mean over all halves, as in bagging (Breiman 1996).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ranker.evaluation import difference
from ranker.models.training_data import ActLog, Float32, Float64, Integers

Kind = Literal["z", "rank"]
KINDS: tuple[Kind, ...] = ("z", "rank")
Flags = npt.NDArray[np.bool_]
Scorers = Sequence[Callable[[Integers], Float32]]
CUTOFF = 10
DISCOUNT = 1 / np.log2(np.arange(CUTOFF) + 2)
BATCH = 256
# Videos drawn for each viewer, whatever their scores: what a score is worth on average is seen on these.
SAMPLED = 48
FACTORS = (0.0, 0.4, 0.7, 1.4, 2.5)
FROM_NOTHING = (0.05, 0.2, 0.6)
ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Pool:
    """The videos that any of the members would show, for viewers of whom acts are held back.

    `viewers` int64 [n]; `videos` int64 [n, width] in order, padded with -1; `held` bool [n, width]: right ones;
    `ideal` float64 [n]: the largest discounted gain of 10; `scores` by kind float32 [members, n, width]; `sampled`
    int64 [n, SAMPLED] videos drawn evenly, with `sampled_scores` likewise.
    """

    viewers: Integers
    videos: Integers
    held: Flags
    ideal: Float64
    scores: Mapping[Kind, Float32]
    sampled: Integers
    sampled_scores: Mapping[Kind, Float32]

    def of(self, rows: npt.NDArray[Any]) -> Pool:
        """Some of its viewers."""
        return replace(
            self,
            viewers=self.viewers[rows],
            videos=self.videos[rows],
            held=self.held[rows],
            ideal=self.ideal[rows],
            scores={kind: part[:, rows] for kind, part in self.scores.items()},
            sampled=self.sampled[rows],
            sampled_scores={kind: part[:, rows] for kind, part in self.sampled_scores.items()},
        )


def together(pool: Pool, parts: Sequence[Integers]) -> Pool:
    """The pool of fewer members, each the mean of some: one model fitted several times has one weight."""
    return replace(
        pool,
        scores={kind: np.stack([made[rows].mean(axis=0) for rows in parts]) for kind, made in pool.scores.items()},
        sampled_scores={
            kind: np.stack([made[rows].mean(axis=0) for rows in parts]) for kind, made in pool.sampled_scores.items()
        },
    )


def spread(weights: Float64, parts: Sequence[Integers]) -> Float64:
    """float64 [..., members]: the weights of `together`'s members, shared out evenly."""
    found = np.zeros((*weights.shape[:-1], sum(len(rows) for rows in parts)))
    for place, rows in enumerate(parts):
        found[..., rows] = weights[..., [place]] / len(rows)
    return found


@dataclass(frozen=True, eq=False)
class Blend:
    """`kind`; `weights` float64 [members], they sum to 1; `each` float64 [n]: NDCG@10 of each viewer of the pool by
    weights that were found without him; `alone`: the same of the best single member, found likewise."""

    kind: Kind
    weights: Float64
    each: Float64
    alone: Float64


def alike(scores: npt.NDArray[Any], seen: Flags, kind: Kind) -> Float32:
    """float32 [n, videos]: scores made alike over what is not `seen` (bool [n, videos]); seen videos are placed among
    the others. A row in which all unseen scores are the same becomes zeros (by z) or one same figure (by rank)."""
    values = np.asarray(scores, np.float64)
    if kind == "z":
        kept = ~seen
        count = np.maximum(kept.sum(axis=1, keepdims=True), 1)
        middle = np.where(kept, values, 0).sum(axis=1, keepdims=True) / count
        spread = np.sqrt((np.where(kept, values - middle, 0) ** 2).sum(axis=1, keepdims=True) / count)
        # What differs by rounding alone is the same.
        known = spread > 1e-9 * np.maximum(np.abs(middle), 1e-12)
        return np.where(known, (values - middle) / np.where(known, spread, 1), 0).astype(np.float32)
    found = np.empty(values.shape, np.float32)
    for row, (mine, had) in enumerate(zip(values, seen, strict=True)):
        order = np.sort(mine[~had])
        below, upto = np.searchsorted(order, mine, "left"), np.searchsorted(order, mine, "right")
        place = len(order) - upto + np.maximum(upto - below - 1, 0) / 2
        found[row] = 1 - np.log1p(place) / np.log1p(max(len(order), 1))
    return found


def had(log: ActLog, viewers: Integers) -> Flags:
    """bool [len(viewers), n_videos]: whatever a viewer did with it, in the log."""
    flags = np.zeros((len(viewers), log.n_videos), bool)
    for row, viewer in enumerate(viewers):
        if viewer < log.n_viewers:
            flags[row, log.videos[log.starts[viewer] : log.starts[viewer + 1]]] = True
    return flags


def pool_of(
    members: Scorers, log: ActLog, held: Any, *, each: int, viewers: int, seed: int, candidates: Flags | None = None
) -> Pool:
    """The `each` best unseen videos of every member for at most `viewers` of those who have anything in `held` (sparse
    [viewers, videos]); `candidates` (bool [n_videos]): no others are ranked."""
    stream = np.random.Generator(np.random.PCG64(seed))
    asked: Integers = np.flatnonzero(np.diff(held.indptr)).astype(np.int64)
    if len(asked) > viewers:
        asked = np.sort(stream.permutation(asked)[:viewers])
    allowed = np.ones(log.n_videos, bool) if candidates is None else candidates
    parts = [
        _part(members, log, held, asked[start : start + BATCH], each, allowed, stream)
        for start in range(0, len(asked), BATCH)
    ]
    width = max((part.videos.shape[1] for part in parts), default=0)
    padded = [(part, width - part.videos.shape[1]) for part in parts]
    if not parts:
        empty = {kind: np.zeros((len(members), 0, 0), np.float32) for kind in KINDS}
        nothing = np.zeros((0, 0), np.int64)
        return Pool(asked, nothing, nothing > 0, np.zeros(0), empty, nothing, empty)
    return Pool(
        asked,
        np.concatenate([np.pad(part.videos, ((0, 0), (0, more)), constant_values=-1) for part, more in padded]),
        np.concatenate([np.pad(part.held, ((0, 0), (0, more))) for part, more in padded]),
        np.concatenate([part.ideal for part in parts]),
        {
            kind: np.concatenate(
                [np.pad(part.scores[kind], ((0, 0), (0, 0), (0, more))) for part, more in padded], axis=1
            )
            for kind in KINDS
        },
        np.concatenate([part.sampled for part in parts]),
        {kind: np.concatenate([part.sampled_scores[kind] for part in parts], axis=1) for kind in KINDS},
    )


def _part(
    members: Scorers,
    log: ActLog,
    held: Any,
    viewers: Integers,
    each: int,
    allowed: Flags,
    stream: np.random.Generator,
) -> Pool:
    unknown = ~had(log, viewers)
    # Scores are made alike over all that the viewer has not had, as they will be when they are served.
    seen = ~unknown | ~allowed[None, :]
    right = (held[viewers].toarray() > 0) & ~seen
    most = min(each, int(allowed.sum()))
    raw = [np.asarray(score(viewers), np.float64) for score in members]
    chosen = np.zeros(seen.shape, bool)
    for values in raw:
        masked = np.where(seen, -np.inf, values)
        top = np.argpartition(-masked, most - 1, axis=1)[:, :most]
        np.put_along_axis(chosen, top, True, axis=1)
    chosen &= ~seen
    width = max(int(chosen.sum(axis=1).max()), 1)
    # The chosen come first in a stable sort, in the order of their numbers.
    videos = np.argsort(~chosen, axis=1, kind="stable")[:, :width].astype(np.int64)
    there = np.take_along_axis(chosen, videos, axis=1)
    weights = np.where(seen, 0.0, 1.0) + 1e-12
    sampled = np.argsort(-stream.random(seen.shape) * weights, axis=1)[:, :SAMPLED].astype(np.int64)
    scores: dict[Kind, Float32] = {}
    sampled_scores: dict[Kind, Float32] = {}
    for kind in KINDS:
        made = [alike(values, ~unknown, kind) for values in raw]
        scores[kind] = np.stack([np.where(there, np.take_along_axis(one, videos, axis=1), 0) for one in made])
        sampled_scores[kind] = np.stack([np.take_along_axis(one, sampled, axis=1) for one in made])
    count = np.minimum(np.maximum((held[viewers].toarray() > 0).sum(axis=1), 1), CUTOFF)
    return Pool(
        viewers,
        np.where(there, videos, -1),
        np.take_along_axis(right, videos, axis=1) & there,
        np.cumsum(DISCOUNT)[count - 1],
        scores,
        sampled,
        sampled_scores,
    )


def ndcg(pool: Pool, total: npt.NDArray[Any]) -> Float64:
    """float64 [n]: NDCG@10 of each viewer by blended scores [n, width]."""
    masked = np.where(pool.videos >= 0, total, -np.inf)
    most = min(CUTOFF, masked.shape[1])
    if not most or not len(masked):
        return np.zeros(len(masked))
    top = np.argpartition(-masked, most - 1, axis=1)[:, :most]
    # Ties go to the lower place: columns are in the order of videos.
    top.sort(axis=1)
    order = np.argsort(-np.take_along_axis(masked, top, axis=1), axis=1, kind="stable")
    hits = np.take_along_axis(pool.held, np.take_along_axis(top, order, axis=1), axis=1)
    return np.asarray(hits @ DISCOUNT[:most] / pool.ideal, np.float64)


def blended(pool: Pool, kind: Kind, weights: npt.NDArray[Any]) -> Float32:
    """float32 [n, width]: the weighted sum."""
    return np.asarray(np.tensordot(weights.astype(np.float32), pool.scores[kind], axes=1), np.float32)


def searched(pool: Pool, kind: Kind) -> Float64:
    """float64 [members] of sum 1: weights of 0 and above that rank the held acts of this pool well: from the logit, or
    an even blend, or a single member, whichever is best, by coordinate search."""
    scores = pool.scores[kind]
    n = len(scores)
    starts = [*np.eye(n), np.full(n, 1 / n), _logit(pool, kind)]
    reached, place = max((float(ndcg(pool, blended(pool, kind, w)).mean()), -i) for i, w in enumerate(starts))
    weights = np.array(starts[-place], np.float64)
    total = blended(pool, kind, weights)
    for _ in range(ROUNDS):
        before = reached
        for member in range(n):
            scale = weights.max()
            now = weights[member]
            tried = [now * factor for factor in FACTORS] if now > 0.01 * scale else [f * scale for f in FROM_NOTHING]
            for value in tried:
                if value == 0 and np.count_nonzero(weights) == 1:
                    continue
                step = np.float32(value - weights[member])
                moved = total + step * scores[member]
                found = float(ndcg(pool, moved).mean())
                if found > reached + 1e-6:
                    reached, total = found, moved
                    weights[member] = value
        if reached <= before:
            break
        total = blended(pool, kind, weights)
    return np.asarray(weights / weights.sum(), np.float64)


def _logit(pool: Pool, kind: Kind) -> Float64:
    """Weights that make the held acts likely among the pool's videos; of sum 1."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    scores, there = pool.scores[kind], pool.videos >= 0
    n = len(scores)
    found = pool.held.sum(axis=1)
    rows = found > 0
    share = pool.held[rows] / np.maximum(found[rows], 1)[:, None]
    few, padded = scores[:, rows], np.where(there[rows], 0, -np.inf).astype(np.float32)
    if not rows.any():
        return np.full(n, 1 / n)
    wanted = np.einsum("mnw,nw->m", few, share.astype(np.float32), dtype=np.float64)

    def loss(weights: Float64) -> tuple[float, Float64]:
        total = np.tensordot(weights.astype(np.float32), few, axes=1) + padded
        most = total.max(axis=1, keepdims=True)
        powers = np.exp(total - most)
        sums = powers.sum(axis=1, keepdims=True)
        value = float((np.log(sums) + most).sum(dtype=np.float64)) - float(weights @ wanted)
        given = np.einsum("mnw,nw->m", few, powers / sums, dtype=np.float64)
        size = len(few[0])
        return value / size + 1e-4 * float(weights @ weights), (given - wanted) / size + 2e-4 * weights

    result = minimize(
        loss, np.full(n, 0.1), jac=True, method="L-BFGS-B", bounds=[(0, None)] * n, options={"maxiter": 60}
    )
    weights = np.asarray(result.x, np.float64)
    return np.asarray(weights / weights.sum()) if weights.sum() > 0 else np.full(n, 1 / n)


def halves(n: int, repeats: int, seed: int) -> list[tuple[Integers, Integers]]:
    """(rows to search on, rows to measure on): both halves of `repeats` random partings of n viewers."""
    found = []
    for repeat in range(repeats):
        order = np.random.Generator(np.random.PCG64([seed, repeat])).permutation(n).astype(np.int64)
        first, second = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        found += [(first, second), (second, first)]
    return found


def chosen(pool: Pool, kind: Kind, repeats: int, seed: int) -> Blend:
    """Weights by halves of the viewers, and what they promise."""
    n = len(pool.viewers)
    parted = halves(n, repeats, seed) if n >= 4 else [(np.arange(n), np.arange(n))]
    found, each, alone = [], np.zeros(n), np.zeros(n)
    singles = np.stack([ndcg(pool, scores) for scores in pool.scores[kind]])
    times = len(parted) / 2 if n >= 4 else 1
    for searched_on, measured_on in parted:
        weights = searched(pool.of(searched_on), kind)
        other = pool.of(measured_on)
        each[measured_on] += ndcg(other, blended(other, kind, weights)) / times
        alone[measured_on] += singles[int(singles[:, searched_on].mean(axis=1).argmax())][measured_on] / times
        found.append(weights)
    return Blend(kind, np.mean(found, axis=0), each, alone)


def parted(pool: Pool, common: Blend, heavy: Flags, repeats: int, seed: int) -> tuple[Float64, dict[str, Any]] | None:
    """(weights [2, members] of the viewers who are not `heavy` and of those who are, the gain) when both have their own
    weights and the gain on the viewers who were left out has an interval above nothing; None otherwise."""
    rows = [np.flatnonzero(~heavy), np.flatnonzero(heavy)]
    if min(len(some) for some in rows) < 20:
        return None
    own = [chosen(pool.of(some), common.kind, repeats, seed) for some in rows]
    each = np.empty(len(heavy))
    for some, blend in zip(rows, own, strict=True):
        each[some] = blend.each
    gain = difference(each, common.each)
    return (np.stack([blend.weights for blend in own]), gain) if gain["interval95"][0] > 0 else None
