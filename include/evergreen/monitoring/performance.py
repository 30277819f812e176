"""The error of the predictions that were served, against the champion's error on its holdout."""

from __future__ import annotations

import math

import pandas as pd

from evergreen.errors import TerminalError
from evergreen.monitoring import interval
from evergreen.monitoring.estimate import Estimator
from evergreen.monitoring.judgement import MetricResult, Violation, What
from evergreen.monitoring.reference import Reference
from evergreen.monitoring.windows import Facts
from evergreen.spec import LARGER_IS_BETTER, ModelSpec
from evergreen.training import weighted
from evergreen.training.metrics import compute

# A metric near zero would leave no room at all: the slack is a share of at least these.
LEAST_SCALE = 0.05
LEAST_SCALE_OF_SPREAD = 0.01
IN_LABEL_UNITS = ("rmse", "mae")


def limit_of(model: ModelSpec, reference: Reference) -> float:
    """The smallest worsening of the watched metric that counts, as a value of the metric.

    The holdout's value, worsened by `performance.max_worse` of it: upwards for errors, downwards for metrics of
    which larger is better, also below zero (r2). The slack is a share of at least 0.05, or of 1 % of the
    labels' standard deviation for metrics in the label's unit.
    """
    metric = model.performance_metric
    value = reference.holdout_metrics[metric]
    least = LEAST_SCALE
    if metric in IN_LABEL_UNITS:
        spread = pd.Series(reference.sample["_label"].to_pandas()).std()
        least = LEAST_SCALE_OF_SPREAD * float(spread) if math.isfinite(spread) else 0.0
    slack = model.monitoring.performance.max_worse * max(abs(value), least)
    return value - slack if metric in LARGER_IS_BETTER else value + slack


def limit_at(model: ModelSpec, reference: Reference, rows: int) -> float:
    """The worst value that the watched metric may take in a window of so many labelled rows.

    `limit_of`, or what an unchanged window exceeds with the probability `drift.false_alarms`, whichever is worse. So a
    value beyond it is both large enough to count, and surely no chance: no interval is asked on top, which would
    count the same chance twice.

    Args:
        model: the smallest effect, and the rate.
        reference: the champion's.
        rows: with a label and a prediction.
    """
    metric, least = model.performance_metric, limit_of(model, reference)
    factor = reference.movement.factor(model.monitoring.drift.false_alarms, rows)
    away = weighted.distance(metric, reference.holdout_metrics[metric])
    learnt = weighted.at_distance(metric, away * factor)
    return min(least, learnt) if metric in LARGER_IS_BETTER else max(least, learnt)


def enough_labels(model: ModelSpec, facts: Facts) -> bool:
    """Whether enough rows of a window have a label and a prediction to judge its error."""
    return facts.rows > 0 and facts.judgeable >= model.monitoring.performance.min_labels * facts.rows


def served_by_another(window: pd.DataFrame, version: str) -> bool:
    """Whether another version served most rows of a window; their error is then not this one's."""
    return bool((window["_version"].dropna() != version).mean() > 0.5)


def judge(
    model: ModelSpec,
    window: pd.DataFrame,
    reference: Reference,
    facts: Facts,
    estimator: Estimator | None = None,
) -> tuple[dict[str, MetricResult], tuple[Violation, ...]]:
    """Judge the served predictions of a window.

    With too few labels the watched metric is recorded as `not_yet`, which is neither good nor bad, or as `estimated`
    where there is an estimator. A metric that these rows do not allow (one class only) is a violation without a value.

    Args:
        model: its metric, its settings.
        window: rows with `_time`, `_label` and `_prediction`; for an estimate the features, too.
        reference: the champion's.
        facts: counts of the whole window.
        estimator: what estimates a metric without labels (`estimate.fit`); None: nothing is estimated.

    Returns:
        The metrics by name, and the violations.
    """
    metric, holdout = model.performance_metric, reference.holdout_metrics
    coverage = facts.judgeable / facts.rows if facts.rows else 0.0
    if not enough_labels(model, facts):
        return _without_labels(model, window, reference, facts, coverage, estimator)
    rows = window[["_time", "_label", "_prediction"]].dropna()
    limit = limit_at(model, reference, len(rows))
    problem = f"{metric} is not defined on these {len(rows)} rows (one class, or all labels equal)"
    y, p = (rows[name].to_numpy(dtype=float) for name in ("_label", "_prediction"))
    try:
        values = compute(model.task, y, p) if len(rows) else {}
    except TerminalError as error:
        values, problem = {}, str(error)
    metrics = {
        name: MetricResult(value, None, holdout.get(name), "shown", coverage=coverage, rows=len(rows))
        for name, value in values.items()
    }
    if metric not in values:
        metrics[metric] = MetricResult(
            None, limit, holdout[metric], "unreadable", True, problem, coverage=coverage, rows=len(rows)
        )
        return metrics, (Violation(What.UNREADABLE, "_label", metric, None, limit, problem),)
    worse = _beyond(metric, values[metric], limit)
    low, high = interval.interval(
        metric, pd.DatetimeIndex(rows["_time"]).asi8, y, p, seed=model.training.seed
    )
    between = "" if low is None else f" ({low:.4g} to {high:.4g} with {interval.CONFIDENCE:.0%} confidence)"
    detail = (
        f"{values[metric]:.4g}{between} on {len(rows)} rows, {coverage:.0%} of the window's have label and prediction; "
        f"holdout {holdout[metric]:.4g}"
    )
    metrics[metric] = MetricResult(
        values[metric],
        limit,
        holdout[metric],
        "judged",
        worse,
        detail,
        low,
        high,
        interval.CONFIDENCE,
        coverage,
        len(rows),
    )
    violation = Violation(What.PERFORMANCE, metric, metric, values[metric], limit, detail)
    return metrics, (violation,) if worse else ()


def of_another(model: ModelSpec, window: pd.DataFrame, reference: Reference) -> dict[str, MetricResult]:
    """The watched metric of a window that another version served: its error says nothing about this champion."""
    metric = model.performance_metric
    limit = limit_at(model, reference, len(window))
    detail = "most rows were served by another version"
    return {
        metric: MetricResult(None, limit, reference.holdout_metrics[metric], "another_version", detail=detail)
    }


def _without_labels(
    model: ModelSpec,
    window: pd.DataFrame,
    reference: Reference,
    facts: Facts,
    coverage: float,
    estimator: Estimator | None,
) -> tuple[dict[str, MetricResult], tuple[Violation, ...]]:
    metric, holdout = model.performance_metric, reference.holdout_metrics
    wanted = math.ceil(model.monitoring.performance.min_labels * facts.rows)
    unscored = facts.rows - facts.scored
    needed = f"{unscored} rows have no prediction, {wanted} with both" if unscored else wanted
    detail = f"{facts.labelled} of {facts.rows} labels are in, {needed} are needed; judged when they are"
    limit = limit_at(model, reference, len(window))
    made = estimator.estimate(window) if estimator else None
    if made is None:
        return {
            metric: MetricResult(None, limit, holdout[metric], "not_yet", detail=detail, coverage=coverage)
        }, ()
    limit = limit_at(model, reference, made.rows)
    between = "" if made.low is None else f" ({made.low:.4g} to {made.high:.4g})"
    detail = (
        f"an estimate without labels ({made.method}): {made.value:.4g}{between} expected on {made.rows} rows; "
        f"holdout {holdout[metric]:.4g}; it does not see a change of what the features mean; {detail}"
    )
    worse = _beyond(metric, made.value, limit)
    result = MetricResult(
        made.value, limit, holdout[metric], "estimated", worse, detail, low=made.low, high=made.high,
        confidence=interval.CONFIDENCE, coverage=coverage, rows=made.rows,
    )  # fmt: skip
    violation = Violation(What.ESTIMATED_PERFORMANCE, metric, metric, made.value, limit, detail)
    return {metric: result}, (violation,) if worse else ()


def _beyond(metric: str, value: float, limit: float) -> bool:
    return value < limit if metric in LARGER_IS_BETTER else value > limit
