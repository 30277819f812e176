"""A metric as a function of weights is the metric: of the rows as they are, drawn more than once, or expected."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.metrics import metric_values, resampled
from evergreen.spec import METRICS

CUTS = {"regression": 0.9, "binary": 0.4}
CASES = [(task, name) for task, names in METRICS.items() for name in names]


def rows(task: str, count: int = 600):
    rng = np.random.default_rng(3)
    p = rng.random(count).round(2) if task == "binary" else rng.normal(size=count)
    y = (rng.random(count) < p).astype(float) if task == "binary" else p + rng.normal(size=count)
    return y, p, np.arange(count) // 50


@pytest.mark.parametrize(("task", "name"), CASES)
def test_equal_weights_give_the_metric(task, name):
    y, p, where = rows(task)
    found = resampled.statistic(name, where, y, p, CUTS[task])(np.ones((1, 12)))
    assert found[0] == pytest.approx(metric_values.compute(task, y, p, CUTS[task])[name])


@pytest.mark.parametrize(("task", "name"), CASES)
def test_weights_count_rows_as_often_as_they_say(task, name):
    y, p, where = rows(task)
    often = np.array([0, 3, 1, 0, 2, 1, 1, 1, 0, 1, 1, 1])
    again = np.repeat(np.arange(len(y)), often[where])
    found = resampled.statistic(name, where, y, p, CUTS[task])(often[None, :].astype(float))
    assert found[0] == pytest.approx(metric_values.compute(task, y[again], p[again], CUTS[task])[name])


@pytest.mark.parametrize("name", METRICS["binary"])
def test_a_probability_for_a_label_gives_the_expected_metric(name):
    _, p, where = rows("binary", 2000)
    chance = p**2
    rng = np.random.default_rng(0)
    drawn = [
        metric_values.compute("binary", (rng.random(len(p)) < chance).astype(float), p)[name]
        for _ in range(200)
    ]
    (expected,) = resampled.statistic(name, where, chance, p)(np.ones((1, int(where.max()) + 1)))
    # Ranking metrics and f1 are ratios of expected numbers, which is not quite the expected ratio.
    assert expected == pytest.approx(np.mean(drawn), abs=3 * np.std(drawn) / np.sqrt(200) + 1e-3)


@pytest.mark.parametrize("name", ["rmse", "r2", "roc_auc"])
def test_the_distance_from_perfect_and_back(name):
    assert resampled.at_distance(name, resampled.distance(name, 0.7)) == pytest.approx(0.7)
    assert resampled.distance(name, 1.0 if name != "rmse" else 0.0) == 0
