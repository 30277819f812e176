"""The error of the predictions that were served, against the champion's error on its holdout and against a naive baseline.

The learnt limit says what chance may do to an unchanged champion; where little is known, that is much, and may be more than
what a forecast without a model gets wrong. So each window is held against the naive baseline on the same rows, too (`naive`):
a champion that is surely worse than it is not worth serving, whatever its limit is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from evergreen.errors import TerminalError
from evergreen.metrics import interval, paired_bootstrap, resampled
from evergreen.metrics.metric_values import compute
from evergreen.monitoring.windows import measure
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.estimate import Estimator
from evergreen.monitoring.windows.judgement import MetricResult, Violation, What
from evergreen.monitoring.windows.reads import BEYOND
from evergreen.reference.error_limit import limit_at, limit_for, limit_of
from evergreen.reference.profile import as_numbers
from evergreen.reference.reference import Reference
from evergreen.spec import (
    ModelSpec,
    format_duration,
    metric_name,
)
from evergreen.spec import worse as worse_than

# One-sided: from so sure on a champion counts as worse than the baseline.
SURELY = 0.95

Floats = npt.NDArray[np.float64]


def enough_labels(model: ModelSpec, facts: WindowFacts) -> bool:
    """Whether enough rows of a window have a label and a prediction to judge its error."""
    return facts.enough_labels(model.monitoring.performance.min_labels)


def served_by_another(window: pd.DataFrame, version: str) -> bool:
    """Whether another version served most rows of a window; their error is then not this one's."""
    return bool((window["_version"].dropna() != version).mean() > 0.5)


def judge_error(
    model: ModelSpec,
    window: pd.DataFrame,
    reference: Reference,
    facts: WindowFacts,
    estimator: Estimator | None = None,
) -> tuple[dict[str, MetricResult], tuple[Violation, ...]]:
    """Judge the served predictions of a window.

    With too few labels the watched metric is recorded as `not_yet`, which is neither good nor bad, or as `estimated`
    where there is an estimator. A metric that these rows do not allow (one class only) is a violation without a value.

    Args:
        model: its metric, its settings.
        window: rows with `_time`, `_label`, `_prediction` and `_baseline` (what the naive baseline said; NaN, or
            no such column: the mean of the reference's labels); for an estimate the features, too.
        reference: the champion's.
        facts: counts of the whole window.
        estimator: what estimates a metric without labels (`estimate.fit`); None: nothing is estimated.

    Returns:
        The metrics by name, and the violations.
    """
    metric, holdout = model.performance_metric, reference.holdout_metrics
    coverage = facts.surely_judgeable / facts.rows if facts.rows else 0.0
    rows = window.dropna(subset=["_time", "_label", "_prediction"])
    needed = facts.labels_needed(model.monitoring.performance.min_labels)
    # A sample of a larger window has as large a share of them. Where the counts leave no doubt, rows without labels are a fault.
    asked, of = len(window), facts.rows
    if BEYOND in window:  # it holds all rows with a label, or a sample of those
        asked, of = int(window["_label"].notna().sum()), facts.labelled
    in_sample = math.ceil(needed * min(1.0, asked / max(of, 1)))
    few = facts.surely_judgeable < needed and len(rows) < in_sample
    if few or not enough_labels(model, facts):
        return _without_labels(model, measure.sampled(window), reference, facts, coverage, estimator)
    known = limit_for(model, reference, len(rows))
    limit: float | None = known.value
    problem = (
        f"{metric_name(metric)} is not defined on these {len(rows)} rows (one class, or all labels equal)"
    )
    y, p = (rows[name].to_numpy(dtype=float) for name in ("_label", "_prediction"))
    try:
        values = compute(model.task, y, p, model.cut) if len(rows) else {}
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
            limit_set=known.own,
        )
        return metrics, (Violation(What.UNREADABLE, "_label", metric, None, limit, problem),)
    worse, own = worse_than(metric, values[metric], known.value), known.own
    times = pd.DatetimeIndex(rows["_time"]).asi8
    said = rows["_baseline"].to_numpy(dtype=float) if "_baseline" in rows else np.full(len(y), np.nan)
    bar = naive(model, reference, times, y, p, said)
    if bar.surely_worse and model.monitoring.performance.beat_baseline and not worse:
        worse, limit, own = True, bar.value, False
    low, high = interval.interval(metric, times, y, p, seed=model.training.seed, cut=model.cut)
    between = "" if low is None else f" ({low:.4g} to {high:.4g} with {interval.CONFIDENCE:.0%} confidence)"
    detail = (
        f"{values[metric]:.4g}{between} on {len(rows)} rows, {coverage:.0%} of the window's have label and prediction; "
        f"holdout {holdout[metric]:.4g}"
    )
    if bar.value is not None:
        detail += f"; the naive baseline got {bar.value:.4g} on these rows"
    if own:
        detail += f"; limit {known.value:g} (set in the spec)"
    if bar.surely_worse:
        detail += f", the served predictions are surely ({SURELY:.0%}) worse than that"
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
        bar.value,
        own,
        limit_of(model, reference),
    )
    violation = Violation(What.PERFORMANCE, metric, metric, values[metric], limit, detail)
    return metrics, (violation,) if worse else ()


@dataclass(frozen=True)
class Naive:
    """The naive baseline's value on a window's rows (None where it has none), and whether the served error is surely worse."""

    value: float | None
    surely_worse: bool = False


def naive(
    model: ModelSpec, reference: Reference, times: npt.NDArray[np.int64], y: Floats, p: Floats, said: Floats
) -> Naive:
    """Hold served predictions against the naive baseline on the same rows.

    Surely worse: with a confidence of `SURELY` by the comparison that the gate makes (`training.compare`), one-sided.

    Args:
        model: its metric, its seed.
        reference: the champion's; the mean of its labels stands for the baseline where it knows nothing.
        times: event times, ascending, in any integer unit.
        y, p, said: labels, predictions and the baseline's predictions of the rows; NaN among the last: the mean.
    """
    metric = model.performance_metric
    labels = as_numbers(reference.labelled["_label"])
    mean = float(labels[np.isfinite(labels)].mean()) if np.isfinite(labels).any() else math.nan
    said = np.where(np.isnan(said), mean, said)
    if not np.isfinite(said).all():
        return Naive(None)
    value, served = (resampled.value(metric, y, of, model.cut) for of in (said, p))
    if not math.isfinite(value):
        return Naive(None)
    if not worse_than(metric, served, value):
        return Naive(value)
    found = paired_bootstrap.improvement(
        paired_bootstrap.Paired(metric, times, y, p, said, model.cut),
        confidence=SURELY,
        seed=model.training.seed,
    )
    return Naive(value, found.high is not None and found.high < 0)


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
    facts: WindowFacts,
    coverage: float,
    estimator: Estimator | None,
) -> tuple[dict[str, MetricResult], tuple[Violation, ...]]:
    metric, holdout = model.performance_metric, reference.holdout_metrics
    wanted = facts.labels_needed(model.monitoring.performance.min_labels)
    unscored = facts.rows - facts.scored
    needed = f"{unscored} rows have no prediction, {wanted} with both" if unscored else wanted
    later = "" if facts.due else f" before label.delay ({format_duration(model.label.delay)}) has passed"
    detail = (
        f"{facts.labelled} of {facts.rows} labels are in, {needed} are needed{later}; judged when they are"
    )
    known = limit_for(model, reference, len(window))
    limit = known.value
    made = estimator.estimate(window) if estimator else None
    if made is None:
        return {
            metric: MetricResult(
                None,
                limit,
                holdout[metric],
                "not_yet",
                detail=detail,
                coverage=coverage,
                note=known.note,
                limit_set=known.own,
            )
        }, ()
    known = limit_for(model, reference, made.rows)
    limit = known.value
    between = "" if made.low is None else f" ({made.low:.4g} to {made.high:.4g})"
    detail = (
        f"an estimate without labels ({made.method}): {made.value:.4g}{between} expected on {made.rows} rows; "
        f"holdout {holdout[metric]:.4g}; it does not see a change of what the features mean; {detail}"
        + (f"; limit {limit:g} (set in the spec)" if known.own else "")
    )
    worse = worse_than(metric, made.value, limit)
    result = MetricResult(
        made.value, limit, holdout[metric], "estimated", worse, detail, low=made.low, high=made.high,
        confidence=interval.CONFIDENCE, coverage=coverage, rows=made.rows, note=known.note, limit_set=known.own,
    )  # fmt: skip
    violation = Violation(What.ESTIMATED_PERFORMANCE, metric, metric, made.value, limit, detail)
    return {metric: result}, (violation,) if worse else ()
