"""Dynamic time warping of a short sequence onto a long one (Sakoe and Chiba, 1978)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from store.records import Float32

_BOTH, _ROW, _COLUMN = 0, 1, 2  # the step by which a cell was reached: to the next row and column, row, or column


def token_starts(likeness: Float32) -> npt.NDArray[np.int64]:
    """int64 [n_rows]: the first column of each row on the path from corner to corner of `likeness` [n_rows, n_columns]
    that collects most; a path goes to the next row, the next column, or both. Of equal ways it takes the next column.
    """
    rows, columns = likeness.shape
    best = np.full((rows + 1, columns + 1), -np.inf, np.float32).tolist()
    best[0][0] = 0.0
    steps = np.full((rows, columns), _COLUMN, np.int8)
    for row in range(rows):
        above, here, gains = best[row], best[row + 1], likeness[row].tolist()
        for column in range(columns):
            both, down, along = above[column], above[column + 1], here[column]
            step, so_far = _COLUMN, along
            if both > down and both > along:
                step, so_far = _BOTH, both
            elif down > both and down > along:
                step, so_far = _ROW, down
            here[column + 1] = so_far + gains[column]
            steps[row, column] = step
    starts = np.zeros(rows, np.int64)
    row, column = rows - 1, columns - 1
    while row > 0:
        step = _ROW if column == 0 else steps[row, column]
        if step != _COLUMN:
            starts[row] = column
            row -= 1
        column -= step != _ROW
    return starts
