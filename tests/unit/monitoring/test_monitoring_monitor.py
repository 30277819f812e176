"""One run of the monitor: what it does, in which order, and that a rollback which fails does not silence the policy."""

from __future__ import annotations

from datetime import timedelta

import pytest

from evergreen import ledger
from evergreen.errors import Reason, TerminalError
from evergreen.ledger import Decision, Kind
from evergreen.monitoring import after_promotion
from evergreen.monitoring.monitor import monitor
from evergreen.scoring.score import score
from evergreen.warehouse.connection import connect

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def drifted(world, mlflow_url, start):
    """A champion of day 30, and rows after it whose demand follows x no more."""
    world.land(start, 30)
    world.land(start + 30 * DAY, 5, slope=-30.0)
    world = world.with_model(monitoring={"min_rows": 20, "trigger": {"m": 2, "n": 3}})
    world.promote(start + 30 * DAY, "dag/first")
    score(world.specs, world.model, start + 34 * DAY, "score/1")
    return world


def test_without_a_champion_there_is_nothing_to_watch(world, start):
    world.land(start, 5)
    assert monitor(world.specs, world.model, start + 5 * DAY, "monitor/1") is None


def test_a_run_judges_then_decides_and_wakes_the_training(drifted, start):
    run = monitor(drifted.specs, drifted.model, start + 34 * DAY, "monitor/1")
    assert [j.status.value for j in run.judged] == ["violation"] * len(run.judged)
    assert len(run.judged) > 1
    assert (run.decision.kind, run.decision.reason) == (Kind.RETRAIN_REQUESTED, "performance")
    assert (run.announce, run.request) == (True, run.decision.id)
    assert (run.watched, run.rolled_back) == (None, False)


def test_what_the_watch_takes_back_is_not_asked_for(drifted, start):
    """The windows blame the champion that the watch has just taken away: the policy must know."""
    bad = drifted.with_model(training={"max_rounds": 1, "params": {"learning_rate": 0.01, "max_depth": 1}})
    bad.promote(start + 34 * DAY, "dag/bad")
    drifted.land(start + 35 * DAY, 4, seed=4)
    score(drifted.specs, drifted.model, start + 39 * DAY, "score/2")
    run = monitor(drifted.specs, drifted.model.model_copy(update={"watch": drifted.model.watch.model_copy(
        update={"min_rows": 20})}), start + 39 * DAY, "monitor/2")  # fmt: skip
    assert run.rolled_back
    assert run.decision is None or run.decision.version == run.watched.version


def test_a_rollback_that_fails_does_not_keep_a_retraining_from_being_asked_for(drifted, start, monkeypatch):
    def refused(*_):
        raise TerminalError("the champion before cannot be loaded", Reason.REGISTRY_MISMATCH)

    monkeypatch.setattr(after_promotion, "watch", refused)
    with pytest.raises(TerminalError, match="cannot be loaded"):
        monitor(drifted.specs, drifted.model, start + 34 * DAY, "monitor/1")
    with connect() as conn:
        asked: list[Decision] = ledger.open_requests(conn, "rides")
    assert [d.reason for d in asked] == ["performance"]
