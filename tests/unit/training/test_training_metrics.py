"""Metrics: known values, and input that must not become a number."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.errors import Reason, TerminalError
from evergreen.training.metrics import compute


def test_regression_by_hand():
    found = compute("regression", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]))
    assert found == pytest.approx({"rmse": (4 / 3) ** 0.5, "mae": 2 / 3, "r2": -1.0})


def test_binary_by_hand():
    found = compute("binary", np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]))
    assert found["roc_auc"] == pytest.approx(0.75)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.4, 0.9])))
    assert found["pr_auc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_certain_and_wrong_stays_finite():
    assert np.isfinite(compute("binary", np.array([0, 1]), np.array([1.0, 0.0]))["log_loss"])


def test_what_is_not_defined_is_absent():
    assert set(compute("binary", np.ones(3), np.full(3, 0.5))) == {"log_loss", "brier"}
    assert set(compute("regression", np.ones(3), np.array([1.0, 2.0, 3.0]))) == {"rmse", "mae"}


@pytest.mark.parametrize(
    ("task", "y", "p"),
    [
        pytest.param("regression", [1.0, 2.0], [1.0, np.nan], id="nan-prediction"),
        pytest.param("regression", [1.0, np.inf], [1.0, 1.0], id="infinite-label"),
        pytest.param("regression", [1e200, 1.0], [-1e200, 1.0], id="overflow"),
        pytest.param("regression", [], [], id="no-rows"),
        pytest.param("regression", [1.0], [1.0, 2.0], id="lengths"),
        pytest.param("binary", [0.0, 0.5], [0.1, 0.2], id="label-between"),
        pytest.param("binary", [0.0, 1.0], [0.1, 1.2], id="no-probability"),
    ],
)
def test_bad_input_is_refused(task, y, p):
    with pytest.raises(TerminalError) as caught:
        compute(task, np.array(y), np.array(p))
    assert caught.value.reason is Reason.BAD_METRIC
