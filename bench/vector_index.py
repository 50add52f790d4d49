"""What the vector index finds and costs: `nice python -m bench.vector_index [--rows ...] [--graph 1000000]`.

Synthetic vectors of 256, as hard as real ones in their spectrum: 200 topics and, around each, scatter of the same size,
both Gaussian with the variance 1 / k along the k-th direction of one random rotation, scaled to length 1 (`generate`).
Queries are 300 more of the same kind. Recall@100 is the share of the 100 truly nearest (by brute force) that are found.
CPU is `process_time` over all threads; the machine may be shared, so wall times are given only where they matter.
`--graph` builds FAISS's HNSW (M 16, ef 400) on the same vectors at this size, to compare.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import results
from ranker import vector_index
from ranker.vector_cells import Cells, Mask, Rows
from ranker.vector_index import IndexKeeper, VectorIndex
from store.records import Float32

DIM = 256
TOPICS = 200
QUERIES = 300
FILTERED_QUERIES = 60
K = 100
SHARES = (0.5, 0.1, 0.01)
BATCH = 50_000


def generate(count: int, queries: int = QUERIES, seed: int = 0) -> tuple[Float32, Float32]:
    """(float32 [count, DIM], float32 [queries, DIM]), unit."""
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.standard_normal((DIM, DIM)))[0]
    basis = (rotation / np.sqrt(np.arange(1, DIM + 1))[:, None]).astype(np.float32)
    topics = generator.standard_normal((TOPICS, DIM), dtype=np.float32) @ basis

    def draw(wanted: int) -> Float32:
        drawn = np.empty((wanted, DIM), np.float32)
        for first in range(0, wanted, BATCH):
            part = drawn[first : first + BATCH]
            scatter = generator.standard_normal(part.shape, dtype=np.float32) @ basis
            part[:] = topics[generator.integers(TOPICS, size=len(part))] + scatter
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        return drawn

    return draw(count), draw(queries)


def recall(found: Rows, truth: Rows) -> float:
    """The mean share of each row of `truth` (without -1) that stands in the same row of `found`."""
    shares = [
        np.isin(wanted[wanted >= 0], got).mean() for got, wanted in zip(found, truth, strict=True) if wanted.max() >= 0
    ]
    return round(float(np.mean(shares)), 4)


def cpu_ms(search: Callable[[Float32], object], queries: Float32) -> dict[str, float]:
    """CPU milliseconds a query: one at a time (median, p95, mean), and all at once."""
    search(queries[:5])
    single = []
    for query in queries:
        used = time.process_time()
        search(query[None])
        single.append(1000 * (time.process_time() - used))
    used = time.process_time()
    search(queries)
    batched = 1000 * (time.process_time() - used) / len(queries)
    return {
        "p50": round(float(np.median(single)), 3),
        "p95": round(float(np.percentile(single, 95)), 3),
        "mean": round(float(np.mean(single)), 3),
        "batched": round(batched, 3),
    }


def measure(count: int) -> dict[str, Any]:
    """All figures of the index at one size."""
    vectors, queries = generate(count)
    alive = np.ones(count, np.bool_)
    exact = VectorIndex(vectors, alive)
    truth, _ = exact.search(queries, K)
    said: dict[str, Any] = {
        "rows": count,
        "vectors_mb": round(vectors.nbytes / 1e6),
        "exact_cpu_ms": cpu_ms(lambda asked: exact.search(asked, K), queries[:20]),
    }
    cells = None
    if count > vector_index.CELLS_FROM:
        used = time.process_time()
        cells = Cells.build(vectors)
        said["build_cpu_seconds"] = round(time.process_time() - used, 1)
        said["cells"], said["cells_mb"] = int(cells.index.nlist), round(cells.bytes / 1e6)
    index = VectorIndex(vectors, alive, cells)
    said["recall_at_100"] = recall(index.search(queries, K)[0], truth)
    said["cpu_ms"] = cpu_ms(lambda asked: index.search(asked, K), queries)
    said["filtered"] = {str(share): filtered(index, queries[:FILTERED_QUERIES], share) for share in SHARES}
    said["insert_to_visible"] = inserted(vectors, cells)
    said["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    return said


def filtered(index: VectorIndex, queries: Float32, share: float) -> dict[str, Any]:
    """Recall and cost where a random share of the rows is allowed."""
    allowed: Mask = np.random.default_rng(5).random(len(index)) < share
    truth, _ = index.search(queries, K, allowed, exactly=True)
    return {
        "recall_at_100": recall(index.search(queries, K, allowed)[0], truth),
        "cpu_ms": cpu_ms(lambda asked: index.search(asked, K, allowed), queries),
    }


def inserted(vectors: Float32, cells: Cells | None) -> dict[str, float]:
    """Milliseconds (wall) from a new vector in the matrix to the search that finds it, the worst of 20, beside a full
    tail; and CPU seconds to add such a tail to the cells."""
    keeper = IndexKeeper()
    keeper._cells = cells
    new, _ = generate(20, 1, seed=9)
    grown = np.concatenate([vectors, new])
    living = np.ones(len(grown), np.bool_)
    worst = 0.0
    for place in range(len(new)):
        count = len(vectors) + place + 1
        started = time.perf_counter()
        rows, _ = keeper.index(grown[:count], living[:count]).search(new[place : place + 1], 1)
        worst = max(worst, time.perf_counter() - started)
        if rows[0, 0] != count - 1:
            raise AssertionError("a new vector was not found")
    said = {"worst_ms": round(1000 * worst, 2)}
    if cells is not None:
        tail, _ = generate(vector_index.LONGEST_TAIL, 1, seed=10)
        grown = np.concatenate([vectors, tail])
        index = VectorIndex(grown, np.ones(len(grown), np.bool_), cells)
        said["single_cpu_ms_beside_a_full_tail"] = cpu_ms(lambda asked: index.search(asked, K), tail[:100])["mean"]
        import faiss

        used = time.process_time()
        longer = faiss.clone_index(cells.index)
        longer.add(tail)
        said["adding_a_full_tail_cpu_seconds"] = round(time.process_time() - used, 2)
    return said


def graph(count: int) -> dict[str, Any]:
    """FAISS HNSW, M 16, ef construction 40 (its default), ef 400, on the same vectors and queries."""
    import faiss

    vectors, queries = generate(count)
    truth, _ = VectorIndex(vectors, np.ones(count, np.bool_)).search(queries, K)
    index = faiss.IndexHNSWFlat(DIM, 16, faiss.METRIC_INNER_PRODUCT)
    used = time.process_time()
    index.add(vectors)
    built = round(time.process_time() - used, 1)
    index.hnsw.efSearch = 400
    faiss.omp_set_num_threads(1)

    def ask(asked: Float32) -> npt.NDArray[np.int64]:
        rows: npt.NDArray[np.int64] = index.search(asked, K)[1]
        return rows

    return {
        "rows": count,
        "build_cpu_seconds": built,
        "links_mb": round((len(faiss.serialize_index(index)) - vectors.nbytes) / 1e6),
        "recall_at_100": recall(ask(queries), truth),
        "cpu_ms": cpu_ms(ask, queries),
    }


def main() -> None:
    """Measure and write `bench/results/vector_index.json`, after each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--graph", type=int, nargs="*", default=[])
    asked = parser.parse_args()
    file = results.RESULTS / "vector_index.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    sizes = {entry["rows"]: entry for entry in before.get("sizes", [])}
    graphs = {entry["rows"]: entry for entry in before.get("hnsw", [])}
    for kind, counts, act in ((sizes, asked.rows, measure), (graphs, asked.graph, graph)):
        for count in counts:
            kind[count] = act(count)
            print(json.dumps(kind[count]), flush=True)
            results.write(
                "vector_index",
                {
                    "dim": DIM,
                    "topics": TOPICS,
                    "queries": QUERIES,
                    "sizes": [sizes[key] for key in sorted(sizes)],
                    "hnsw": [graphs[key] for key in sorted(graphs)],
                },
            )


if __name__ == "__main__":
    main()
