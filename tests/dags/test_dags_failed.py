"""A run that failed: what its tasks could not tell themselves is told by the run, and nothing is told twice."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, GetTaskStates, TaskStatesResult

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.warehouse.connection import connect

DAG, RUN, STARTED = "ingest__bike_hourly", "manual__x", datetime(2026, 5, 1, tzinfo=timezone.utc)


class Server:
    """Airflow's answer to the DAG processor about the tasks of a run."""

    def __init__(self, states: dict[str, str | None] | None) -> None:
        self.states = states

    def send(self, asked: Any) -> Any:
        assert isinstance(asked, GetTaskStates)
        if self.states is None:
            return ErrorResponse()
        return TaskStatesResult(task_states={run: self.states for run in asked.run_ids or ()})


@pytest.fixture
def sent(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    import mailing

    found: list[Any] = []
    monkeypatch.setattr(mailing, "send", found.append)
    return found


@pytest.fixture
def fail(dagbag: Any, sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the run's callback as Airflow does, with the states that the tasks have."""

    def call(
        states: dict[str, str | None] | None,
        last: tuple[str, int] | None = None,
        reason: str = "task_failure",
    ) -> None:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Server(states), raising=False)
        dag = dagbag.dags[DAG]
        context: dict[str, Any] = {"dag": dag, "run_id": RUN, "reason": reason}
        if last:
            context["ti"] = SimpleNamespace(task_id=last[0], try_number=last[1])
            context["dag_run"] = SimpleNamespace(
                dag_id=DAG, run_id=RUN, run_after=STARTED, start_date=STARTED
            )
        dag.on_failure_callback(context)

    return call


def told() -> list[Decision]:
    with connect() as conn:
        return ledger.find(conn, "dataset/bike_hourly", (ledger.Kind.RUN_FAILED,))


def raised(dagbag: Any, task_id: str, attempt: int) -> None:
    """A task that raises tells so itself, in its own process."""
    run = SimpleNamespace(dag_id=DAG, run_id=RUN, run_after=STARTED, run_type="manual")
    ti = SimpleNamespace(task_id=task_id, try_number=attempt, log_url="http://log")
    context = {"ti": ti, "dag_run": run, "exception": ValueError("the disk is full")}
    callback = dagbag.dags[DAG].get_task(task_id).on_failure_callback
    (callback[0] if isinstance(callback, (list, tuple)) else callback)(context)


KILLED = {"land": "failed", "announce": "upstream_failed", "notify": "upstream_failed"}


def test_a_task_that_was_killed_is_recorded_with_its_try_and_mailed_once(fail: Any, sent: list[Any]) -> None:
    for _ in range(2):  # Airflow may call twice
        fail(KILLED, last=("land", 5))
    (decision,) = told()
    assert decision.reason == f"{DAG}.land"
    assert decision.as_of == STARTED
    assert decision.evidence["try_number"] == 5
    assert "was killed" in decision.evidence["error"]
    assert decision.evidence["log_url"].endswith(f"/dags/{DAG}/runs/{RUN}/tasks/land?try_number=5")
    assert len(sent) == 1


def test_a_task_that_raised_is_told_once(dagbag: Any, fail: Any, sent: list[Any]) -> None:
    raised(dagbag, "land", 2)
    fail(KILLED, last=("land", 2))
    (decision,) = told()
    assert decision.evidence["error"] == "the disk is full"
    assert len(sent) == 1


def test_a_task_that_raised_was_cleared_and_killed_is_told_again(dagbag: Any, fail: Any) -> None:
    raised(dagbag, "land", 1)
    fail(KILLED, last=("land", 2))
    assert [d.evidence["try_number"] for d in told()] == [2, 1]


def test_each_task_that_was_killed_is_told(fail: Any) -> None:
    fail({"land": "failed", "announce": "failed"}, last=("announce", 1))
    assert {d.evidence["task_id"] for d in told()} == {"land", "announce"}


def test_a_task_that_tells_by_other_means_is_left_to_them(fail: Any, sent: list[Any]) -> None:
    """A quarantined batch has a mail of its own, and mails that wait are tried again."""
    fail({"land": "success", "verdict": "failed", "notify": "failed"}, last=("verdict", 1))
    assert told() == []
    assert sent == []


@pytest.mark.parametrize("last", [None, ("land", 1)], ids=["bare context", "with a task"])
def test_where_airflow_does_not_say_which_task_the_run_is_told(
    fail: Any, sent: list[Any], last: tuple[str, int] | None
) -> None:
    fail(None, last=last)
    (decision,) = told()
    assert decision.evidence["task_id"] == "(run)"
    assert "could not be found out" in decision.evidence["error"]
    assert len(sent) == 1


def test_a_run_that_hits_its_limit_is_told_and_so_is_what_was_killed_in_it(
    fail: Any, sent: list[Any]
) -> None:
    fail({"land": "skipped"}, reason="timed_out")
    (decision,) = told()
    assert decision.evidence["task_id"] == "(run)"
    assert "limit of 8:00:00" in str(sent[0])
    fail({"land": "failed"}, last=("land", 1), reason="timed_out")
    assert {d.evidence["task_id"] for d in told()} == {"(run)", "land"}


def test_a_failure_is_mailed_though_the_warehouse_is_away(
    fail: Any, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(Exception, match="does not answer"):  # what waits cannot be read either
        fail(KILLED, last=("land", 1))
    assert len(sent) == 1
    assert "could not be written into the ledger" in str(sent[0])
