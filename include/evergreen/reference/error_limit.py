"""From where on the error of a window's served predictions counts as worse, and what the watch on it can do at all.

The learnt limit says what chance may do to a window of so many rows; it follows from how much the error moved between quiet windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from evergreen.metrics import resampled
from evergreen.reference.frame import Frame
from evergreen.reference.profile import as_numbers
from evergreen.reference.reference import Reference
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

# A metric near zero would leave no room at all: the slack is a share of at least these.
LEAST_SCALE = 0.05

LEAST_SCALE_OF_SPREAD = 0.01


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
    away = resampled.distance(metric, reference.holdout_metrics[metric])
    learnt = resampled.at_distance(metric, away * factor)
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
        f"what was learnt cannot alarm on so few rows: chance alone reaches {_reached(metric, learnt)} on {rows}; the limit is {what}"
        if passable(metric, value)
        else f"cannot alarm on so few rows, nor with this max_worse: no {metric_name(metric)} is worse than {value:.4g}"
    )
    return Limit(value, learnt, f"{said}{ADVICE}")


def _reached(metric: str, learnt: float) -> str:
    """What chance reaches, in words: a value that the metric cannot have tells a person nothing."""
    return f"{learnt:.4g}" if passable(metric, learnt) else f"any {metric_name(metric)}"


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
        value = float(resampled.of_sums(metric, resampled.parts(metric, labels, constant, cut).sum(axis=0)))
    return value if math.isfinite(value) and value > 0 else None


def _best_constant(metric: str, labels: Floats, cut: float | None) -> float:
    """Of which constant a regression's error is the smallest: mean, median, quantile; for mape a median by weight.

    Raises:
        ValueError: a metric of which that is not known.
    """
    if metric == "rmse":
        return float(labels.mean())
    if metric in ("mae", "wape"):
        return float(np.median(labels))
    if metric == "pinball":
        return float(np.quantile(labels, cut or 0.5, method="inverted_cdf"))
    if metric == "mape":
        known = np.sort(labels[labels != 0])
        if not len(known):
            return 0.0
        with np.errstate(over="ignore"):
            weight = np.cumsum(1.0 / np.abs(known))
        # As much of the error is on either side.
        return float(known[min(int(np.searchsorted(weight, weight[-1] / 2)), len(known) - 1)])
    raise ValueError(f"of {metric} no best constant is known")


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
