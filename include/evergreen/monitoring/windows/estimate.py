"""What a window's metric is expected to be before its labels are in, from the rows alone. An estimate is never a judgement.

Two methods, those that NannyML made known; `docs/late-labels.md` says why they are written here and not imported:

- *binary*: confidence-based performance estimation. The served probabilities are calibrated; the calibrated ones then stand
  for the labels, and the metric is what it is expected to be of labels drawn with them (Bialek, Kuberski, Perrakis,
  Bifet 2024, "Estimating Model Performance Under Covariate Shift Without Labels", arXiv 2401.08348). They are calibrated
  by a curve of three parameters (beta calibration: Kull, Silva Filho, Flach 2017, AISTATS), not by isotonic
  regression: its ends are certain of what they have never seen, and log loss asks about the ends.
- *regression*: direct loss estimation. A second model learns from the features and the prediction how large the error of
  a row is (squared, or absolute for mae and wape, a share of the label for mape, the quantile's for pinball; NannyML's
  documentation, "Direct Loss Estimation").

Both learn from predictions of rows that the predicting model had not learnt. The errors of such models are larger than
the champion's, so the second method is scaled to be right on the holdout. Both see rows move to where the model is known to err more. Neither can see that the same rows have come to
mean something else (concept drift): only labels tell that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from evergreen import settings
from evergreen.metrics import interval, paired_bootstrap, resampled
from evergreen.metrics.resampled import Statistic
from evergreen.reference.reference import Reference
from evergreen.spec import ModelSpec

# So few rows say nothing about where the model errs.
LEAST_ROWS = 200
ROUNDS = 100
PARAMS = {"max_depth": 4, "learning_rate": 0.1, "min_child_weight": 20, "tree_method": "hist", "seed": 7}
NOTHING = 1e-12

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An expected metric; the interval is of the rows, not of the method's own error."""

    value: float
    low: float | None
    high: float | None
    rows: int
    method: str


@dataclass(frozen=True)
class FittedCurve:
    """The curve expit(a ln p - b ln(1 - p) + c), which never falls."""

    a: float
    b: float
    c: float

    @classmethod
    def fit(cls, p: Floats, y: Floats) -> FittedCurve:
        """The curve of the largest likelihood.

        Args:
            p: probabilities.
            y: labels of both classes, 0 or 1.
        """
        up, down = _logs(p)

        def lost(at: Floats) -> tuple[float, Floats]:
            z = at[0] * up - at[1] * down + at[2]
            off = expit(z) - y
            slope = np.array([(off * up).mean(), -(off * down).mean(), off.mean()])
            return -float((y * log_expit(z) + (1 - y) * log_expit(-z)).mean()), slope

        found = minimize(
            lost, np.array([1.0, 1.0, 0.0]), jac=True, bounds=[(0, None), (0, None), (None, None)]
        )
        return cls(*map(float, found.x))

    def __call__(self, p: Floats) -> Floats:
        """Calibrated probabilities."""
        up, down = _logs(p)
        return np.asarray(expit(self.a * up - self.b * down + self.c))


@dataclass(frozen=True)
class Estimator:
    """What was learnt of a champion's errors.

    Attributes:
        model: names metric and features.
        reference: the champion's.
        learnt: calibration of the probabilities, or the model of the errors.
        scale: what the estimated distance from perfect is multiplied by.
    """

    model: ModelSpec
    reference: Reference
    learnt: FittedCurve | xgb.Booster
    scale: float = 1.0

    @property
    def method(self) -> str:
        """The method's name."""
        return "CBPE" if self.model.task == "binary" else "DLE"

    def estimate(self, window: pd.DataFrame) -> Estimate | None:
        """The metric that is expected of a window; None where it is not defined for its rows.

        Args:
            window: rows with `_time`, the features and `_prediction`; those without a prediction do not count.
        """
        rows = window[window["_prediction"].notna()]
        if rows.empty:
            return None
        metric = self.model.performance_metric
        where, moments = paired_bootstrap.cells(pd.DatetimeIndex(rows["_time"]).asi8)
        statistic = self._statistic(rows, where)
        value = float(statistic(np.ones((1, int(where.max()) + 1)))[0])
        if not math.isfinite(value):
            return None
        ends = interval.of(statistic, where, moments, seed=self.model.training.seed)
        low, high = (None if end is None else self._scaled(metric, end) for end in ends)
        return Estimate(self._scaled(metric, value), low, high, len(rows), self.method)

    def _scaled(self, metric: str, value: float) -> float:
        return resampled.at_distance(metric, resampled.distance(metric, value) * self.scale)

    def _statistic(self, rows: pd.DataFrame, where: npt.NDArray[np.int64]) -> Statistic:
        metric, p = self.model.performance_metric, rows["_prediction"].to_numpy(dtype=np.float64)
        if isinstance(self.learnt, FittedCurve):
            return resampled.statistic(metric, where, self.learnt(p), p, self.model.cut)
        loss = np.maximum(self.learnt.predict(_matrix(self.model, self.reference, rows, p)), 0.0)
        loss = loss.astype(np.float64)
        # Of an unbiased prediction the labels' square is the prediction's and the error's; what of the labels' size (wape) is not
        # the prediction's, the holdout's scale takes up.
        middle = p - p.mean()
        return resampled.of_parts(
            metric, where, resampled.of_loss(metric, loss, middle if metric == "r2" else p, middle**2 + loss)
        )


def fit(model: ModelSpec, reference: Reference) -> Estimator | None:
    """Learn how large the champion's errors are where; None where its reference has too few rows for that.

    Args:
        model: names metric, task and features.
        reference: the champion's; its sample holds predictions of models that had not learnt the rows.
    """
    sample = reference.labelled.to_pandas().replace([np.inf, -np.inf], np.nan)
    known = sample[sample["_outside"].notna() & sample["_label"].notna()]
    if len(known) < LEAST_ROWS:
        return None
    # Of the holdout the champion's own predictions count; it had not learnt them either.
    held = known["_time"] > known["_time"].max() - model.training.holdout
    y = known["_label"].to_numpy(dtype=np.float64)
    p = known["_outside"].where(~held, known["_prediction"]).to_numpy(dtype=np.float64)
    if model.task == "binary":
        if len(np.unique(y)) < 2:
            return None
        return Estimator(model, reference, FittedCurve.fit(p, y))
    loss = resampled.losses(model.performance_metric, y, p, model.cut)
    if model.performance_metric == "mape":  # of a label of 0 no share is known
        known, p, loss = known[y != 0], p[y != 0], loss[y != 0]
        held = held[y != 0]
        if len(known) < LEAST_ROWS:
            return None
    params = {**PARAMS, "nthread": settings.THREADS.number()}
    learnt = xgb.train(params, _matrix(model, reference, known, p, loss), ROUNDS)
    made = Estimator(model, reference, learnt)
    return Estimator(model, reference, learnt, _scale(made, known[held]))


def _logs(p: Floats) -> tuple[Floats, Floats]:
    inside = np.clip(p, resampled.TINY, 1 - resampled.TINY)
    return np.log(inside), np.log1p(-inside)


def _scale(made: Estimator, held: pd.DataFrame) -> float:
    """By what the estimate of the holdout is to be multiplied to be the holdout's metric; 1 where few of its rows are kept."""
    metric = made.model.performance_metric
    if len(held) < LEAST_ROWS // 4:
        return 1.0
    where = np.zeros(len(held), dtype=np.int64)
    value = float(made._statistic(held, where)(np.ones((1, 1)))[0])
    away = resampled.distance(metric, value)
    true = resampled.distance(metric, made.reference.holdout_metrics[metric])
    return true / away if math.isfinite(away) and away > NOTHING and true > NOTHING else 1.0


def _matrix(
    model: ModelSpec, reference: Reference, rows: pd.DataFrame, p: Floats, loss: Floats | None = None
) -> xgb.DMatrix:
    numbers = rows[list(model.features.numeric)].to_numpy(dtype=np.float32, na_value=np.nan)
    codes = []
    for name in model.features.categorical:
        profile = reference.columns.get(name)
        known = pd.Index(profile.categories or () if profile else ())
        found = known.get_indexer(rows[name]).astype(np.float32)
        codes.append(np.where(found < 0, np.nan, found))
    columns = np.column_stack([numbers, *codes, p.astype(np.float32)])
    types = ["q"] * numbers.shape[1] + ["c"] * len(codes) + ["q"]
    return xgb.DMatrix(columns, loss, feature_types=types, enable_categorical=True)
