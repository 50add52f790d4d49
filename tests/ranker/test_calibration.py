"""Chances that keep their word, and how far they are from it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ranker.models.calibration import (
    Calibration,
    Method,
    area_under_curve,
    calibrate,
    calibrate_where_it_pays,
    expected_calibration_error,
    head_quality,
    sigmoid,
)

STREAM = np.random.Generator(np.random.PCG64(1))
TRUE = STREAM.normal(0, 1.5, 20_000)
CAME = (STREAM.random(len(TRUE)) < sigmoid(TRUE)).astype(float)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_a_head_that_boasts_is_brought_back(method: Method) -> None:
    boasting = 3.0 * TRUE
    found = calibrate(boasting[::2], CAME[::2], method)
    before = expected_calibration_error(Calibration()(boasting[1::2]), CAME[1::2])
    after = expected_calibration_error(found(boasting[1::2]), CAME[1::2])
    assert before > 0.08
    assert after < 0.02
    assert len(found.knots) == 0 or method == "isotonic"


def test_platt_finds_scale_and_shift_and_temperature_the_scale_alone() -> None:
    platt = calibrate(2.0 * TRUE + 1.0, CAME, "platt")
    assert platt.scale == pytest.approx(0.5, abs=0.02)
    assert platt.shift == pytest.approx(-0.5, abs=0.05)
    temperature = calibrate(2.0 * TRUE, CAME, "temperature")
    assert temperature.scale == pytest.approx(0.5, abs=0.02)
    assert temperature.shift == 0


@pytest.mark.parametrize("method", ["none", "temperature", "platt", "isotonic"])
def test_one_class_or_none_changes_nothing(method: Method) -> None:
    for labels in (np.zeros(0), np.ones(5), np.zeros(5)):
        found = calibrate(np.arange(len(labels)), labels, method)
        assert found(np.array([0.0, 2.0])) == pytest.approx([0.5, 0.8807970779778823])


def test_an_order_that_is_upside_down_is_not_turned() -> None:
    found = calibrate(-TRUE, CAME, "platt")
    assert found.scale > 0
    assert np.isfinite(found(np.array([-1e9, 0.0, 1e9]))).all()


def test_perfectly_separated_classes_stay_finite() -> None:
    z = np.r_[np.full(50, -3.0), np.full(50, 3.0)]
    y = np.r_[np.zeros(50), np.ones(50)]
    for method in ("temperature", "platt", "isotonic"):
        found = calibrate(z, y, method)  # type: ignore[arg-type]
        assert np.isfinite(found(z)).all()
        assert found(z)[-1] > 0.95


def test_the_error_by_hand() -> None:
    # Two bins of two: the mean chance .15 of which half came, and .85 of which all did.
    assert expected_calibration_error(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 1, 1, 1]), 2) == pytest.approx(
        (abs(0.15 - 0.5) + abs(0.85 - 1.0)) / 2
    )
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0)))


def test_equal_chances_make_an_error_that_no_order_changes() -> None:
    p, y = np.full(40, 0.5), np.r_[np.zeros(20), np.ones(20)]
    assert expected_calibration_error(p, y) == pytest.approx(0)
    assert expected_calibration_error(p, y[::-1]) == pytest.approx(0)


def test_quality_agrees_with_scikit_learn() -> None:
    p = np.round(sigmoid(TRUE), 2)
    found = head_quality(p, CAME)
    assert found["auc"] == pytest.approx(roc_auc_score(CAME, p), abs=1e-9)
    assert found["log_loss"] == pytest.approx(log_loss(CAME, np.clip(p, 1e-7, 1 - 1e-7)), abs=1e-9)
    assert found["base_rate"] == pytest.approx(CAME.mean())
    assert np.isnan(area_under_curve(p[:3], np.ones(3)))


def test_arrays_bring_it_back() -> None:
    for method in ("platt", "isotonic"):
        found = calibrate(TRUE, CAME, method)  # type: ignore[arg-type]
        again = Calibration.from_arrays(found.arrays())
        assert np.array_equal(again(TRUE), found(TRUE))


def test_shares_between_0_and_1_keep_their_mean() -> None:
    found = calibrate(TRUE, sigmoid(0.5 * TRUE - 1), "platt")
    assert (found.scale, found.shift) == (pytest.approx(0.5, abs=1e-3), pytest.approx(-1, abs=1e-3))


def test_a_calibration_stays_out_where_it_only_learns_accidents() -> None:
    boasting = calibrate_where_it_pays(3.0 * TRUE, CAME, "temperature")
    assert boasting.scale == pytest.approx(calibrate(3.0 * TRUE, CAME, "temperature").scale)
    assert boasting.scale == pytest.approx(1 / 3, rel=0.2)
    few = np.random.default_rng(1).permutation(len(TRUE))[:60]
    for method in ("temperature", "platt", "isotonic"):
        kept = calibrate_where_it_pays(TRUE[few], CAME[few], method)  # type: ignore[arg-type]
        assert (kept.scale, kept.shift, len(kept.knots)) == (1.0, 0.0, 0), "the logits were right as they were"
