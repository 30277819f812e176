"""Limits on what a training makes: cost, another seed, and the fit on all rows that will serve."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from mlflow import MlflowClient

from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger.reasons import GateReason
from evergreen.training import train as training
from evergreen.training.fitting.fit import fit, refit
from evergreen.training.fitting.local import Labelled
from evergreen.training.gate.evaluate import Means
from evergreen.training.record.version import finalise


@pytest.fixture
def landed(world, mlflow_url, start):
    world.land(start, 45)
    return world


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_predict_ms": 1e6, "max_size_mb": 100.0, "stability": 0.9}, GateReason.FIRST_CHAMPION),
        ({"max_predict_ms": 1e-6}, GateReason.TOO_SLOW),
        ({"max_size_mb": 1e-6}, GateReason.TOO_LARGE),
        ({"stability": 1e-9}, GateReason.UNSTABLE),
    ],
    ids=["kept", "slow", "large", "unstable"],
)
def test_limits_on_cost_and_on_the_seed_are_measured(landed, start, limits, reason):
    sampled = {"params": {"subsample": 0.5}}
    outcome = landed.with_model(gate=limits, training=sampled).train(
        start + timedelta(days=40), "run", trigger="schedule"
    )
    assert outcome.verdict.reason is reason


def test_another_seed_may_stop_earlier(landed, start, monkeypatch):
    """The rounds are part of what another seed changes."""
    seen = []

    def fitting(model, encoding, data, times, machine):
        seen.append((model.training.seed, len(times)))
        return fit(model, encoding, data, times, machine)

    monkeypatch.setattr(training, "Means", partial(Means, fitting=fitting))
    model = landed.with_model(gate={"stability": 0.9}, training={"params": {"subsample": 0.5}})
    rows = model.train(start + timedelta(days=40), "run").rows["training"]
    assert seen == [(7, rows), (8, rows)]


@pytest.mark.parametrize(
    ("change", "label", "gate", "told"),
    [
        pytest.param((10.0, 1), {"min": 0, "max": 100}, {}, "largest prediction", id="too-large-a-number"),
        pytest.param((-10.0, 1), {}, {}, "smallest prediction", id="too-small-a-number"),
        pytest.param((1.0, 50), {}, {"max_size_mb": 0.4}, "max_size_mb is 0.4", id="too-large-a-file"),
        pytest.param((1.0, 1), {"min": 0, "max": 100}, {"max_size_mb": 0.4}, "", id="within"),
    ],
)
def test_the_fit_that_will_serve_keeps_the_limits_too(landed, start, monkeypatch, change, label, gate, told):
    """The gate saw the fit on the training part; what is registered has learnt all rows."""
    factor, times = change

    def refitting(model, encoding, data, rounds, machine):
        return refit(model, encoding, Labelled(data.matrix, data.y * factor), rounds * times, machine)

    monkeypatch.setattr(training, "finalise", partial(finalise, refitting=refitting))
    model = landed.with_model(label=label, gate=gate, training={"max_rounds": 40})
    if not told:
        assert model.train(start + timedelta(days=40), "run").verdict.passed
        return
    with pytest.raises(TerminalError, match="passed, but") as caught:
        model.train(start + timedelta(days=40), "run")
    assert (told in str(caught.value), caught.value.reason) == (True, ErrorReason.BAD_METRIC)
    assert list(MlflowClient().search_model_versions("name = 'rides'")) == []
