"""`make run`: what is refused before anything starts, and what it says of a run that has ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from evergreen.ledger import Decision, append
from evergreen.ledger.reasons import DecisionKind
from evergreen.stack import run_dag
from evergreen.stack.layout import StackError
from evergreen.warehouse.connection import connect

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
KNOWN = {
    "reason": {"value": None, "schema": {"type": "string", "minLength": 1}, "description": "Why."},
    "to_version": {"value": None, "schema": {"type": ["null", "string"]}, "description": "Which."},
    "dry_run": {"value": False, "schema": {"type": "boolean"}, "description": "Try."},
    "policies": {"value": ["never"], "schema": {"type": "array"}, "description": "Which."},
    "as_of": {
        "value": None,
        "schema": {"type": ["null", "string"], "format": "date-time", "pattern": r"^(19|20|21)\d\d-"},
    },
    "subject": {"value": "model/a", "schema": {"type": "string", "enum": ["model/a", "model/b"]}},
}


class Airflow:
    """The part of Airflow that knows names; a run would be an error."""

    def __init__(self, *dags: str) -> None:
        self.known = set(dags)

    def dag_ids(self) -> set[str]:
        return self.known

    def wait_for_dags(self, dag_ids: set[str]) -> None:
        self.known |= dag_ids


def test_params_have_the_types_of_the_dag() -> None:
    texts = ["reason=a", "sensor", "moved", "dry_run=true", "policies=never,on_drift", "to_version="]
    assert run_dag.params("rollback__x", texts, KNOWN) == {
        "reason": "a sensor moved",
        "dry_run": True,
        "policies": ["never", "on_drift"],
        "to_version": None,
    }


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["reasn=x"], r"no Param 'reasn'; did you mean reason\?"),
        (
            ["reason=x", "zzzz=1"],
            "no Param 'zzzz'; there are: as_of, dry_run, policies, reason, subject, to_version",
        ),
        (["x"], "write name=value"),
        ([], "needs reason: Why. Add it.*Nothing was started"),
        (["reason= "], "needs reason"),
        (
            ["reason=x", "as_of=0001-01-01T00:00:00Z"],
            "years 1900 to 2199, such as as_of=.*Nothing was started",
        ),
        (["reason=x", "dry_run=maybe"], "write dry_run=true or dry_run=false"),
        (["reason=x", "subject=model/c"], "did you mean model/"),
    ],
    ids=[
        "misspelt",
        "unknown",
        "no name",
        "no reason",
        "blank reason",
        "no time of data",
        "no switch",
        "no choice",
    ],
)
def test_a_param_that_cannot_be_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(StackError, match=said):
        run_dag.params("rollback__x", texts, KNOWN)


@pytest.mark.parametrize(
    ("dag_id", "said"),
    [
        ("train__bike_demnd", "did you mean train__bike_demand"),
        ("trian__bike_demand", "did you mean train__bike_demand"),
        ("zzz", "there are: correct__bike_hourly, digest"),
        ("", "Name a DAG"),
    ],
    ids=["model", "kind", "nothing like it", "none"],
)
def test_an_unknown_dag_fails_at_once_with_the_near_names(dag_id: str, said: str) -> None:
    with pytest.raises(StackError, match=said):
        run_dag.require_dag(Airflow("mail"), dag_id)  # type: ignore[arg-type]


def test_a_dag_that_airflow_has_not_parsed_yet_is_waited_for() -> None:
    airflow = Airflow("mail")
    run_dag.require_dag(airflow, "train__bike_demand")  # type: ignore[arg-type]
    assert "train__bike_demand" in airflow.known


def decide(kind: DecisionKind, reason: str, key: str, version: str | None = None, **evidence: Any) -> None:
    with connect() as conn:
        subject = (
            "dataset/a"
            if kind in (DecisionKind.BATCH_PUBLISHED, DecisionKind.BATCH_QUARANTINED)
            else "model/a"
        )
        append(
            conn, Decision(AS_OF, subject, kind, reason, "dag/run", key, evidence=evidence, version=version)
        )


def test_what_came_out_is_told_with_numbers(warehouse_url: str) -> None:
    rows = {"rows_read": 9, "rows_new": 8, "rows_changed": 1, "rows_held": 0}
    bad = {
        "column": "x",
        "expectation": "in_range",
        "observed": "700",
        "limit": "at most 60",
        "remedy": "mend x",
    }
    decide(DecisionKind.BATCH_PUBLISHED, "passed", "1", file="a.csv", **rows)
    decide(DecisionKind.BATCH_QUARANTINED, "failed_expectations", "2", file="b.csv", failures=[bad], **rows)
    decide(
        DecisionKind.REJECTED, "not_better", "3", "4", metric="rmse", message="needs 2 % more",
        metrics={"challenger": {"rmse": 8.25}, "champion": {"rmse": 8.0}},
    )  # fmt: skip
    with connect() as conn:
        append(conn, Decision(AS_OF, "model/a", DecisionKind.PROMOTED, "x", "dag/another", "4"))
    assert run_dag.outcome("dag", "run") == [
        "a.csv: published (passed): 9 rows, 8 new, 1 changed, 0 held back",
        "b.csv: quarantined (failed_expectations): 9 rows, 8 new, 1 changed, 0 held back",
        "  x: in_range: 700, expected at most 60. mend x",
        "version 4: rejected (not_better)",
        "  rmse: challenger 8.25, champion 8",
        "  needs 2 % more",
    ]


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
    assert run_dag.reason(Log(event, {"event": "::endgroup::"}), task).startswith(said)  # type: ignore[arg-type]


def test_files_that_wait_are_told() -> None:
    class Handed:
        def call(self, method: str, path: str) -> dict[str, Any]:
            waiting = {"a.csv": "changed less than 1 min ago", "b.csv": "no b.csv.done that is newer than it"}
            return {"value": {"published": [], "waiting": waiting}}

    task = {"task_id": "land", "dag_id": "ingest__x", "dag_run_id": "manual__1"}
    assert run_dag.result(Handed(), task) == [  # type: ignore[arg-type]
        "a.csv: waits, changed less than 1 min ago; the next run takes it when it is finished",
        "b.csv: waits, no b.csv.done that is newer than it; the next run takes it when it is finished",
    ]
