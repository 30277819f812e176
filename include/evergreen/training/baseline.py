"""What a forecast without a model would have said, on the same holdout rows: the bar below every challenger.

Nothing leaks: a label of time s is used for a row of time t only if it was mature then (s + label.delay <= t).
Rows of different entities (the key without the event time, such as a store) do not answer for each other.

- `seasonal`: the label one season before; with labels slower than a season, as many seasons before as it takes;
  where that slot is empty, the next one further back, at most eight; then as `last_value`.
- `last_value`: the newest mature label of the entity; else the mean label of the training part.
- `class_prior`: the share of class 1 in the training part.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa

from evergreen.spec import ModelSpec
from evergreen.training.split import Split, in_micros, labels, micros

SEASONS_BACK = 8


def predict(model: ModelSpec, split: Split) -> np.ndarray:
    """The baseline's predictions (float64) for the holdout rows, in their order."""
    mean = float(labels(split.training).mean())
    if model.baseline == "class_prior":
        return np.full(split.holdout.num_rows, mean)
    known = _frame(model, split.rows)
    asked = _frame(model, split.holdout)
    found = np.full(len(asked), np.nan)
    if model.baseline == "seasonal":
        found = _seasonal(model, known, asked)
    gaps = np.isnan(found)
    if gaps.any():
        found[gaps] = _last_value(model, known, asked[gaps])
    return np.where(np.isnan(found), mean, found)


def _seasonal(model: ModelSpec, known: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    season, delay = in_micros(model.training.season), in_micros(model.label.delay)
    by_slot = known.groupby(["entity", "time"], sort=False)["label"].mean()
    nearest = max(1, -(-delay // season))
    found = np.full(len(asked), np.nan)
    for back in range(nearest, nearest + SEASONS_BACK):
        gaps = np.flatnonzero(np.isnan(found))
        if not len(gaps):
            break
        slots = pd.MultiIndex.from_arrays(
            [asked["entity"].iloc[gaps], asked["time"].iloc[gaps] - back * season]
        )
        found[gaps] = by_slot.reindex(slots).to_numpy()
    return found


def _last_value(model: ModelSpec, known: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    # A row's own label, and those of its own moment, are never among the mature ones, even with a delay of zero.
    delay = max(in_micros(model.label.delay), 1)
    merged = pd.merge_asof(
        asked[["entity", "time"]].assign(order=np.arange(len(asked))),
        known.assign(time=known["time"] + delay),
        on="time",
        by="entity",
    )
    return merged.sort_values("order")["label"].to_numpy()


def _frame(model: ModelSpec, rows: pa.Table) -> pd.DataFrame:
    entity: list[str] | str = ""
    others = [i for i, name in enumerate(model.key) if name != model.event_time]
    # Without the event time in the key, each key is met once and names no entity that comes back.
    if model.event_time in model.key and others:
        keys = json.loads("[" + ",".join(rows["_key"].to_pylist()) + "]")
        entity = [json.dumps([key[i] for i in others]) for key in keys]
    return pd.DataFrame({"entity": entity, "time": micros(rows), "label": labels(rows)})
