"""Scores candidates on the validation folds: fitted as the challenger will be, each on the same rows.

Folds differ in how hard they are, so a candidate's error (the metric's distance from perfect) is taken relative to the
reference candidate's on the same fold, and the folds' ratios are averaged geometrically.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np

from evergreen.errors import TerminalError, in_one_line
from evergreen.metrics import metric_values, resampled
from evergreen.metrics.paired_bootstrap import Improvement, Paired, improvement
from evergreen.progress import Progress
from evergreen.registry.encoding import Encoding
from evergreen.spec import ModelSpec, format_duration
from evergreen.training.data.folds import Fold, first_row
from evergreen.training.fitting.fit import fit
from evergreen.training.fitting.local import Labelled
from evergreen.training.fitting.machine import Machine
from evergreen.training.search import other_learners

log = logging.getLogger(__name__)

XGBOOST = "xgboost"


@dataclass(frozen=True)
class Candidate:
    """What could be trained: a learner, its window, its parameters, and where these come from."""

    kind: str
    source: str
    window: timedelta | Literal["all"]
    params: dict[str, Any]

    @property
    def window_text(self) -> str:
        """The window as the spec writes it."""
        return self.window if isinstance(self.window, str) else format_duration(self.window)


@dataclass(frozen=True)
class Scored:
    """A candidate on the folds, newest first.

    `values` is the gate's metric on each fold; fewer than there are folds if it was given up early, and then
    `problem` says why. `rounds` of the fits; `seconds` of all of it. `predictions` of the folds' rows.
    """

    candidate: Candidate
    values: tuple[float, ...]
    rounds: tuple[int, ...]
    seconds: float
    problem: str = ""
    predictions: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)

    @property
    def mean(self) -> float | None:
        """The metric's plain mean over the folds; None for one without a value on each."""
        return float(np.mean(self.values)) if self.values and not self.problem else None


@dataclass(frozen=True)
class Validation:
    """The rows of a training part, its folds (newest first), and where fits run."""

    model: ModelSpec
    encoding: Encoding
    data: Labelled
    times: np.ndarray
    folds: tuple[Fold, ...]
    machine: Machine

    def score(
        self, candidate: Candidate, watch: Callable[[int, tuple[float, ...]], bool] | None = None
    ) -> Scored:
        """Fit and score a candidate on each fold, newest first.

        Args:
            candidate: what is fitted.
            watch: called after each fold but the last with how many are done and the values so far; true gives up.

        Returns:
            Its score; a candidate that cannot be fitted or whose predictions cannot be used has a problem instead.

        Raises:
            TransientError: the cluster that the spec asks for does not answer.
        """
        began = time.monotonic()
        progress = Progress(
            log,
            f"{self.model.name}: {candidate.source}, window {candidate.window_text}",
            len(self.folds),
            "fold",
        )
        values: list[float] = []
        rounds: list[int] = []
        predictions: list[np.ndarray] = []
        problem = ""
        for number, fold in enumerate(self.folds):
            try:
                value, count, predicted = self._one(candidate, fold)
            except (TerminalError, ValueError) as error:
                problem = in_one_line(error)
                break
            values.append(value)
            rounds.append(count)
            predictions.append(predicted)
            progress.tell(number + 1)
            if watch and number + 1 < len(self.folds) and watch(number + 1, tuple(values)):
                problem = f"given up after {number + 1} of {len(self.folds)} folds"
                break
        seconds = time.monotonic() - began
        return Scored(candidate, tuple(values), tuple(rounds), seconds, problem, tuple(predictions))

    def relative(self, values: tuple[float, ...], reference: Scored) -> float:
        """The error as a share of the reference's, the mean over the folds that `values` has; below 1 is better."""
        metric = self.model.gate_metric
        logs = [
            math.log(_error(metric, v) / _error(metric, r))
            for v, r in zip(values, reference.values, strict=False)
        ]
        return math.exp(sum(logs) / len(logs))

    def improvement(self, one: Scored, other: Scored, confidence: float) -> Improvement:
        """By how much one candidate is better than another on all rows of the folds, with bounds."""
        oldest_first = self.folds[::-1]
        rows = np.concatenate([np.arange(f.begin, f.end) for f in oldest_first])
        p, q = (np.concatenate(s.predictions[::-1]) for s in (one, other))
        return improvement(
            Paired(self.model.gate_metric, self.times[rows], self.data.y[rows], p, q, self.model.cut),
            confidence=confidence,
            seed=self.model.training.seed,
        )

    def _one(self, candidate: Candidate, fold: Fold) -> tuple[float, int, np.ndarray]:
        first = first_row(self.times, fold.as_of, candidate.window)
        if fold.learnt - first < self.model.training.min_rows:
            raise ValueError(
                f"{max(0, fold.learnt - first)} rows before a fold, training.min_rows is {self.model.training.min_rows}"
            )
        data, held = self.data.part(first, fold.learnt), self.data.part(fold.begin, fold.end)
        if candidate.kind == XGBOOST:
            model = with_params(self.model, candidate.params)
            fitted = fit(model, self.encoding, data, self.times[first : fold.learnt], self.machine)
            predicted, rounds = held.matrix.predict(fitted.booster), fitted.rounds
        else:
            predict = other_learners.learn(candidate.kind, self.model, self.encoding, data)
            predicted, rounds = np.concatenate([predict(batch) for batch in held.matrix.batches()]), 0
        found = metric_values.compute(self.model.task, held.y, predicted, self.model.cut)
        if self.model.gate_metric not in found:
            raise ValueError(f"{self.model.gate_metric} is not defined on a fold")
        return found[self.model.gate_metric], rounds, predicted


def with_params(model: ModelSpec, params: dict[str, Any]) -> ModelSpec:
    """The model with other XGBoost parameters."""
    if params == model.training.params:
        return model
    return model.model_copy(update={"training": model.training.model_copy(update={"params": params})})


def without_predictions(scored: Scored) -> Scored:
    """The score alone: many candidates' predictions would not fit."""
    return replace(scored, predictions=())


def _error(metric: str, value: float) -> float:
    """The distance from perfect, above zero so that two perfect candidates are equal."""
    return max(resampled.distance(metric, value), 1e-12)
