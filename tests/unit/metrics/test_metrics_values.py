"""Metrics: known values, and input that must not become a number."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from evergreen.errors import ErrorReason, TerminalError
from evergreen.metrics.metric_values import compute
from evergreen.spec import METRICS


@pytest.mark.parametrize("task", METRICS)
def test_each_metric_of_a_task_is_computed(task):
    y, p = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.2, 0.9, 0.4, 0.1])
    assert set(compute(task, y, p, 0.5)) == set(METRICS[task])


def test_regression_by_hand():
    found = compute("regression", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]))
    shares = {"mape": (2 / 3) / 3, "wape": 2 / 6}
    assert found == pytest.approx({"rmse": (4 / 3) ** 0.5, "mae": 2 / 3, "r2": -1.0, **shares})


def test_binary_by_hand():
    found = compute("binary", np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]))
    assert found["roc_auc"] == pytest.approx(0.75)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.4, 0.9])))
    assert found["pr_auc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_certain_and_wrong_stays_finite():
    assert np.isfinite(compute("binary", np.array([0, 1]), np.array([1.0, 0.0]))["log_loss"])


def test_what_is_not_defined_is_absent():
    one_class = compute("binary", np.ones(3), np.full(3, 0.5))
    assert set(one_class) == {"log_loss", "brier", "accuracy", "f1"}
    assert "f1" not in compute("binary", np.zeros(3), np.full(3, 0.4)), "no label and no prediction is 1"
    flat = {"rmse", "mae", "mape", "wape"}
    assert set(compute("regression", np.ones(3), np.array([1.0, 2.0, 3.0]))) == flat
    assert set(compute("regression", np.zeros(3), np.array([1.0, 2.0, 3.0]), 0.9)) == {
        "rmse",
        "mae",
        "pinball",
    }


def test_a_label_near_zero_makes_a_share_overflow_and_nothing_else():
    found = compute("regression", np.array([5e-324, 1.0]), np.array([10.0, 1.0]))
    assert "mape" not in found
    assert found["mae"] == 5.0


def test_the_values_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    y = np.concatenate([[0.0] * 20, rng.gamma(2, 3, 480)])
    p = y + rng.normal(size=500)
    found, known = compute("regression", y, p, 0.8), y != 0
    assert found["mape"] == pytest.approx(sk.mean_absolute_percentage_error(y[known], p[known]))
    assert found["wape"] == pytest.approx(sk.mean_absolute_error(y, p) / y.mean())
    assert found["pinball"] == pytest.approx(sk.mean_pinball_loss(y, p, alpha=0.8))
    p = rng.random(500).round(2)
    y = (rng.random(500) < p).astype(float)
    for cut in (None, 0.5, 0.3):
        said = p >= (cut or 0.5)
        found = compute("binary", y, p, cut)
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, said))
        assert found["f1"] == pytest.approx(sk.f1_score(y, said))


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
    assert caught.value.reason is ErrorReason.BAD_METRIC
