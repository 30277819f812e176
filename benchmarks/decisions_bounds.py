"""What it costs in false alarms that a limit stays where a value can pass it.

    python -m benchmarks.decisions_bounds

What is learnt of few rows may allow a bounded metric more than it can be at all; then a coin's value, or `max_worse`'s, is the
limit (`performance.limit_for`), and chance passes it more often than `drift.false_alarms` says.
Simulated, as the true chance must be known: champions whose probabilities are right, or whose error is pure noise, each with a
history of 12 windows of few rows, the newest 4 of them its holdout. Nothing ever changes. For each champion 100 windows more are
drawn and held against its limit, and against what was learnt alone, as if there were no bounds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.table import Row, markdown
from evergreen.metrics.metric_values import compute
from evergreen.reference import error_limit
from evergreen.reference.calendar import ANCHOR
from evergreen.reference.movement import Movement, Outside, learn
from evergreen.spec import LARGER_IS_BETTER, ModelSpec

CHAMPIONS, CHECKS, HISTORY, HOLDOUT = 8, 100, 12, 4
ROWS = (24, 96)
DAY_US = 86_400_000_000
METRICS = {
    "roc_auc": "binary",
    "pr_auc": "binary",
    "brier": "binary",
    "accuracy": "binary",
    "log_loss": "binary",
    "r2": "regression",
}
# How much of the label a champion does not know, in standard deviations of it.
KNOWS = {"strong": 0.2, "middling": 0.5, "weak": 0.9}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """The part of a reference that a limit is made from."""

    labelled: pa.Table
    holdout_metrics: dict[str, float]
    movement: Movement


@dataclass
class Count:
    """Checks of unchanged windows."""

    champions: int = 0
    bounded: int = 0
    checks: int = 0
    alarms: int = 0
    without: int = 0
    checks_bounded: int = 0
    alarms_bounded: int = 0
    without_bounded: int = 0

    def rate(self, of: str, among: str) -> str:
        """A share of checks as text."""
        checks = int(getattr(self, among))
        return f"{int(getattr(self, of)) / checks:.2%} of {checks:,}" if checks else "none"


def measure() -> list[Row]:
    """A row for each metric and number of rows; none has a goal: the rate is stated."""
    return [_row(metric, rows) for metric in METRICS for rows in ROWS]


def _row(metric: str, rows: int) -> Row:
    told, all_of = [], Count()
    for name, noise in KNOWS.items():
        found = _count(metric, rows, noise)
        told.append(
            f"{name}: bounded {found.bounded} of {found.champions} champions, alarms {found.rate('alarms', 'checks')}"
        )
        for field in vars(all_of):
            setattr(all_of, field, getattr(all_of, field) + getattr(found, field))
    return Row(
        f"checks of {metric} with a false alarm, unchanged, {rows} labelled rows a window, where a bound is the limit",
        all_of.rate("alarms_bounded", "checks_bounded"),
        f"learnt alone: {all_of.rate('without_bounded', 'checks_bounded')}",
        None,
        "",
        True,
        f"of all: {all_of.rate('alarms', 'checks')}, learnt alone {all_of.rate('without', 'checks')}; {'; '.join(told)}",
    )


def _count(metric: str, rows: int, noise: float) -> Count:
    found, task = Count(), METRICS[metric]
    model = _spec(metric)
    better = metric in LARGER_IS_BETTER
    for seed in range(CHAMPIONS):
        rng = np.random.default_rng([seed, rows, round(noise * 10)])
        reference = _champion(model, metric, task, rows, noise, rng, seed)
        if reference is None:
            continue
        limit = error_limit.limit_for(model, reference, rows)  # type: ignore[arg-type]  # of a reference only what it reads
        least = error_limit.limit_of(model, reference)  # type: ignore[arg-type]  # of a reference only what it reads
        free = min(least, limit.learnt) if better else max(least, limit.learnt)
        values = np.array(list(_values(metric, task, rows, noise, rng)))
        alarms, without = (int((values < at if better else values > at).sum()) for at in (limit.value, free))
        found.champions += 1
        found.checks += len(values)
        found.alarms += alarms
        found.without += without
        if limit.value != free:
            found.bounded += 1
            found.checks_bounded += len(values)
            found.alarms_bounded += alarms
            found.without_bounded += without
    return found


def _champion(
    model: ModelSpec, metric: str, task: str, rows: int, noise: float, rng: np.random.Generator, seed: int
) -> Known | None:
    """A champion's reference; None where its holdout has one class."""
    y, p = _rows(task, rows * HISTORY, noise, rng)
    times = int(ANCHOR.timestamp() * 1e6) + np.sort(rng.integers(0, HISTORY * DAY_US, len(y)))
    held = times >= times[-1] - HOLDOUT * DAY_US
    value = compute(task, y[held], p[held]).get(metric)
    if value is None:
        return None
    holdout, past = Outside(times[held], y[held], p[held]), Outside(times, y, p)
    moves = learn(metric, holdout, past, DAY_US, min(rows, model.monitoring.sample_rows), seed)
    return Known(pa.table({"_label": y}), {metric: value}, moves)


def _values(metric: str, task: str, rows: int, noise: float, rng: np.random.Generator) -> Iterator[float]:
    """The metric of windows in which nothing has changed, where it is defined."""
    for _ in range(CHECKS):
        value = compute(task, *_rows(task, rows, noise, rng)).get(metric)
        if value is not None:
            yield value


def _rows(task: str, count: int, noise: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Labels and predictions: right probabilities of a class that is rare, or a number with normal noise."""
    known, share = rng.normal(size=count), float(np.sqrt(1 - noise**2))
    if task == "binary":
        p = 1 / (1 + np.exp(1.5 - 2 * share / noise * known))
        return (rng.random(count) < p).astype(float), p
    return 100 + 30 * (share * known + noise * rng.normal(size=count)), 100 + 30 * share * known


def _spec(metric: str) -> ModelSpec:
    return ModelSpec.model_validate({
        "name": "simulated", "task": METRICS[metric], "datasets": ["rows"], "key": ["id"], "event_time": "at",
        "label": {"column": "y"}, "features": {"numeric": ["x"]}, "query": "SELECT 1",
        "monitoring": {"window": "1d", "performance": {"metric": metric}},
    })  # fmt: skip


if __name__ == "__main__":
    began = time.process_time()
    print(markdown(measure()))
    print(f"\n{time.process_time() - began:.0f} CPU s")
    sys.exit(0)
