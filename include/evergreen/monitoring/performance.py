"""The error of the predictions that were served, against the champion's error on its holdout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evergreen.errors import TerminalError
from evergreen.monitoring import interval
from evergreen.monitoring.estimate import Estimator
from evergreen.monitoring.judgement import MetricResult, Violation, What
from evergreen.monitoring.profile import as_numbers
from evergreen.monitoring.reference import Reference
from evergreen.monitoring.windows import Facts
from evergreen.spec import LARGER_IS_BETTER, ModelSpec, format_duration, passable
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


@dataclass(frozen=True)
class Limit:
    """From where on a watched metric is worse.

    Attributes:
        value: the limit.
        learnt: what unchanged windows of that many rows keep to, which may be no value that can occur.
        note: a sentence, where chance on so few rows reaches farther than the metric tells anything; else empty.
    """

    value: float
    learnt: float
    note: str = ""


def limit_for(model: ModelSpec, reference: Reference, rows: int) -> Limit:
    """The worst value that the watched metric may take in a window of so many labelled rows.

    `limit_of`, or what an unchanged window exceeds with the probability `drift.false_alarms`, whichever is worse. So a
    value beyond it is both large enough to count, and surely no chance: no interval is asked on top, which would
    count the same chance twice. What was learnt of few rows may allow more than a coin does (`coin`): then the coin's value is
    the limit, where `max_worse` asks for better. Where the champion itself is hardly better, what was learnt stands unless no
    value can pass it; then `limit_of` does. A limit that was bounded so is passed by chance more often than the rate says.

    Args:
        model: the smallest effect, and the rate.
        reference: the champion's.
        rows: with a label and a prediction.
    """
    metric, least = model.performance_metric, limit_of(model, reference)
    worse = min if metric in LARGER_IS_BETTER else max
    factor = reference.movement.factor(model.monitoring.drift.false_alarms, rows)
    away = weighted.distance(metric, reference.holdout_metrics[metric])
    learnt = weighted.at_distance(metric, away * factor)
    value, naive = worse(least, learnt), coin(metric, reference)
    if naive is not None and worse(least, naive) == naive and worse(value, naive) == value != naive:
        value, what = naive, "a coin's"
    elif not passable(metric, value):
        value, what = least, "max_worse's"
    else:
        return Limit(value, learnt)
    said = (
        f"what was learnt cannot alarm on so few rows: chance alone reaches {learnt:.4g} on {rows}; the limit is {what}"
        if passable(metric, value)
        else f"cannot alarm on so few rows, nor with this max_worse: no {metric} is worse than {value:.4g}"
    )
    return Limit(value, learnt, f"{said}; make monitoring.window longer, or watch another metric")


def limit_at(model: ModelSpec, reference: Reference, rows: int) -> float:
    """The value of `limit_for`."""
    return limit_for(model, reference, rows).value


def coin(metric: str, reference: Reference) -> float | None:
    """What a prediction that knows nothing of the row gets of a metric: a constant, or a coin; None where it is not known."""
    labels = as_numbers(reference.sample["_label"])
    labels = labels[np.isfinite(labels)]
    if not len(labels):
        return None
    share = float(labels.mean())
    if metric in ("log_loss", "brier") and 0 < share < 1:
        if metric == "brier":
            return share * (1 - share)
        return -share * math.log(share) - (1 - share) * math.log(1 - share)
    fixed = {
        "roc_auc": 0.5,
        "pr_auc": share,
        "r2": 0.0,
        "rmse": float(labels.std()) or None,
        "mae": float(np.abs(labels - np.median(labels)).mean()) or None,
    }
    return fixed.get(metric)


def about_usual_windows(model: ModelSpec, reference: Reference) -> str:
    """What the watch on the error can do in windows of the usual number of rows, where that is little; else empty."""
    rows = min(int(reference.usual_rows), model.monitoring.sample_rows)
    found = limit_for(model, reference, max(rows, 1))
    if not found.note:
        return ""
    value = reference.holdout_metrics[model.performance_metric]
    return (
        f"{model.performance_metric} of windows of {rows} rows, as is usual: limit {found.value:.4g} (holdout {value:.4g}); "
        f"{found.note}"
    )


def enough_labels(model: ModelSpec, facts: Facts) -> bool:
    """Whether enough rows of a window have a label and a prediction to judge its error."""
    return facts.enough_labels(model.monitoring.performance.min_labels)


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
    coverage = facts.surely_judgeable / facts.rows if facts.rows else 0.0
    rows = window[["_time", "_label", "_prediction"]].dropna()
    needed = facts.labels_needed(model.monitoring.performance.min_labels)
    # A sample of a larger window has as large a share of them. Where the counts leave no doubt, rows without labels are a fault.
    in_sample = math.ceil(needed * min(1.0, len(window) / max(facts.rows, 1)))
    few = facts.surely_judgeable < needed and len(rows) < in_sample
    if few or not enough_labels(model, facts):
        return _without_labels(model, window, reference, facts, coverage, estimator)
    known = limit_for(model, reference, len(rows))
    limit = known.value
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
            None,
            limit,
            holdout[metric],
            "unreadable",
            True,
            problem,
            coverage=coverage,
            rows=len(rows),
            note=known.note,
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
        known.note,
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
    wanted = facts.labels_needed(model.monitoring.performance.min_labels)
    unscored = facts.rows - facts.scored
    needed = f"{unscored} rows have no prediction, {wanted} with both" if unscored else wanted
    later = "" if facts.due else f" before label.delay ({format_duration(model.label.delay)}) has passed"
    detail = f"{facts.labelled} of {facts.rows} labels are in, {needed} are needed{later}; judged when they are"
    known = limit_for(model, reference, len(window))
    limit = known.value
    made = estimator.estimate(window) if estimator else None
    if made is None:
        return {
            metric: MetricResult(
                None, limit, holdout[metric], "not_yet", detail=detail, coverage=coverage, note=known.note
            )
        }, ()
    known = limit_for(model, reference, made.rows)
    limit = known.value
    between = "" if made.low is None else f" ({made.low:.4g} to {made.high:.4g})"
    detail = (
        f"an estimate without labels ({made.method}): {made.value:.4g}{between} expected on {made.rows} rows; "
        f"holdout {holdout[metric]:.4g}; it does not see a change of what the features mean; {detail}"
    )
    worse = _beyond(metric, made.value, limit)
    result = MetricResult(
        made.value, limit, holdout[metric], "estimated", worse, detail, low=made.low, high=made.high,
        confidence=interval.CONFIDENCE, coverage=coverage, rows=made.rows, note=known.note,
    )  # fmt: skip
    violation = Violation(What.ESTIMATED_PERFORMANCE, metric, metric, made.value, limit, detail)
    return {metric: result}, (violation,) if worse else ()


def _beyond(metric: str, value: float, limit: float) -> bool:
    return value < limit if metric in LARGER_IS_BETTER else value > limit
