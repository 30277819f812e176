"""Validation folds: the newest pieces of the training part, each judged by models that know only what lay before it.

The folds lie end to end and end where the training part ends, `label.delay` before the holdout; so nothing that is
chosen on them has seen the holdout, by which the gate judges. Each fold repeats what the judgement does with the
holdout: its models learn from rows whose label was mature when the fold began, and a window reaches as far back from the
fold's end as it reaches back from as-of.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from evergreen.microseconds import in_micros, micros_of
from evergreen.spec import ModelSpec
from evergreen.training.data.rows import Rows
from evergreen.training.data.split import Split


@dataclass(frozen=True)
class Fold:
    """One fold; positions are counted in the training part.

    Attributes:
        learnt: rows before this one may be learnt from.
        begin, end: the rows that are predicted.
        as_of: what stands for as-of, microseconds since 1970 (UTC).
    """

    learnt: int
    begin: int
    end: int
    as_of: int


def folds(model: ModelSpec, parts: Split, as_of: datetime) -> list[Fold]:
    """The folds of a training, newest first; those without enough rows before them or in them are left out.

    Args:
        model: `training.folds`, `training.fold` and the least numbers of rows count.
        parts: the snapshot's rows; only those of the training part are looked at, and the time of the newest.
        as_of: the training's as-of time.
    """
    spec, training = model.training, parts.training
    length, delay = in_micros(spec.fold_length), in_micros(model.label.delay)
    # From the newest row to as-of: labels mature, deliveries come late. A fold's as-of is as far from its end.
    lag = micros_of(as_of) - int(parts.rows.times[-1]) - 1
    close = int(training.times[-1]) + 1
    found = []
    for number in range(spec.folds):
        end_time = close - number * length
        begin, end = (int(np.searchsorted(training.times, t, "left")) for t in (end_time - length, end_time))
        if begin == end:
            continue
        opens = int(training.times[begin])
        learnt = min(begin, int(np.searchsorted(training.times, opens - delay, "right")))
        if learnt < spec.min_rows or end - begin < spec.min_holdout_rows:
            continue
        if model.task == "binary" and _one_class(training, begin, end):
            continue
        found.append(Fold(learnt, begin, end, end_time + lag))
    return found


def first_row(times: np.ndarray, as_of: int, window: timedelta | Literal["all"]) -> int:
    """The position of the first row that a window holds; times and as-of in microseconds."""
    return 0 if window == "all" else int(np.searchsorted(times, as_of - in_micros(window), "left"))


def _one_class(rows: Rows, begin: int, end: int) -> bool:
    return len(np.unique(rows.labels[begin:end])) < 2
