"""The gate against bad challengers of nine kinds, and against truly better ones: real fits on a simulated stream.

    python -m benchmarks.decisions_gate [BAD [BETTER]]

A case is a stream of its own (regression and binary in turn): six numbers, a shop, errors that last for hours. Champion
and challenger are XGBoost fits; the gate sees what a training would show it: metrics, and evidence from the predictions
for 5,000 holdout rows. Every second case answers a drift, so that both of the spec's demands are met. How much better
or worse a challenger truly is, is measured on 60,000 further rows that no model and no gate has seen.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import xgboost as xgb
from scipy import stats

from benchmarks.table import Row, markdown
from evergreen import registry
from evergreen.errors import EvergreenError, TerminalError
from evergreen.ledger.reasons import NEEDS_A_PERSON, GateReason
from evergreen.metrics import metric_values, paired_bootstrap
from evergreen.spec import ModelSpec
from evergreen.training.gate.candidates import Evaluation, JudgedChampion, JudgedTraining
from evergreen.training.gate.evidence import JudgedFit, JudgedRows, gather
from evergreen.training.gate.gate import judge_challenger
from evergreen.training.gate.verdict import GateVerdict

HOLDOUT, TRUTH, SHOPS = 5000, 60_000, 8
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
STEP = 600_000_000  # ten minutes, in microseconds
FITS = {"max_depth": 4, "learning_rate": 0.15, "nthread": 1, "verbosity": 0, "tree_method": "hist"}


@dataclass(frozen=True)
class Rows:
    """Encoded rows with their times, labels and shops."""

    x: np.ndarray
    y: np.ndarray
    shop: np.ndarray
    times: np.ndarray

    def part(self, begin: int, end: int) -> Rows:
        """The rows from one position to another."""
        return Rows(*(values[begin:end] for values in (self.x, self.y, self.shop, self.times)))

    def where(self, chosen: np.ndarray) -> Rows:
        """The chosen rows."""
        return Rows(*(values[chosen] for values in (self.x, self.y, self.shop, self.times)))


@dataclass(frozen=True)
class Case:
    """A stream, split, with a champion that learnt a little of it."""

    model: ModelSpec
    history: Rows
    holdout: Rows
    truth: Rows
    champion: xgb.Booster
    seed: int
    drift: bool

    def fit(self, rows: Rows, y: np.ndarray | None = None, rounds: int = 60) -> xgb.Booster:
        """Fit on rows, with other labels if they are given."""
        objective = "binary:logistic" if self.model.task == "binary" else "reg:squarederror"
        data = xgb.DMatrix(rows.x, rows.y if y is None else y)
        return xgb.train({**FITS, "objective": objective, "seed": self.seed}, data, rounds)

    def judge(
        self, challenger: np.ndarray, champion: np.ndarray | None, *, holdout: Rows | None = None, model: ModelSpec | None = None,
        learnt_until: int | None = None, problem: str | None = None, edit: Callable[[Evaluation], Evaluation] = lambda e: e,
    ) -> GateVerdict:  # fmt: skip
        """Evaluate the predictions as a training does, and ask the gate."""
        rows, spec = holdout or self.holdout, model or self.model
        predictions = {"challenger": challenger, "baseline": np.full(len(rows.y), self.history.y.mean())}
        if champion is not None:
            predictions["champion"] = champion

        def evaluation(who: str) -> Evaluation:
            p = predictions.get(who)
            known = p is not None and bool(np.isfinite(p).all())
            found = metric_values.compute(spec.task, rows.y, p, spec.cut) if p is not None and known else {}
            return Evaluation(
                found, len(rows.y), "keys", "print", "run", AS_OF, None if who != "champion" else problem
            )

        evidence = gather(
            spec,
            JudgedRows(rows.times, rows.y, predictions, {"shop": pa.array([f"s{s}" for s in rows.shop])}),
            JudgedFit(
                int(self.history.times.max()) if learnt_until is None else learnt_until, self.history.y
            ),
        )
        return judge_challenger(
            spec,
            edit(evaluation("challenger")),
            evaluation("baseline"),
            JudgedChampion(evaluation("champion"), AS_OF - timedelta(days=7)),
            evidence,
            JudgedTraining("run", AS_OF, "print", self.drift),
        )


def stream(task: str, seed: int) -> Rows:
    """A new concept each seed; errors have a part that lasts for hours."""
    rng = np.random.default_rng(seed)
    n = 8000 + HOLDOUT + TRUTH
    x, shop = rng.normal(size=(n, 6)), rng.integers(0, SHOPS, n)
    w = rng.normal(size=6)
    signal = x @ w + 1.5 * np.sin(2 * x[:, 0]) * x[:, 1] + rng.normal(size=SHOPS)[shop] * (1 + x[:, 2])
    slow = np.repeat(rng.normal(size=n // 12 + 1), 12)[:n]
    if task == "binary":
        y = (rng.random(n) < 1 / (1 + np.exp(-(signal + 0.4 * slow)))).astype(np.float64)
    else:
        y = 20 + signal + rng.normal(size=n) + 0.6 * slow
    return Rows(np.column_stack([x, shop]).astype(np.float32), y, shop, np.arange(n, dtype=np.int64) * STEP)


def case(number: int, learnt: int = 1500) -> Case:
    """The case of a number; its champion learnt the oldest `learnt` rows."""
    task = ("regression", "binary")[number % 2]
    rows = stream(task, number)
    model = ModelSpec.model_validate({
        "name": "stream", "task": task, "datasets": ["stream"], "key": ["ts"], "event_time": "ts", "label": {"column": "y"},
        "features": {"numeric": [f"x{i}" for i in range(6)], "categorical": ["shop"]}, "query": "SELECT 1",
    })  # fmt: skip
    history = rows.part(0, 8000)
    made = Case(model, history, rows.part(8000, 8000 + HOLDOUT), rows.part(8000 + HOLDOUT, len(rows.y)),
                xgb.Booster(), number, number // 2 % 2 == 0)  # fmt: skip
    return replace(made, champion=made.fit(history.part(0, learnt)))


def predict(booster: xgb.Booster, rows: Rows) -> np.ndarray:
    """Predictions as float64."""
    return np.asarray(booster.predict(xgb.DMatrix(rows.x)), dtype=np.float64)


def truly(of: Case, new: np.ndarray, old: np.ndarray) -> float:
    """The true improvement of predictions for the rows that nobody has seen."""
    found = paired_bootstrap.point(of.model.gate_metric, of.truth.y, new, old, of.model.cut)
    assert found is not None
    return found


def mixed(of: Case, good: xgb.Booster, poor: xgb.Booster, wanted: float) -> float:
    """The share of the poor model at which `good` is truly better by `wanted` than the mixture of both; 1 at most."""
    new, old = predict(good, of.truth), predict(poor, of.truth)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if truly(of, new, (1 - middle) * new + middle * old) < wanted else (low, middle)
        )
    return high


def shuffled(of: Case) -> GateVerdict:
    y = np.random.default_rng(of.seed).permutation(of.history.y)
    return of.judge(predict(of.fit(of.history, y), of.holdout), predict(of.champion, of.holdout))


def leaked(of: Case) -> GateVerdict:
    learnt = Rows(*(np.concatenate(pair) for pair in zip(
        *((r.x, r.y, r.shop, r.times) for r in (of.history, of.holdout)), strict=True)))  # fmt: skip
    booster = of.fit(learnt, rounds=200)
    return of.judge(
        predict(booster, of.holdout), predict(of.champion, of.holdout), learnt_until=int(learnt.times.max())
    )


def old_metrics(of: Case) -> GateVerdict:
    """Last week's file: as it was written, or with this run's names on it; the challenger of now learnt nothing."""
    good = metric_values.compute(
        of.model.task, of.holdout.y, predict(of.fit(of.history), of.holdout), of.model.cut
    )
    bad = of.fit(of.history, np.random.default_rng(of.seed).permutation(of.history.y))
    week = timedelta(days=7)

    def edit(found: Evaluation) -> Evaluation:
        stale = replace(found, metrics=good)
        return (replace(stale, run_id="last week"), replace(stale, as_of=AS_OF - week), replace(stale, fingerprint="old"),
                stale)[of.seed // len(BAD) % 4]  # fmt: skip

    return of.judge(predict(bad, of.holdout), predict(of.champion, of.holdout), edit=edit)


def slice_missing(of: Case) -> GateVerdict:
    gate = of.model.gate.model_copy(update={"slices": ("shop=s3",)})
    rows = of.holdout.where(of.holdout.shop != 3)
    model = of.model.model_copy(update={"gate": gate})
    return of.judge(predict(of.fit(of.history), rows), predict(of.champion, rows), holdout=rows, model=model)


def slice_broken(of: Case) -> GateVerdict:
    """A good challenger that is in one shop truly twice as far from perfect as the champion."""
    new, poor = (
        of.fit(of.history),
        of.fit(of.history, np.random.default_rng(of.seed).permutation(of.history.y)),
    )
    hit = of.seed // len(BAD) % SHOPS
    share = mixed(replace(of, truth=of.truth.where(of.truth.shop == hit)), of.champion, poor, 0.5)
    old = predict(of.champion, of.holdout)
    broken = (1 - share) * old + share * predict(poor, of.holdout)
    return of.judge(np.where(of.holdout.shop == hit, broken, predict(new, of.holdout)), old)


def worse(of: Case) -> GateVerdict:
    """Truly worse by 2 %: the champion, with as much of a model in it that learnt shuffled labels as makes that."""
    poor = of.fit(of.history, np.random.default_rng(of.seed).permutation(of.history.y))
    # Worse by 2 % of the champion's distance from perfect is what the champion is better by, seen from the other side.
    share = mixed(of, of.champion, poor, 1 - 1 / 1.02)
    old = predict(of.champion, of.holdout)
    return of.judge((1 - share) * old + share * predict(poor, of.holdout), old)


def not_a_number(of: Case) -> GateVerdict:
    p = predict(of.fit(of.history), of.holdout)
    p[of.seed] = np.nan
    return of.judge(p, predict(of.champion, of.holdout))


def champion_missing(of: Case) -> GateVerdict:
    """The registry answers that it has no such version."""
    try:
        registry.load(of.model, "7")
    except TerminalError as error:
        return of.judge(predict(of.fit(of.history), of.holdout), None, problem=str(error))
    raise AssertionError("an empty registry has a version")


def registry_down(of: Case) -> GateVerdict:
    """Nobody listens at the registry's address: the training ends before the gate."""
    there = os.environ["MLFLOW_TRACKING_URI"]
    os.environ |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    try:
        registry.load(of.model, "7")
    finally:
        os.environ["MLFLOW_TRACKING_URI"] = there
    raise AssertionError("a registry that is down answers")


BAD: tuple[Callable[[Case], GateVerdict], ...] = (
    shuffled, leaked, old_metrics, slice_missing, slice_broken, worse, not_a_number, champion_missing, registry_down,
)  # fmt: skip


def bad(count: int) -> tuple[int, dict[str, Counter[str]]]:
    """Judge bad challengers, the kinds in turn; returns how many were promoted, and the reasons by kind."""
    promoted, reasons = 0, {kind.__name__: Counter[str]() for kind in BAD}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder, 'mlflow.db')}"
        for number in range(count):
            kind = BAD[number % len(BAD)]
            try:
                verdict = kind(case(number))
            except EvergreenError as error:
                reasons[kind.__name__][type(error).__name__] += 1
                continue
            # What a person is asked about waits; nobody is asked about what the gate promotes.
            promoted += verdict.passed and verdict.reason not in NEEDS_A_PERSON
            reasons[kind.__name__][verdict.reason.value] += 1
            if kind is slice_broken:
                seen = any(c.code == GateReason.SLICE_WORSE.value and not c.passed for c in verdict.checks)
                reasons[kind.__name__]["(the slice was seen)"] += seen
    return promoted, reasons


def surely(y: np.ndarray, new: np.ndarray, old: np.ndarray, confidence: float) -> bool:
    """Whether the area under the curve is surely larger: DeLong's test of two areas on the same rows.

    DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44; by ranks: Sun and Xu 2014, IEEE Signal Processing Letters 21.
    """
    up, ups, downs = y > 0, int((y > 0).sum()), int((y <= 0).sum())
    above, below = [], []
    for p in (new, old):
        every = stats.rankdata(p)
        above.append((every[up] - stats.rankdata(p[up])) / downs)
        below.append(1 - (every[~up] - stats.rankdata(p[~up])) / ups)
    spread = sum(np.var(v[0] - v[1], ddof=1) / len(v[0]) for v in (above, below))
    gain = float(above[0].mean() - above[1].mean())
    return gain > float(stats.norm.ppf(confidence)) * float(np.sqrt(spread))


def better(count: int) -> dict[str, list[tuple[float, bool, str, bool | None]]]:
    """Judge truly better challengers; returns the true improvement, whether promoted, why, and what `surely` says of areas under
    the curve (else None), by how they were made.

    `exactly 2 %`: the champion is the challenger with as much of an older model in it as makes that. `as fitted`: the
    champion learnt fewer rows; where its challenger is not truly better by 2 %, the case does not count.
    """
    found: dict[str, list[tuple[float, bool, str, bool | None]]] = {"exactly 2 %": [], "as fitted": []}
    number = 100_000
    while any(len(cases) < -(-count // 2) for cases in found.values()):
        number += 1
        # Task and drift turn with the lower bits of the number, so that each way of making meets all four.
        how = list(found)[number // 4 % 2]
        if len(found[how]) >= -(-count // 2):
            continue
        of = case(number, learnt=(1500, 3000, 5000)[number % 3])
        new = of.fit(of.history)
        share = mixed(of, new, of.champion, 0.02) if how == "exactly 2 %" else 1.0
        held, true = (
            (predict(new, rows), (1 - share) * predict(new, rows) + share * predict(of.champion, rows))
            for rows in (of.holdout, of.truth)
        )
        paired_bootstrap = truly(of, *true)
        if paired_bootstrap < 0.0199:
            continue
        verdict = of.judge(*held)
        metric, sure = of.model.gate_metric, None
        if metric == "roc_auc":
            sure = surely(of.holdout.y, *held, of.model.gate.confidence)
        found[how].append((paired_bootstrap, verdict.passed, f"{metric} {verdict.reason.value}", sure))
    return found


def measure(count_bad: int = 200, count_better: int = 200) -> list[Row]:
    """The rows of the table."""
    promoted, reasons = bad(count_bad)
    kinds = "; ".join(f"{k}: {', '.join(f'{r} {n}' for r, n in c.most_common())}" for k, c in reasons.items())
    rows = [
        Row("bad challengers promoted", f"{promoted} of {count_bad}", "", None, "0", promoted == 0, kinds)
    ]
    for how, cases in better(count_better).items():
        share = sum(passed for _, passed, _, _ in cases) / len(cases)
        told = Counter((why.partition(" ")[0], passed) for _, passed, why, _ in cases)
        tested = [sure for *_, sure in cases if sure is not None]
        by = {m: f"{told[m, True]} of {told[m, True] + told[m, False]}" for m in sorted({m for m, _ in told})}
        median = float(np.median([i for i, *_ in cases]))
        note = (
            f"true improvement {median:.1%} in the middle; {', '.join(f'{m} {n}' for m, n in by.items())}; DeLong's test of "
            f"the area under the curve on the same rows: {sum(tested)} of {len(tested)}"
        )
        rows.append(Row(f"truly better challengers promoted ({how})", f"{share:.1%} of {len(cases)}", "", None, "≥ 95 %",
                        share >= 0.95, note))  # fmt: skip
    return rows


if __name__ == "__main__":
    began = time.monotonic()
    result = measure(*(int(a) for a in sys.argv[1:3]))
    print(markdown(result))
    print(f"\n{time.monotonic() - began:.0f} s")
    sys.exit(0 if all(row.met for row in result) else 1)
