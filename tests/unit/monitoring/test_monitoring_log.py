"""What a person reads in the log of a monitor's run: each window against its limits, the policy, and the run in a line."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from evergreen.monitoring.monitor import monitor
from evergreen.scoring.score import score

DAY = timedelta(days=1)


@pytest.fixture
def served(world, made_once, start):
    """A champion of day 30 whose rows go on as they were, then follow x no more."""
    watched = world.with_model(monitoring={"min_rows": 20, "trigger": {"m": 2, "n": 3}})

    def make():
        watched.land(start, 33)
        watched.land(start + 33 * DAY, 3, slope=-30.0)
        watched.promote(start + 30 * DAY, "dag/first")

    made_once(make)
    return watched


def told(caplog, level=logging.INFO):
    return [r.getMessage() for r in caplog.records if r.name.startswith("evergreen") and r.levelno >= level]


def test_each_window_is_a_line_and_so_are_policy_and_run(served, start, caplog):
    caplog.set_level("INFO")
    score(served.specs, served.model, start + 32 * DAY, "score/1")
    assert [s for s in told(caplog) if s.startswith("rides: 4") and " predicted by version 1 in " in s], told(
        caplog
    )
    caplog.clear()
    run = monitor(served.specs, served.model, start + 32 * DAY, "monitor/1")
    said = told(caplog)
    windows = [s for s in said if ", version 1: ok" in s]
    assert len(windows) == len(run.judged) > 0
    assert all("; nearest to its limit " in s and ", limit " in s and "RMSE: " in s for s in windows)
    assert said[-2] == (
        "rides: the trigger policy asks for no training: neither a drift of the newest windows nor anything else wants one"
    )
    assert said[-1] == f"rides: {run.sentence()}"
    assert run.sentence() == f"{len(run.judged)} window{'s' if len(run.judged) > 1 else ''} judged"
    loud = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert loud == [], [r.getMessage() for r in loud]


def test_a_violation_is_a_warning_with_value_and_limit_and_the_request_is_told(served, start, caplog):
    score(served.specs, served.model, start + 36 * DAY, "score/1")
    caplog.set_level("INFO")
    run = monitor(served.specs, served.model, start + 36 * DAY, "monitor/1")
    bad = [j for j in run.judged if j.status.value == "violation"]
    warned = told(caplog, logging.WARNING)
    assert len(warned) == len(bad) > 1
    assert all(": violation: 24 rows; " in s and "RMSE: " in s and "at most " in s for s in warned)
    said = told(caplog)
    assert any(
        s.startswith("rides: the trigger policy asks for a training: the served predictions became worse")
        for s in said
    )
    assert f"rides: retrain request {run.request} is open" in said
    assert said[-1].endswith(
        f"{len(bad)} in violation; asks for a training: the served predictions became worse than their limit"
    )
    assert not [s for s in said if "{" in s], "no dict"


def test_nothing_due_is_said(served, start, caplog):
    score(served.specs, served.model, start + 31 * DAY, "score/1")
    monitor(served.specs, served.model, start + 32 * DAY, "monitor/1")
    run = monitor(served.specs, served.model, start + 32 * DAY, "monitor/2")
    assert run.sentence() == "no window was due"
