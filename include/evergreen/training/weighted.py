"""A metric of one model as a function of how often each cell of rows is drawn: what a bootstrap asks for.

For binary the metrics are linear in the label, so a label may be a probability: the value is then the metric that is
expected of labels drawn with it.
"""

from __future__ import annotations

import numpy as np

from evergreen.spec import LARGER_IS_BETTER
from evergreen.training import ranking
from evergreen.training.compare import Statistic

TINY = np.finfo(np.float64).eps
# At a time, so that the tables of ranking metrics stay small.
CHUNK = 250


def losses(metric: str, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """What each row adds to an error, before the mean (and for rmse the root) is taken; r2's are the squared errors.

    Args:
        metric: one of `spec.METRICS` that is no ranking metric.
        y: labels; for binary 0 to 1.
        p: predictions.
    """
    if metric == "mae":
        return np.abs(y - p)
    if metric == "log_loss":
        q = np.clip(p, TINY, 1.0 - TINY)
        return -(y * np.log(q) + (1.0 - y) * np.log(1.0 - q))
    if metric == "brier":
        return y * (1.0 - p) ** 2 + (1.0 - y) * p**2
    return (y - p) ** 2


def statistic(metric: str, where: np.ndarray, y: np.ndarray, p: np.ndarray) -> Statistic:
    """The metric by resample, for weights (resamples, cells); NaN where it is not defined.

    Args:
        metric: one of `spec.METRICS`.
        where: the cell of each row.
        y: labels.
        p: predictions.
    """
    if metric in ranking.RANKED:
        up, down = ranking.table(p, y, where)

        def ranked(weights: np.ndarray) -> np.ndarray:
            parts = (weights[at : at + CHUNK] for at in range(0, len(weights), CHUNK))
            return np.concatenate([ranking.value(metric, up, down, part) for part in parts])

        return ranked
    return of_losses(metric, where, losses(metric, y, p), y, y**2)


def of_losses(
    metric: str, where: np.ndarray, loss: np.ndarray, labels: np.ndarray, squares: np.ndarray
) -> Statistic:
    """The same from each row's loss, for metrics that are no ranking metrics.

    Args:
        metric: which one.
        where: the cell of each row.
        loss: see `losses`.
        labels: known or expected; r2 alone asks for them.
        squares: of the labels, known or expected.
    """
    count = int(where.max()) + 1
    sums = np.stack(
        [np.bincount(where, v, count) for v in (loss, np.ones(len(loss)), labels, squares)], axis=1
    )

    def found(weights: np.ndarray) -> np.ndarray:
        lost, rows, first, second = (weights @ sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            if metric == "r2":
                return np.asarray(1.0 - lost / (second - first**2 / rows))
            return np.asarray((lost / rows) ** (0.5 if metric == "rmse" else 1.0))

    return found


def distance(metric: str, value: float) -> float:
    """How far a value is from perfect, which is 1 for r2, roc_auc and pr_auc, and 0 for errors."""
    return 1.0 - value if metric in LARGER_IS_BETTER else value


def at_distance(metric: str, distance: float) -> float:
    """The value at a distance from perfect."""
    return 1.0 - distance if metric in LARGER_IS_BETTER else distance
