"""The broker delivers a task again that outlives its visibility timeout; it is not done twice."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from compose_stack import DAG, Stack

TIMEOUT_S = 20
# The process of a task is stopped for as long as a long fit would take; what watches over it goes on. It is the child of a process of
# the worker's pool, which is the child of the worker, which is the child of the container's init.
SIGNAL = """
import psutil, sys
for process in psutil.process_iter():
    if len(process.parents()) == 3:
        getattr(process, sys.argv[1])()
        print(process.pid)
"""


def test_a_task_that_outlives_the_visibility_timeout_is_not_done_twice(stack: Stack, tmp_path: Path) -> None:
    short = {"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(TIMEOUT_S)}
    override = tmp_path / "short.yaml"
    override.write_text(yaml.safe_dump({"services": {"airflow-worker": {"environment": short}}}))
    stack.files.append(override)
    try:
        stack.compose("up", "--detach", "--wait", "--scale", "airflow-worker=2")
        last = stack.rows("SELECT max(id) AS id FROM evergreen.decision")[0]["id"]
        run = stack.api.trigger(DAG, {"as_of": stack.newest(), "reason": "test: delivered twice"})
        stack.task_running(DAG, run, "fit")
        worker = stack.worker_of(DAG, run, "fit")
        assert stack.engine("exec", worker, "python", "-c", SIGNAL, "suspend").split(), (
            "no process was stopped"
        )
        try:
            twice = stack.until(lambda: delivered_twice(stack), "a second delivery", 10 * TIMEOUT_S)
        finally:
            stack.engine("exec", worker, "python", "-c", SIGNAL, "resume")
        assert twice
        state = stack.ended(DAG, run)
        rows = stack.rows(f"SELECT kind FROM evergreen.decision WHERE id > {last} AND run_id LIKE '{DAG}/%'")
        assert state == "success", rows
        assert [row["kind"] for row in rows if row["kind"] in ("promoted", "rejected")] in (
            ["promoted"],
            ["rejected"],
        ), rows
        tasks = stack.api.call("GET", f"dags/{DAG}/dagRuns/{run}/taskInstances/fit")
        assert tasks["try_number"] == 1
    finally:
        stack.files.remove(override)
        stack.compose("up", "--detach", "--wait", "--scale", "airflow-worker=2")


def delivered_twice(stack: Stack) -> set[str]:
    """Ids of the tasks that workers have received more than once."""
    received = re.findall(
        r"Task execute_workload\[([0-9a-f-]+)\] received",
        stack.compose("logs", "--no-color", "airflow-worker"),
    )
    return {one for one in received if received.count(one) > 1}
