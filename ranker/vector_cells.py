"""The approximate half of the vector index: which rows may be near, by cells and short codes; FAISS does the work.

Rows are put into cells around `cells` centres (k-means), and each row is kept as one 4-bit code for every two
dimensions (product quantisation, Jegou et al. 2011; scanned in registers, Andre et al. 2015: FAISS's "fast scan"). A
search visits the cells nearest to the query, and gives back more rows than are wanted: the exact vectors, which the
ranker holds anyway, then decide. So the codes need 64 bytes a row of 256 dimensions, and no answer holds a rounded
cosine. `docs/vector-search.md` compares this with a graph (HNSW).

`Cells` never change: `extended` gives new ones. Same vectors, same cells, whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import PassingError
from store.records import Float32

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SEED = 20_261_125
TRAINED_PER_CELL = 40
ROUNDS = 10
LEAST_CELLS = 16
MOST_CELLS = 65_536
_MAGIC = b"reelsense cells 1\n"


@dataclass(frozen=True, eq=False)
class Cells:
    """An index of the rows 0 to `covered`, learnt when there were `trained`. Safe to search from several threads."""

    index: Any
    covered: int
    trained: int

    @classmethod
    def build(cls, vectors: Float32) -> Cells:
        """Cells of all `vectors` (float32 [n, dim] unit, dim even). About 60 CPU seconds for a million of 256."""
        import faiss

        count, dim = vectors.shape
        cells = cells_for(count)
        with one_thread():
            centres = faiss.IndexFlatIP(dim)
            index = faiss.IndexIVFPQFastScan(centres, dim, cells, dim // 2, 4, faiss.METRIC_INNER_PRODUCT)
            # Codes say where in its cell a row lies: topics that are near in themselves are told apart no other way.
            index.by_residual = True
            index.cp.seed = index.pq.cp.seed = SEED
            index.cp.niter = index.pq.cp.niter = ROUNDS
            index.cp.spherical = True
            index.cp.max_points_per_centroid = TRAINED_PER_CELL
            chosen = np.random.default_rng(SEED).choice(count, min(count, cells * TRAINED_PER_CELL), replace=False)
            index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
            index.add(np.ascontiguousarray(vectors))
        return cls(index, count, count)

    def extended(self, vectors: Float32) -> Cells:
        """Cells that hold the rest of `vectors` as well; the first `covered` of them are the rows that are in."""
        import faiss

        with one_thread():
            index = faiss.clone_index(self.index)
            index.add(np.ascontiguousarray(vectors[self.covered :]))
        return Cells(index, len(vectors), self.trained)

    def candidates(self, queries: Float32, count: int, visited: int, allowed: Mask | None) -> Rows:
        """int64 [n, count] rows that may be nearest to each query (float32 [n, dim]), padded with -1, from the
        `visited` nearest cells; only rows of which `allowed` (bool, at least [covered]) says so."""
        import faiss

        options: dict[str, Any] = {"nprobe": min(visited, self.index.nlist)}
        if allowed is not None:
            selector: Any = faiss.IDSelectorBitmap
            options["sel"] = selector(np.packbits(allowed[: self.covered], bitorder="little"))
        with one_thread():
            _, rows = self.index.search(queries, count, params=faiss.SearchParametersIVF(**options))
        found: Rows = rows
        return found

    @property
    def bytes(self) -> int:
        """Memory of codes, row numbers and centres."""
        return int(self.index.ntotal * (self.index.code_size + 8) + self.index.nlist * self.index.d * 4)

    def save(self, path: Path, vectors: Float32) -> None:
        """Write to a file of this machine, at once or not at all, with a digest of itself and one of the `vectors` that
        are in, so that it is only used for them. Raises OSError."""
        import faiss

        body = faiss.serialize_index(self.index).tobytes()
        header = {
            "covered": self.covered,
            "trained": self.trained,
            "content": content_of(vectors[: self.covered]),
            "body": hashlib.sha256(body).hexdigest(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(_MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n")
                stream.write(body)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, vectors: Float32) -> Cells | None:
        """Read back what `save` wrote, or None where that was of other vectors than the first of these; FAISS sees no
        byte before their digest is right.

        Raises `store.artifact_damaged` for anything else, OSError where there is no such file.
        """
        import faiss

        data = path.read_bytes()
        try:
            magic, header_text, body = data.split(b"\n", 2)
            header = json.loads(header_text)
            if magic + b"\n" != _MAGIC or hashlib.sha256(body).hexdigest() != header["body"]:
                raise ValueError("the digest is another")
            covered = int(header["covered"])
            if covered > len(vectors) or header["content"] != content_of(vectors[:covered]):
                return None
            index = faiss.deserialize_index(np.frombuffer(body, np.uint8))
            if index.ntotal != covered:
                raise ValueError("the number of rows is another")
            return cls(index, covered, int(header["trained"]))
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise PassingError(
                "store.artifact_damaged",
                f"The stored vector index {path.name} cannot be read back: {error}.",
                hint="It is made again by itself.",
            ) from error


class one_thread:
    """FAISS with one thread of its own in this thread: requests are many already, and waiting threads burn CPU."""

    def __enter__(self) -> None:
        import faiss

        self.before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        import faiss

        faiss.omp_set_num_threads(self.before)


def cells_for(count: int) -> int:
    """How many cells for so many rows: the power of two nearest to twice the root."""
    wanted = 2 ** round(np.log2(max(2 * np.sqrt(count), 1)))
    return int(min(max(wanted, LEAST_CELLS), MOST_CELLS))


def content_of(vectors: Float32) -> str:
    """Hex digest of shape and numbers; about a second for a gigabyte."""
    said = hashlib.sha256(repr(vectors.shape).encode())
    said.update(np.ascontiguousarray(vectors).data)
    return said.hexdigest()
