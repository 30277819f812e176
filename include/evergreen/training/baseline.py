"""What a forecast without a model would have said, on the same holdout rows: the bar below every challenger.

Nothing leaks: a label of time s is used for a row of time t only if it was mature then (s + label.delay <= t).
Rows of different entities (the key without the event time, such as a store) do not answer for each other.

- `seasonal`: the label one season before; with labels slower than a season, as many seasons before as it takes;
  where that slot is empty, the next one further back, at most eight; then as `last_value`.
- `last_value`: the newest mature label of the entity; else the mean label of the training part.
- `class_prior`: the share of class 1 in the training part.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from evergreen.spec import ModelSpec
from evergreen.training.rows import Rows
from evergreen.training.split import Split, in_micros

SEASONS_BACK = 8


def predict(model: ModelSpec, split: Split) -> np.ndarray:
    """The baseline's predictions (float64) for the holdout rows, in their order."""
    mean = float(split.training.labels.mean())
    if model.baseline == "class_prior":
        return np.full(len(split.holdout), mean)
    found = np.full(len(split.holdout), np.nan)
    if model.baseline == "seasonal":
        found = _seasonal(model, split.rows, split.holdout)
    gaps = np.isnan(found)
    if gaps.any():
        found[gaps] = _last_value(model, split.rows, split.holdout)[gaps]
    return np.where(np.isnan(found), mean, found)


def _seasonal(model: ModelSpec, known: Rows, asked: Rows) -> np.ndarray:
    season, delay = in_micros(model.training.season), in_micros(model.label.delay)
    nearest = max(1, -(-delay // season))
    found = np.full(len(asked), np.nan)
    for back in range(nearest, nearest + SEASONS_BACK):
        gaps = np.flatnonzero(np.isnan(found))
        if not len(gaps):
            break
        times = asked.times[gaps] - back * season
        # Rows lie in the order of time, so those that can answer lie together.
        first = int(np.searchsorted(known.times, times[0], "left"))
        last = int(np.searchsorted(known.times, times[-1], "right"))
        by_slot = _frame(known.part(first, last)).groupby(["entity", "time"], sort=False)["label"].mean()
        slots = pd.MultiIndex.from_arrays([asked.entities[gaps], times])
        found[gaps] = by_slot.reindex(slots).to_numpy()
    return found


def _last_value(model: ModelSpec, known: Rows, asked: Rows) -> np.ndarray:
    # A row's own label, and those of its own moment, are never among the mature ones, even with a delay of zero.
    delay = max(in_micros(model.label.delay), 1)
    if not known.entities.any():
        before = np.searchsorted(known.times, asked.times - delay, "right") - 1
        return np.where(before < 0, np.nan, known.labels[before])
    merged = pd.merge_asof(
        pd.DataFrame({"entity": asked.entities, "time": asked.times}),
        _frame(known, delay),
        on="time",
        by="entity",
    )
    return merged["label"].to_numpy()


def _frame(rows: Rows, later: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"entity": rows.entities, "time": rows.times + later, "label": rows.labels})
