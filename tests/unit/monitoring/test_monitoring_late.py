"""Labels that come late: "not yet" is said as such, both revisions are kept, an early estimate is told as an estimate."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from monitoring_scene import CUTOFF, ROWS, WEEK, as_table, at, rows, violated, week

from evergreen.alerting.compose import compose
from evergreen.alerting.history import windows
from evergreen.ledger import Decision, Kind, append, find
from evergreen.monitoring import early, policy, wording
from evergreen.monitoring.judge import judge
from evergreen.monitoring.judgement import Status
from evergreen.warehouse.connection import connect, fetch

EARLY = {"performance": {"estimate": True}}


def run(world, as_of):
    return judge(world.specs, world.spec, as_of, "monitor/1")


def page(world, judged, name: str) -> str:
    folder = world.tmp / "artifacts" / world.run_id / "artifacts"
    return (folder / judged.report).with_name(name).read_text()


def mails(world) -> list[tuple[dict, str]]:
    with connect() as conn:
        owed = fetch(conn, "SELECT * FROM evergreen.mail ORDER BY id")
        return [(row, compose(conn, world.specs, row).get_body(("plain",)).get_content()) for row in owed]


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
    assert [wording.verdict(j) for j in found] == ["ok, error not yet"] * 2
    assert wording.error(found[0]).startswith("rmse: not yet (0 of 168 labels are in, 135 are needed")
    assert "rmse: not yet (0 of 168" in page(world, found[0], "drift.html")
    files = {f.path for f in MlflowClient().list_artifacts(world.run_id, found[0].report.rpartition("/")[0])}
    assert not any("performance" in name for name in files)
    with connect() as conn:
        assert [w.value for w in windows(conn, "watched", "rmse")] == [None, None]


def test_the_mail_of_a_drift_says_that_the_error_is_not_known_yet(scene):
    world = scene(trigger={"m": 2, "n": 3})
    world.champion()
    world.live(2, change=lambda f: f.assign(amount=f["amount"] * 2), labels=False)
    run(world, at(2))
    made = policy.apply(world.spec, at(2), "monitor/1")
    assert [w["error"][:13] for w in made.evidence["windows"]] == ["rmse: not yet"] * 2
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
        assert f"rmse: {metric.value:.4g} ({metric.low:.4g} to {metric.high:.4g}, 95% confidence)" in page(
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
    assert policy.apply(world.spec, at(1), "monitor/1") is None
    world.labels(frame, at(1, days=1))
    (again,) = run(world, at(1, days=1, hours=2))
    assert wording.flipped(again)
    assert wording.verdict(again) == "violation, revision 2, was ok"
    made = policy.apply(world.spec, at(1, days=1, hours=2), "monitor/2")
    assert (made.kind, made.reason) == (Kind.RETRAIN_REQUESTED, "performance")
    ((_, text),) = mails(world)
    text = flat(text)
    assert "judged again, revision 2: violation" in text
    assert "with 0 of 168 labels, it was ok" in text
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
    assert wording.verdict(again) == "ok, revision 2, was violation"
    assert policy.apply(world.spec, at(1, days=1, hours=2), "monitor/2") is None
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
    assert wording.verdict(found[0]) == "violation, error estimated"
    assert "rmse: estimated without labels" in page(world, found[0], "drift.html")
    assert policy.apply(world.spec, at(2), "monitor/1") is None
    assert early.tell(world.spec, at(2), "monitor/1")
    assert not early.tell(world.spec, at(2), "monitor/1")
    ((row, text),) = mails(world)
    assert (row["kind"], row["decision_id"]) == ("drift", None)
    text = flat(text)
    assert "estimated error beyond its limit" in text
    assert "worse than allowed by an estimate" in text
    assert "No retraining was decided with this alarm" in text
    with connect() as conn:
        assert [(w.estimated, w.value is not None) for w in windows(conn, "watched", "rmse")] == [
            (True, True)
        ] * 2
        assert find(conn, "model/watched", (Kind.RETRAIN_REQUESTED,)) == []
    for frame in frames:
        world.labels(frame, at(2, days=1))
    again = run(world, at(2, days=1, hours=2))
    assert [(j.revision, violated(j)) for j in again] == [(2, {"performance:rmse"})] * 2
    states = [(r["revision"], r["metrics"]["rmse"]["state"]) for r in world.judgements()]
    assert states == [(1, "estimated"), (2, "judged")] * 2
    assert policy.apply(world.spec, at(2, days=1, hours=2), "monitor/2").reason == "performance"


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
    made = policy.apply(world.spec, at(2), "monitor/1")
    assert (made.kind, made.reason) == (Kind.RETRAIN_REQUESTED, "estimated_performance")
    assert all("estimated without labels" in w["error"] for w in made.evidence["windows"])
    assert not early.tell(world.spec, at(2), "monitor/1"), "the request's mail has told of it"
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
    assert [wording.verdict(j) for j in run(world, at(2))] == ["ok, error estimated"] * 2
    assert not early.tell(world.spec, at(2), "monitor/1")
    assert mails(world) == []


DAY = timedelta(days=1)
DAILY = {
    "window": "1d",
    "min_rows": 20,
    "trigger": {"m": 1, "n": 3, "cooldown": "1d"},
    "performance": {"max_worse": 0.3},
}


def day(number: int, off: float = 0.0) -> pd.DataFrame:
    """The rows of a day after the cut-off; its labels are off by so much."""
    return rows(1, CUTOFF + number * DAY, 24).assign(y=lambda f: f["y"] + off)


def noon(number: int, **more: float) -> datetime:
    """Noon of a day after the cut-off."""
    return CUTOFF + number * DAY + timedelta(hours=12, **more)


def daily(scene, **settings):
    """Windows of a day; labels are expected after three days."""
    world = scene(**{**DAILY, **settings})
    label = world.spec.label.model_copy(update={"delay": timedelta(days=3)})
    world.spec = world.spec.model_copy(update={"label": label})
    return world


def serve(world, number: int, version: str, off: float = 0.0, *, labels: bool = True) -> None:
    """A day lands, and a version serves it."""
    world.land(day(number, off), labels=labels)
    world.score(CUTOFF + number * DAY, CUTOFF + (number + 1) * DAY, version=version)


def promoted(scene, off: float = 8.0, days: int = 2, **settings):
    """Version 1 has served some days whose labels are not in; then version 2 came to office, and served one, labelled."""
    world = daily(scene, **settings)
    world.champion("1")
    for number in range(days):
        serve(world, number, "1", off, labels=False)
        assert [wording.verdict(j) for j in run(world, noon(number + 1))] == ["ok, error not yet"]
    world.first_run = world.run_id
    world.champion("2", as_of=CUTOFF + days * DAY + timedelta(hours=13))
    serve(world, days, "2")
    (own,) = run(world, noon(days + 1))
    assert (own.version, own.status) == ("2", Status.OK)
    return world


def told(world, version: str) -> list[tuple]:
    return [
        ((r["window_start"] - CUTOFF) // DAY, r["revision"], r["status"], r["metrics"]["rmse"]["state"])
        for r in world.judgements()
        if r["version"] == version
    ]


def test_labels_that_come_after_a_promotion_judge_the_version_that_served_their_window(scene):
    world = promoted(scene)
    world.labels(day(0, 8.0).head(15), noon(3, minutes=10))
    assert run(world, noon(3, minutes=20)) == [], "15 of 24 labels are too few"
    world.labels(day(0, 8.0).tail(9), noon(3, minutes=30))
    (late,) = run(world, noon(3, minutes=40))
    assert (late.version, late.window_start, late.revision, late.mlflow_run) == (
        "1", CUTOFF, 2, world.first_run,
    )  # fmt: skip
    assert violated(late) == {"performance:rmse"}
    assert late.metrics["rmse"].value > 7
    assert wording.verdict(late) == "violation, revision 2, was ok"
    assert told(world, "1") == [
        (0, 1, "ok", "not_yet"), (0, 2, "violation", "judged"), (1, 1, "ok", "not_yet"),
    ]  # fmt: skip
    assert run(world, noon(3, minutes=50)) == [], "once"
    world.labels(day(1, 8.0), noon(4))
    assert [(j.version, j.window_start, j.revision) for j in run(world, noon(4)) if j.version == "1"] == [
        ("1", CUTOFF + DAY, 2)
    ]


def test_a_late_revision_keeps_what_was_found_of_the_columns_and_has_the_page_of_its_error(scene):
    world = promoted(scene)
    before = {r["window_start"]: r for r in world.judgements()}[CUTOFF]
    world.labels(day(0, 8.0), noon(3, minutes=10))
    # The champion of now may have other features, which version 1 was trained without.
    features = world.spec.features.model_copy(
        update={"numeric": ["pressure"], "categorical": ["kind", "level"]}
    )
    world.spec = world.spec.model_copy(update={"features": features})
    (late,) = [j for j in run(world, noon(3, minutes=20)) if j.version == "1"]
    with connect() as conn:
        columns = [
            fetch(
                conn,
                "SELECT column_name, kind, value, threshold, violated, detail FROM evergreen.window_column"
                " WHERE judgement_id = %s ORDER BY 1, 2",
                (identifier,),
            )
            for identifier in (before["id"], late.id)
        ]
    assert columns[0] == columns[1]
    assert len(columns[0]) > 4
    assert late.report == "monitoring/20240520T0000Z-r2/performance.html"
    folder = world.tmp / "artifacts" / world.first_run / "artifacts" / "monitoring"
    text = (folder / "20240520T0000Z-r2" / "performance.html").read_text()
    assert "watched version 1, 2024-05-20 00:00 to 2024-05-21 00:00 UTC" in text
    assert "In violation:" in text
    assert (folder / "20240520T0000Z-r1" / "drift.html").exists()


def test_a_late_violation_of_an_earlier_champion_does_not_count_for_the_present_one(scene):
    world = promoted(scene, trigger={"m": 2, "n": 3, "cooldown": "1d"})
    serve(world, 3, "2", off=8.0)
    world.labels(pd.concat([day(0, 8.0), day(1, 8.0)]), noon(4))
    found = [(j.version, violated(j)) for j in run(world, noon(4))]
    assert found == [(version, {"performance:rmse"}) for version in ("1", "1", "2")]
    decided = policy.apply(world.spec, noon(4), "monitor/1", world.specs)
    assert decided.reason == "too_few_violations", "one window of the last three is its own"
    assert not early.tell(world.spec, noon(4), "monitor/1")
    assert mails(world) == []


def test_a_late_ok_of_an_earlier_champion_is_no_recovery_by_the_present_one(scene):
    world = daily(scene)
    world.champion("1")
    serve(world, 0, "1", off=8.0)
    run(world, noon(1))
    policy.apply(world.spec, noon(1), "monitor/1", world.specs)
    assert [row["kind"] for row, _ in mails(world)] == ["drift"]
    serve(world, 1, "1", labels=False)
    run(world, noon(2))
    world.champion("2", as_of=CUTOFF + 2 * DAY + timedelta(hours=13))
    serve(world, 2, "2", labels=False)
    run(world, noon(3))
    world.labels(day(1), noon(3, minutes=10))
    assert [(j.version, j.status) for j in run(world, noon(3, minutes=20))] == [("1", Status.OK)]
    policy.apply(world.spec, noon(3, minutes=20), "monitor/2", world.specs)
    assert [row["kind"] for row, _ in mails(world)] == ["drift"], "of version 2 no error is known yet"
    world.labels(day(2), noon(3, minutes=30))
    assert [j.version for j in run(world, noon(3, minutes=40))] == ["2"]
    policy.apply(world.spec, noon(3, minutes=40), "monitor/3", world.specs)
    assert [row["kind"] for row, _ in mails(world)] == ["drift", "recovered"]


def test_after_a_rollback_the_windows_of_both_earlier_reigns_wait_for_their_labels(scene):
    world = promoted(scene)
    with connect() as conn:
        back = Decision(
            noon(3, minutes=1), "model/watched", Kind.ROLLED_BACK, "manual", "rollback/1", "back:1", {}, "1"
        )
        append(conn, back)
    world.labels(day(0, 8.0), noon(3, minutes=10))
    (late,) = run(world, noon(3, minutes=20))
    assert (late.version, late.window_start, late.revision, violated(late)) == (
        "1", CUTOFF, 2, {"performance:rmse"},
    )  # fmt: skip
    assert policy.apply(world.spec, noon(3, minutes=20), "monitor/2", world.specs) is None, (
        "its first reign is over"
    )


def test_a_version_that_is_gone_leaves_its_windows_as_they_were_and_the_champion_watched(scene, caplog):
    world = promoted(scene)
    serve(world, 3, "2")
    world.labels(pd.concat([day(0, 8.0), day(1, 8.0)]), noon(4))
    shutil.rmtree(world.tmp / "artifacts" / world.first_run)
    shutil.rmtree(world.tmp / "home" / "cache")
    assert [j.version for j in run(world, noon(4))] == ["2"]
    assert told(world, "1") == [(0, 1, "ok", "not_yet"), (1, 1, "ok", "not_yet")]
    (line,) = [r.getMessage() for r in caplog.records if "cannot be judged again" in r.getMessage()]
    assert "which version 1 served" in line


def test_how_long_a_late_label_is_waited_for_after_a_promotion(scene):
    """Twelve windows and the declared delay of three days."""
    world = promoted(scene, freshness="60d")
    run(world, noon(14))
    world.labels(day(0, 8.0), noon(15))
    assert [j for j in run(world, noon(16)) if j.version == "1"] == [], "one window too late"
    assert [(j.window_start, j.revision) for j in run(world, noon(15)) if j.version == "1"] == [(CUTOFF, 2)]


def test_a_window_whose_rows_vanished_is_never_fine_by_what_is_left(scene):
    world = promoted(scene, off=0.0)
    world.labels(day(0), noon(3, minutes=10))
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM data.sensor WHERE ts >= %s AND ts < %s", (CUTOFF, CUTOFF + 0.8 * DAY))
        cursor.execute("DELETE FROM evergreen.prediction WHERE event_time < %s", (CUTOFF + 0.8 * DAY,))
    (late,) = run(world, noon(3, minutes=20))
    assert (late.version, late.status, violated(late)) == ("1", Status.INSUFFICIENT, {"volume:_key"})
    assert run(world, noon(3, minutes=30)) == []
