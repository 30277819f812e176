"""Labels that come late: "not yet" is said as such, both revisions are kept, an early estimate is told as an estimate."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from monitoring_scene import CUTOFF, ROWS, WEEK, as_table, at, mails, rows, violated, week

from evergreen.alerting.content.history import windows
from evergreen.ledger import find
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.alarms import early_alarm
from evergreen.monitoring.trigger import live_trigger
from evergreen.monitoring.windows import error_text
from evergreen.monitoring.windows.draw import draw
from evergreen.monitoring.windows.judgement import Status
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.warehouse.connection import connect

EARLY = {"performance": {"estimate": True}}


def run(world, as_of):
    return judge_windows(world.specs, world.spec, as_of)


def page(world, judged, name: str) -> str:
    draw("watched", judged.window_start, world.tmp / "drawn")
    folder = world.tmp / "artifacts" / world.run_id / "artifacts"
    return (folder / judged.report).with_name(name).read_text()


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def hard(frame: pd.DataFrame, share: float, seed: int = 3) -> pd.DataFrame:
    """Rows with a low pressure are predicted badly; `share` of them are such rows."""
    rng = np.random.default_rng([seed, int(frame["ts"].iloc[0].timestamp()) // 3600])
    low = rng.random(len(frame)) < share
    noise = rng.normal(0, 1, len(frame)) * np.where(low, 4.0, 1.0)
    pressure = np.where(low, 990.0, 1005.0) + rng.normal(0, 1, len(frame))
    return frame.assign(pressure=pressure, y=frame["guess"] + noise)


def learnt_hard(weeks: int = 20):
    parts = [hard(rows(1, CUTOFF - (weeks - i) * WEEK, ROWS), 0.2) for i in range(weeks)]
    frame = pd.concat(parts, ignore_index=True)
    return as_table(frame).append_column("_outside", as_table(frame)["_prediction"])


def test_a_window_without_labels_says_not_yet_wherever_it_is_shown(scene):
    world = scene()
    world.champion()
    world.live(2, labels=False)
    world.land(week(2).head(30))
    found = run(world, at(2))
    assert [error_text.verdict(j) for j in found] == ["ok, error not yet"] * 2
    assert error_text.error(found[0]).startswith("RMSE: not yet (0 of 168 labels are in, 30 are needed")
    assert "RMSE: not yet (0 of 168" in page(world, found[0], "drift.html")
    files = {f.path for f in MlflowClient().list_artifacts(world.run_id, found[0].report.rpartition("/")[0])}
    assert not any("performance" in name for name in files)
    with connect() as conn:
        assert [w.value for w in windows(conn, "watched", "rmse")] == [None, None]


def test_the_mail_of_a_drift_says_that_the_error_is_not_known_yet(scene):
    world = scene(trigger={"m": 2, "n": 3})
    world.champion()
    world.live(2, change=lambda f: f.assign(amount=f["amount"] * 2), labels=False)
    run(world, at(2))
    made = live_trigger.apply(world.spec, at(2), "monitor/1")
    assert [w["error"][:13] for w in made.evidence.to_json()["windows"]] == ["RMSE: not yet"] * 2
    ((_, text),) = mails(world)
    assert "RMSE: not yet (0 of 168 labels are in" in flat(text)


def test_the_interval_and_the_coverage_are_kept_and_shown(scene):
    world = scene()
    world.champion()
    world.live(1)
    (found,) = run(world, at(1))
    metric = found.metrics["rmse"]
    assert metric.low < metric.value < metric.high < metric.limit
    assert (metric.confidence, metric.coverage, metric.rows) == (0.95, 1.0, ROWS)
    kept = world.judgements()[0]["metrics"]["rmse"]
    assert (kept["low"], kept["high"], kept["coverage"]) == (metric.low, metric.high, 1.0)
    for name in ("drift.html", "performance.html"):
        assert f"RMSE: {metric.value:.4g} ({metric.low:.4g} to {metric.high:.4g}, 95% confidence)" in page(
            world, found, name
        )


def test_labels_that_turn_a_verdict_are_told_and_both_revisions_are_kept(scene):
    world = scene(trigger={"m": 1, "n": 1})
    world.champion()
    frame = week(0).assign(y=lambda f: f["y"] + 5)
    world.land(frame, labels=False)
    world.land(week(1).head(60))
    world.score(CUTOFF, CUTOFF + WEEK)
    run(world, at(1))
    assert live_trigger.apply(world.spec, at(1), "monitor/1") is None
    world.labels(frame, at(1, days=1))
    (again,) = run(world, at(1, days=1, hours=2))
    assert error_text.flipped(again)
    assert error_text.verdict(again) == "violation, revision 2, was ok"
    made = live_trigger.apply(world.spec, at(1, days=1, hours=2), "monitor/2")
    assert (made.kind, made.reason) == (DecisionKind.RETRAIN_REQUESTED, "performance")
    ((_, text),) = mails(world)
    text = flat(text)
    assert "judged again, revision 2: something was beyond its limit" in text
    assert "with 0 of 168 labels, nothing was beyond its limit" in text
    assert "RMSE: " in text
    assert "95% confidence" in text
    kept = [(r["revision"], r["status"], r["metrics"]["rmse"]["state"]) for r in world.judgements()]
    assert kept == [(1, "ok", "not_yet"), (2, "violation", "judged")]


def test_a_violation_that_more_labels_take_back_is_told_and_counts_no_more(scene):
    world = scene(trigger={"m": 2, "n": 3})
    world.champion()
    bad = week(0).assign(y=lambda f: f["guess"] + 2.0)
    world.land(bad)
    world.land(week(1).head(60))
    world.score(CUTOFF, CUTOFF + WEEK)
    (first,) = run(world, at(1))
    assert first.status is Status.VIOLATION
    # The labels were corrected, and rows came in with the correction.
    world.labels(bad.assign(y=lambda f: f["guess"]), at(1, days=1))
    late = week(0).head(20).assign(ts=lambda f: f["ts"] + pd.Timedelta(minutes=30))
    world.land(late, arrived=at(1, days=1))
    world.score(CUTOFF, CUTOFF + WEEK, as_of=at(1, days=1))
    (again,) = run(world, at(1, days=1, hours=2))
    assert error_text.verdict(again) == "ok, revision 2, was violation"
    assert live_trigger.apply(world.spec, at(1, days=1, hours=2), "monitor/2") is None
    assert [r["status"] for r in world.judgements()] == ["violation", "ok"]


def test_an_estimate_opens_the_alarm_early_and_the_labels_replace_it(scene):
    world = scene(drift={"ignore": ["pressure"]}, sample_rows=4000, **EARLY)
    world.champion(learned=learnt_hard())
    frames = [hard(week(n), 0.9) for n in range(2)]
    for frame in frames:
        world.land(frame, labels=False)
    world.land(week(2).head(30))
    world.score(CUTOFF, CUTOFF + 2 * WEEK)
    found = run(world, at(2))
    assert [violated(j) for j in found] == [{"estimated_performance:rmse"}] * 2
    assert error_text.verdict(found[0]) == "violation, error estimated"
    assert "RMSE: estimated without labels" in page(world, found[0], "drift.html")
    assert live_trigger.apply(world.spec, at(2), "monitor/1") is None
    assert early_alarm.tell(world.spec, at(2), "monitor/1")
    assert not early_alarm.tell(world.spec, at(2), "monitor/1")
    ((row, text),) = mails(world)
    assert (row["kind"], row["decision_id"]) == ("drift", None)
    text = flat(text)
    assert "estimated RMSE " in text
    assert "worse than allowed by an estimate" in text
    assert "No retraining was decided with this alarm" in text
    with connect() as conn:
        assert [(w.estimated, w.value is not None) for w in windows(conn, "watched", "rmse")] == [
            (True, True)
        ] * 2
        assert find(conn, "model/watched", (DecisionKind.RETRAIN_REQUESTED,)) == []
    for frame in frames:
        world.labels(frame, at(2, days=1))
    again = run(world, at(2, days=1, hours=2))
    assert [(j.revision, violated(j)) for j in again] == [(2, {"performance:rmse"})] * 2
    states = [(r["revision"], r["metrics"]["rmse"]["state"]) for r in world.judgements()]
    assert states == [(1, "estimated"), (2, "judged")] * 2
    assert live_trigger.apply(world.spec, at(2, days=1, hours=2), "monitor/2").reason == "performance"


def test_an_estimate_asks_for_a_training_only_where_the_spec_says_so(scene):
    world = scene(
        drift={"ignore": ["pressure"]},
        sample_rows=4000,
        performance={"estimate": True, "estimate_requests": True},
    )
    world.champion(learned=learnt_hard())
    for number in range(2):
        world.land(hard(week(number), 0.9), labels=False)
    world.land(week(2).head(30))
    world.score(CUTOFF, CUTOFF + 2 * WEEK)
    run(world, at(2))
    made = live_trigger.apply(world.spec, at(2), "monitor/1")
    assert (made.kind, made.reason) == (DecisionKind.RETRAIN_REQUESTED, "estimated_performance")
    assert all("estimated without labels" in w["error"] for w in made.evidence.to_json()["windows"])
    assert not early_alarm.tell(world.spec, at(2), "monitor/1"), "the request's mail has told of it"
    ((row, text),) = mails(world)
    assert row["decision_id"] == made.id
    assert "worse than allowed by an estimate" in flat(text)


def test_unchanged_windows_without_labels_raise_no_early_alarm(scene):
    world = scene(drift={"ignore": ["pressure"]}, sample_rows=4000, **EARLY)
    world.champion(learned=learnt_hard())
    for number in range(2):
        world.land(hard(week(number), 0.2), labels=False)
    world.land(week(2).head(30))
    world.score(CUTOFF, CUTOFF + 2 * WEEK)
    assert [error_text.verdict(j) for j in run(world, at(2))] == ["ok, error estimated"] * 2
    assert not early_alarm.tell(world.spec, at(2), "monitor/1")
    assert mails(world) == []
