"""What the gate weighs besides the metrics: found once from the predictions of all models for the judged rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from evergreen.metrics import paired_bootstrap
from evergreen.metrics.paired_bootstrap import Improvement, Paired
from evergreen.microseconds import moment
from evergreen.spec import ModelSpec
from evergreen.training.gate.calibration import CalibrationErrors, calibration
from evergreen.training.gate.slices import Column, SliceRule, Slices, slices

TIMED_ROWS = 1000
REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """What a model costs where it serves: milliseconds to predict TIMED_ROWS rows, and the size of its file."""

    predict_ms: float
    bytes: int


@dataclass(frozen=True)
class Evidence:
    """Numbers about the judged rows; None where there is nothing to compare with.

    Attributes:
        learnt_until: newest event time that the judged challenger was fitted on (UTC).
        holdout_start: oldest event time of the judged rows (UTC).
        not_finite: how many of the challenger's predictions are NaN or infinite.
        predictions: smallest and largest of the others.
        labels: smallest and largest label of the judged rows.
        learnt_labels: of the rows that the challenger was fitted on.
        over_baseline: improvement over the baseline.
        over_champion: improvement over the champion.
        slices: the same by slice; against the challenger itself where there is no champion.
        calibration: of challenger and champion (binary).
        cost: of the challenger.
        other_seed: metrics of a challenger that was fitted with another seed, on the same rows; `own_seed` are those of the judged
            fit itself, where the challenger's predictions are of several fits.
        steps: in how many the challenger predicted the rows, see `walk_forward`; `learnt_until` and `holdout_start` are then of the step
            where they are nearest to each other.
        champion_learnt: how many of the judged rows the champion had learnt.
    """

    learnt_until: datetime
    holdout_start: datetime
    not_finite: int
    predictions: tuple[float, float] | None
    labels: tuple[float, float]
    learnt_labels: tuple[float, float]
    over_baseline: float | None = None
    over_champion: Improvement | None = None
    slices: Slices | None = None
    calibration: CalibrationErrors | None = None
    cost: Cost | None = None
    other_seed: Mapping[str, float] | None = None
    own_seed: Mapping[str, float] | None = None
    champion_learnt: int = 0
    steps: int = 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it, with the run."""
        times = {
            "learnt_until": self.learnt_until.isoformat(),
            "holdout_start": self.holdout_start.isoformat(),
        }
        return {**asdict(self), **times}


@dataclass(frozen=True)
class JudgedRows:
    """The rows that the models are compared on.

    Attributes:
        times: event times, microseconds since 1970 (UTC).
        y: labels.
        predictions: by `challenger`, `baseline` and, where it could score the rows, `champion`.
        columns: the categorical features.
    """

    times: np.ndarray
    y: np.ndarray
    predictions: Mapping[str, np.ndarray]
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class JudgedFit:
    """What is known of the challenger's fit, and of what the champion had learnt.

    Attributes:
        learnt_until: the newest event time (microseconds) of the rows that the challenger was really fitted on:
            taken from what went into the fit, so that a split gone wrong is found.
        learnt_labels: the labels of those rows; where they are not given, the judged rows' stand in for them.
        cost: of the challenger, where the spec limits it.
        other_seed, own_seed: metrics of a second fit and of the first, where the spec asks for it.
        champion_learnt: how many of the judged rows the champion had learnt.
        begin: where the rows begin that `learnt_until` must lie before; the oldest judged row, if it is not given.
        steps: see `Evidence`.
    """

    learnt_until: int
    learnt_labels: np.ndarray | None = None
    cost: Cost | None = None
    other_seed: Mapping[str, float] | None = None
    own_seed: Mapping[str, float] | None = None
    champion_learnt: int = 0
    begin: int | None = None
    steps: int = 1


def gather(model: ModelSpec, rows: JudgedRows, fit: JudgedFit) -> Evidence:
    """Compare the models on the judged rows; the same arguments give the same evidence.

    Args:
        model: its gate section, its task, and its seed.
        rows: what they are compared on.
        fit: what is known of the challenger's.
    """
    gate, metric, times, y = model.gate, model.gate_metric, rows.times, rows.y
    challenger = rows.predictions["challenger"]
    finite = np.isfinite(challenger)
    told = Evidence(
        learnt_until=moment(fit.learnt_until),
        holdout_start=moment(int(times.min()) if fit.begin is None else fit.begin),
        not_finite=int((~finite).sum()),
        predictions=_range(challenger[finite]) if finite.any() else None,
        labels=_range(y),
        learnt_labels=_range(y if fit.learnt_labels is None else fit.learnt_labels),
        cost=fit.cost,
        other_seed=fit.other_seed,
        own_seed=fit.own_seed,
        champion_learnt=fit.champion_learnt,
        steps=fit.steps,
    )
    if not finite.all():
        return told
    found: dict[str, Any] = {}
    baseline, champion = rows.predictions.get("baseline"), rows.predictions.get("champion")
    if baseline is not None and np.isfinite(baseline).all():
        found["over_baseline"] = paired_bootstrap.point(metric, y, challenger, baseline, model.cut)
    other = champion if champion is not None and np.isfinite(champion).all() else None
    sure: dict[str, Any] = {"confidence": gate.confidence, "seed": model.training.seed}
    # Without a champion nothing can be worse, but a slice that the spec names must still be there.
    paired = Paired(metric, times, y, challenger, challenger if other is None else other, model.cut)
    rule = SliceRule(
        gate.slices,
        gate.search_slices and other is not None,
        gate.slice_max_worse,
        gate.slice_min_rows,
        **sure,
    )
    found["slices"] = slices(paired, rows.columns, rule)
    if other is not None:
        found["over_champion"] = paired_bootstrap.improvement(paired, **sure)
        if model.task == "binary":
            found["calibration"] = calibration(times, y, challenger, other, **sure)
    return Evidence(**{**told.__dict__, **found})


def measure_cost(predict: Callable[[np.ndarray], Any], matrix: np.ndarray, size: int) -> Cost:
    """Time a model as it serves, the best of REPEATS: what else the machine does is not the model's.

    Args:
        predict: of encoded rows.
        matrix: encoded rows, at least one; the first TIMED_ROWS are predicted, fewer are repeated.
        size: bytes of the model's file.
    """
    rows = np.ascontiguousarray(np.resize(matrix[:TIMED_ROWS], (TIMED_ROWS, matrix.shape[1])))
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        predict(rows)
        taken.append(time.perf_counter() - began)
    return Cost(1000 * min(taken), size)


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())
