"""What the choice of a window is worth: retrained every week over the history, against each fixed window in hindsight.

    python -m benchmarks.decisions_windows [bike|electricity|simulated ...]

Each Monday the model is trained as a training does it: the newest part (`training.holdout`) is the gate's holdout, four folds of
that length before it are the validation, on which the window is chosen; then the model is fitted on all rows of that
window and predicts the week that follows. The fixed windows do the same without a choice. Fits of the same rows are made
once; that changes no number. The error is the gate's metric over all predicted rows.

- `bike`: the real rides of 2011 and 2012 (UCI Bike Sharing), where the demand grows and the riders change; `bike_demand`.
- `electricity`: real prices of 1996 to 1998, with two markets that are joined (see `electricity.py`); `price_up`.
- `simulated`: two simulated cities of 100 weeks; in week 40 the thermometer changes its unit, in week 70 the riders
  change for good.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.real import BIKES, ELECTRICITY, Real
from benchmarks.table import Row, markdown
from evergreen.errors import TerminalError
from evergreen.feeds import simulated
from evergreen.metrics.metric_values import compute
from evergreen.microseconds import in_micros, moment
from evergreen.registry.encoding import Encoding
from evergreen.spec import ModelSpec
from evergreen.training.data.folds import first_row
from evergreen.training.data.matrix import Matrix
from evergreen.training.data.rows import Rows
from evergreen.training.data.split import split
from evergreen.training.fitting.fit import Fitted, fit, refit
from evergreen.training.fitting.local import Labelled
from evergreen.training.fitting.machine import Machine
from evergreen.training.search import validate
from evergreen.training.search.choose import Search, choose

WINDOWS = ("all", "180d", "60d")
LIMIT = 1.02
WEEK = timedelta(days=7)
FIRST_WEEK = 20
CITIES = (8, 9)
NAMES = ("bike", "electricity", "simulated")
KINDS = ("holiday", "weekend", "working")


class Stream:
    """Rows as a model sees them (categories as their codes), and every fit that was made of them."""

    def __init__(
        self, table: pd.DataFrame, model: ModelSpec, categories: dict[str, tuple[str, ...]], folder: Path
    ) -> None:
        self.model = model
        self.encoding = Encoding(model.features.numeric, categories)
        x = np.column_stack([np.asarray(table[name], float) for name in self.encoding.features])
        path = folder / "rows.f32"
        x.astype(np.float32).tofile(path)
        self.matrix = Matrix(path, 0, x.shape[0], x.shape[1], dense=not np.isnan(x).any())
        micros = pd.DatetimeIndex(table["ts"]).as_unit("us").asi8
        zeros = np.zeros(len(micros), np.int64)
        self.rows = Rows(path, 0, micros, table[model.label.column].to_numpy(float), zeros, zeros)
        self._fits: dict[Any, Fitted] = {}
        self._predictions: dict[tuple[int, int, int], np.ndarray] = {}

    def fit(self, model: ModelSpec, encoding: Encoding, data: Labelled, *rest: Any) -> Fitted:
        """`fit.fit`, once for the same rows and parameters."""
        key = (data.matrix.begin, len(data), str(model.training.params))
        if key not in self._fits:
            self._fits[key] = fit(model, encoding, data, *rest)
        return self._fits[key]

    def predict(self, first: int, training: int, count: int, end: int) -> np.ndarray:
        """Predictions for the rows from `count` to `end` of a model of the rows from `first` to `count`."""
        key = (first, count, end)
        if key not in self._predictions:
            data = Labelled(self.matrix.part(0, count), self.rows.labels[:count])
            rounds = self.fit(
                self.model, self.encoding, data.part(first, training), self.rows.times[first:training]
            ).rounds
            booster = refit(self.model, self.encoding, data.part(first), rounds).booster
            self._predictions[key] = self.matrix.part(count, end).predict(booster)
        return self._predictions[key]


def history(stream: Stream, say: Callable[[str], None]) -> tuple[dict[str, float], Counter[str]]:
    """The error of each fixed window and of the choice, and how often each window was chosen."""
    model, rows = stream.model, stream.rows
    served: dict[str, list[np.ndarray]] = {name: [] for name in ("chosen", *WINDOWS)}
    labels: list[np.ndarray] = []
    often: Counter[str] = Counter()
    monday = moment(int(rows.times[0]))
    monday = (monday - timedelta(days=monday.weekday())).replace(hour=0) + FIRST_WEEK * WEEK
    last = moment(int(rows.times[-1]))
    delay = in_micros(model.label.delay)
    while monday + WEEK <= last + timedelta(hours=1):
        now = in_micros(monday - moment(0))
        count = int(np.searchsorted(rows.times, now - delay, "right"))
        end = int(np.searchsorted(rows.times, now + in_micros(WEEK), "left"))
        parts = split(model, rows.part(0, count))
        training = len(parts.training)
        choice = choose(
            model,
            parts,
            stream.encoding,
            stream.matrix.part(0, count),
            monday,
            Machine(),
            Search("benchmark", ""),
        )
        often[choice.window] += 1
        for window, name in zip(model.training.lengths, WINDOWS, strict=True):
            first = first_row(rows.times, now, window)
            predicted = stream.predict(first, training, count, end)
            served[name].append(predicted)
            if name == choice.window:
                served["chosen"].append(predicted)
        labels.append(rows.labels[count:end])
        say(f"{monday:%Y-%m-%d}: {choice.window} of {len(rows.part(0, count))} rows; {choice.sentence}")
        monday += WEEK
    known = np.concatenate(labels)
    return {
        name: compute(model.task, known, np.concatenate(found), model.cut)[model.gate_metric]
        for name, found in served.items()
    }, often


def _say_of(what: str, text: str) -> None:
    _say(f"{what} {text}")


def bikes(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """The features of `bike_demand` and its label, as its query makes them; the categories as codes, and their values."""
    times = pd.DatetimeIndex(table["ts"])
    weather = tuple(sorted(set(table["weather"])))
    kind = np.where(table["holiday"], "holiday", np.where(table["workingday"], "working", "weekend"))
    made = table.assign(
        hour=times.hour,
        weekday=times.dayofweek + 1,
        day_of_year=times.dayofyear,
        weather=table["weather"].map({name: code for code, name in enumerate(weather)}),
        day_kind=np.searchsorted(KINDS, kind),
    )
    return made, {"weather": weather, "day_kind": KINDS}


def prices(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """The features of `price_up` and its label, as its query makes them."""
    times = pd.DatetimeIndex(table["ts"])
    return table.assign(period=2 * times.hour + times.minute // 30, weekday=times.dayofweek + 1), {}


FEATURES = {BIKES.name: bikes, ELECTRICITY.name: prices}


def lines(name: str, data: Real, tables: Sequence[pd.DataFrame]) -> list[Row]:
    """One line for each table of a model's rows."""
    with tempfile.TemporaryDirectory() as folder:
        content = data.load(Path(folder)).models[data.model].model_dump()
    content["training"] |= {"windows": WINDOWS, "window": "all"}
    model = ModelSpec.model_validate(content)
    features = FEATURES[data.name]
    found = []
    for number, table in enumerate(tables):
        what = name if len(tables) == 1 else f"{name} {number + 1}"
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="evergreen-windows-") as folder:
            made, categories = features(table)
            stream = Stream(made, model, categories, Path(folder))
            with patch.object(validate, "fit", stream.fit):
                errors, often = history(stream, partial(_say_of, what))
        fixed = {window: errors[window] for window in WINDOWS}
        best = min(fixed, key=lambda window: fixed[window])
        ratio = errors["chosen"] / fixed[best]
        others = ", ".join(f"{window} {value:.4g}" for window, value in fixed.items())
        times = ", ".join(f"{window} {often[window]} times" for window in WINDOWS)
        found.append(
            Row(
                f"candidate windows, {what}: served error of the chosen window against the best fixed one in hindsight",
                f"{errors['chosen']:.4g}", f"{best}: {fixed[best]:.4g}", ratio, f"≤ {LIMIT}", ratio <= LIMIT,
                f"{sum(often.values())} weeks; fixed: {others}; chosen: {times}; {time.monotonic() - began:.0f} s",
            )
        )  # fmt: skip
    return found


def measure(names: Sequence[str] = NAMES) -> list[Row]:
    """The benchmark's lines; a line that says why where real data is not to be had."""
    found: list[Row] = []
    for name in names:
        if name == "simulated":
            found += lines(name, BIKES, [_city(seed) for seed in CITIES])
            continue
        data = ELECTRICITY if name == ELECTRICITY.name else BIKES
        try:
            found += lines(name, data, [data.table()])
        except TerminalError as error:
            found.append(
                Row(f"candidate windows, {name}", "not measured", "", None, f"≤ {LIMIT}", False, str(error))
            )
    return found


def _city(seed: int) -> pd.DataFrame:
    start: datetime = simulated.START
    changes = simulated.Changes(fahrenheit=start + 40 * WEEK, price=start + 70 * WEEK)
    return simulated.hours(start, start + 100 * WEEK, seed, changes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    result = measure(sys.argv[1:] or NAMES)
    print(markdown(result))
    sys.exit(0 if all(row.met for row in result) else 1)
