"""One run of the monitor: what it does, in which order, and that a part which fails does not silence the others."""

from __future__ import annotations

from datetime import timedelta

import psycopg2
import pytest

from evergreen import ledger
from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.monitor import monitor
from evergreen.monitoring.windows import live_windows
from evergreen.promotion import live_watch
from evergreen.scoring.score import score
from evergreen.warehouse.connection import connect

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def drifted(world, made_once, start):
    """A champion of day 30, and rows after it whose demand follows x no more."""
    watched = world.with_model(monitoring={"min_rows": 20, "trigger": {"m": 2, "n": 3}})

    def make():
        watched.land(start, 30)
        watched.land(start + 30 * DAY, 5, slope=-30.0)
        watched.promote(start + 30 * DAY, "dag/first")
        score(watched.specs, watched.model, start + 34 * DAY, "score/1")

    made_once(make)
    return watched


def test_without_a_champion_there_is_nothing_to_watch(world, start):
    world.land(start, 5)
    assert monitor(world.specs, world.model, start + 5 * DAY, "monitor/1") is None


def test_a_run_judges_then_decides_and_wakes_the_training(drifted, start):
    run = monitor(drifted.specs, drifted.model, start + 34 * DAY, "monitor/1")
    assert [j.status.value for j in run.judged] == ["violation"] * len(run.judged)
    assert len(run.judged) > 1
    assert (run.decision.kind, run.decision.reason) == (DecisionKind.RETRAIN_REQUESTED, "performance")
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
        raise TerminalError("the champion before cannot be loaded", ErrorReason.REGISTRY_MISMATCH)

    monkeypatch.setattr(live_watch, "watch", refused)
    run = monitor(drifted.specs, drifted.model, start + 34 * DAY, "monitor/1")
    assert run.problems == ("the watch after the promotion: the champion before cannot be loaded",)
    with connect() as conn:
        asked: list[Decision] = ledger.open_requests(conn, "rides")
    assert [d.reason for d in asked] == ["performance"]
    assert (run.announce, run.request) == (True, asked[0].id)


@pytest.mark.parametrize(
    "error", [TerminalError("the reference is lost", ErrorReason.REGISTRY_MISMATCH), ValueError("a column")]
)
def test_windows_that_cannot_be_judged_do_not_keep_a_bad_champion_live(drifted, start, monkeypatch, error):
    bad = drifted.with_model(training={"max_rounds": 1, "params": {"learning_rate": 0.01, "max_depth": 1}})
    bad.promote(start + 34 * DAY, "dag/bad")
    drifted.land(start + 35 * DAY, 4, seed=4)
    score(drifted.specs, drifted.model, start + 39 * DAY, "score/2")

    def refused(*_):
        raise error

    monkeypatch.setattr(live_windows, "judge_windows", refused)
    watch = drifted.model.watch.model_copy(update={"min_rows": 20})
    model = drifted.model.model_copy(update={"watch": watch})
    run = monitor(drifted.specs, model, start + 39 * DAY, "monitor/2")
    assert run.rolled_back
    assert run.problems == (f"judging the windows: {error}",)


MAY_PASS = [
    TransientError("MLflow does not answer"),
    psycopg2.OperationalError("too many clients"),
    TimeoutError("slow"),
]


@pytest.mark.parametrize("error", MAY_PASS, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again_and_is_no_problem_to_be_told(drifted, start, monkeypatch, error):
    def away(*_):
        raise error

    monkeypatch.setattr(live_windows, "judge_windows", away)
    with pytest.raises(type(error)):
        monitor(drifted.specs, drifted.model, start + 34 * DAY, "monitor/1")
    with connect() as conn:
        assert ledger.open_requests(conn, "rides") == []


def test_a_watch_that_is_tried_again_does_not_keep_a_retraining_from_being_asked_for(
    drifted, start, monkeypatch
):
    def away(*_):
        raise TransientError("MLflow does not answer")

    monkeypatch.setattr(live_watch, "watch", away)
    with pytest.raises(TransientError):
        monitor(drifted.specs, drifted.model, start + 34 * DAY, "monitor/1")
    with connect() as conn:
        assert [d.reason for d in ledger.open_requests(conn, "rides")] == ["performance"]
