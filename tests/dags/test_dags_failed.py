"""A run that failed: what its tasks could not tell themselves is told by the run, and nothing is told twice."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    DagRunStateResult,
    ErrorResponse,
    GetDagRunState,
    GetTaskStates,
    TaskStatesResult,
)

from evergreen import ledger
from evergreen.incidents import unfinished_tasks
from evergreen.ledger import Decision, reasons
from evergreen.warehouse.connection import connect

DAG, RUN, STARTED = "ingest__bike_hourly", "manual__x", datetime(2026, 5, 1, tzinfo=UTC)


class Server:
    """Airflow's answer to the DAG processor about the tasks of a run."""

    def __init__(self, states: dict[str, str | None] | None, run: str = "failed") -> None:
        self.states, self.run = states, run

    def send(self, asked: Any = None, msg: Any = None) -> Any:
        if isinstance(msg, GetDagRunState):
            return DagRunStateResult(state=self.run)
        assert isinstance(asked, GetTaskStates)
        if self.states is None:
            return ErrorResponse()
        return TaskStatesResult(task_states={run: self.states for run in asked.run_ids or ()})


@pytest.fixture
def sent(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    from evergreen_airflow import mailing

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
        return ledger.find(conn, "dataset/bike_hourly", (reasons.DecisionKind.RUN_FAILED,))


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
    assert decision.evidence.to_json()["try_number"] == 5
    assert "was killed" in decision.evidence.to_json()["error"]
    assert decision.evidence.to_json()["log_url"].endswith(f"/dags/{DAG}/runs/{RUN}/tasks/land?try_number=5")
    assert len(sent) == 1


def test_a_task_that_raised_is_told_once(dagbag: Any, fail: Any, sent: list[Any]) -> None:
    raised(dagbag, "land", 2)
    fail(KILLED, last=("land", 2))
    (decision,) = told()
    assert decision.evidence.to_json()["error"] == "the disk is full"
    assert len(sent) == 1


def test_a_task_that_raised_was_cleared_and_killed_is_told_again(dagbag: Any, fail: Any) -> None:
    raised(dagbag, "land", 1)
    fail(KILLED, last=("land", 2))
    assert [d.evidence.to_json()["try_number"] for d in told()] == [2, 1]


def test_each_task_that_was_killed_is_told(fail: Any) -> None:
    fail({"land": "failed", "announce": "failed"}, last=("announce", 1))
    assert {d.evidence.to_json()["task_id"] for d in told()} == {"land", "announce"}


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
    assert decision.evidence.to_json()["task_id"] == "(run)"
    assert "could not be found out" in decision.evidence.to_json()["error"]
    assert len(sent) == 1


def test_a_run_that_hits_its_limit_is_told_and_so_is_what_was_killed_in_it(
    fail: Any, sent: list[Any]
) -> None:
    fail({"land": "skipped"}, reason="timed_out")
    (decision,) = told()
    assert decision.evidence.to_json()["task_id"] == "(run)"
    assert "limit of 8:00:00" in str(sent[0])
    fail({"land": "failed"}, last=("land", 1), reason="timed_out")
    assert {d.evidence.to_json()["task_id"] for d in told()} == {"(run)", "land"}


def test_a_failure_is_mailed_though_the_warehouse_is_away(
    fail: Any, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(Exception, match="does not answer"):  # what waits cannot be read either
        fail(KILLED, last=("land", 1))
    assert len(sent) == 1
    assert "could not be written into the ledger" in str(sent[0])


def start(dagbag: Any, task_id: str = "land", attempt: int = 1) -> None:
    """A task's process begins, as Airflow calls its callbacks."""
    call(dagbag, task_id, "on_execute_callback", attempt)


def call(dagbag: Any, task_id: str, callback: str, attempt: int = 1, dag_id: str = DAG) -> None:
    task = dagbag.dags[dag_id].get_task(task_id)
    run = SimpleNamespace(dag_id=dag_id, run_id=RUN, run_after=STARTED, run_type="manual")
    ti = SimpleNamespace(task_id=task_id, try_number=attempt, log_url="http://log")
    for one in getattr(task, callback) or ():
        if one.__name__.startswith("report_"):
            one({"ti": ti, "dag_run": run, "task": task})


def left() -> list[str]:
    with connect() as conn:
        return [one.task_id for one in unfinished_tasks.left(conn)]


@pytest.fixture
def look(sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the DAG `mail` does about tasks that told nothing, with the states that Airflow gives; the grace is over."""
    from evergreen_airflow import untold

    monkeypatch.setattr(unfinished_tasks.left, "__defaults__", (0.0,))

    def call(states: dict[str, str | None], run: str = "failed") -> int:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Server(states, run), raising=False)
        return untold.tell_lost()

    return call


def test_a_killed_task_whose_run_was_not_told_either_is_told_once(
    dagbag: Any, look: Any, fail: Any, sent: list[Any]
) -> None:
    start(dagbag, attempt=3)
    assert look({"land": "running"}) == 0
    assert [look(KILLED) for _ in range(3)] == [0, 1, 0]
    fail(KILLED, last=("land", 3))  # the DAG processor is back, and had kept it
    (decision,) = told()
    assert decision.reason == f"{DAG}.land"
    assert (decision.evidence.to_json()["try_number"], decision.as_of) == (3, STARTED)
    assert "was killed" in decision.evidence.to_json()["error"]
    assert left() == []


def test_a_task_of_no_model_is_mailed_directly_and_once(dagbag: Any, look: Any, sent: list[Any]) -> None:
    call(dagbag, "owe", "on_execute_callback", dag_id="digest")
    assert [look({"owe": "failed"}) for _ in range(3)] == [0, 1, 0]
    assert [m["Subject"] for m in sent] == ["[Evergreen] digest failed in owe"]


@pytest.mark.parametrize(
    "state",
    ["running", "queued", "up_for_retry", "deferred", "awaiting_input", None],
    ids=lambda s: str(s).replace("_", "-"),
)
def test_a_task_that_goes_on_is_left_alone(dagbag: Any, look: Any, state: str | None) -> None:
    start(dagbag)
    assert [look({"land": state}) for _ in range(3)] == [0, 0, 0]
    assert left() == ["land"]
    assert told() == []


@pytest.mark.parametrize(
    "states",
    [{"land": "success"}, {"land": "upstream_failed"}, {}, {"land": "skipped"}],
    ids=["it worked", "it was marked", "the run was deleted", "it was skipped and the run is green"],
)
def test_a_task_with_nothing_to_tell_is_forgotten(dagbag: Any, look: Any, states: dict[str, Any]) -> None:
    start(dagbag)
    assert look(states, "success") == 0
    assert left() == []
    assert told() == []


def test_a_run_that_hit_its_limit_unheard_is_told(dagbag: Any, look: Any) -> None:
    start(dagbag)
    assert [look({"land": "skipped"}) for _ in range(3)] == [0, 1, 0]
    assert [d.evidence.to_json()["task_id"] for d in told()] == ["(run)"]


@pytest.mark.parametrize("callback", ["on_success_callback", "on_skipped_callback"])
def test_a_task_that_says_how_it_ended_leaves_nothing(dagbag: Any, sent: list[Any], callback: str) -> None:
    start(dagbag)
    assert left() == ["land"]
    call(dagbag, "land", callback)
    assert left() == []


def test_a_task_that_raised_leaves_nothing(dagbag: Any, sent: list[Any]) -> None:
    start(dagbag)
    raised(dagbag, "land", 1)
    assert left() == []


def test_a_task_that_tells_by_other_means_is_not_asked_about(dagbag: Any, sent: list[Any]) -> None:
    start(dagbag, "verdict")
    start(dagbag, "notify")
    assert left() == []


def test_a_second_try_begins_anew(dagbag: Any, look: Any) -> None:
    start(dagbag)
    look(KILLED)
    start(dagbag, attempt=2)
    assert look(KILLED) == 0
    assert look(KILLED) == 1
    assert [d.evidence.to_json()["try_number"] for d in told()] == [2]


def test_a_task_begins_though_the_warehouse_is_away(
    dagbag: Any, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/nowhere")
    start(dagbag)
    call(dagbag, "land", "on_skipped_callback")
