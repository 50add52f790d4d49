"""Many vectors on one sheet of paper: what is near in the space of vectors lies near on the map.

Principal components first, then a layout by forces: each point is drawn to its nearest neighbours and pushed from
points taken at random, with the curve of attraction and repulsion of UMAP (McInnes, Healy, Melville 2018) and none of
its code. Principal components alone show the two directions in which a catalogue varies most and fold all others on top
of each other; neighbours are what people look for on a map.

The same vectors give the same map: nothing is drawn by chance but with a fixed seed, and signs are chosen by rule.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from store.records import Float32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

COMPONENTS = 32
NEIGHBOURS = 12
EPOCHS = 240
# Points that each point is pushed from, in each epoch.
PUSHES = 6
SEED = 20_261_125
# 1 / (1 + a d^2b): near 1 up to a tenth of the unit, a half at about one.
CURVE_A, CURVE_B = 1.577, 0.895
LONGEST_STEP = 4.0
BLOCK = 1_024
ROUNDS = 50


def laid_out(vectors: Float32) -> Float64:
    """float64 [n, 2] in 0..1: a place for each of `vectors` float32 [n, dim], both axes to the same scale."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    count = len(vectors)
    if count < 3:
        return np.stack([np.linspace(0.25, 0.75, count) if count > 1 else np.full(count, 0.5), np.full(count, 0.5)], 1)
    # Sums come out otherwise with another number of threads, and forces make much of the last digit.
    with threadpool_limits(1, user_api="blas"):
        return _laid_out(vectors)


def _laid_out(vectors: Float32) -> Float64:
    count = len(vectors)
    parts = components(vectors, COMPONENTS)
    # With as many neighbours as videos everything would draw everything.
    neighbours = nearest(parts, min(NEIGHBOURS, max(2, math.isqrt(count)), count - 1))
    spread = parts[:, :2].std() or 1.0
    return _framed(_pulled(parts[:, :2] * (10.0 / (3.0 * spread)), neighbours))


def components(vectors: Float32, most: int) -> Float64:
    """float64 [n, at most `most`]: the principal components, the largest first; the heaviest entry of each direction is
    positive."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(values)[::-1][: max(most, 2)]
    chosen = directions[:, order]
    heaviest = np.abs(chosen).argmax(axis=0)
    signs = np.sign(chosen[heaviest, np.arange(chosen.shape[1])])
    found = np.asarray(centred @ (chosen * signs), np.float64)
    # Vectors of one number have one component; a map has two axes.
    return found if found.shape[1] > 1 else np.pad(found, ((0, 0), (0, 1)))


def clusters(points: Float64, count: int) -> Int64:
    """int64 [n]: so many groups of points (fewer where points are one), by k-means. It begins with the point farthest
    from the middle, then ever with the one farthest from those chosen: no chance, and no package to load."""
    count = min(count, len(points))
    middles = points[[int(((points - points.mean(axis=0)) ** 2).sum(axis=1).argmax())]]
    while len(middles) < count:
        middles = np.vstack([middles, points[int(_distances(points, middles).min(axis=1).argmax())]])
    of: Int64 = _distances(points, middles).argmin(axis=1)
    for _ in range(ROUNDS):
        # A group that lost all its points stays where it was.
        middles = np.stack([points[of == n].mean(axis=0) if (of == n).any() else middles[n] for n in range(count)])
        moved = _distances(points, middles).argmin(axis=1)
        if np.array_equal(moved, of):
            break
        of = moved
    return of


def _distances(points: Float64, middles: Float64) -> Float64:
    """float64 [n, k]: squared, from each point to each middle."""
    found: Float64 = ((points[:, None, :] - middles[None, :, :]) ** 2).sum(axis=2)
    return found


def nearest(points: Float64, k: int) -> Int64:
    """int64 [n, k]: the nearest others of each point, in no order, block by block, for all distances at once would fill
    the memory."""
    small = points.astype(np.float32)
    lengths = np.einsum("ij,ij->i", small, small)
    found = np.empty((len(points), k), np.int64)
    for first in range(0, len(points), BLOCK):
        block = small[first : first + BLOCK]
        distances = lengths[None, :] - 2.0 * (block @ small.T)
        distances[np.arange(len(block)), np.arange(first, first + len(block))] = np.inf
        found[first : first + BLOCK] = np.argpartition(distances, k - 1, axis=1)[:, :k]
    return found


def _pulled(start: Float64, neighbours: Int64) -> Float64:
    """Where points come to rest that begin at `start`."""
    count, k = neighbours.shape
    generator = np.random.default_rng(SEED)
    # Points that are one would stay one.
    at = start + generator.normal(0.0, 1e-3, start.shape)
    one, other = np.repeat(np.arange(count), k), neighbours.ravel()
    for epoch in range(EPOCHS):
        apart = at[one] - at[other]
        squared = np.einsum("ij,ij->i", apart, apart)
        with np.errstate(divide="ignore"):
            raised = np.where(squared > 0, squared ** (CURVE_B - 1.0), 0.0)
        pull = (-2.0 * CURVE_A * CURVE_B * raised / (1.0 + CURVE_A * raised * squared))[:, None] * apart
        step = _added(one, pull, count) - _added(other, pull, count)
        pusher = np.repeat(np.arange(count), PUSHES)
        pushed_from = generator.integers(0, count, count * PUSHES)
        apart = at[pusher] - at[pushed_from]
        squared = np.einsum("ij,ij->i", apart, apart)
        strength = 2.0 * CURVE_B / ((0.01 + squared) * (1.0 + CURVE_A * squared**CURVE_B))
        strength[pusher == pushed_from] = 0.0
        step += _added(pusher, strength[:, None] * apart, count)
        rate = 1.0 - epoch / EPOCHS
        at = at + rate * np.clip(step / 4.0, -LONGEST_STEP, LONGEST_STEP)
    return at


def _added(rows: Int64, values: Float64, count: int) -> Float64:
    """float64 [count, 2]: the sum of the values of each row."""
    return np.stack([np.bincount(rows, values[:, axis], count) for axis in (0, 1)], 1)


def _framed(points: Float64) -> Float64:
    """Into 0..1, the longer side filling it, the other centred; a few points far away do not make the rest small."""
    low, high = np.quantile(points, 0.002, axis=0), np.quantile(points, 0.998, axis=0)
    points = np.clip(points, low, high)
    longest = float((high - low).max()) or 1.0
    placed: Float64 = np.clip((points - (low + high) / 2.0) / longest + 0.5, 0.0, 1.0)
    return placed
