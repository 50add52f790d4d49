"""Metrics of random rankings as ranx (Bassani 2022) computes them: `python -m bench.metrics_reference` writes
tests/ranker/metrics_reference.json, which the tests hold our own metrics to.

ranx is no package of this project, so it is run by an environment of its own that has ranx alone:
`python -m venv V && V/bin/pip install ranx && V/bin/python -m bench.metrics_reference`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

TARGET = Path(__file__).resolve().parents[1] / "tests" / "ranker" / "metrics_reference.json"
# Viewers, videos, share of videos that are held.
CASES = ((12, 30, 0.1), (12, 60, 0.3), (12, 25, 0.04))
CUTOFFS = (1, 5, 10, 20)
METRICS = {"recall": "recall", "precision": "precision", "hr": "hit_rate", "ndcg": "ndcg", "mrr": "mrr", "map": "map"}


def case(seed: int, viewers: int, videos: int, share: float) -> dict[str, Any]:
    """`orders`: every viewer's ranking of all videos; `held`: those that are right, one at least; `expected`: what ranx
    says of each viewer."""
    from ranx import Qrels, Run, evaluate  # type: ignore[import-not-found]

    stream = np.random.default_rng(seed)
    orders = [stream.permutation(videos).tolist() for _ in range(viewers)]
    held = [sorted({int(stream.integers(videos)), *np.flatnonzero(stream.random(videos) < share).tolist()})
            for _ in range(viewers)]  # fmt: skip
    names = [f"viewer{row:03d}" for row in range(viewers)]
    truth = Qrels({name: {str(video): 1 for video in right} for name, right in zip(names, held, strict=True)})
    run = Run(
        {
            name: {str(video): float(videos - place) for place, video in enumerate(order)}
            for name, order in zip(names, orders, strict=True)
        }
    )
    asked = [f"{theirs}@{k}" for theirs in METRICS.values() for k in CUTOFFS]
    said = evaluate(truth, run, asked, return_mean=False)
    expected = {
        f"{ours}@{k}": [float(value) for value in said[f"{theirs}@{k}"]]
        for ours, theirs in METRICS.items()
        for k in CUTOFFS
    }
    return {"videos": videos, "orders": orders, "held": held, "expected": expected}


def main() -> None:
    from importlib.metadata import version

    cases = [case(seed, *shape) for seed, shape in enumerate(CASES)]
    document = {"computed_by": f"ranx {version('ranx')}", "cases": cases}
    TARGET.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(TARGET)


if __name__ == "__main__":
    main()
