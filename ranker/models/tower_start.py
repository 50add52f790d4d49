"""Where the towers' ids and maps start: closed forms of the training matrix and of the features.

From random ids a few thousand viewers with two acts each teach little. The singular vectors of the matrix, each cell
divided by sqrt(videos of its viewer) and by (viewers of its video)^b, are the best linear map of history to history of
their rank (PureSVD, Cremonesi et al. 2010; the low-pass filter of GF-CF, Shen et al. 2021). Where there are some
thousand videos at most and many acts of each, EASE of low rank is better still. Learning starts at one of the two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse
from ranker.models.training_data import Float32, Float64

# Rounds of subspace iteration, and directions beyond those asked for.
ROUNDS = 12
SPARE = 16
# Up to how many videos a dense matrix is taken apart whole.
DENSE = 3000


def spectral(binary: Sparse, dim: int, popular: float, passes: float) -> tuple[Float32, Float32]:
    """(watched, ids), each float32 [n_videos, dim]: watched @ ids.T maps a history to scores. `popular` is b; the
    direction of singular value s counts s^(2 passes). Zeros beyond the rank of the matrix, and for videos without any
    act."""
    cells = binary.astype(np.float64)
    of_viewer = np.maximum(np.asarray(cells.sum(axis=1)).ravel(), 1)
    of_video = np.maximum(np.asarray(cells.sum(axis=0)).ravel(), 1)
    scaled = sparse.diags(of_viewer**-0.5) @ cells @ sparse.diags(of_video**-popular)
    most = min(dim, *cells.shape)
    watched, ids = np.zeros((cells.shape[1], dim), np.float32), np.zeros((cells.shape[1], dim), np.float32)
    squares, vectors = _largest(lambda block: scaled.T @ (scaled @ block), cells.shape[1], most)
    values = np.sqrt(np.maximum(squares, 0))
    kept = (values / max(float(values[0]), 1e-12)) ** (2 * passes)
    watched[:, :most] = vectors * kept * (of_video**-popular)[:, None]
    ids[:, :most] = vectors * (of_video**popular)[:, None]
    return watched, ids


def ease(binary: Sparse, dim: int, ridge: float) -> tuple[Float32, Float32]:
    """(watched, ids), each float32 [n_videos, dim]: the best such product for EASE's weights (Steck 2019, equation 8).

    With P = (X'X + ridge I)^-1 and d its diagonal, EASE is diag(d)^1/2 M diag(d)^-1/2 of the symmetric M, which is
    -P_ij / sqrt(d_i d_j) off its diagonal and 0 on it: the directions of M's largest values above 0 are kept. That is
    more than a saving: on Last.fm 64 of them rank better than all.
    """
    n = binary.shape[1]
    gram: Float64 = np.asarray((binary.T @ binary).toarray(), np.float64)
    gram[np.diag_indices(n)] += ridge
    inverse = np.linalg.inv(gram)
    root = np.sqrt(np.diag(inverse))
    middle = -inverse / root[:, None] / root
    middle[np.diag_indices(n)] = 0
    watched, ids = np.zeros((n, dim), np.float32), np.zeros((n, dim), np.float32)
    if n <= DENSE:
        values, vectors = np.linalg.eigh(middle)
        values, vectors = values[::-1][:dim], _signed(vectors[:, ::-1][:, :dim])
    else:
        # Shifted by 1, so that a large value below 0 is none of the largest.
        values, vectors = _largest(lambda block: middle @ block + block, n, min(dim, n))
        values = values - 1
    values = np.maximum(values, 0)
    watched[:, : len(values)] = root[:, None] * vectors * values
    ids[:, : len(values)] = vectors / root[:, None]
    # A video without acts has nothing but the ridge to say.
    silent = np.asarray(binary.sum(axis=0)).ravel() == 0
    watched[silent], ids[silent] = 0, 0
    return watched, ids


def principal(features: Float32, width: int) -> tuple[Float32, Float32]:
    """(map float32 [width', dim], offset float32 [width']) to the features' principal directions, without their mean;
    rows of zeros are missing and do not count."""
    rows: Float64 = features[(features != 0).any(axis=1)].astype(np.float64)
    width = min(width, features.shape[1])
    if not len(rows):
        return np.eye(width, features.shape[1], dtype=np.float32), np.zeros(width, np.float32)
    mean = rows.mean(axis=0)
    _, directions = np.linalg.eigh((rows - mean).T @ (rows - mean))
    chosen = directions[:, ::-1][:, :width].T
    chosen = chosen * np.where(chosen[np.arange(width), np.abs(chosen).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    scale = np.sqrt(np.mean(((rows - mean) @ chosen.T) ** 2)) + 1e-12
    return (chosen / scale).astype(np.float32), (-(chosen @ mean) / scale).astype(np.float32)


def neighbours(binary: Sparse) -> Sparse:
    """CSR float32 [n_videos, n_videos] of rows that sum to 1 or 0: from a video to what those who had it had."""
    counts = np.maximum(np.asarray(binary.sum(axis=1)).ravel(), 1)
    between = (binary.T @ sparse.diags(1 / counts) @ binary).tocsr().astype(np.float64)
    between.setdiag(0)
    between.eliminate_zeros()
    total = np.maximum(np.asarray(between.sum(axis=1)).ravel(), 1e-12)
    return (sparse.diags(1 / total) @ between).tocsr().astype(np.float32)


def _largest(times: Callable[[Float64], Float64], n: int, most: int) -> tuple[Float64, Float64]:
    """(values, vectors) of the largest eigenvalues of a symmetric matrix of n rows, given what it does to a block, by
    subspace iteration from a random one (Halko et al. 2011, algorithm 4.4): many values of a sparse matrix lie close
    together, where Lanczos takes minutes to tell apart what need not be."""
    block = np.random.Generator(np.random.PCG64(0)).standard_normal((n, min(most + SPARE, n)))
    for _ in range(ROUNDS):
        block, _ = np.linalg.qr(times(block))
    values, turn = np.linalg.eigh(block.T @ times(block))
    return values[::-1][:most], _signed((block @ turn[:, ::-1])[:, :most])


def _signed(vectors: Float64) -> Float64:
    """The sign of an eigenvector is free: the largest cell of each is made positive."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return vectors * np.where(largest < 0, -1.0, 1.0)
