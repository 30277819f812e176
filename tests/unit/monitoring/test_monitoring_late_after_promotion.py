"""Labels that come after a promotion judge the version that served their window, and ask nothing of the present one."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pandas as pd
from monitoring_scene import CUTOFF, mails, rows, violated

from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.alarms import early_alarm
from evergreen.monitoring.trigger import live_trigger
from evergreen.monitoring.windows import error_text, kept_sample, live_windows
from evergreen.monitoring.windows.judgement import Status
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.warehouse.connection import connect, fetch

DAY = timedelta(days=1)
DAILY = {
    "window": "1d",
    "min_rows": 20,
    "trigger": {"m": 1, "n": 3, "cooldown": "1d"},
    "performance": {"max_worse": 0.3},
}


def run(world, as_of):
    return judge_windows(world.specs, world.spec, as_of)


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
        assert [error_text.verdict(j) for j in run(world, noon(number + 1))] == ["ok, error not yet"]
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
    assert error_text.verdict(late) == "violation, revision 2, was ok"
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
    assert "watched version 1" in text
    assert "Window 2024-05-20 00:00 to 2024-05-21 00:00 UTC" in text
    assert "In violation:" in text
    assert (folder / "20240520T0000Z-r1" / kept_sample.FILE).exists()


def test_a_late_violation_of_an_earlier_champion_does_not_count_for_the_present_one(scene):
    world = promoted(scene, trigger={"m": 2, "n": 3, "cooldown": "1d"})
    serve(world, 3, "2", off=8.0)
    world.labels(pd.concat([day(0, 8.0), day(1, 8.0)]), noon(4))
    found = [(j.version, violated(j)) for j in run(world, noon(4))]
    assert found == [(version, {"performance:rmse"}) for version in ("1", "1", "2")]
    decided = live_trigger.apply(world.spec, noon(4), "monitor/1", world.specs)
    assert decided.reason == "too_few_violations", "one window of the last three is its own"
    assert not early_alarm.tell(world.spec, noon(4), "monitor/1")
    assert mails(world) == []


def test_a_late_ok_of_an_earlier_champion_is_no_recovery_by_the_present_one(scene):
    world = daily(scene)
    world.champion("1")
    serve(world, 0, "1", off=8.0)
    run(world, noon(1))
    live_trigger.apply(world.spec, noon(1), "monitor/1", world.specs)
    assert [row["kind"] for row, _ in mails(world)] == ["drift"]
    serve(world, 1, "1", labels=False)
    run(world, noon(2))
    world.champion("2", as_of=CUTOFF + 2 * DAY + timedelta(hours=13))
    serve(world, 2, "2", labels=False)
    run(world, noon(3))
    world.labels(day(1), noon(3, minutes=10))
    assert [(j.version, j.status) for j in run(world, noon(3, minutes=20))] == [("1", Status.OK)]
    live_trigger.apply(world.spec, noon(3, minutes=20), "monitor/2", world.specs)
    assert [row["kind"] for row, _ in mails(world)] == ["drift"], "of version 2 no error is known yet"
    world.labels(day(2), noon(3, minutes=30))
    assert [j.version for j in run(world, noon(3, minutes=40))] == ["2"]
    live_trigger.apply(world.spec, noon(3, minutes=40), "monitor/3", world.specs)
    assert [row["kind"] for row, _ in mails(world)] == ["drift", "recovered"]


def test_after_a_rollback_the_windows_of_both_earlier_reigns_wait_for_their_labels(scene):
    world = promoted(scene)
    with connect() as conn:
        back = Decision(
            noon(3, minutes=1),
            "model/watched",
            DecisionKind.ROLLED_BACK,
            "manual",
            "rollback/1",
            "back:1",
            {},
            "1",
        )
        append(conn, back)
    world.labels(day(0, 8.0), noon(3, minutes=10))
    (late,) = run(world, noon(3, minutes=20))
    assert (late.version, late.window_start, late.revision, violated(late)) == (
        "1", CUTOFF, 2, {"performance:rmse"},
    )  # fmt: skip
    assert live_trigger.apply(world.spec, noon(3, minutes=20), "monitor/2", world.specs) is None, (
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


def test_a_version_of_another_task_leaves_its_windows_as_they_were_and_the_champion_watched(
    scene, caplog, monkeypatch
):
    world = promoted(scene)
    serve(world, 3, "2")
    world.labels(pd.concat([day(0, 8.0), day(1, 8.0)]), noon(4))
    read = live_windows._reference

    def other_task(model, run_id):
        found = read(model, run_id)
        return replace(found, holdout_metrics={"roc_auc": 0.9}) if run_id == world.first_run else found

    monkeypatch.setattr(live_windows, "_reference", other_task)
    assert [j.version for j in run(world, noon(4))] == ["2"]
    assert told(world, "1") == [(0, 1, "ok", "not_yet"), (1, 1, "ok", "not_yet")]
    assert any("trained for another task" in r.getMessage() for r in caplog.records)


def test_two_runs_at_once_judge_a_late_window_once(scene):
    world = promoted(scene)
    world.labels(day(0, 8.0), noon(3, minutes=10))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda number: run(world, noon(3, minutes=20)), range(2)))
    assert sorted(len(judged) for judged in found) == [0, 1]
    assert [revision for number, revision, *_ in told(world, "1") if number == 0] == [1, 2]


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
