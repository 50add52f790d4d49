"""What single predictions are worth: chances (of a finish, a like, ...) against what happened, stars against stars.

Rankings are measured in `ranker.evaluation`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
BINS = 15
# Chances nearer to 0 and 1 than this count as if they stood here: one prediction must not make the loss infinite.
LEAST = 1e-15


def auc(happened: Values, scores: Values) -> float:
    """The chance that something that happened scores above something that did not, ties half: the area under the ROC
    curve, by mid-ranks. `happened` 0 or 1, `scores` any finite numbers. nan when only one of the two occurs."""
    right = np.asarray(happened).astype(bool)
    _check(right, scores)
    n_right, n_wrong = int(right.sum()), int((~right).sum())
    if not n_right or not n_wrong:
        return math.nan
    _, place, count = np.unique(np.asarray(scores, np.float64), return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    return float((middle[place][right].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def accuracy(happened: Values, chances: Values, threshold: float = 0.5) -> float:
    """The share of predictions on the right side of `threshold` (at it counts as a yes); nan of none."""
    right = np.asarray(happened).astype(bool)
    _check(right, chances)
    return float((right == (np.asarray(chances) >= threshold)).mean()) if len(right) else math.nan


def log_loss(happened: Values, chances: Values) -> float:
    """Mean of -log of the chance given to what happened, in nats; nan of none."""
    right = np.asarray(happened).astype(bool)
    _check(right, chances)
    if not len(right):
        return math.nan
    given = np.clip(np.asarray(chances, np.float64), LEAST, 1 - LEAST)
    return float(-np.log(np.where(right, given, 1 - given)).mean())


def expected_calibration_error(happened: Values, chances: Values, bins: int = BINS) -> float:
    """How far chances are from frequencies (Naeini et al. 2015; Guo et al. 2017): in `bins` equal bins of (0, 1], the
    mean of |mean chance - share that happened|, weighted by how many fall in. 0 is calibrated; nan of none."""
    right = np.asarray(happened).astype(bool)
    _check(right, chances)
    if not len(right):
        return math.nan
    given = np.asarray(chances, np.float64)
    place = np.clip(np.ceil(given * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, given, minlength=bins) - np.bincount(place, right, minlength=bins)
    return float(np.abs(gap).sum() / len(right))


def rmse(stars: Values, predicted: Values) -> float:
    """Root of the mean squared error; nan of none."""
    _check(stars, predicted)
    gap = np.asarray(stars, np.float64) - np.asarray(predicted, np.float64)
    return float(np.sqrt((gap**2).mean())) if len(gap) else math.nan


def mae(stars: Values, predicted: Values) -> float:
    """Mean of the absolute error; nan of none."""
    _check(stars, predicted)
    gap = np.asarray(stars, np.float64) - np.asarray(predicted, np.float64)
    return float(np.abs(gap).mean()) if len(gap) else math.nan


def of_head(happened: Values, chances: Values) -> dict[str, Any]:
    """All figures of a head's chances; `auc` is None, and `one_class` true, where only one of yes and no occurs."""
    area = auc(happened, chances)
    figures = {
        "accuracy": accuracy(happened, chances),
        "log_loss": log_loss(happened, chances),
        "ece": expected_calibration_error(happened, chances),
        "rate": float(np.mean(happened)) if len(happened) else math.nan,
    }
    found: dict[str, Any] = {"n": len(happened), "auc": None if math.isnan(area) else round(area, 4)}
    found |= {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
    return found | {"one_class": math.isnan(area)}


def _check(truth: Values, predicted: Values) -> None:
    if len(truth) != len(predicted):
        raise ValueError(f"{len(predicted)} predictions of {len(truth)} things")
    if len(predicted) and not np.isfinite(np.asarray(predicted, np.float64)).all():
        raise ValueError("predictions must be finite")
