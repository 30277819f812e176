"""A metric of one model as a function of how often each cell of rows is drawn: what a bootstrap asks for.

All but the ranking metrics are functions of a few sums over the rows (`parts`, `of_sums`), such as the squared errors and the
number of rows. For binary the sums are linear in the label, so a label may be a probability: the value is then the metric that
is expected of labels drawn with it (for f1 that of the expected sums).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from evergreen.metrics import ranking
from evergreen.spec import LARGER_IS_BETTER, THRESHOLD

Floats = npt.NDArray[np.float64]
Statistic = Callable[[np.ndarray], np.ndarray]

TINY = np.finfo(np.float64).eps
# At a time, so that the tables of ranking metrics stay small.
CHUNK = 250


def losses(metric: str, y: Floats, p: Floats, cut: float | None = None) -> Floats:
    """What each row adds to an error, before the mean (and for rmse the root) is taken; r2's are the squared errors.

    wape's are the absolute errors, which are divided by the labels' sizes in the sum; mape's are 0 for a label of 0, whose row does
    not count; accuracy's are 1 for a row on the wrong side of the threshold.

    Args:
        metric: one of `spec.METRICS` that is no ranking metric and not f1, which is no sum over rows.
        y: labels; for binary 0 to 1.
        p: predictions.
        cut: `ModelSpec.cut`.

    Raises:
        ValueError: f1, a metric of which no loss is known, or pinball without a quantile.
    """
    if metric in ("rmse", "r2"):
        return (y - p) ** 2
    if metric in ("mae", "wape"):
        return np.abs(y - p)
    if metric == "mape":
        return np.divide(np.abs(y - p), np.abs(y), out=np.zeros(len(y)), where=y != 0)
    if metric == "pinball":
        quantile = _quantile(cut)
        return np.where(y >= p, quantile * (y - p), (1.0 - quantile) * (p - y))
    if metric == "log_loss":
        q = np.clip(p, TINY, 1.0 - TINY)
        return -(y * np.log(q) + (1.0 - y) * np.log(1.0 - q))
    if metric == "brier":
        return y * (1.0 - p) ** 2 + (1.0 - y) * p**2
    if metric == "accuracy":
        return np.where(p >= _threshold(cut), 1.0 - y, y)
    raise ValueError(f"{metric} is no sum over rows that is known here")


def parts(metric: str, y: np.ndarray, p: np.ndarray, cut: float | None = None) -> np.ndarray:
    """What the sums of which a metric is a function are over: a column for each sum, a row for each row.

    Args:
        metric: one of `spec.METRICS` that is no ranking metric.
        y: labels; for binary 0 to 1.
        p: predictions.
        cut: `ModelSpec.cut`.
    """
    if metric == "f1":
        said = p >= _threshold(cut)
        return np.stack([2.0 * np.where(said, y, 0.0), np.where(said, 1.0 - y, y)], axis=1)
    labels = y - y.mean() if metric == "r2" else y
    return of_loss(metric, losses(metric, y, p, cut), labels, labels**2)


def of_loss(metric: str, loss: np.ndarray, labels: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """The same from each row's loss, see `losses`; `labels` are known or expected, `squares` are theirs (r2 asks for them)."""
    one = np.ones(len(loss))
    if metric == "r2":
        return np.stack([loss, one, labels, squares], axis=1)
    if metric == "wape":
        return np.stack([loss, np.abs(labels)], axis=1)
    if metric == "mape":
        return np.stack([loss, (labels != 0).astype(np.float64)], axis=1)
    return np.stack([loss, one], axis=1)


def of_sums(metric: str, sums: np.ndarray) -> np.ndarray:
    """The metric from the sums of `parts`, the last axis; NaN where it is not defined."""
    first, second = sums[..., 0], sums[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "r2":
            labels, squares = sums[..., 2], sums[..., 3]
            return np.asarray(1.0 - first / (squares - labels**2 / second))
        if metric == "f1":
            return np.asarray(first / (first + second))
        share = np.where(second > 0, first / second, np.nan)
        if metric == "accuracy":
            return np.asarray(1.0 - share)
        return np.asarray(share**0.5 if metric == "rmse" else share)


def statistic(
    metric: str, where: np.ndarray, y: np.ndarray, p: np.ndarray, cut: float | None = None
) -> Statistic:
    """The metric by resample, for weights (resamples, cells); NaN where it is not defined.

    Args:
        metric: one of `spec.METRICS`.
        where: the cell of each row.
        y: labels.
        p: predictions.
        cut: `ModelSpec.cut`.
    """
    if metric in ranking.RANKED:
        up, down = ranking.table(p, y, where)

        def ranked(weights: np.ndarray) -> np.ndarray:
            some = (weights[at : at + CHUNK] for at in range(0, len(weights), CHUNK))
            return np.concatenate([ranking.value(metric, up, down, part) for part in some])

        return ranked
    return of_parts(metric, where, parts(metric, y, p, cut))


def value(metric: str, y: np.ndarray, p: np.ndarray, cut: float | None = None) -> float:
    """The metric of some rows; NaN where it is not defined. Arguments as in `statistic`."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(statistic(metric, np.zeros(len(y), dtype=np.int64), y, p, cut)(np.ones((1, 1)))[0])


def of_parts(metric: str, where: np.ndarray, each: np.ndarray) -> Statistic:
    """The same from each row's parts, see `parts`."""
    sums = by_cell(where, each)
    return lambda weights: of_sums(metric, weights @ sums)


def by_cell(where: np.ndarray, each: np.ndarray) -> np.ndarray:
    """The sums of each row's parts by cell."""
    count = int(where.max()) + 1
    return np.stack([np.bincount(where, column, count) for column in each.T], axis=1)


def distance(metric: str, value: float) -> float:
    """How far a value is from perfect, which is 1 for r2, areas, accuracy and f1, and 0 for errors."""
    return 1.0 - value if metric in LARGER_IS_BETTER else value


def at_distance(metric: str, distance: float) -> float:
    """The value at a distance from perfect."""
    return 1.0 - distance if metric in LARGER_IS_BETTER else distance


def _threshold(cut: float | None) -> float:
    return THRESHOLD if cut is None else cut


def _quantile(cut: float | None) -> float:
    if cut is None:
        raise ValueError("pinball needs a quantile")
    return cut
