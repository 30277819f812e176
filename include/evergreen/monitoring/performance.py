"""The error of the predictions that were served, against the champion's error on its holdout."""

from __future__ import annotations

import math

import pandas as pd

from evergreen.errors import TerminalError
from evergreen.monitoring.judgement import MetricResult, Violation, What
from evergreen.monitoring.reference import Reference
from evergreen.monitoring.windows import Facts
from evergreen.spec import LARGER_IS_BETTER, ModelSpec
from evergreen.training.metrics import compute

# A metric near zero would leave no room at all: the slack is a share of at least these.
LEAST_SCALE = 0.05
LEAST_SCALE_OF_SPREAD = 0.01
IN_LABEL_UNITS = ("rmse", "mae")


def limit_of(model: ModelSpec, reference: Reference) -> float:
    """The worst value that the watched metric may take.

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


def enough_labels(model: ModelSpec, facts: Facts) -> bool:
    """Whether the labels of a window suffice to judge its error."""
    return facts.rows > 0 and facts.labelled >= model.monitoring.performance.min_labels * facts.rows


def judge(
    model: ModelSpec, window: pd.DataFrame, reference: Reference, facts: Facts
) -> tuple[dict[str, MetricResult], tuple[Violation, ...]]:
    """Judge the served predictions of a window.

    With too few labels the watched metric is recorded as `not_yet`, which is neither good nor bad. A metric that
    these rows do not allow (one class only) is a violation without a value.

    Args:
        model: its metric, its settings.
        window: rows with `_label` and `_prediction`.
        reference: the champion's.
        facts: counts of the whole window.

    Returns:
        The metrics by name, and the violations.
    """
    metric, limit = model.performance_metric, limit_of(model, reference)
    holdout = reference.holdout_metrics
    if not enough_labels(model, facts):
        wanted = math.ceil(model.monitoring.performance.min_labels * facts.rows)
        detail = f"{facts.labelled} of {facts.rows} labels are in, {wanted} are needed; judged when they are"
        return {metric: MetricResult(None, limit, holdout[metric], "not_yet", detail=detail)}, ()
    rows = window[["_label", "_prediction"]].dropna()
    problem = f"{metric} is not defined on these {len(rows)} rows (one class, or all labels equal)"
    try:
        values = (
            compute(model.task, rows["_label"].to_numpy(), rows["_prediction"].to_numpy())
            if len(rows)
            else {}
        )
    except TerminalError as error:
        values, problem = {}, str(error)
    metrics = {n: MetricResult(v, None, holdout.get(n), "shown") for n, v in values.items()}
    if metric not in values:
        metrics[metric] = MetricResult(None, limit, holdout[metric], "unreadable", True, problem)
        return metrics, (Violation(What.UNREADABLE, "_label", metric, None, limit, problem),)
    value = values[metric]
    worse = value < limit if metric in LARGER_IS_BETTER else value > limit
    detail = f"on {len(rows)} rows; holdout {holdout[metric]:.4g}"
    metrics[metric] = MetricResult(value, limit, holdout[metric], "judged", worse, detail)
    return metrics, (Violation(What.PERFORMANCE, metric, metric, value, limit, detail),) if worse else ()
