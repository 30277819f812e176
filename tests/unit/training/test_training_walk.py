"""A challenger that loses at once is judged again by a holdout that is walked through, and no fit has learnt what it predicts."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from evergreen.ledger.reasons import DecisionKind, GateReason
from evergreen.microseconds import in_micros
from evergreen.registry.champions import Champion
from evergreen.training.data import scratch
from evergreen.training.fitting import fit
from evergreen.training.fitting.machine import Machine
from evergreen.training.gate import evaluate as evaluating
from evergreen.training.gate.candidates import JudgedTraining
from evergreen.training.gate.evaluate import Means, evaluate

DAY = timedelta(days=1)


@pytest.fixture
def landed(world, mlflow_url, start):
    """From the second day of the holdout on it snows, as it never did before, and nobody rides."""

    def snow(row):
        if row["ts"] >= start + 36 * DAY:
            row.update(kind="snow", demand=row["demand"] - 45)

    world.land(start, 45, edit=snow)
    return world.with_model(gate={"otherwise": "unless_worse", "beat_baseline": False})


def ask(landed, start, tmp_path, monkeypatch, off, **changes):
    """Evaluate against a champion that is off by so much; also all fits, each with the rows it learnt."""
    world = landed.with_model(**changes) if changes else landed
    as_of = start + 40 * DAY
    taken = world.snapshot(as_of)
    then = start + 20 * DAY
    champion = Champion("1", "run", then, then, 1, then, DecisionKind.PROMOTED, "first_champion")
    learnt = []

    def refitting(model, encoding, data, rounds, machine):
        learnt.append(len(data))
        return fit.refit(model, encoding, data, rounds, machine)

    monkeypatch.setattr(evaluating, "_holdout_for", lambda model, version, rows, again: rows)
    monkeypatch.setattr(evaluating, "_predict", lambda version, rows: rows.labels + off)
    with scratch.folder(tmp_path / "work") as work:
        judged = evaluate(
            world.model,
            taken,
            JudgedTraining("run", as_of, taken.fingerprint),
            champion,
            Machine(),
            work,
            Means(load=lambda *_: None, refitting=refitting),
        )
    return judged, learnt


def test_what_would_serve_is_newer_than_what_one_fit_says(landed, start, tmp_path, monkeypatch):
    once, fits = ask(landed, start, tmp_path, monkeypatch, 25.0, training={"holdout_steps": 1})
    assert (once.verdict.passed, once.verdict.reason, fits) == (False, GateReason.WORSE_THAN_CHAMPION, [])
    walked, fits = ask(landed, start, tmp_path, monkeypatch, 25.0)
    assert walked.verdict.passed
    assert walked.evidence.steps == 4
    assert len(fits) == 3
    assert walked.metrics["challenger"]["rmse"] < once.metrics["challenger"]["rmse"]
    # The watch is told of the model that was fitted before the holdout, as before.
    assert walked.holdout == once.holdout
    assert np.array_equal(walked.prediction, once.prediction)
    told = [c.sentence for c in walked.verdict.checks if c.check == "holdout_steps"]
    assert told
    assert "4 steps" in told[0]


def test_no_step_is_predicted_by_a_fit_that_had_learnt_it(landed, start, tmp_path, monkeypatch):
    judged, fits = ask(landed, start, tmp_path, monkeypatch, 0.1, label={"delay": "6h"})
    assert not judged.verdict.passed
    times = judged.split.rows.times
    begin, length = (
        int(judged.split.holdout.times[0]),
        int(times[-1]) + 1 - int(judged.split.holdout.times[0]),
    )
    delay, hour = in_micros(timedelta(hours=6)), in_micros(timedelta(hours=1))
    for step, known in enumerate(fits, 1):
        # The first row of a step is at most an hour later than the step.
        opens = begin + step * length // 4
        assert opens - delay - hour < times[known - 1] <= opens + hour - delay
    assert judged.evidence.learnt_until < judged.evidence.holdout_start
    (check,) = (c for c in judged.verdict.checks if c.check == "holdout_not_learnt")
    assert check.passed


def test_one_that_passes_at_once_costs_no_further_fit(landed, start, tmp_path, monkeypatch):
    judged, fits = ask(landed, start, tmp_path, monkeypatch, 100.0)
    assert judged.verdict.passed
    assert (judged.evidence.steps, fits) == (1, [])


def test_a_challenger_that_is_worse_stays_worse(landed, start, tmp_path, monkeypatch):
    judged, fits = ask(landed, start, tmp_path, monkeypatch, 0.5)
    assert judged.verdict.reason is GateReason.WORSE_THAN_CHAMPION
    assert len(fits) == 3
