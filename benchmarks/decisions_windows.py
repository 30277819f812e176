"""What the choice of a window is worth: retrained every week over the history, against each fixed window in hindsight.

    python -m benchmarks.decisions_windows [bike|simulated ...]

Each Monday the model `bike_demand` is trained as a training does it: the newest week is the gate's holdout, the four
weeks before it are the validation folds, on which the window is chosen; then the model is fitted on all rows of that
window and predicts the week that follows. The fixed windows do the same without a choice. Fits of the same rows are made
once; that changes no number. The error is the root mean square over all predicted hours.

- `bike`: the real rides of 2011 and 2012 (UCI Bike Sharing), where the demand grows and the riders change.
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

from benchmarks.table import Row, markdown
from evergreen import settings
from evergreen.errors import TerminalError
from evergreen.feeds import bike_sharing, simulated
from evergreen.spec import ModelSpec, load_specs
from evergreen.training import validate
from evergreen.training.choose import choose
from evergreen.training.encode import Encoding
from evergreen.training.fit import Fitted, fit, refit
from evergreen.training.folds import first_row
from evergreen.training.local import Labelled
from evergreen.training.machine import Machine
from evergreen.training.matrix import Matrix
from evergreen.training.rows import Rows
from evergreen.training.split import in_micros, moment, split

WINDOWS = ("all", "180d", "60d")
LIMIT = 1.02
WEEK = timedelta(days=7)
FIRST_WEEK = 20
CITIES = (8, 9)
NUMBERS = ("temperature", "humidity", "windspeed", "price")
KINDS = ("holiday", "weekend", "working")


class Stream:
    """A table of hours as the model `bike_demand` sees it, and every fit that was made of it."""

    def __init__(self, table: pd.DataFrame, model: ModelSpec, folder: Path) -> None:
        self.model = model
        times = pd.DatetimeIndex(table["ts"])
        weather = tuple(sorted(set(table["weather"])))
        kind = np.where(table["holiday"], "holiday", np.where(table["workingday"], "working", "weekend"))
        columns = {
            "hour": times.hour, "weekday": times.dayofweek + 1, "day_of_year": times.dayofyear,
            **{name: table[name] for name in NUMBERS},
            "weather": table["weather"].map({name: code for code, name in enumerate(weather)}),
            "day_kind": np.searchsorted(KINDS, kind),
        }  # fmt: skip
        self.encoding = Encoding(model.features.numeric, {"weather": weather, "day_kind": KINDS})
        x = np.column_stack([np.asarray(columns[name], float) for name in self.encoding.features])
        path = folder / "rows.f32"
        x.astype(np.float32).tofile(path)
        self.matrix = Matrix(path, 0, x.shape[0], x.shape[1], dense=not np.isnan(x).any())
        micros = times.as_unit("us").asi8
        zeros = np.zeros(len(micros), np.int64)
        self.rows = Rows(path, 0, micros, table["demand"].to_numpy(float), zeros, zeros)
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
    wrong: dict[str, list[np.ndarray]] = {name: [] for name in ("chosen", *WINDOWS)}
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
            "benchmark",
            "",
            None,
            Machine(),
        )
        often[choice.window] += 1
        for window, name in zip(model.training.lengths, WINDOWS, strict=True):
            first = first_row(rows.times, now, window)
            error = stream.predict(first, training, count, end) - rows.labels[count:end]
            wrong[name].append(error)
            if name == choice.window:
                wrong["chosen"].append(error)
        say(f"{monday:%Y-%m-%d}: {choice.window} of {len(rows.part(0, count))} rows; {choice.sentence}")
        monday += WEEK
    return {name: float(np.sqrt(np.mean(np.concatenate(e) ** 2))) for name, e in wrong.items()}, often


def _say_of(what: str, text: str) -> None:
    _say(f"{what} {text}")


def lines(name: str, tables: list[pd.DataFrame]) -> list[Row]:
    """One line for each table."""
    specs = load_specs(settings.REPOSITORY / "include")
    content = specs.models["bike_demand"].model_dump()
    content["training"] |= {"windows": WINDOWS, "window": "all"}
    model = ModelSpec.model_validate(content)
    found = []
    for number, table in enumerate(tables):
        what = name if len(tables) == 1 else f"{name} {number + 1}"
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="evergreen-windows-") as folder:
            stream = Stream(table, model, Path(folder))
            with patch.object(validate, "fit", stream.fit):
                errors, often = history(stream, partial(_say_of, what))
        fixed = {window: errors[window] for window in WINDOWS}
        best = min(fixed, key=lambda window: fixed[window])
        ratio = errors["chosen"] / fixed[best]
        others = ", ".join(f"{window} {value:.2f}" for window, value in fixed.items())
        times = ", ".join(f"{window} {often[window]} times" for window in WINDOWS)
        found.append(
            Row(
                f"candidate windows, {what}: served error of the chosen window against the best fixed one in hindsight",
                f"{errors['chosen']:.2f}", f"{best}: {fixed[best]:.2f}", ratio, f"≤ {LIMIT}", ratio <= LIMIT,
                f"{sum(often.values())} weeks; fixed: {others}; chosen: {times}; {time.monotonic() - began:.0f} s",
            )
        )  # fmt: skip
    return found


def measure(names: Sequence[str] = ("bike", "simulated")) -> list[Row]:
    """The benchmark's lines; a line that says why where the real data is not on this machine."""
    found: list[Row] = []
    for name in names:
        if name == "bike":
            try:
                found += lines(name, [bike_sharing.convert(bike_sharing.find())])
            except TerminalError as error:
                found.append(
                    Row("candidate windows, bike", "not measured", "", None, f"≤ {LIMIT}", False, str(error))
                )
        else:
            found += lines(name, [_city(seed) for seed in CITIES])
    return found


def _city(seed: int) -> pd.DataFrame:
    start: datetime = simulated.START
    changes = simulated.Changes(fahrenheit=start + 40 * WEEK, price=start + 70 * WEEK)
    return simulated.hours(start, start + 100 * WEEK, seed, changes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    result = measure(sys.argv[1:] or ("bike", "simulated"))
    print(markdown(result))
    sys.exit(0 if all(row.met for row in result) else 1)
