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
from evergreen.monitoring import interval, measure
from evergreen.monitoring.estimate import Estimator
from evergreen.monitoring.judgement import MetricResult, Violation, What
from evergreen.monitoring.profile import as_numbers
from evergreen.monitoring.reads import BEYOND
from evergreen.monitoring.reference import Frame, Reference
from evergreen.monitoring.windows import Facts
from evergreen.spec import (
    IN_LABEL_UNITS,
    LARGER_IS_BETTER,
    METRICS,
    ModelSpec,
    format_duration,
    metric_name,
    passable,
)
from evergreen.spec import worse as worse_than
from evergreen.training import compare, weighted
from evergreen.training.metrics import compute

# A metric near zero would leave no room at all: the slack is a share of at least these.
LEAST_SCALE = 0.05
LEAST_SCALE_OF_SPREAD = 0.01
# One-sided: from so sure on a champion counts as worse than the baseline.
SURELY = 0.95
# Windows so many times as long are tried for one whose limit tells a champion from the baseline.
LONGER = (2, 4, 8)
ONLY_NAIVE = (
    "within this limit only a champion that is surely worse than the naive baseline on the same rows is found"
)
NOT_EVEN_NAIVE = "within this limit nothing is found, as monitoring.performance.beat_baseline is off"
ADVICE = "; make monitoring.window longer, or watch another metric"

Floats = npt.NDArray[np.float64]


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
        spread = pd.Series(reference.labelled["_label"].to_pandas()).std()
        least = LEAST_SCALE_OF_SPREAD * float(spread) if math.isfinite(spread) else 0.0
    slack = model.monitoring.performance.max_worse * max(abs(value), least)
    return value - slack if metric in LARGER_IS_BETTER else value + slack


@dataclass(frozen=True)
class Limit:
    """From where on a watched metric is worse.

    Attributes:
        value: the limit.
        learnt: what unchanged windows of that many rows keep to, which may be no value that can occur.
        own: whether it is the spec's `performance.limit`, which is stricter than what was learnt.
        note: a sentence, where chance on so few rows reaches farther than the metric tells anything; else empty.
    """

    value: float
    learnt: float
    note: str = ""
    own: bool = False


def limit_for(model: ModelSpec, reference: Reference, rows: int) -> Limit:
    """The worst value that the watched metric may take in a window of so many labelled rows.

    `limit_of`, or what an unchanged window exceeds with the probability `drift.false_alarms`, whichever is worse. So a
    value beyond it is both large enough to count, and surely no chance: no interval is asked on top, which would
    count the same chance twice. What was learnt of few rows may be a value that no metric can pass: then a coin's (`coin`) is
    the limit, or `limit_of` where the champion itself is hardly better than one. A limit that was bounded so is passed by chance
    more often than the rate says. One that can be passed stands, be it worse than a coin, with a note: whether a window is worse
    than knowing nothing is asked on its own rows (`naive`), with their chance.

    The spec's `performance.limit` holds beside all that, and is the limit where it is the stricter one. It says what is good
    enough, and nothing of chance.

    Args:
        model: the smallest effect, and the rate.
        reference: the champion's.
        rows: with a label and a prediction.
    """
    found, own = _learnt(model, reference, rows), model.monitoring.performance.limit
    stricter = own is not None and worse_than(model.performance_metric, found.value, own)
    return Limit(own, found.learnt, own=True) if own is not None and stricter else found


def _learnt(model: ModelSpec, reference: Reference, rows: int) -> Limit:
    metric, least = model.performance_metric, limit_of(model, reference)
    worse = min if metric in LARGER_IS_BETTER else max
    factor = reference.movement.factor(model.monitoring.drift.false_alarms, rows)
    away = weighted.distance(metric, reference.holdout_metrics[metric])
    learnt = weighted.at_distance(metric, away * factor)
    value, naive = worse(least, learnt), coin(metric, reference, model.cut)
    skilled = None if naive is None or worse(least, naive) != naive else naive
    if passable(metric, value):
        if skilled is None or not worse_than(metric, value, skilled):
            return Limit(value, learnt)
        found = ONLY_NAIVE if model.monitoring.performance.beat_baseline else NOT_EVEN_NAIVE
        said = f"chance alone reaches {learnt:.4g} on {rows} rows, and a coin gets {skilled:.4g}: {found}"
        return Limit(value, learnt, f"{said}{ADVICE}")
    value, what = (least, "max_worse's") if skilled is None else (skilled, "a coin's")
    said = (
        f"what was learnt cannot alarm on so few rows: chance alone reaches {learnt:.4g} on {rows}; the limit is {what}"
        if passable(metric, value)
        else f"cannot alarm on so few rows, nor with this max_worse: no {metric_name(metric)} is worse than {value:.4g}"
    )
    return Limit(value, learnt, f"{said}{ADVICE}")


def limit_at(model: ModelSpec, reference: Reference, rows: int) -> float:
    """The value of `limit_for`."""
    return limit_for(model, reference, rows).value


def coin(metric: str, reference: Reference, cut: float | None = None) -> float | None:
    """What a prediction that knows nothing of the row gets of a metric: a constant, or a coin; None where it is not known."""
    labels = as_numbers(reference.labelled["_label"])
    labels = labels[np.isfinite(labels)]
    if not len(labels):
        return None
    share = float(labels.mean())
    if metric in ("log_loss", "brier") and 0 < share < 1:
        if metric == "brier":
            return share * (1 - share)
        return -share * math.log(share) - (1 - share) * math.log(1 - share)
    # For f1 all rows are said to be 1.
    fixed = {
        "roc_auc": 0.5,
        "pr_auc": share,
        "r2": 0.0,
        "accuracy": max(share, 1 - share),
        "f1": 2 * share / (1 + share),
    }
    if metric in fixed:
        return fixed[metric]
    if metric in ("log_loss", "brier") or (metric == "pinball" and cut is None):
        return None
    constant = np.full(len(labels), _best_constant(metric, labels, cut))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        value = float(weighted.of_sums(metric, weighted.parts(metric, labels, constant, cut).sum(axis=0)))
    return value if math.isfinite(value) and value > 0 else None


def _best_constant(metric: str, labels: Floats, cut: float | None) -> float:
    """Of which constant a regression's error is the smallest: mean, median, quantile; for mape a median by weight."""
    if metric == "rmse":
        return float(labels.mean())
    if metric == "mape":
        known = np.sort(labels[labels != 0])
        with np.errstate(over="ignore"):
            weight = np.cumsum(1.0 / np.abs(known))
        # As much of the error is on either side.
        return (
            float(known[min(int(np.searchsorted(weight, weight[-1] / 2)), len(known) - 1)])
            if len(known)
            else 0.0
        )
    return (
        float(np.quantile(labels, cut or 0.5, method="inverted_cdf"))
        if metric == "pinball"
        else float(np.median(labels))
    )


def about_usual_windows(model: ModelSpec, reference: Reference, rows_learnt: Frame | None = None) -> str:
    """What the watch on the error can do in windows of the usual number of rows, where that is little; else empty.

    `rows_learnt`: what the reference was built from; without them what another window could do is told from its sample.
    """
    metric = model.performance_metric
    rows, found = _usual_limit(model, reference)
    naive = reference.baseline_metrics.get(metric)
    blind = naive is not None and worse_than(metric, found.value, naive)
    strict = too_strict(model, reference.holdout_metrics[metric])
    if not found.note and not blind:
        return strict
    said = (
        f"{metric_name(metric)} of windows of {rows} rows, as is usual: limit {found.value:.4g} (holdout "
        f"{reference.holdout_metrics[metric]:.4g})"
    )
    if found.note:
        said += f"; {found.note}"
    if blind:
        said += (
            f". The naive baseline got {naive:.4g} on the holdout: this limit cannot alarm before the served error is worse "
            "than that"
            + (
                "; each window is held against the baseline on its own rows as well"
                if model.monitoring.performance.beat_baseline
                else ", and monitoring.performance.beat_baseline is off"
            )
            + f". {_what_could(model, reference, rows_learnt)}"
        )
    return f"{said}; {strict}" if strict else said


def too_strict(model: ModelSpec, holdout: float) -> str:
    """That the spec's `performance.limit` is better than the holdout, so that it alarms at once; else empty."""
    metric, own = model.performance_metric, model.monitoring.performance.limit
    if own is None or not worse_than(metric, holdout, own):
        return ""
    return (
        f"monitoring.performance.limit {own:g} is better than the {metric_name(metric)} of the holdout, {holdout:.4g}: it alarms from the "
        "first window on, unless served rows are easier"
    )


def _usual_limit(model: ModelSpec, reference: Reference, longer: float = 1.0) -> tuple[int, Limit]:
    """The usual number of rows that are measured in a window, or in one that is so much longer, and the limit there."""
    rows = max(min(int(reference.usual_labels * longer), model.monitoring.sample_rows), 1)
    return rows, limit_for(model, reference, rows)


def _what_could(model: ModelSpec, reference: Reference, rows_learnt: Frame | None) -> str:
    """Which window, or else which metric, has a limit that tells a champion from the baseline."""
    window, part = model.monitoring.window, model.monitoring.performance
    span = reference.end - reference.start

    def tells(other: ModelSpec) -> Limit | None:
        metric = other.performance_metric
        naive = reference.baseline_metrics.get(metric)
        if naive is None or metric not in reference.holdout_metrics:
            return None
        longer = other.monitoring.window / window
        _, found = _usual_limit(other, reference.moving(other, rows_learnt), longer)
        return None if found.note or worse_than(metric, found.value, naive) else found

    def changed(**what: object) -> ModelSpec:
        return model.model_copy(update={"monitoring": model.monitoring.model_copy(update=what)})

    for times in LONGER:
        if window * times * 2 <= span and (found := tells(changed(window=window * times))):
            return f"With monitoring.window: {format_duration(window * times)} the limit would be {found.value:.4g}"
    for metric in METRICS[model.task]:
        other = changed(performance=part.model_copy(update={"metric": metric, "limit": None}))
        if metric != model.performance_metric and (found := tells(other)):
            naive = reference.baseline_metrics[metric]
            return f"With monitoring.performance.metric: {metric} the limit would be {found.value:.4g} (baseline {naive:.4g})"
    return "No longer window and no other metric of these rows could; more history or a longer training.holdout may"


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
    value, served = (weighted.value(metric, y, of, model.cut) for of in (said, p))
    if not math.isfinite(value):
        return Naive(None)
    if not worse_than(metric, served, value):
        return Naive(value)
    found = compare.improvement(
        metric, times, y, p, said, confidence=SURELY, seed=model.training.seed, cut=model.cut
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
    facts: Facts,
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
