"""Alarms of the served error: false ones on unchanged data, label noise and exchanged effects that must be found.

    python -m benchmarks.decisions_error [CHECKS [CASES]]

The rows are the real bike data: half of them taught a champion (XGBoost, 12 features), the others are drawn with
replacement, so that every prediction is of a row that the champion has not learnt. Rented bikes are the label of the
regression (rmse), a rush hour (the upper fifth) that of the classifier.

- *unchanged*, *seasonal*: as in `decisions_drift`; the champion's history is 20 windows, or two seasons of 28 windows,
  its holdout the newest 14 windows. `without a smallest effect`: `max_worse` near 0, so that what was learnt decides alone.
- *label noise*: 20 % of the labels are flipped; for numbers, 20 % are replaced by the label of another row.
- *concept swap*: the effects of two features are exchanged. A second model that has seen all rows is the world: a label
  becomes that of the row with the two features exchanged (by rank), its residual stays. The exchanged pairs are every
  feature with one of the two that matter most to the champion; two that look alike (temp and atemp) are no change.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import xgboost as xgb
from scipy import stats

from benchmarks.decisions_drift import (
    CATEGORICAL,
    DAY,
    DETECTED_AT,
    HISTORY,
    NUMERIC,
    SIZES,
    WINDOWS,
    seasonal,
)
from benchmarks.table import Row, markdown
from evergreen.feeds import bike_sharing
from evergreen.metrics import metric_values
from evergreen.monitoring.windows import performance
from evergreen.monitoring.windows.due_windows import WindowFacts
from evergreen.monitoring.windows.judgement import MetricResult
from evergreen.reference import error_limit
from evergreen.reference.calendar import ANCHOR
from evergreen.reference.reference import Reference, build
from evergreen.spec import LARGER_IS_BETTER, ModelSpec

CHAMPIONS, CHECKS, CASES = 8, 400, 200
# A champion's luck is in all its checks, so where they cost little there are many champions, each with as few as LEAST.
MANY, FEW_ROWS, LEAST = 100, 1000, 10
ALIKE = frozenset({"temp", "atemp"})
NO_EFFECT = 1e-9
# What is watched, and its `max_worse`: the spec's default; for roc_auc what docs/late-labels.md advises.
WATCHED = {"rmse": ("regression", 0.3), "log_loss": ("binary", 0.3), "roc_auc": ("binary", 0.02)}

Change = Callable[[npt.NDArray[np.intp], np.random.Generator], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class World:
    """The rows that are drawn from, with the labels and the champion's predictions by task.

    `gains` are the champion's, `model` says what the label of a row with other features would be.
    """

    rows: pd.DataFrame
    count: npt.NDArray[np.float64]
    served: dict[str, npt.NDArray[np.float64]]
    rush: float
    gains: dict[str, float]
    model: xgb.Booster

    def label(self, task: str, count: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The label of a task for numbers of bikes."""
        return count if task == "regression" else (count >= self.rush).astype(float)


@lru_cache
def world() -> World:
    """Made once."""
    raw = pd.read_csv(bike_sharing.find())
    rows, count = raw[[*NUMERIC, *CATEGORICAL]].astype(float), raw["cnt"].to_numpy(dtype=float)
    rush = float(np.quantile(count, 0.8))
    learnt = np.random.default_rng(7).random(len(raw)) < 0.5
    params = {"max_depth": 6, "learning_rate": 0.1, "nthread": 1, "seed": 7}
    number = xgb.train(params, xgb.DMatrix(rows[learnt], count[learnt]), 150)
    chance = xgb.train(
        {**params, "objective": "binary:logistic"}, xgb.DMatrix(rows[learnt], count[learnt] >= rush), 150
    )
    held = rows[~learnt].reset_index(drop=True)
    data = xgb.DMatrix(held)
    gain = {k: float(np.sum(v)) for k, v in number.get_score(importance_type="total_gain").items()}
    return World(
        held, count[~learnt], {"regression": number.predict(data).astype(float), "binary": chance.predict(data).astype(float)},
        rush, gain, xgb.train({**params, "max_depth": 8}, xgb.DMatrix(rows, count), 300),
    )  # fmt: skip


def spec(metric: str, max_worse: float) -> ModelSpec:
    """The watched model."""
    return ModelSpec.model_validate({
        "name": "bikes", "task": WATCHED[metric][0], "datasets": ["bikes"], "key": ["ts"], "event_time": "ts",
        "label": {"column": "cnt"}, "features": {"numeric": NUMERIC, "categorical": CATEGORICAL}, "query": "SELECT 1",
        "monitoring": {"min_rows": 50, "performance": {"metric": metric, "max_worse": max_worse}},
    })  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """Windows that follow each other, each drawn from the world's rows."""

    kind: str
    rows: int
    seed: int

    def draw(self, number: int) -> npt.NDArray[np.intp]:
        """The rows of the window of a number."""
        rng = np.random.default_rng([self.seed, number + 1000])
        return rng.choice(len(world().rows), self.rows, p=self._chance(number))

    def _chance(self, number: int) -> npt.NDArray[np.float64] | None:
        if self.kind != "seasonal":
            return None
        warm, humid = (stats.zscore(world().rows[name].to_numpy()) for name in ("temp", "hum"))
        return seasonal(number, warm, humid)


def champion(model: ModelSpec, stream: Stream) -> Reference:
    """The reference of a champion that learnt the windows before window 0."""
    drawn = np.concatenate([stream.draw(-n) for n in range(int(HISTORY[stream.kind]), 0, -1)])
    end = int((ANCHOR + timedelta(days=7000)).timestamp()) * 1_000_000
    times = end - (DAY // stream.rows) * np.arange(len(drawn), 0, -1, dtype=np.int64)
    frame = _frame(model, drawn, times)
    # No column is judged here: the features' own limits would only take time.
    model = model.model_copy(
        update={"features": model.features.model_copy(update={"numeric": ("hr",), "categorical": ()})}
    )
    held = times > times[-1] - int(model.training.holdout.total_seconds() * 1e6)
    y, p = (frame[name].to_numpy() for name in ("_label", "_prediction"))
    hashes = np.random.default_rng(stream.seed).permutation(len(drawn)).astype(np.int64)
    table = pa.Table.from_pandas(
        frame.assign(_key=np.arange(len(drawn)).astype(str), _hash=hashes, _outside=p), preserve_index=False
    )
    return build(model, table, metric_values.compute(model.task, y[held], p[held], model.cut))


def _frame(
    model: ModelSpec,
    drawn: npt.NDArray[np.intp],
    times: npt.NDArray[np.int64],
    y: npt.NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    here = world()
    return pd.DataFrame({
        "_time": pd.to_datetime(times, unit="us", utc=True), "hr": here.rows["hr"].to_numpy()[drawn],
        "_label": here.label(model.task, here.count[drawn]) if y is None else y,
        "_prediction": here.served[model.task][drawn],
    })  # fmt: skip


def judged(
    model: ModelSpec,
    reference: Reference,
    drawn: npt.NDArray[np.intp],
    y: npt.NDArray[np.float64] | None = None,
) -> MetricResult:
    """The watched error of a window, as the watch finds it."""
    begin = int((ANCHOR + timedelta(days=7001)).timestamp()) * 1_000_000
    times = begin + DAY // len(drawn) * np.arange(len(drawn))
    window, facts = _frame(model, drawn, times, y), WindowFacts(len(drawn), len(drawn), len(drawn))
    return performance.judge_error(model, window, reference, facts)[0][model.performance_metric]


def quiet(metric: str, kind: str, rows: int, seed: int, checks: int) -> tuple[int, int, int]:
    """Checks of the unchanged windows after a champion: how many alarmed, and how many without a smallest effect."""
    model, bare, stream = spec(metric, WATCHED[metric][1]), spec(metric, NO_EFFECT), Stream(kind, rows, seed)
    reference = champion(model, stream)
    limit = error_limit.limit_at(bare, reference, rows)
    found = [judged(model, reference, stream.draw(n)) for n in range(checks)]
    beyond = [
        f.value is None or (f.value < limit if metric in LARGER_IS_BETTER else f.value > limit) for f in found
    ]
    return checks, sum(f.violated for f in found), sum(beyond)


def pairs() -> list[tuple[str, str]]:
    """The exchanged features."""
    first = sorted(NUMERIC, key=lambda n: -world().gains.get(n, 0.0))[:2]
    return [p for p in combinations(NUMERIC, 2) if set(p) & set(first) and set(p) != ALIKE]


def changes(model: ModelSpec, seed: int) -> dict[str, Change]:
    """The changed labels of some rows, by what was changed."""
    here = world()
    a, b = pairs()[seed % len(pairs())]

    def noise(drawn: npt.NDArray[np.intp], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        y = here.label(model.task, here.count[drawn])
        hit = rng.random(len(y)) < 0.2
        other = 1.0 - y if model.task == "binary" else here.count[rng.choice(len(here.count), len(y))]
        return np.where(hit, other, y)

    def swap(drawn: npt.NDArray[np.intp], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        return here.label(model.task, _exchanged(a, b)[drawn])

    return {"label noise +20 points": noise, f"concept swap {a} and {b}": swap}


@lru_cache(maxsize=64)
def _exchanged(a: str, b: str) -> npt.NDArray[np.float64]:
    """The number of bikes of each row in a world in which two features have each other's effect."""
    here = world()
    place = {n: (stats.rankdata(here.rows[n], "ordinal") - 1).astype(int) for n in (a, b)}
    swapped = here.rows.assign(**{
        a: np.sort(here.rows[a].to_numpy())[place[b]], b: np.sort(here.rows[b].to_numpy())[place[a]],
    })  # fmt: skip
    moved = here.model.predict(xgb.DMatrix(swapped)) - here.model.predict(xgb.DMatrix(here.rows))
    return np.asarray(np.maximum(here.count + moved, 0.0))


def found(metric: str, max_worse: float, seeds: Sequence[int]) -> list[tuple[str, bool]]:
    """Make the changes of each seed in the windows after one champion; says which were found within two windows."""
    model, stream = spec(metric, max_worse), Stream("unchanged", DETECTED_AT, 10_000 + seeds[0])
    reference, told = champion(model, stream), []
    for place, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        windows = [stream.draw(place * WINDOWS + n) for n in range(WINDOWS)]
        for what, change in changes(model, seed).items():
            told.append((what, any(judged(model, reference, w, change(w, rng)).violated for w in windows)))
    return told


def measure(checks: int = CHECKS, cases: int = CASES) -> list[Row]:
    """The rows of the table."""
    made: list[Row] = []
    champions = {rows: MANY if rows <= FEW_ROWS else CHAMPIONS for rows in SIZES.values()}
    for pair in (
        pairs()
    ):  # before the workers come: what XGBoost's threads have begun, no fork of them can go on with
        _exchanged(*pair)
    grid = [
        (metric, kind, told, rows)
        for metric in WATCHED
        for kind in ("unchanged", "seasonal")
        for told, rows in SIZES.items()
    ]
    with ProcessPoolExecutor(min(2, len(os.sched_getaffinity(0)))) as pool:
        running = {
            cell: [
                pool.submit(
                    quiet, cell[0], cell[1], cell[3], seed, max(LEAST, -(-checks // champions[cell[3]]))
                )
                for seed in range(champions[cell[3]])
            ]
            for cell in grid
        }
        parts = [[int(s) for s in p] for p in np.array_split(np.arange(cases), CHAMPIONS) if len(p)]
        injected = {
            metric: [pool.submit(found, metric, max_worse, part) for part in parts]
            for metric, (_, max_worse) in WATCHED.items()
        }
        for metric, kind, told, rows in grid:
            counts = [r.result() for r in running[metric, kind, told, rows]]
            total, wrong, bare = (sum(c[i] for c in counts) for i in range(3))
            made.append(Row(
                f"checks of {metric} with a false alarm, {kind}, {told} labelled rows a window",
                f"{wrong / total:.2%} of {total}", "", None, "≤ 1 %", wrong <= 0.01 * total,
                f"{len(counts)} champions; without a smallest effect {bare / total:.2%}, at most {max(c[2] for c in counts)} of one champion's",
            ))  # fmt: skip
            print(f"{made[-1].what}: {made[-1].ours}; {made[-1].note}", file=sys.stderr)
        for metric, runs in injected.items():
            made += _found_rows(metric, [one for r in runs for one in r.result()])
    return made


def _found_rows(metric: str, told: list[tuple[str, bool]]) -> list[Row]:
    made = []
    for sort in ("label noise +20 points", "concept swap"):
        hits = [(what, hit) for what, hit in told if what.startswith(sort)]
        share = float(np.mean([hit for _, hit in hits]))
        missed = sorted({what.removeprefix("concept swap ") for what, hit in hits if not hit})
        made.append(Row(
            f"found by {metric} within {WINDOWS} windows of {DETECTED_AT:,} labelled rows: {sort}",
            f"{share:.1%} of {len(hits)}", "", None, "≥ 95 %", share >= 0.95,
            f"missed in {', '.join(missed)}" if missed else "",
        ))  # fmt: skip
        print(f"{made[-1].what}: {made[-1].ours}; {made[-1].note}", file=sys.stderr)
    return made


if __name__ == "__main__":
    began = time.monotonic()
    result = measure(*(int(a) for a in sys.argv[1:3]))
    print(markdown(result))
    print(f"\n{time.monotonic() - began:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
