"""Probabilities that keep their word: a logit made a probability by what came of examples nobody learnt from.

    temperature   sigma(z / T)                       (Guo et al., ICML 2017, "On Calibration of Modern Neural Networks")
    platt         sigma(a z + b), on smoothed labels (Platt 1999, "Probabilistic Outputs for Support Vector Machines")
    isotonic      the best rising step function of z (Zadrozny and Elkan, KDD 2002), with lines between its steps

The first two keep the order of all examples (a is held above 0); the third may tie some.

The expected calibration error is the mean over bins of |share that came true - mean probability|, weighted by how many
examples are in the bin, with bins of equal mass (Nixon et al. 2019): bins of equal width leave most of them empty where
an act is rare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ranker.models.training_data import Float64

Method = Literal["none", "temperature", "platt", "isotonic"]
BINS = 15
LEAST_SCALE = 1e-3
MOST_STEPS = 100
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Calibration:
    """p = sigma(scale z + shift), or, where `knots` float64 [k] hold logits, the line through (knots, `levels`)."""

    scale: float = 1.0
    shift: float = 0.0
    knots: Float64 = field(default_factory=lambda: np.zeros(0))
    levels: Float64 = field(default_factory=lambda: np.zeros(0))

    def __call__(self, logits: npt.NDArray[Any]) -> Float64:
        """float64 of the logits' shape, within 0..1."""
        given = np.asarray(logits, np.float64)
        if len(self.knots):
            return np.interp(given, self.knots, self.levels)
        return sigmoid(self.scale * given + self.shift)

    def arrays(self) -> dict[str, Float64]:
        """All of it, by name."""
        return {"line": np.array([self.scale, self.shift]), "knots": self.knots, "levels": self.levels}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Calibration:
        """What `arrays` gave."""
        scale, shift = (float(number) for number in arrays["line"])
        return cls(scale, shift, np.asarray(arrays["knots"], np.float64), np.asarray(arrays["levels"], np.float64))


def sigmoid(logits: npt.NDArray[Any]) -> Float64:
    """1 / (1 + exp(-z)) in float64, without overflow."""
    given = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(given))
    return np.where(given >= 0, 1 / (1 + small), small / (1 + small))


def calibrate(logits: npt.NDArray[Any], labels: npt.NDArray[Any], method: Method) -> Calibration:
    """The best calibration of its kind for examples, float [n] and labels [n], which are 0 or 1, or shares between.
    With one label only nothing can be learnt, and the logits stay what they are."""
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if method == "none" or len(y) == 0 or y.min() == y.max():
        return Calibration()
    if method == "isotonic":
        return _isotonic(z, y)
    if method == "platt" and np.isin(y, (0, 1)).all():
        right, wrong = float((y > 0.5).sum()), float((y <= 0.5).sum())
        # Platt's targets: as if one more example of either class had been seen.
        y = np.where(y > 0.5, (right + 1) / (right + 2), 1 / (wrong + 2))
    return _line(z, y, shifted=method == "platt")


def calibrate_where_it_pays(logits: npt.NDArray[Any], labels: npt.NDArray[Any], method: Method) -> Calibration:
    """As `calibrate`, but the logits stay what they are unless that lowers the cross-entropy of examples left out (each
    of `FOLDS` parts by what the others teach) by more than its standard error: on few examples a calibration learns
    their accidents."""
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if len(y) < FOLDS:
        return Calibration()
    part = np.random.default_rng(0).permutation(len(y)) % FOLDS
    gains = np.zeros(len(y))
    for fold in range(FOLDS):
        out = part == fold
        found = calibrate(z[~out], y[~out], method)
        gains[out] = cross_entropy(Calibration()(z[out]), y[out]) - cross_entropy(found(z[out]), y[out])
    pays = gains.mean() > gains.std() / np.sqrt(len(gains))
    return calibrate(z, y, method) if pays else Calibration()


def cross_entropy(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Float64:
    """float64 [n], nats, of each example; probabilities are held within 1e-7 of 0 and 1."""
    p, y = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7), np.asarray(labels, np.float64)
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log(1 - p)))


def _line(z: Float64, y: Float64, shifted: bool) -> Calibration:
    """Newton's method on the cross-entropy, which is convex; steps are halved until they do not make it worse."""
    columns = np.stack([z, np.ones_like(z)], axis=1) if shifted else z[:, None]
    found = np.array([1.0, 0.0]) if shifted else np.array([1.0])

    def loss(at: Float64) -> float:
        margin = columns @ at
        return float(np.mean(np.logaddexp(0, margin) - y * margin))

    best = loss(found)
    for _ in range(MOST_STEPS):
        p = sigmoid(columns @ found)
        slope = columns.T @ (p - y) / len(y)
        bend = (columns * (p * (1 - p))[:, None]).T @ columns / len(y) + 1e-9 * np.eye(len(found))
        step = np.linalg.solve(bend, slope)
        while (tried := loss(found - step)) > best and np.abs(step).max() > 1e-12:
            step /= 2
        found, gain, best = found - step, best - tried, min(best, tried)
        if gain < 1e-12:
            break
    return Calibration(max(float(found[0]), LEAST_SCALE), float(found[1]) if shifted else 0.0)


def _isotonic(z: Float64, y: Float64) -> Calibration:
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped]

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(z, y)
    return Calibration(
        knots=np.asarray(fitted.X_thresholds_, np.float64), levels=np.asarray(fitted.y_thresholds_, np.float64)
    )


def expected_calibration_error(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], bins: int = BINS) -> float:
    """0..1 over float [n] and 0 or 1 [n], with bins of equal mass; nan without examples. Examples of one probability
    share their outcome evenly, so that the order they came in does not matter."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    if not len(p):
        return float("nan")
    place = np.unique(p, return_inverse=True)[1]
    y = (np.bincount(place, y) / np.bincount(place))[place]
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(abs(p[part].mean() - y[part].mean()) * len(part) for part in parts) / len(p))


def area_under_curve(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """The chance that a random example of label 1 has a higher score than one of label 0, ties for half (Mann and
    Whitney); nan where one class is missing."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    y = np.asarray(labels) > 0.5
    right, wrong = int(y.sum()), int((~y).sum())
    if not right or not wrong:
        return float("nan")
    ranks = rankdata(np.asarray(scores, np.float64))
    return float((ranks[y].sum() - right * (right + 1) / 2) / (right * wrong))


def head_quality(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> dict[str, float]:
    """AUC, accuracy (at one half), log loss and ECE of a head over float [n] and 0 or 1 [n]; `base_rate` is the share
    of label 1, so `max(base_rate, 1 - base_rate)` is the accuracy of a head that knows nothing."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    return {
        "auc": area_under_curve(p, y),
        "accuracy": float(np.mean((p >= 0.5) == (y > 0.5))),
        "log_loss": float(np.mean(cross_entropy(p, y))),
        "ece": expected_calibration_error(p, y),
        "base_rate": float(y.mean()),
    }
