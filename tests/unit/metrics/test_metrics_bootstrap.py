"""The improvement and its bounds: right on known cases, honest about dependence, the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from evergreen.metrics import metric_values, paired_bootstrap
from evergreen.spec import LARGER_IS_BETTER, METRICS

N = 1000


def world(n=N, *, better=0.0, seed=1):
    """Times, labels, a challenger and a champion whose error is larger by a share."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    return np.arange(n), y, y + rng.normal(size=n), y + rng.normal(size=n) * (1 + better)


def ask(metric, times, y, challenger, champion, cut=None, **more):
    paired = paired_bootstrap.Paired(metric, times, y, challenger, champion, cut)
    return paired_bootstrap.improvement(paired, **{"confidence": 0.95, "seed": 7, **more})


def classes(n=N, seed=1):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(1 - 2 * z))).astype(float)
    sharp, dull = (1 / (1 + np.exp(1 - 2 * z - s * rng.normal(size=n))) for s in (0.3, 1.5))
    return np.arange(n), y, sharp, dull


@pytest.mark.parametrize("metric", METRICS["regression"])
@pytest.mark.parametrize("better", [0.3, -0.2])
def test_the_point_is_the_share_of_the_distance_from_perfect(metric, better):
    times, y, new, old = world(better=better)
    # Shares of labels near zero are mostly noise; the others have labels around it, as they had.
    if metric in ("mape", "wape"):
        y, new, old = y + 20, new + 20, old + 20
    values = [metric_values.compute("regression", y, p, 0.9)[metric] for p in (new, old)]
    distances = [1 - v if metric == "r2" else v for v in values]
    found = ask(metric, times, y, new, old, cut=0.9)
    assert found.point == pytest.approx(1 - distances[0] / distances[1])
    assert paired_bootstrap.point(metric, y, new, old, 0.9) == pytest.approx(found.point)
    assert found.low < found.point < found.high
    assert found.low * better > 0 if better > 0 else found.high < 0
    assert found.rows == N


@pytest.mark.parametrize("metric", METRICS["binary"])
@pytest.mark.parametrize("n", [N, 20_000], ids=["each-score-alone", "scores-in-groups"])
def test_the_point_is_exact_for_probabilities(metric, n):
    times, y, new, old = classes(n)
    values = [metric_values.compute("binary", y, p, 0.4)[metric] for p in (new, old)]
    distances = [1 - v if metric in LARGER_IS_BETTER else v for v in values]
    found = ask(metric, times, y, new, old, resamples=200, cut=0.4)
    assert found.point == pytest.approx(1 - distances[0] / distances[1])
    assert 0 < found.low < found.point < found.high
    swapped = ask(metric, times, y, old, new, resamples=200, cut=0.4)
    assert swapped.high < 0


def test_ties_and_rare_classes_keep_the_point_exact():
    times, y, new, old = classes(20_000)
    rare = y * (np.arange(len(y)) % 50 == 0)
    for metric in ("roc_auc", "pr_auc"):
        coarse = np.round(new, 2)
        values = [metric_values.compute("binary", rare, p)[metric] for p in (coarse, old)]
        found = ask(metric, times, rare, coarse, old, resamples=100)
        assert found.point == pytest.approx(1 - (1 - values[0]) / (1 - values[1]))


def test_the_same_arguments_give_the_same_bounds_and_another_seed_others():
    arguments = world()
    assert ask("rmse", *arguments) == ask("rmse", *arguments)
    assert ask("rmse", *arguments, seed=8).low != ask("rmse", *arguments).low


def test_the_order_of_the_rows_does_not_matter():
    times, y, new, old = world(better=0.1)
    mixed = np.random.default_rng(0).permutation(N)
    found = ask("mae", times[mixed], y[mixed], new[mixed], old[mixed])
    assert found.low == pytest.approx(ask("mae", times, y, new, old).low)


def test_dependent_rows_give_wider_bounds_than_independent_ones():
    times, y, _, _ = world()
    rng = np.random.default_rng(3)
    new, old = (y + np.repeat(rng.normal(size=N // 50), 50) for _ in range(2))
    mixed = rng.permutation(N)
    dependent = ask("rmse", times, y, new, old)
    independent = ask("rmse", times, y[mixed], new[mixed], old[mixed])
    assert dependent.point == pytest.approx(independent.point)
    assert dependent.spread > 3 * independent.spread


def test_rows_of_one_moment_stay_together():
    times, y, new, old = world()
    where, moments = paired_bootstrap.cells(times // 100)
    assert (moments, len(np.unique(where))) == (10, 10)
    where, moments = paired_bootstrap.cells(times)
    assert (np.diff(where) >= 0).all()
    assert (moments, where.max() + 1) == (N, paired_bootstrap.CELLS)
    few = ask("rmse", times // 250, y, new, old)
    assert (few.low, few.high, few.blocks) == (None, None, 4)
    assert few.point is not None, "four moments say nothing about how much moments differ"


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_two_perfect_models_are_equal_and_a_worse_one_is_seen(metric):
    times, y, new, _ = world()
    assert ask(metric, times, y, y, y).point == 0
    assert ask(metric, times, y, new, y).high < -1
    assert ask(metric, times, y, y, new).low == pytest.approx(1, abs=1e-6)


def test_one_class_only_cannot_be_told():
    times, _, new, old = classes()
    assert ask("roc_auc", times, np.ones(N), new, old).point is None
    one = np.zeros(N)
    one[3] = 1
    assert ask("roc_auc", times, one, new, old).low is None, "most resamples have no positive row"


@pytest.mark.parametrize(
    ("new", "told"),
    [
        pytest.param(np.full(N, np.nan), "not finite", id="nan"),
        pytest.param(np.zeros(N - 1), "999", id="other-length"),
    ],
)
def test_what_cannot_be_compared_is_refused(new, told):
    times, y, _, old = world()
    with pytest.raises(ValueError, match=told):
        ask("rmse", times, y, new, old)
    with pytest.raises(ValueError, match="no metric"):
        ask("f2", times, y, old, old)


@pytest.mark.parametrize("phi", [0.0, 0.7], ids=["independent", "autoregressive"])
def test_the_lower_bound_covers(phi):
    """At 95 %, of 300 holdouts of a week of hours at most 27 bounds may lie above the truth (1 in 400 tests fails at 5 %)."""
    rng = np.random.default_rng(5)

    def errors():
        e, found = rng.normal(size=268), np.zeros(268)
        for i in range(1, 268):
            found[i] = phi * found[i - 1] + np.sqrt(1 - phi**2) * e[i]
        return found[100:]

    truth = 1 - np.sqrt((1 + 0.3**2) / (1 + 0.35**2))
    missed = 0
    for seed in range(300):
        noise = errors()
        y = rng.normal(size=168)
        new, old = y - noise + 0.3 * errors(), y - noise + 0.35 * errors()
        missed += ask("rmse", np.arange(168), y, new, old, seed=seed, resamples=500).low > truth
    assert missed <= 27
