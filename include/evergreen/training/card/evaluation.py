"""The evaluation as tables: metrics with intervals, the gate's checks, parts of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evergreen.ledger.reasons import GateReason
from evergreen.ledger.words import num
from evergreen.metrics import paired_bootstrap, resampled
from evergreen.microseconds import moment
from evergreen.spec import METRICS, metric_name
from evergreen.training.card.content import Section, Table
from evergreen.training.card.made import Made
from evergreen.training.figures.judged_sample import WHO

# Of checks that ask whether the comparison was sound, not how good a model is.
SOUND = frozenset(
    reason.value
    for reason in (
        GateReason.STALE_EVALUATION, GateReason.SNAPSHOT_MISMATCH, GateReason.DIFFERENT_ROWS, GateReason.METRIC_MISMATCH,
        GateReason.CHALLENGER_METRIC_MISSING, GateReason.BASELINE_METRIC_MISSING, GateReason.CHAMPION_METRIC_MISSING,
    )
)  # fmt: skip
FIGURES = ("predicted_against_actual", "ranking", "residuals_over_time")


def evaluation(made: Made) -> Section:
    """How good it is, on rows that it had not learnt."""
    rows = made.outcome.rows
    begin, end = _time(made, 0), _time(made, -1)
    told = f"Judged on {rows['judged']:,} of {rows['holdout']:,} holdout rows, of {begin} to {end} UTC, which the challenger had not learnt."
    return Section(
        "Evaluation",
        paragraphs=[told],
        tables=[_metrics(made), *_improvement(made), _checks(made)],
        figures=FIGURES,
    )


def slices(made: Made) -> Section | None:
    """How good it is on parts of the rows; None where there are no parts."""
    found = made.figures.slices
    if not found:
        return None
    who = [w for w in WHO if any(w in s.values for s in found)]
    name = metric_name(made.outcome.metric)
    rows = [
        [s.feature, s.value, f"{s.rows:,}", *(num(s.values[w]) if w in s.values else "" for w in who)]
        for s in found
    ]
    note = "The features that gate.slices names and the most important ones; numbers in quarters."
    return Section(
        "Slices",
        tables=[Table(["feature", "value", "rows", *(f"{name}, {w}" for w in who)], rows, note=note)],
        figures=("error_by_slice",),
    )


def interval(made: Made, who: str) -> tuple[float, float] | None:
    """Bounds of the deciding metric on the judged rows, each at `gate.confidence`; None where they cannot be told."""
    judged, model = made.judged, made.model
    rows = judged.judged
    y, p = judged.split.holdout.labels[rows], judged.compared[who][rows]
    if not np.isfinite(p).all():
        return None
    where, moments = paired_bootstrap.cells(judged.split.holdout.times[rows])
    low, high, *_ = paired_bootstrap.bounds(
        resampled.statistic(model.gate_metric, where, y, p, model.cut),
        where,
        moments,
        confidence=model.gate.confidence,
        seed=model.training.seed,
    )
    return None if low is None or high is None else (low, high)


def _metrics(made: Made) -> Table:
    outcome = made.outcome
    who = [w for w in WHO if outcome.metrics.get(w)]
    names = [outcome.metric, *(n for n in METRICS[made.model.task] if n != outcome.metric)]
    rows = []
    for name in names:
        if any(name in outcome.metrics[w] for w in who):
            rows.append([metric_name(name), *(_value(made, w, name) for w in who)])
    note = f"{metric_name(outcome.metric)} decides; in brackets its bounds, each with {made.model.gate.confidence:.0%} confidence."
    heads = {
        "champion": f"champion, version {outcome.champion_version}",
        "baseline": f"baseline, {made.model.baseline}",
    }
    return Table(["metric", *(heads.get(w, w) for w in who)], rows, strong=(0,), note=note)


def _value(made: Made, who: str, name: str) -> str:
    value = made.outcome.metrics[who].get(name)
    if value is None:
        return ""
    bounds = interval(made, who) if name == made.outcome.metric and who in made.judged.compared else None
    return num(value) + (f" ({num(bounds[0])} to {num(bounds[1])})" if bounds else "")


def _improvement(made: Made) -> Iterator[Table]:
    found, rows = made.judged.evidence, []
    if found.over_champion is not None:
        over = found.over_champion
        rows.append(
            [
                f"champion, version {made.outcome.champion_version}",
                _share(over.point),
                _share(over.low),
                _share(over.high),
            ]
        )
    if found.over_baseline is not None:
        rows.append([f"baseline, {made.model.baseline}", _share(found.over_baseline), "", ""])
    if rows:
        note = "By which share its distance from perfect is smaller on the same rows; below zero it is worse."
        yield Table(["improvement over", "on these rows", "at least", "at most"], rows, note=note)


def _checks(made: Made) -> Table:
    """The gate's checks, those that failed first; whether the comparison itself was sound is told only where it was not."""
    every = made.outcome.verdict.checks
    failed = [c for c in every if not c.passed]
    shown = [*failed, *(c for c in every if c.passed and c.code not in SOUND)]
    rows = [["passed" if c.passed else "failed", c.sentence or c.check.replace("_", " ")] for c in shown]
    left = len(every) - len(shown)
    note = f"{left} more passed: the same rows, snapshot and run for all who were compared, and metrics that follow from the predictions."
    return Table(["gate", "check"], rows, strong=range(len(failed)), note=note if left else "")


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:+.1%}"


def _time(made: Made, at: int) -> str:
    times = made.judged.split.holdout.times[made.judged.judged]
    return f"{moment(int(times[at])):%Y-%m-%d %H:%M}"
