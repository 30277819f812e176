"""`evergreen run`: it ends with what came out, or why nothing did, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_server import DAG, RUN, Airflow, serving
from terminal_scene import DEMAND, HOSTILE, TRAINED, Terminal, decide

from evergreen.alert_kinds import AlertKind
from evergreen.alerting.delivery import deliver
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import load_specs
from evergreen.stack.layout import Layout, write_private
from evergreen.terminal import outcome
from evergreen.warehouse.connection import connect

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def airflow() -> Airflow:
    """A training that came through."""
    return Airflow(tasks={"snapshot": ("success", 1), "fit": ("success", 1), "announce": ("skipped", 0)})


@pytest.fixture
def stack(terminal: Terminal, warehouse_url: str, tmp_path: Path, airflow: Airflow) -> Iterator[Layout]:
    """An embedded stack of which the API server is up."""
    layout = Layout(tmp_path / "home")
    layout.create()
    _ = layout.secrets
    with serving(airflow) as port:
        write_private(layout.ports_file, f'{{"api-server": {port}}}')
        yield layout


@pytest.fixture
def of_the_run(warehouse_url: str) -> Callable[..., Decision]:
    """Write a decision of the run."""

    def write(kind: DecisionKind, reason: str, subject: str = DEMAND, **more: Any) -> Decision:
        with connect() as conn:
            return decide(conn, subject, kind, reason, run_id=f"{DAG}/{RUN}", **more)

    return write


def flat(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def test_a_promotion_is_told_with_its_numbers_and_its_mail(
    terminal: Terminal, stack: Layout, airflow: Airflow, of_the_run: Callable[..., Decision], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "team@example.org")
    made = of_the_run(DecisionKind.PROMOTED, "better_than_champion", version="4", evidence={**TRAINED, "message": "9.1 % better"})  # fmt: skip
    with connect() as conn:
        raise_incident(conn, "a", DEMAND, AlertKind.CHAMPION_CHANGED, made.id, {})
    told = terminal("run", DAG, "reason=a", "sensor", "moved")
    assert told.status == 0
    assert airflow.conf == {"reason": "a sensor moved"}
    shown = flat(told.out)
    assert f"/dags/{DAG}/runs/{RUN}" in shown
    assert "snapshot done" in shown
    assert "announce not needed" in shown
    assert f"{DAG} is done after" in shown
    assert "bike_demand: new champion v4: it beat the champion on the same rows: 9.1 % better" in shown
    assert "RMSE on the same rows: challenger 55.81, champion 61.4, baseline 99.2" in shown
    assert "Mail waits: a new champion (bike_demand), to team@example.org" in shown
    assert not [word for word in ("success", "skipped", "upstream") if word in shown], "Airflow's states"


def test_what_became_of_the_mails_is_told(
    terminal: Terminal, stack: Layout, of_the_run: Callable[..., Decision]
) -> None:
    asked = of_the_run(DecisionKind.RETRAIN_REQUESTED, "data_drift")
    with connect() as conn:
        raise_incident(conn, "a", DEMAND, AlertKind.DRIFT, asked.id, {})
    specs = load_specs(REPOSITORY / "include")

    def refuse(message: object) -> None:
        raise ConnectionRefusedError("no mail server")

    deliver(specs, refuse)
    assert "Mail waits: drift (bike_demand)" in terminal("run", DAG).out
    assert "no mail server" in flat(terminal("run", DAG).out)
    deliver(specs, lambda message: None)
    assert "Mail sent: drift (bike_demand)" in terminal("run", DAG).out


def test_a_failure_is_told_with_its_last_error_and_where_its_log_is(
    terminal: Terminal, stack: Layout, airflow: Airflow
) -> None:
    airflow.state = "failed"
    airflow.tasks = {"snapshot": ("success", 1), "fit": ("failed", 3), "settle": ("upstream_failed", 0)}
    detail = {"exc_type": "TerminalError", "exc_value": f"no rows; land some {HOSTILE}"}
    airflow.logs = {"fit": [{"event": "Task failed", "error_detail": [detail]}]}
    log = stack.logs / "airflow" / f"dag_id={DAG}" / f"run_id={RUN}" / "task_id=fit" / "attempt=3.log"
    log.parent.mkdir(parents=True)
    log.write_text("x")
    told = terminal("run", DAG)
    shown = flat(told.out)
    assert told.status == 1
    assert f"{DAG} failed after" in shown
    assert "settle not reached, because of what failed" in shown
    assert "fit failed after 3 tries: no rows; land some a\\x1b[2J" in shown
    assert "attempt=3.log" in shown
    assert "then run it again, or clear the task on its page" in shown
    as_json = terminal("run", DAG, "--json")
    (failed,) = as_json.json["failed"]
    assert (failed["task"], failed["tries"], failed["file"]) == ("fit", 3, str(log))
    assert as_json.json["succeeded"] is False
    assert f"/dags/{DAG}/runs/{RUN}" in as_json.err, "progress is no part of the JSON"


def test_the_json_has_these_keys(terminal: Terminal, stack: Layout) -> None:
    told = terminal("run", DAG, "--json").json
    assert sorted(told) == ["dag", "decisions", "failed", "mails", "not_needed", "page", "results", "run", "succeeded", "unread"]  # fmt: skip


def test_a_run_without_anything_to_do_says_so(terminal: Terminal, stack: Layout, airflow: Airflow) -> None:
    assert "There was nothing to do." in terminal("run", DAG).out
    airflow.tasks = {"snapshot": ("skipped", 1)}
    airflow.logs = {"snapshot": [{"event": "Skipping task.", "reason": "the request is answered already"}]}
    assert "Nothing to do in snapshot: the request is answered already" in terminal("run", DAG).out


@pytest.mark.parametrize(
    ("words", "said"),
    [(["train__bike_demnd"], "did you mean train__bike_demand"), ([DAG, "x=1"], "has no Param 'x'")],
    ids=["DAG", "Param"],
)
def test_what_cannot_start_is_refused(
    terminal: Terminal, stack: Layout, airflow: Airflow, words: list[str], said: str
) -> None:
    told = terminal("run", *words)
    assert (told.status, told.out) == (1, "")
    assert said in flat(told.err)
    assert not [asked for asked in airflow.asked if asked.endswith("/dagRuns")]


def test_without_a_stack_it_is_said(terminal: Terminal, tmp_path: Path) -> None:
    told = terminal("run", DAG)
    assert (told.status, told.out) == (1, "")
    assert "No stack was ever up here" in told.err
    assert not (tmp_path / "home").exists()


def test_without_an_airflow_it_is_said(terminal: Terminal, tmp_path: Path, warehouse_url: str) -> None:
    layout = Layout(tmp_path / "home")
    layout.create()
    _ = layout.secrets
    write_private(layout.ports_file, '{"api-server": 1}')
    told = terminal("run", DAG)
    assert (told.status, told.out) == (1, "")
    assert "Airflow does not answer" in told.err


def test_decisions_are_told_in_words(of_the_run: Callable[..., Decision]) -> None:
    rows = {"rows_read": 9, "rows_new": 8, "rows_changed": 1, "rows_held": 0}
    bad = {"column": "x", "expectation": "expect_column_values_to_be_between", "observed": "700", "limit": "at most 60", "remedy": "mend x"}  # fmt: skip
    hourly = "dataset/bike_hourly"
    of_the_run(DecisionKind.BATCH_PUBLISHED, "passed", hourly, evidence={"file": "a.csv", **rows})
    of_the_run(DecisionKind.BATCH_QUARANTINED, "too_many_bad_rows", hourly, evidence={"file": "b.csv", "failures": [bad], **rows, "rows_held": 9})  # fmt: skip
    of_the_run(
        DecisionKind.REJECTED, "worse_than_champion", version="4",
        evidence={"metric": "rmse", "message": "needs 2 % more", "metrics": {"challenger": {"rmse": 8.25}, "champion": {"rmse": 8.0}}},
    )  # fmt: skip
    of_the_run(DecisionKind.RUN_FAILED, "task_failed", evidence={"error": "told above"})
    with connect() as conn:
        decide(conn, DEMAND, DecisionKind.PROMOTED, "first_champion", run_id="dag/another")
    found, mails, unread = outcome.decided(load_specs(REPOSITORY / "include"), DAG, RUN)
    assert (mails, unread) == ((), "")
    assert [line for decision in found for line in outcome.said(decision)] == [
        "a.csv: published: 9 rows read, 8 new, 1 changed",
        "b.csv: held back, more bad rows than the spec allows: 9 rows read, 8 new, 1 changed, 9 held back",
        "  x: must be between: at most 60; found 700. Mend x",
        "bike_demand: challenger rejected v4: it is worse than the champion on the same rows: needs 2 % more",
        "  RMSE on the same rows: challenger 8.25, champion 8",
    ]


def test_a_ledger_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/nowhere")
    assert "does not answer" in outcome.decided(load_specs(REPOSITORY / "include"), DAG, RUN)[2]


class Log:
    """Airflow's log of a task, as its API gives it."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events = events

    def call(self, method: str, path: str, **_: Any) -> Any:
        assert path.endswith("/taskInstances/fit/logs/2")
        return {"content": list(self.events)}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            {"event": "Task failed", "error_detail": [{"exc_type": "TerminalError", "exc_value": "no rows; land some"}]},
            "no rows; land some (TerminalError)",
        ),
        ({"event": "Skipping task.", "reason": "every row has its prediction"}, "every row has its prediction"),
        ({"event": "Process terminated by signal.", "signal_name": "SIGKILL"}, "its process was killed by SIGKILL"),
        ({"event": "nothing"}, "its log does not say why"),
    ],
    ids=["error", "skipped", "killed", "silent"],
)  # fmt: skip
def test_the_end_of_a_log_says_why(event: dict[str, Any], said: str) -> None:
    task = {"dag_id": "d", "dag_run_id": "r", "task_id": "fit", "try_number": 2}
    assert outcome.reason(Log(event, {"event": "::endgroup::"}), task).startswith(said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "value", "said"),
    [
        (
            "land",
            {"published": [], "waiting": {"a.csv": "changed less than 1 min ago", "b.csv": "no b.csv.done that is newer than it"}},
            [
                "a.csv: waits, changed less than 1 min ago; the next run takes it when it is finished",
                "b.csv: waits, no b.csv.done that is newer than it; the next run takes it when it is finished",
            ],
        ),
        ("score", {"rows": 1200, "version": "4", "as_of": "2026-03-02T00:00:00+00:00"}, ["1,200 predictions by v4, of rows known by 2026-03-02 00:00 UTC"]),
        ("judge", {"windows": [], "request": None}, ["no window was due", "no retraining is asked for"]),
        ("judge", {"windows": ["2026-03-02 00:00 v4 ok"], "request": 7}, ["window 2026-03-02 00:00 v4 ok", "a retraining is asked for (request 7)"]),
        ("fit", {"rows": {}}, []),
    ],
    ids=["files that wait", "predictions", "nothing due", "a request", "a decision tells it"],
)  # fmt: skip
def test_what_a_task_handed_on_is_told(task: str, value: dict[str, Any], said: list[str]) -> None:
    class Handed:
        def call(self, method: str, path: str) -> dict[str, Any]:
            return {"value": value}

    known = {"task_id": task, "dag_id": "d", "dag_run_id": "r"}
    assert outcome.result(Handed(), known) == said  # type: ignore[arg-type]
