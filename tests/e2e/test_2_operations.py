"""What people and nights do to the loop: nightly runs, backfills, two at once, bad specs, rollback, dead services."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
import requests
from e2e_wait import FAR, until

from evergreen import ledger
from evergreen.errors import EvergreenError, TerminalError
from evergreen.feeds.story import File
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.stack import control
from evergreen.stack.demo import DATASET, MODEL, SECOND_MODEL, start_afresh
from evergreen.warehouse.connection import connect

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _after_the_story(told: Any) -> None:
    """These tests need its data."""


def kill(stack: Any, service: str, how: signal.Signals) -> None:
    pid = next(row.pid for row in control.status(stack.layout.home) if row.service == service)
    os.kill(pid, how)


def champion(stack: Any, model: str = MODEL) -> str:
    return stack.decisions(f"model/{model}", DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK)[0].version


def alias(stack: Any, model: str = MODEL) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient().get_model_version_by_alias(model, "champion").version)


def test_two_triggers_at_once_run_one_after_the_other_and_reject_what_is_not_better(
    stack: Any, told: Any
) -> None:
    before, as_of = champion(stack), told.deliveries[-1].as_of.isoformat()
    runs = [stack.api.trigger(f"train__{MODEL}", {"as_of": as_of, "reason": "two at once"}) for _ in range(2)]
    for run in runs:
        assert stack.api.wait(f"train__{MODEL}", run) == "success"
    first, second = (stack.api.run(f"train__{MODEL}", run) for run in runs)
    assert first["end_date"] <= second["start_date"] or second["end_date"] <= first["start_date"], (
        "they overlapped"
    )
    for run in runs:
        (decision,) = [
            d
            for d in stack.decisions(f"model/{MODEL}")
            if d.run_id.endswith(run) and d.kind in (DecisionKind.PROMOTED, DecisionKind.REJECTED)
        ]
        if decision.kind is DecisionKind.PROMOTED:
            checks = {c["check"]: c for c in decision.evidence.to_json()["checks"]}
            assert checks["not_surely_worse"]["passed"]
    rejected = [
        d for d in stack.decisions(f"model/{MODEL}", DecisionKind.REJECTED) if d.run_id.endswith(tuple(runs))
    ]
    assert rejected, "the same data a second time cannot be better"
    for decision in rejected:
        failed = [c["check"] for c in decision.evidence.to_json()["checks"] if not c["passed"]]
        assert failed, decision
    assert stack.mails(f"rejected:{MODEL}:")
    assert champion(stack) == alias(stack)
    assert before


def test_dry_run_decides_nothing(stack: Any, told: Any) -> None:
    before = len(stack.decisions(f"model/{MODEL}"))
    run = stack.run(
        f"train__{MODEL}", {"as_of": told.deliveries[-1].as_of.isoformat(), "dry_run": True, "reason": "look"}
    )
    assert len(stack.decisions(f"model/{MODEL}")) == before
    assert stack.api.tasks(f"train__{MODEL}", run)["settle"] == "skipped"


def test_rollback_returns_to_the_real_previous_champion(stack: Any) -> None:
    history = [d.version for d in stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)]
    assert len(history) >= 2
    for without in ({}, {"reason": ""}, {"reason": " "}):
        with pytest.raises(requests.HTTPError, match="reason"):
            stack.api.trigger(f"rollback__{MODEL}", without)
    stack.run(f"rollback__{MODEL}", {"reason": "vans complain"})
    (decision,) = stack.decisions(f"model/{MODEL}", DecisionKind.ROLLED_BACK)
    assert decision.version == history[1]
    assert alias(stack) == history[1]
    assert "vans complain" in str(decision.evidence.to_json())
    assert stack.mails(f"rolled_back:{MODEL}:")
    until(
        lambda: not stack.api.active([f"score__{MODEL}", f"monitor__{MODEL}"]),
        "the scoring after the rollback",
    )


def test_mail_server_down_the_decision_stands_and_the_mail_is_retried(stack: Any) -> None:
    stack.api.call(
        "POST",
        "connections",
        json={"connection_id": "evergreen_smtp", "conn_type": "smtp", "host": "127.0.0.1", "port": 9,
              "extra": '{"from_email": "a@localhost", "disable_ssl": true, "disable_tls": true, "timeout": 3, "retry_limit": 1}'},
    )  # fmt: skip
    newest = stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED)[0].version
    run = stack.api.trigger(f"rollback__{MODEL}", {"reason": "back again", "to_version": newest})
    try:
        until(lambda: champion(stack) == newest, "the rollback's decision")
        lost = until(
            lambda: stack.rows(
                "SELECT attempts, last_error FROM evergreen.delivery WHERE sent_at IS NULL AND attempts > 0"
            ),
            "a failed mail",
        )
        assert lost[0]["last_error"]
        state = until(
            lambda: (
                (s := stack.api.tasks(f"rollback__{MODEL}", run)["notify"]) in ("up_for_retry", "failed")
                and s
            ),
            "notify to fail",
        )
        assert state in ("up_for_retry", "failed")
    finally:
        stack.api.call("DELETE", "connections/evergreen_smtp")
    assert stack.api.wait(f"rollback__{MODEL}", run) == "success", "the retry sends it"
    assert stack.rows("SELECT count(*) AS n FROM evergreen.mail WHERE sent_at IS NULL") == [{"n": 0}]
    assert alias(stack) == newest


def test_backfill_over_past_intervals(stack: Any, told: Any) -> None:
    """A backfill trains as of past nights; what is older than the champion is judged, not promoted."""
    before = champion(stack, SECOND_MODEL)
    history = [d for d in told.deliveries if d.kind == "history"][-1].as_of
    start, end = history - timedelta(days=2), history
    stack.api.call(
        "POST",
        "backfills",
        json={"dag_id": f"train__{SECOND_MODEL}", "from_date": start.isoformat(), "to_date": end.isoformat(),
              "reprocess_behavior": "none", "max_active_runs": 1},
    )  # fmt: skip
    runs = until(
        lambda: (
            (r := stack.api.runs(f"train__{SECOND_MODEL}", run_type="backfill"))
            and all(x["state"] in ("success", "failed") for x in r)
            and r
        ),
        "the backfill",
        240,
    )
    assert len(runs) == 2
    assert {r["state"] for r in runs} == {"success"}
    settled = [
        d for d in stack.decisions(f"model/{SECOND_MODEL}", DecisionKind.REJECTED) if "backfill" in d.run_id
    ]
    assert {d.reason for d in settled} <= {
        "older_than_champion",
        "worse_than_champion",
        "not_enough_fresh_rows",
        "worse_than_baseline",
    }
    assert {d.as_of.replace(tzinfo=UTC) for d in settled} == {
        datetime.fromisoformat(r["logical_date"].replace("Z", "+00:00")) for r in runs
    }
    assert champion(stack, SECOND_MODEL) == before


def test_nightly_run_by_its_cron(stack: Any) -> None:
    """The cron of a spec that was edited while all runs; the as-of time is the tick."""
    name = f"models/{SECOND_MODEL}.yaml"
    before = (stack.specs / name).read_text()
    stack.edit(name, f'schedule: "{FAR}"', 'schedule: "* * * * *"')
    stack.edit(name, "window: 210d", "window: all")
    try:
        run = until(
            lambda: [
                r
                for r in stack.api.runs(f"train__{SECOND_MODEL}", run_type="scheduled")
                if r["state"] == "success"
            ],
            "a nightly run",
            240,
        )[-1]
    finally:
        (stack.specs / name).write_text(before)
    decision = next(
        d
        for d in stack.decisions(f"model/{SECOND_MODEL}", DecisionKind.PROMOTED, DecisionKind.REJECTED)
        if d.run_id.endswith(run["dag_run_id"])
    )
    tick = datetime.fromisoformat(run["logical_date"].replace("Z", "+00:00"))
    assert decision.as_of == tick
    until(lambda: not stack.api.active([f"train__{SECOND_MODEL}"]), "the last nightly run")


def test_a_bad_spec_is_shown_and_switches_off_only_its_own_dags(stack: Any) -> None:
    stack.edit(f"models/{SECOND_MODEL}.yaml", "metric: log_loss", "metrik: log_loss")
    try:
        found = until(lambda: stack.api.call("GET", "importErrors")["import_errors"], "the import error", 90)
        assert "gate.metrik: unknown field; did you mean metric?" in str(found)
        stack.run(f"monitor__{MODEL}", {"as_of": "2012-01-01T00:00:00Z"})
    finally:
        stack.edit(f"models/{SECOND_MODEL}.yaml", "metrik: log_loss", "metric: log_loss")
    until(lambda: not stack.api.call("GET", "importErrors")["import_errors"], "the spec to be good again", 90)


def test_a_query_that_does_not_run_fails_the_training_once_and_is_mailed_once(stack: Any, told: Any) -> None:
    stack.edit(f"models/{MODEL}.sql", "humidity,", "humidty,")
    try:
        for _ in range(2):
            run = stack.run(
                f"train__{MODEL}", {"as_of": told.deliveries[-1].as_of.isoformat()}, expect="failed"
            )
            tries = stack.api.call("GET", f"dags/train__{MODEL}/dagRuns/{run}/taskInstances/snapshot")[
                "try_number"
            ]
            assert tries == 1, "trying again cannot help"
    finally:
        stack.edit(f"models/{MODEL}.sql", "humidty,", "humidity,")
    failed = stack.decisions(f"model/{MODEL}", DecisionKind.RUN_FAILED)
    assert len([d for d in failed if 'column "humidty" does not exist' in d.evidence.to_json()["error"]]) == 2
    assert len([m for m in stack.mails(f"failed:train__{MODEL}.snapshot") if "humidty" in m.read_text()]) == 1


def test_another_story_does_not_wipe_what_is_the_users(stack: Any) -> None:
    mine = Decision(datetime.now(UTC), "dataset/mine", DecisionKind.BATCH_PUBLISHED, "passed", "x/y", "mine")
    with connect() as conn:
        ledger.append(conn, mine)
    with pytest.raises(TerminalError, match="data of your own"):
        start_afresh(stack.api, stack.layout)
    assert list(stack.landing.glob("*.csv")), "nor its files"


def test_down_and_up_lose_nothing(stack: Any) -> None:
    tables = ("evergreen.decision", "evergreen.prediction", "evergreen.window_judgement", "data.bike_hourly")
    counts = [stack.rows(f"SELECT count(*) AS n FROM {t}") for t in tables]
    control.down(stack.layout.home)
    control.up(stack.layout.home)
    assert [stack.rows(f"SELECT count(*) AS n FROM {t}") for t in tables] == counts
    assert champion(stack) == alias(stack)


def test_mlflow_dies_in_the_middle_of_a_training(stack: Any, told: Any) -> None:
    run = stack.api.trigger(
        f"train__{MODEL}", {"as_of": told.deliveries[-1].as_of.isoformat(), "reason": "mlflow dies"}
    )
    until(lambda: stack.api.tasks(f"train__{MODEL}", run).get("fit") == "running", "the fit")
    kill(stack, "mlflow", signal.SIGKILL)
    assert stack.api.wait(f"train__{MODEL}", run, 300) == "success"
    one_decision(stack, run)


def test_postgres_restarts_in_the_middle_of_a_training(stack: Any, told: Any) -> None:
    run = stack.api.trigger(
        f"train__{MODEL}", {"as_of": told.deliveries[-1].as_of.isoformat(), "reason": "postgres restarts"}
    )
    until(
        lambda: stack.api.tasks(f"train__{MODEL}", run).get("snapshot") in ("running", "success"),
        "the snapshot",
    )
    kill(stack, "postgres", signal.SIGINT)
    until(
        lambda: all(row.is_good for row in control.status(stack.layout.home)),
        "the stack to be whole again",
        120,
    )
    finished(stack, run)
    one_decision(stack, run)


def test_sigkill_of_everything_in_the_middle_of_a_training(stack: Any, told: Any) -> None:
    """After the restart the run is finished or retried; nothing is doubled, nothing is half there."""
    last = told.deliveries[-1]
    again = last.files[0].table.copy()
    again["demand"] = again["demand"].fillna(0).astype(int) + 1  # the same week once more, each row corrected
    File("again.csv", again).write(stack.landing)
    ingested = stack.api.trigger(f"ingest__{DATASET}", {"as_of": last.as_of.isoformat()})
    run = stack.api.trigger(f"train__{MODEL}", {"as_of": last.as_of.isoformat(), "reason": "power cut"})
    until(lambda: stack.api.tasks(f"train__{MODEL}", run).get("fit") == "running", "the fit")
    pids = {row.pid for row in control.status(stack.layout.home) if row.pid}
    victims = {
        p.pid: p for pid in pids for p in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    }
    supervisors = [
        p.parent() for p in victims.values() if p.pid in pids and p.parent() and p.parent().pid != 1
    ]
    for process in [*supervisors, *victims.values()]:
        if process.is_running():
            process.kill()
    control.up(stack.layout.home)
    finished(stack, run, 300)
    one_decision(stack, run)
    until(lambda: ended(stack, f"ingest__{DATASET}", ingested), "the ingest", 240)
    until(lambda: not stack.api.active([f"score__{MODEL}"]), "the scoring")
    (batch,) = stack.rows("SELECT rows_read, rows_changed FROM evergreen.batch WHERE file = 'again.csv'")
    assert batch["rows_changed"] == batch["rows_read"] == len(again), "the batch is whole, and there once"
    assert stack.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'staging'") == []
    doubled = stack.rows(
        "SELECT event_time FROM evergreen.prediction GROUP BY model, version, event_time HAVING count(*) > 1"
    )
    assert doubled == []
    promoted = stack.rows(
        "SELECT version FROM evergreen.decision WHERE kind = 'promoted' GROUP BY subject, version HAVING count(*) > 1"
    )
    assert promoted == []
    assert champion(stack) == alias(stack)


def ended(stack: Any, dag_id: str, run: str) -> str | None:
    """State of a run that has ended, else None, also while the API itself is coming back."""
    try:
        found = str(stack.api.run(dag_id, run)["state"])
    except (EvergreenError, requests.HTTPError):
        return None
    return found if found in ("success", "failed") else None


def finished(stack: Any, run: str, timeout_s: float = 240) -> None:
    state = until(lambda: ended(stack, f"train__{MODEL}", run), f"the end of {run}", timeout_s)
    assert state == "success", stack.api.tasks(f"train__{MODEL}", run)


def one_decision(stack: Any, run: str) -> None:
    found = [
        d
        for d in stack.decisions(f"model/{MODEL}", DecisionKind.PROMOTED, DecisionKind.REJECTED)
        if d.run_id.endswith(run)
    ]
    assert len(found) == 1, found
    from mlflow import MlflowClient

    versions = [
        v
        for v in MlflowClient().search_model_versions(f"name = '{MODEL}'")
        if v.tags.get("evergreen.run_id", "").endswith(run)
    ]
    assert len(versions) == 1, "a version for each try"
