"""Windows of a champion judged on a real warehouse, with real Evidently reports in a real MLflow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from monitoring_scene import CUTOFF, ROWS, WEEK, as_table, at, count, learnt, rows, violated, week

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.trigger import live_trigger
from evergreen.monitoring.windows import error_text
from evergreen.monitoring.windows import judgement as store
from evergreen.monitoring.windows.judgement import Status, What
from evergreen.monitoring.windows.live_windows import judge_windows
from evergreen.warehouse.connection import connect, fetch

DAY = timedelta(days=1)


def run(world, as_of, run_id="monitor/1"):
    return judge_windows(world.specs, world.spec, as_of)


def test_quiet_windows_are_ok_once_with_their_sample_in_mlflow(scene):
    world = scene()
    run_id = world.champion()
    world.live(2)
    found = run(world, at(2))
    assert [(j.status, j.window_start, j.revision) for j in found] == [
        (Status.OK, CUTOFF, 1),
        (Status.OK, CUTOFF + WEEK, 1),
    ]
    assert {(j.rows, j.sampled_rows, j.labelled, j.mlflow_run) for j in found} == {(ROWS, ROWS, ROWS, run_id)}
    files = {f.path for f in MlflowClient().list_artifacts(run_id, "monitoring/20240520T0000Z-r1")}
    assert found[0].report in files
    assert files == {"monitoring/20240520T0000Z-r1/window.parquet"}, (
        "nobody opens the pages of a quiet window"
    )
    assert run(world, at(2)) == []
    with connect() as conn:
        back = store.newest(conn, "watched", "1", ends_after=CUTOFF, as_of=at(2), limit=9)
    key = lambda c: (c.kind.value, c.column)  # noqa: E731
    assert [sorted(j.columns, key=key) for j in back] == [sorted(j.columns, key=key) for j in found]
    assert [j.metrics for j in back] == [j.metrics for j in found]


def test_a_run_learns_the_types_of_the_server_once(scene, monkeypatch):
    world = scene()
    world.champion()
    world.live(3)
    opened = []
    monkeypatch.setattr(adbc, "connect", lambda *a, do=adbc.connect, **k: opened.append(1) or do(*a, **k))
    assert len(run(world, at(3))) == 3
    assert len(opened) == 1, "it takes more CPU than to judge a window"
    with connect() as conn:
        left = fetch(conn, "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()")
    assert left[0]["n"] == 1, "nothing stays open after the run"


def test_a_changed_unit_is_found_with_value_limit_and_what_it_was(scene):
    world = scene(drift={"ignore": ["pressure"]}, sample_rows=120)
    world.champion()
    world.live(1, change=lambda f: f.assign(amount=f["amount"] * 9 / 5 + 32, pressure=0.0))
    (found,) = run(world, at(1))
    assert found.status is Status.VIOLATION
    assert violated(found) == {"data_drift:amount"}
    assert (found.rows, found.sampled_rows) == (ROWS, 120)
    files = {f.path for f in MlflowClient().list_artifacts(world.run_id, "monitoring/20240520T0000Z-r1")}
    drawn = ("drift.html", "performance.html", "window.parquet")
    assert files == {f"monitoring/20240520T0000Z-r1/{name}" for name in drawn}
    assert found.report == "monitoring/20240520T0000Z-r1/drift.html"
    (finding,) = found.violations
    assert finding.value > 5 * finding.limit
    assert "(reference " in finding.detail


@pytest.mark.parametrize(
    ("keep", "late", "status", "kinds"),
    [
        pytest.param(0, False, Status.INSUFFICIENT, {"volume:_key"}, id="an empty window"),
        pytest.param(3, False, Status.INSUFFICIENT, {"volume:_key"}, id="three rows"),
        pytest.param(83, False, Status.INSUFFICIENT, {"volume:_key"}, id="less than half the usual"),
        pytest.param(84, False, Status.OK, set(), id="half the usual"),
        pytest.param(84, True, Status.STALE, {"stale:_time"}, id="the feed stopped"),
    ],
)
def test_rows_that_are_too_few_are_never_fine(scene, keep, late, status, kinds):
    world = scene()
    world.champion()
    world.land(week(-1))
    world.land(week(0).iloc[:keep] if late else week(0).sample(keep, random_state=1))
    world.score(CUTOFF - WEEK, CUTOFF + WEEK)
    if not late:
        world.land(week(1).head(3))
    (found,) = run(world, at(1, hours=3))
    assert (found.status, violated(found)) == (status, kinds)
    if kinds:
        assert found.columns == ()
        assert found.report is None
        (finding,) = found.violations
        assert finding.limit == (36 if late else 84)
        assert finding.value == (168 - 83 if late else keep)
    assert run(world, at(1, hours=3)) == []


def test_a_feed_that_stopped_is_found_before_its_window_is_over_and_judged_again_when_it_came_back(scene):
    world = scene()
    world.champion()
    world.live(1)
    run(world, at(1))
    world.land(week(1).head(24))
    assert run(world, at(1, hours=59)) == []
    (stale,) = run(world, at(1, hours=61))
    assert (stale.status, stale.window_start, stale.revision, stale.rows) == (
        Status.STALE,
        CUTOFF + WEEK,
        1,
        24,
    )
    assert run(world, at(1, hours=70)) == []
    world.land(week(1).iloc[24:], arrived=at(2))
    world.score(CUTOFF + WEEK, CUTOFF + 2 * WEEK)
    (again,) = run(world, at(2))
    assert (again.status, again.revision) == (Status.OK, 2)


def test_rows_without_a_prediction_are_not_fine_until_they_are_scored(scene):
    world = scene()
    world.champion()
    world.live(1)
    world.land(week(1))
    first, second = run(world, at(2))
    assert (first.status, second.status) == (Status.OK, Status.INSUFFICIENT)
    assert violated(second) == {"unscored:_prediction"}
    assert "run the scoring" in second.violations[0].detail
    world.score(CUTOFF + WEEK, CUTOFF + 2 * WEEK)
    (again,) = run(world, at(2))
    assert (again.status, again.revision, again.window_start) == (Status.OK, 2, CUTOFF + WEEK)


def test_keys_that_a_client_invents_do_not_count_as_scored_rows(scene):
    world = scene()
    world.champion()
    world.live(1)
    world.land(week(1))
    half = CUTOFF + 1.5 * WEEK
    world.score(CUTOFF + WEEK, half)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, scored_at, run_id)"
            " SELECT model, version, '[\"invented ' || n || '\"]', %s, 1, as_of, scored_at, 'online/here' FROM generate_series(1, 500) AS n,"
            " (SELECT * FROM evergreen.prediction ORDER BY event_time DESC LIMIT 1) AS p",
            (half + timedelta(hours=1),),
        )
        conn.commit()
    _, second = run(world, at(2))
    assert (second.status, second.scored, violated(second)) == (
        Status.INSUFFICIENT,
        ROWS // 2,
        {"unscored:_prediction"},
    )
    world.score(half, CUTOFF + 2 * WEEK)
    (again,) = run(world, at(2))
    assert (again.status, again.scored) == (Status.OK, ROWS)


@pytest.mark.parametrize("labels", [True, False], ids=["labelled", "unlabelled"])
def test_a_window_of_many_rows_of_which_part_was_scored_is_not_fine(scene, labels):
    """More rows are scored than is usual, and far fewer than there are; the others are another world."""
    world = scene()
    world.champion()
    parts = [week(0).assign(ts=lambda f, n=n: f["ts"] + timedelta(minutes=n)) for n in (0, 20, 40)]
    parts[1:] = [f.assign(guess=f["guess"] + 50) for f in parts[1:]]
    for part in parts:
        world.land(part, labels=labels)
    world.score(CUTOFF, CUTOFF + 4 * WEEK / 10)
    (first,) = run(world, at(1))
    assert (first.status, first.rows, first.scored, violated(first)) == (
        Status.INSUFFICIENT, 3 * ROWS, 202, {"unscored:_prediction"},
    )  # fmt: skip
    assert "302 of 504 rows have no prediction, 80% need one" in first.violations[0].detail
    world.score(CUTOFF, CUTOFF + 7 * WEEK / 10)
    assert run(world, at(1)) == []
    world.score(CUTOFF, CUTOFF + WEEK)
    (again,) = run(world, at(1))
    assert (again.status, again.revision, again.scored) == (Status.VIOLATION, 2, 3 * ROWS)
    assert violated(again) == {"prediction_drift:_prediction", *(("performance:rmse",) if labels else ())}
    assert run(world, at(1)) == []


def test_rows_that_are_scored_after_the_judgement_are_judged_once(scene):
    world = scene(performance={"min_labels": 0.9})
    world.champion()
    late = CUTOFF + WEEK * 6 / 7
    world.land(week(0).assign(guess=lambda f: f["guess"] + 50 * (f["ts"] >= late)))
    world.score(CUTOFF, late)
    (first,) = run(world, at(1))
    assert (first.status, first.scored, first.metrics["rmse"].state) == (Status.OK, 144, "not_yet")
    assert first.metrics["rmse"].coverage == 144 / 168
    assert (
        "168 of 168 labels are in, 24 rows have no prediction, 152 with both" in first.metrics["rmse"].detail
    )
    assert run(world, at(1)) == []
    world.score(late, CUTOFF + WEEK)
    (again,) = run(world, at(1))
    assert (again.status, again.revision, again.scored) == (Status.VIOLATION, 2, ROWS)
    assert "performance:rmse" in violated(again)
    assert run(world, at(1)) == []


def test_a_judgement_of_an_earlier_release_is_not_made_again(scene):
    world = scene()
    world.champion()
    world.live(1)
    run(world, at(1))
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.window_judgement SET scored = NULL")
    assert run(world, at(1)) == []


def test_a_window_in_which_scoring_began_is_judged_where_most_of_it_was_scored(scene):
    world = scene()
    world.champion()
    world.land(week(0))
    world.score(CUTOFF + timedelta(days=2), CUTOFF + WEEK)
    assert run(world, at(1)) == []
    world.score(CUTOFF + timedelta(days=1), CUTOFF + WEEK)
    assert [(j.status, j.scored) for j in run(world, at(1))] == [(Status.OK, 144)]


def test_a_scoring_that_never_ran_is_found_and_one_that_began_inside_a_window_is_not_blamed(scene):
    world = scene()
    world.champion()
    for number in range(2):
        world.land(week(number))
    assert [violated(j) for j in run(world, at(1))] == [{"unscored:_prediction"}]
    world.score(CUTOFF + WEEK - timedelta(days=2), CUTOFF + 2 * WEEK)
    found = run(world, at(2))
    assert [(j.window_start, j.status) for j in found] == [(CUTOFF + WEEK, Status.OK)]


def test_late_labels_are_not_yet_judged_and_judged_when_they_are_in(scene):
    world = scene(performance={"min_labels": 0.8})
    world.champion()
    frame = week(0).assign(y=lambda f: f["y"] + 5)
    world.land(frame, labels=False)
    world.land(week(1).head(60))
    world.score(CUTOFF, CUTOFF + WEEK)
    (first,) = run(world, at(1))
    assert (first.status, first.revision, first.labelled) == (Status.OK, 1, 0)
    assert (first.metrics["rmse"].state, first.metrics["rmse"].value) == ("not_yet", None)
    world.labels(frame.head(100), at(1, days=1))
    assert run(world, at(1, days=1, hours=1)) == []
    world.labels(frame.iloc[100:], at(1, days=2))
    (second,) = run(world, at(1, days=2, hours=1))
    assert (second.status, second.revision, second.labelled) == (Status.VIOLATION, 2, ROWS)
    assert violated(second) == {"performance:rmse"}
    assert [(r["revision"], r["labelled"]) for r in world.judgements()] == [(1, 0), (2, ROWS)]


@pytest.mark.parametrize("count", [29, 31], ids=["fewer-than-thirty", "thirty"])
def test_labels_that_never_come_do_not_silence_the_error(scene, count):
    """Most rows never get a label; the few that have one say that the model is far off."""
    world = scene()
    world.champion()
    frame = week(0).assign(y=lambda f: f["y"] + 50)
    world.land(frame, labels=False)
    world.labels(frame.head(count), CUTOFF + WEEK)
    world.score(CUTOFF, CUTOFF + WEEK)
    (found,) = run(world, at(1, days=1))
    assert (found.rows, found.labelled) == (ROWS, count)
    if count < 30:
        assert (found.status, found.metrics["rmse"].state) == (Status.OK, "not_yet")
        return
    assert (found.status, found.metrics["rmse"].state) == (Status.VIOLATION, "judged")
    assert found.metrics["rmse"].rows == count
    assert violated(found) == {"performance:rmse"}
    assert run(world, at(1, days=1, hours=1)) == []


def test_an_outage_does_not_keep_windows_whose_labels_came_from_being_judged(scene):
    world = scene(window="12h", freshness="60d", min_rows=5)
    world.spec = world.spec.model_copy(
        update={"label": world.spec.label.model_copy(update={"delay": timedelta(days=4)})}
    )
    world.champion()
    frame = week(0).head(48)
    world.land(frame, labels=False)
    world.score(CUTOFF, CUTOFF + timedelta(days=2))
    outage = CUTOFF + timedelta(days=8)
    first = run(world, outage)
    assert {j.status for j in first} == {Status.INSUFFICIENT}
    assert len(first) == 12
    second = run(world, outage, "monitor/2")
    assert [(j.window_start, j.status) for j in second] == [
        (CUTOFF + i * timedelta(hours=12), Status.OK) for i in range(4)
    ]
    world.labels(frame, outage + timedelta(minutes=30))
    late = run(world, outage + timedelta(hours=1), "monitor/3")
    assert [(j.window_start, j.revision, j.labelled) for j in late] == [
        (CUTOFF + i * timedelta(hours=12), 2, 12) for i in range(4)
    ]


def test_a_run_as_of_an_earlier_time_judges_the_champion_of_that_time(scene):
    world = scene()
    world.champion("1")
    world.live(2)
    world.champion("2", as_of=at(5))
    assert [j.version for j in run(world, at(2))] == ["1", "1"]


def test_labels_and_predictions_that_came_after_as_of_do_not_count(scene):
    world = scene()
    world.champion()
    world.land(week(0))
    world.score(CUTOFF, CUTOFF + WEEK, as_of=at(1, days=3))
    (early,) = run(world, at(1))
    assert violated(early) == {"unscored:_prediction"}


def test_a_bad_column_is_reported_and_the_others_are_judged(scene):
    world = scene()
    world.champion()
    world.live(1, change=lambda f: f.assign(amount=None, kind=None, pressure=float("inf")))
    (found,) = run(world, at(1))
    bad = {c.column: c for c in found.columns if c.kind is What.UNREADABLE}
    assert set(bad) == {"amount", "kind", "pressure"}
    assert all(c.value is None and c.violated for c in bad.values())
    assert {c.column for c in found.columns if c.kind is What.DATA_DRIFT} == {"level", "_label"}
    assert found.report is not None


def test_two_runs_at_once_judge_each_window_once(scene):
    world = scene()
    world.champion()
    world.live(2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda n: run(world, at(2), f"monitor/{n}"), range(2)))
    assert sorted(j.window_start for made in found for j in made) == [CUTOFF, CUTOFF + WEEK]
    with connect() as conn:
        assert count(conn, "window_judgement") == 2


def test_served_is_the_first_prediction_of_a_key_whichever_version_made_it(scene):
    world = scene()
    world.champion()
    world.land(week(0))
    half = CUTOFF + WEEK / 2
    world.score(CUTOFF, half, version="1")
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE data.sensor SET guess = guess + 50")
    world.score(CUTOFF, half, version="2")
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE data.sensor SET guess = guess - 50")
    world.score(half, CUTOFF + WEEK, version="2")
    (found,) = run(world, at(1))
    assert found.status is Status.OK
    served = next(c for c in found.columns if c.kind is What.PREDICTION_DRIFT)
    assert "version 1 (84 rows), version 2 (84 rows)" in served.detail


def test_after_a_rollback_the_windows_of_the_version_taken_back_are_not_its_successors(scene):
    world = scene()
    world.champion("1")
    world.champion("2", as_of=at(1))
    world.live(3)
    with connect() as conn:
        back = Decision(
            at(2, days=1),
            "model/watched",
            DecisionKind.ROLLED_BACK,
            "manual",
            "rollback/1",
            "back:1",
            {},
            "1",
        )
        append(conn, back)
    found = run(world, at(3))
    assert [(j.version, j.window_start) for j in found] == [("1", CUTOFF + 2 * WEEK)]


def test_windows_before_an_approval_are_not_those_of_the_champion_that_waited(scene):
    """The concept has moved: version 1 errs, version 2 is trained as of day 1 and approved on day 4."""
    world = scene(window="1d", min_rows=20, trigger={"m": 2, "n": 3}, performance={"max_worse": 0.3})
    world.champion("1")
    world.land(week(0, change=lambda f: f.assign(y=f["y"] + 8.0)))
    world.score(CUTOFF, CUTOFF + 4 * DAY, version="1")
    approved = CUTOFF + timedelta(days=4, hours=2)
    world.champion("2", as_of=CUTOFF + timedelta(days=1, hours=2), effective_from=approved)
    assert run(world, approved) == []
    assert live_trigger.apply(world.spec, approved, "monitor/1", world.specs) is None
    world.score(CUTOFF + 4 * DAY, CUTOFF + 6 * DAY, version="2")
    found = run(world, approved + 2 * DAY, "monitor/2")
    assert [j.window_start for j in found] == [CUTOFF + 4 * DAY, CUTOFF + 5 * DAY]


def test_a_window_that_another_version_served_is_no_error_of_the_champion(scene):
    """Without a word in the ledger of when version 2 went live, and with predictions that drifted, too."""
    world = scene(window="1d", min_rows=20, trigger={"m": 2, "n": 3}, performance={"max_worse": 0.3})
    world.champion("1")
    world.land(week(0, change=lambda f: f.assign(y=f["y"] + 8.0, guess=f["guess"] + 50)))
    world.score(CUTOFF, CUTOFF + 4.25 * DAY, version="1")
    world.score(CUTOFF + 4.25 * DAY, CUTOFF + 5 * DAY, version="2")
    world.champion("2", as_of=CUTOFF + timedelta(days=1, hours=2))
    as_of = CUTOFF + timedelta(days=5, hours=2)
    *theirs, mine = run(world, as_of)
    assert [j.window_start for j in theirs] == [CUTOFF + n * DAY for n in (1, 2, 3)]
    for found in theirs:
        assert not violated(found) & {"performance:rmse", "prediction_drift:_prediction"}
        assert found.metrics["rmse"].state == "another_version"
        assert error_text.verdict(found) == f"{found.status.value}, error another version's"
        assert error_text.error(found) == "RMSE: another version's (most rows were served by another version)"
        (served,) = [c for c in found.columns if c.kind is What.PREDICTION_DRIFT]
        assert served.value > served.limit, "measured and shown"
        assert served.detail.endswith("served by version 1 (24 rows)")
    assert violated(mine) >= {"performance:rmse", "prediction_drift:_prediction"}, (
        "18 of its 24 rows are its own"
    )
    decided = live_trigger.apply(world.spec, as_of, "monitor/1", world.specs)
    assert decided.reason == "too_few_violations", "one window is its own"
    assert run(world, as_of, "monitor/2") == [], "and nothing is to be judged again"


def test_without_a_champion_there_is_nothing_to_judge(scene):
    world = scene()
    assert run(world, at(1)) == []


def test_without_its_reference_nothing_is_judged(scene):
    world = scene()
    world.champion()
    world.live(1)
    (world.tmp / "artifacts" / world.run_id / "artifacts" / "reference" / "profile.json").unlink()
    with pytest.raises(TerminalError, match="no window can be judged") as error:
        run(world, at(1))
    assert error.value.reason is ErrorReason.REGISTRY_MISMATCH
    assert world.judgements() == []


def test_mlflow_that_fails_midway_leaves_the_window_due(scene, monkeypatch):
    world = scene()
    world.champion()
    world.live(1)
    artifacts = world.tmp / "artifacts" / world.run_id / "artifacts" / "monitoring"
    artifacts.write_text("a file where the reports' folder has to be")
    with pytest.raises(TransientError):
        run(world, at(1))
    assert world.judgements() == []
    artifacts.unlink()
    assert [j.revision for j in run(world, at(1))] == [1]


def test_a_feature_query_that_breaks_on_the_data_is_a_terminal_error(scene):
    world = scene()
    world.champion()
    world.live(1)
    world.spec = world.spec.model_copy(
        update={"query": "SELECT ts, 1/0 AS amount, pressure, level, kind, y FROM sensor"}
    )
    with pytest.raises(TerminalError, match="division by zero"):
        run(world, at(1))


def test_judging_does_not_hold_up_the_ingest_of_the_data(scene, monkeypatch):
    world = scene()
    world.champion()
    world.live(1)
    from evergreen import registry

    logged = registry.log_files

    def meanwhile(*args):
        with connect() as conn:
            fetch(conn, "SELECT 1 FROM data.sensor LIMIT 1")
            with conn.cursor() as cursor:
                cursor.execute("SET lock_timeout = 1000; LOCK TABLE data.sensor IN ACCESS EXCLUSIVE MODE")
        logged(*args)

    monkeypatch.setattr(registry, "log_files", meanwhile)
    assert len(run(world, at(1))) == 1


def test_a_row_of_long_ago_and_a_pause_blind_no_window(scene):
    """Either made the median of all past windows 0, and then 168 rows were too many."""
    world = scene()
    before = as_table(rows(1, datetime(1970, 1, 5, tzinfo=UTC), 1))
    paused = as_table(rows(1, CUTOFF - 80 * WEEK, 15 * ROWS))
    world.champion(learned=pa.concat_tables([before, paused, learnt()]))
    world.live(1)
    assert [(j.status, j.rows) for j in run(world, at(1))] == [(Status.OK, ROWS)]
    world.land(week(1).head(40).assign(ts=lambda f: f["ts"] + 4 * DAY))
    world.score(CUTOFF + WEEK, CUTOFF + 2 * WEEK)
    (few,) = run(world, at(2))
    assert (few.status, violated(few)) == (Status.INSUFFICIENT, {"volume:_key"})
