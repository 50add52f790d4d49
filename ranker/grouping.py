"""Sums and bests over what was reached, at a cost that does not grow with the catalogue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse

Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def largest(values: Float64, most: int) -> Integers:
    """Places of the `most` largest values, in order of place; ties to the lower place."""
    if len(values) <= most:
        return np.arange(len(values))
    least = np.partition(values, len(values) - most)[len(values) - most]
    above, tied = np.flatnonzero(values > least), np.flatnonzero(values == least)
    return np.sort(np.concatenate([above, tied[: most - len(above)]]))


def together(targets: Integers, mass: Float64, heaviest: Float64) -> tuple[Integers, Float64, Float64, Integers]:
    """Entries of the same target as one: (targets in order, each once; the sum of their mass; the largest `heaviest`;
    the first entry that has it)."""
    if not len(targets):
        return targets, mass, heaviest, targets
    # Unlike a count over all videos, sorting what was reached costs the same in any catalogue. The place is part of the
    # key, so that entries keep their order and numpy may take its quickest sort.
    ordered, order = np.divmod(np.sort(targets * len(targets) + np.arange(len(targets))), len(targets))
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, len(ordered)))
    total, top = np.add.reduceat(mass[order], starts), np.maximum.reduceat(heaviest[order], starts)
    leading = np.flatnonzero(heaviest[order] == np.repeat(top, sizes))
    first = leading[np.searchsorted(leading, starts)]
    return ordered[starts], total, top, order[first]


def runs(starts: Integers, counts: Integers) -> Integers:
    """int64 [sum of counts]: `counts[i]` places from `starts[i]` on, one run after the other."""
    places: Integers = np.arange(int(counts.sum())) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return places


def spread(
    places: Integers, mass: Float64, heaviest: Float64, matrix: Sparse
) -> tuple[Integers, Float64, Float64, Integers]:
    """One step from `places` along the rows of `matrix`: (where to, in order; the chance of being there; the chance of
    the heaviest path there; the index into `places` from which that path comes, the lowest of equals)."""
    starts, ends = matrix.indptr[places].astype(np.int64), matrix.indptr[places + 1].astype(np.int64)
    counts = ends - starts
    origin = np.repeat(np.arange(len(places)), counts)
    cells = runs(starts, counts)
    chance = matrix.data[cells].astype(np.float64)
    found, total, top, first = together(
        matrix.indices[cells].astype(np.int64), mass[origin] * chance, heaviest[origin] * chance
    )
    return found, total, top, origin[first]


def sampled(matrix: Sparse, most: int | None) -> Sparse:
    """At most `most` cells of each row, drawn evenly: a topic of a million videos costs a walk no more than one of a
    few hundred, and no video of it is preferred."""
    if most is None or not matrix.nnz or int(np.diff(matrix.indptr).max()) <= most:
        return matrix
    matrix = matrix.tocsr()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((np.random.Generator(np.random.PCG64(0)).random(len(rows)), rows))
    kept = np.sort(order[(np.arange(len(rows)) - matrix.indptr[rows]) < most])
    return sparse.csr_matrix((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
