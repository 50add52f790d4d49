"""Where the towers' ids and maps start: closed forms of the training matrix and of the features.

From random ids a few thousand viewers with two acts each teach little. The singular vectors of the matrix, each cell
divided by sqrt(videos of its viewer) and by (viewers of its video)^b, are the best linear map of history to history of
their rank (PureSVD, Cremonesi et al. 2010; the low-pass filter of GF-CF, Shen et al. 2021). Learning starts there.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Sparse
from ranker.models.training_data import Float32, Float64

# Rounds of subspace iteration, and directions beyond those asked for.
ROUNDS = 12
SPARE = 16


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
    # Subspace iteration from a random block (Halko et al. 2011, algorithm 4.4): many singular values of a sparse matrix
    # lie close to 1, where Lanczos takes minutes to tell apart what need not be.
    block = min(most + SPARE, *cells.shape)
    found = np.random.Generator(np.random.PCG64(0)).standard_normal((cells.shape[1], block))
    for _ in range(ROUNDS):
        found, _ = np.linalg.qr(scaled.T @ (scaled @ found))
    image = scaled @ found
    squares, turn = np.linalg.eigh(image.T @ image)
    values, vectors = np.sqrt(np.maximum(squares[::-1][:most], 0)), (found @ turn[:, ::-1])[:, :most]
    # The sign of a singular vector is free: the largest cell of each is made positive.
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(most)] < 0, -1.0, 1.0)
    kept = (values / max(float(values[0]), 1e-12)) ** (2 * passes)
    watched[:, :most] = vectors * kept * (of_video**-popular)[:, None]
    ids[:, :most] = vectors * (of_video**popular)[:, None]
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
