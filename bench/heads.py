"""How good the heads of a multi-task ranker are on pairs that it did not learn from."""

from __future__ import annotations

import numpy as np

from ranker.models.calibration import head_quality
from ranker.models.multitask import MultiTask
from ranker.models.task_outcomes import BINARY, HEADS, Outcomes
from ranker.models.training_data import ActLog


def quality_of_heads(model: MultiTask, log: ActLog, outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """By head: AUC, accuracy, log loss and ECE over those pairs of `outcomes` whose label is known, and the ECE without
    calibration; of watch the mean absolute error of the quantile, and that of always saying one half. View is left out:
    all of the pairs were had. `log`: what viewers did until then."""
    said = model.predict(log, outcomes.viewers, outcomes.videos)
    raw = model.predict(log, outcomes.viewers, outcomes.videos, calibrated=False)
    found: dict[str, dict[str, float]] = {}
    for head in model.heads:
        labels = outcomes.labels[:, HEADS.index(head)].astype(np.float64)
        known = np.isfinite(labels)
        if head == "view" or not known.any():
            continue
        labels, chances = labels[known], said[head][known]
        if head in BINARY:
            quality = head_quality(chances, labels)
            quality["ece_before_calibration"] = head_quality(raw[head][known], labels)["ece"]
        else:
            quality = {
                "mean_absolute_error": float(np.abs(chances - labels).mean()),
                "mean_absolute_error_of_one_half": float(np.abs(0.5 - labels).mean()),
            }
        found[head] = {name: round(number, 4) for name, number in quality.items()}
    return found
