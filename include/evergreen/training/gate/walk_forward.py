"""Predicts the holdout in steps, each by a fit that has learnt what was known when the step began.

A challenger that is judged on the newest fortnight has learnt nothing of it, while the champion, fitted again on all its rows
when it was promoted, has often learnt part of that fortnight or what lies just before it. The older challenger would then lose
to the newer champion, although the model that would serve, fitted again on everything, is newer than both. So where a challenger
does not pass at once, the holdout is walked through: its first part is predicted by the judged fit, each later part by a fit with
the same parameters and rounds on all rows whose label was mature when that part began (forward validation on a rolling origin:
Tashman 2000, International Journal of Forecasting 16). No row is predicted by a fit that has learnt it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xgboost as xgb

from evergreen.microseconds import in_micros
from evergreen.spec import ModelSpec
from evergreen.training.data.matrix import Matrix
from evergreen.training.data.split import Split
from evergreen.training.fitting.local import Boosted, Labelled


@dataclass(frozen=True)
class Walked:
    """Predictions for the holdout rows in their order.

    Attributes:
        prediction: one a row.
        steps: how many parts there were.
        learnt_until, begin: newest event time that a step's fit had learnt, and where that step begins, of the step where they are
            nearest to each other; microseconds since 1970 (UTC).
    """

    prediction: np.ndarray
    steps: int
    learnt_until: int
    begin: int


def at_once(parts: Split, prediction: np.ndarray) -> Walked:
    """The holdout in one step, as the judged fit predicts it."""
    return Walked(prediction, 1, int(parts.training.times.max()), int(parts.holdout.times.min()))


def walk(
    model: ModelSpec,
    parts: Split,
    matrix: Matrix,
    booster: xgb.Booster,
    prediction: np.ndarray,
    fit_again: Callable[[Labelled], Boosted],
) -> Walked:
    """Walk through the holdout in `training.holdout_steps` steps of the same length of time.

    Args:
        model: what the judged fit was made by.
        parts: the rows.
        matrix: the same, encoded.
        booster: the judged fit.
        prediction: its predictions for the holdout.
        fit_again: fits rows by the parameters and rounds of the judged fit.
    """
    times, labels = parts.rows.times, parts.rows.labels
    first, delay = len(parts.rows) - len(parts.holdout), in_micros(model.label.delay)
    begin, length = int(times[first]), int(times[-1]) + 1 - int(times[first])
    count = model.training.holdout_steps
    edges = [int(np.searchsorted(times, begin + n * length // count, "left")) for n in range(count)]
    edges = [first, *sorted({e for e in edges if first < e < len(times)}), len(times)]
    found, learnt = prediction.copy(), len(parts.training)
    nearest = (int(times[learnt - 1]), begin)
    for at, end in pairwise(edges[1:]):
        # As the training part ends before the holdout, see `split`.
        known = min(at, int(np.searchsorted(times, int(times[at]) - delay, "right")))
        if known > learnt:
            data = Labelled(matrix.part(0, known), labels[:known])
            booster, learnt = fit_again(data).booster, known
        found[at - first : end - first] = matrix.part(at, end).predict(booster)
        nearest = min(nearest, (int(times[learnt - 1]), int(times[at])), key=lambda n: n[1] - n[0])
    return Walked(found, len(edges) - 1, *nearest)
