"""Nearest neighbours among the fused vectors: exact while that is quick, by cells (`ranker.vector_cells`) beyond.

Whatever way a row is found, its cosine is computed from the exact vectors, in float64, by itself: so a cosine does not
depend on how it was found, or on what else was asked. Rows are ordered by cosine, then by row.

A `VectorIndex` is one moment: it never changes. `IndexKeeper` follows the table: rows that are new are searched exactly
beside the cells until a thread has added them, so a search never waits and a new row is found at once.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ranker.vector_cells import Cells, Mask, Rows
from store.errors import PassingError
from store.records import Float32

# Below so many rows that may be found, a matrix product is taken: it is exact and as quick (docs/vector-search.md).
EXACT_ROWS = 5_000
# A table of fewer rows has no cells at all: to learn them would cost more than they save.
CELLS_FROM = 50_000
# Rows beside the cells, at most, before they are added: so many cost about half a millisecond a query.
LONGEST_TAIL = 2_048
# Cells are stored again when they have grown by this share: their file is large.
STORED_GROWTH = 1.05
# When the table has grown so many times since the cells were learnt, they are learnt anew.
RELEARN = 2.0
VISITED_CELLS = 48
# So many candidates for each wanted row are compared exactly, and at least so many.
SPARE = 16
LEAST_CANDIDATES = 400
# A float32 product of unit vectors is this near to the true one.
ROUNDING = 2e-6
_BLOCK = 1 << 24

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class VectorIndex:
    """`vectors` float32 [n, dim] unit, `alive` bool [n] (false: never found), and cells of the first rows, if any."""

    vectors: Float32
    alive: Mask
    cells: Cells | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries: Float32, k: int, allowed: Mask | None = None, *, exactly: bool = False
    ) -> tuple[Rows, Float32]:
        """The `k` nearest rows to each of `queries` (float32 [m, dim], any length but 0) among those that live and are
        `allowed` (bool [n]): (rows int64 [m, k], cosines float32 [m, k]), nearest first, ties by row; padded with -1
        and -inf where there are fewer. `exactly`: without the cells.

        Raises ValueError for k below 1, queries that are not finite directions, and other shapes.
        """
        directions = self._directions(queries)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        mask = self.alive
        if allowed is not None:
            if allowed.shape != (len(self),) or allowed.dtype != np.bool_:
                raise ValueError(f"allowed must be bool [{len(self)}], got {allowed.dtype} {allowed.shape}")
            mask = mask & allowed
        rows = np.full((len(directions), k), -1, np.int64)
        cosines = np.full((len(directions), k), -np.inf, np.float32)
        count = int(np.count_nonzero(mask))
        if not count or not len(directions):
            return rows, cosines
        wanted = min(k, count)
        cells = self.cells
        if exactly or cells is None or count <= max(EXACT_ROWS, SPARE * wanted):
            self._exact(directions, wanted, np.flatnonzero(mask), rows, cosines)
            return rows, cosines
        self._by_cells(cells, directions, wanted, mask, count, rows, cosines)
        short = np.flatnonzero(rows[:, wanted - 1] < 0)
        if len(short):
            # The visited cells held too few of what is allowed.
            again_rows, again_cosines = self.search(queries[short], k, allowed, exactly=True)
            rows[short], cosines[short] = again_rows, again_cosines
        return rows, cosines

    def _directions(self, queries: Float32) -> Float32:
        if queries.ndim != 2 or (len(self) and queries.shape[1] != self.vectors.shape[1]):
            raise ValueError(f"queries must be [m, {self.vectors.shape[1]}], got {queries.shape}")
        wide = queries.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ValueError("queries must be finite directions")
        return np.ascontiguousarray(wide / lengths, np.float32)

    def _by_cells(
        self, cells: Cells, directions: Float32, k: int, mask: Mask, count: int, rows: Rows, cosines: Float32
    ) -> None:
        whole = count == len(mask)
        # Where few are allowed, their neighbours lie in more cells.
        visited = int(np.ceil(VISITED_CELLS * np.sqrt(len(mask) / count)))
        found = cells.candidates(directions, max(SPARE * k, LEAST_CANDIDATES), visited, None if whole else mask)
        tail = cells.covered + np.flatnonzero(mask[cells.covered :])
        beside = self.vectors[cells.covered :] if whole else self.vectors[tail]
        for place, direction in enumerate(directions):
            chosen = found[place][found[place] >= 0]
            if len(tail):
                chosen = np.concatenate([chosen, tail[_best(_products(beside, direction), k)]])
            self._fill(direction, chosen, k, rows[place], cosines[place])

    def _exact(self, directions: Float32, k: int, which: Rows, rows: Rows, cosines: Float32) -> None:
        every = len(which) == len(self)
        # A gathered copy is dear for many rows: then all are multiplied, and those that count are taken.
        gathered = None if every or len(which) > len(self) // 4 else self.vectors[which]
        step = max(1, _BLOCK // (len(which) if gathered is not None else len(self)))
        for first in range(0, len(directions), step):
            block = directions[first : first + step]
            if len(directions) == 1:
                products = _products(self.vectors if gathered is None else gathered, directions[0])[None]
                products = products[:, which] if gathered is None and not every else products
            elif gathered is not None:
                products = block @ gathered.T
            else:
                products = block @ self.vectors.T
                products = products if every else products[:, which]
            for place, direction in enumerate(block, start=first):
                chosen = which[_best(products[place - first], k)]
                self._fill(direction, chosen, k, rows[place], cosines[place])

    def _fill(self, direction: Float32, chosen: Rows, k: int, rows: Rows, cosines: Float32) -> None:
        """Order the chosen rows by their exact cosines, and write the best `k` of them."""
        chosen = chosen[_best(_products(self.vectors[chosen], direction), k)]
        # einsum sums each row by itself; a matrix product may round a row differently beside other rows.
        exact = np.einsum("nd,d->n", self.vectors[chosen].astype(np.float64), direction.astype(np.float64))
        order = np.lexsort((chosen, -exact))[:k]
        rows[: len(order)] = chosen[order]
        cosines[: len(order)] = exact[order]


class IndexKeeper:
    """Makes the index of each moment of a table whose rows are only ever added. `file` (None: none) keeps the cells
    over a restart. `changed` says whether cells were finished since the last `index`."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.changed = False
        self._cells: Cells | None = None
        self._looked = file is None
        self._stored_rows = 0
        self._worker: threading.Thread | None = None

    def index(self, vectors: Float32, alive: Mask) -> VectorIndex:
        """The index of this moment. Begins, in a thread, to make or extend the cells when that is due."""
        self.changed = False
        cells = self._cells
        tail = len(vectors) - (cells.covered if cells else 0)
        if tail > (LONGEST_TAIL if cells else CELLS_FROM) and vectors.shape[1] % 2 == 0 and not self.busy:
            self._worker = threading.Thread(target=self._make, args=(vectors, cells), name="vector-cells", daemon=True)
            self._worker.start()
        return VectorIndex(vectors, alive, cells)

    @property
    def busy(self) -> bool:
        """Whether cells are being made."""
        return self._worker is not None and self._worker.is_alive()

    def wait(self) -> None:
        """Until no cells are being made; for tests and measurements."""
        if self._worker is not None:
            self._worker.join()

    def _make(self, vectors: Float32, cells: Cells | None) -> None:
        if cells is None and not self._looked:
            self._looked = True
            cells = self._stored(vectors)
        if cells is None or len(vectors) > RELEARN * cells.trained:
            cells = Cells.build(vectors)
        elif len(vectors) > cells.covered:
            cells = cells.extended(vectors)
        self._cells = cells
        self.changed = True
        if self.file is not None and cells.covered > STORED_GROWTH * self._stored_rows:
            try:
                cells.save(self.file, vectors)
                self._stored_rows = cells.covered
            except OSError as error:
                _log.warning("the vector index was not stored: %s", error)

    def _stored(self, vectors: Float32) -> Cells | None:
        """The cells of the file, where they are those of these vectors."""
        if self.file is None:
            return None
        try:
            cells = Cells.load(self.file, vectors)
        except FileNotFoundError:
            return None
        except (PassingError, OSError) as error:
            _log.warning("the stored vector index was not read: %s", error)
            return None
        self._stored_rows = cells.covered if cells else 0
        return cells


def _products(vectors: Float32, direction: Float32) -> Float32:
    """float32 [n], by one thread: BLAS would wake the others for so little, and they burn CPU while they wait."""
    products: Float32 = np.einsum("nd,d->n", vectors, direction)
    return products


def _best(products: Float32, k: int) -> npt.NDArray[np.intp]:
    """Places of the `k` largest, and of all that rounding may have put behind them."""
    if len(products) <= k:
        return np.arange(len(products))
    least = np.partition(products, len(products) - k)[len(products) - k]
    return np.flatnonzero(products >= least - ROUNDING)
