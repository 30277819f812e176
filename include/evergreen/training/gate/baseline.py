"""What a forecast without a model would have said of the same rows: the bar below every challenger and every champion.

Nothing leaks: a label of time s is used for a row of time t only if it was mature then (s + label.delay <= t).
Rows of different entities (the key without the event time, such as a store) do not answer for each other.

- `seasonal`: the label one season before; with labels slower than a season, as many seasons before as it takes;
  where that slot is empty, the next one further back, at most eight; then as `last_value`.
- `last_value`: the newest mature label of the entity; else the mean label of the training part.
- `class_prior`: the share of class 1 in the training part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from evergreen.microseconds import in_micros
from evergreen.spec import ModelSpec
from evergreen.training.data.split import Split

SEASONS_BACK = 8

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """Known labels by time; `times` are microseconds since 1970 (UTC), ascending, `entities` as `rows.Rows` has them."""

    times: Ints
    entities: Ints
    labels: Floats

    def and_then(self, later: Labels) -> Labels:
        """These labels and later ones."""
        return Labels(
            np.concatenate([self.times, later.times]),
            np.concatenate([self.entities, later.entities]),
            np.concatenate([self.labels, later.labels]),
        )


class LabelsOf(Protocol):
    """The labels from a time on (None: from the first) to before another, in microseconds since 1970 (UTC)."""

    def __call__(self, begin: int | None, end: int, *, newest: bool = False) -> Labels:
        """`newest`: of each entity the newest label is asked for; others may be among them."""
        ...


def predict(model: ModelSpec, split: Split) -> Floats:
    """The baseline's predictions for the holdout rows, in their order."""
    rows, held = split.rows, split.holdout

    def labels_of(begin: int | None, end: int, *, newest: bool = False) -> Labels:
        first = 0 if begin is None else int(np.searchsorted(rows.times, begin, "left"))
        part = rows.part(first, int(np.searchsorted(rows.times, end, "left")))
        return Labels(part.times, part.entities, part.labels)

    found = forecast(model, held.times, held.entities, labels_of)
    return np.where(np.isnan(found), float(split.training.labels.mean()), found)


def forecast(
    model: ModelSpec, times: Ints, entities: Ints, labels_of: LabelsOf, longest: int | None = None
) -> Floats:
    """The baseline's predictions for some rows; NaN where nothing is known that could answer.

    Args:
        model: which baseline, its season and the label's delay.
        times: of the rows, microseconds since 1970 (UTC), ascending.
        entities: of the rows.
        labels_of: the labels that are known; asked only for what is needed.
        longest: how far back the newest label of an entity is looked for, in microseconds; None: to the first.
    """
    found = np.full(len(times), np.nan)
    if model.baseline == "class_prior" or not len(times):
        return found
    if model.baseline == "seasonal":
        found = _seasonal(model, times, entities, labels_of)
    gaps = np.isnan(found)
    if gaps.any():
        found[gaps] = _last_value(model, times[gaps], entities[gaps], labels_of, longest)
    return found


def _seasonal(model: ModelSpec, times: Ints, entities: Ints, labels_of: LabelsOf) -> Floats:
    season, delay = in_micros(model.training.season), in_micros(model.label.delay)
    nearest = max(1, -(-delay // season))
    found = np.full(len(times), np.nan)
    for back in range(nearest, nearest + SEASONS_BACK):
        gaps = np.flatnonzero(np.isnan(found))
        if not len(gaps):
            break
        asked = times[gaps] - back * season
        known = labels_of(int(asked[0]), int(asked[-1]) + 1)
        by_slot = _frame(known).groupby(["entity", "time"], sort=False)["label"].mean()
        slots = pd.MultiIndex.from_arrays([entities[gaps], asked])
        found[gaps] = by_slot.reindex(slots).to_numpy()
    return found


def _last_value(
    model: ModelSpec, times: Ints, entities: Ints, labels_of: LabelsOf, longest: int | None
) -> Floats:
    # A row's own label, and those of its own moment, are never among the mature ones, even with a delay of zero.
    delay = max(in_micros(model.label.delay), 1)
    first = int(times[0]) - delay
    # Of what was known before the first row only the newest can answer: the rest of a long past is not fetched.
    before = labels_of(None if longest is None else first - longest, first + 1, newest=True)
    known = before.and_then(labels_of(first + 1, int(times[-1]) - delay + 1))
    if not known.entities.any():
        last = np.searchsorted(known.times, times - delay, "right") - 1
        return np.where(last < 0, np.nan, known.labels[last] if len(known.labels) else np.nan)
    merged = pd.merge_asof(
        pd.DataFrame({"entity": entities, "time": times}), _frame(known, delay), on="time", by="entity"
    )
    found: Floats = merged["label"].to_numpy()
    return found


def _frame(known: Labels, later: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"entity": known.entities, "time": known.times + later, "label": known.labels})
