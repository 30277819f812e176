"""Parts of the compose stack are killed or away while a training runs: each run ends finished, or failed and told; nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from compose_stack import Stack

MODEL, DAG = "bike_demand", "train__bike_demand"
AWAY_S = 60
ACTS: dict[str, Callable[[Stack, str], None]] = {}


def act(function: Callable[[Stack, str], None]) -> Callable[[Stack, str], None]:
    ACTS[function.__name__] = function
    return function


@act
def the_worker_is_killed(stack: Stack, worker: str) -> None:
    stack.engine("kill", "--signal", "KILL", worker)


@act
def the_scheduler_is_killed(stack: Stack, worker: str) -> None:
    stack.compose("kill", "--signal", "KILL", "airflow-scheduler")
    stack.compose("start", "airflow-scheduler")


@act
def postgres_restarts(stack: Stack, worker: str) -> None:
    stack.compose("restart", "postgres")


@act
def redis_is_away(stack: Stack, worker: str) -> None:
    stack.compose("stop", "redis")
    time.sleep(AWAY_S)
    stack.compose("start", "redis")


@act
def mlflow_is_away(stack: Stack, worker: str) -> None:
    stack.compose("stop", "mlflow")
    time.sleep(AWAY_S)
    stack.compose("start", "mlflow")


# Takes memory up to the container's limit, with everything else marked as what the kernel is to end first.
HOG = """
import os
others = [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
for p in others:
    try:
        open(f"/proc/{p}/oom_score_adj", "w").write("1000")
    except OSError:
        pass
held = []
while all(os.path.exists(f"/proc/{p}") for p in others) and len(held) < 400:
    held.append(b"x" * 20_000_000)
print("ended", [p for p in others if not os.path.exists(f"/proc/{p}")])
"""


@act
def the_workers_memory_is_out(stack: Stack, worker: str) -> None:
    assert "ended" in stack.engine("exec", worker, "python", "-c", HOG)
    assert stack.engine("inspect", "--format", "{{.HostConfig.Memory}}", worker).strip() != "0"


@pytest.mark.parametrize("what", sorted(ACTS))
def test_a_training_ends_and_nothing_is_lost_or_doubled(stack: Stack, what: str) -> None:
    before = stack.rows("SELECT coalesce(max(id), 0) AS id FROM evergreen.decision")[0]["id"]
    newest = stack.rows(
        "SELECT max(as_of)::text AS t FROM evergreen.decision WHERE subject = 'dataset/bike_hourly'"
    )[0]["t"]
    run = stack.api.trigger(DAG, {"as_of": newest.replace(" ", "T"), "reason": f"test: {what}"})
    stack.task_running(DAG, run, "fit")
    ACTS[what](stack, stack.worker_of(DAG, run, "fit"))
    state = stack.ended(DAG, run)
    mine = f"SELECT kind, reason, version FROM evergreen.decision WHERE id > {before} AND run_id LIKE '{DAG}/%' ORDER BY id"
    if state == "success":
        decided = [row for row in stack.rows(mine) if row["kind"] in ("promoted", "rejected")]
        assert len(decided) == 1, stack.rows(mine)
    else:
        stack.until(
            lambda: [row for row in stack.rows(mine) if row["kind"] == "run_failed"],
            "the failure to be in the ledger",
        )
        stack.until(
            lambda: stack.rows(
                f"SELECT 1 AS told FROM evergreen.mail WHERE incident LIKE 'failed:%' AND decision_id > {before}"
            ),
            "the mail of the failure",
        )
    doubled = stack.rows(
        "SELECT model, key, count(*) FROM evergreen.prediction GROUP BY 1, 2, version, as_of HAVING count(*) > 1 LIMIT 3"
    )
    assert not doubled
    # All of it works again.
    stack.compose("up", "--detach", "--wait", "--scale", "airflow-worker=2")
    again = stack.api.trigger("score__bike_demand", {"as_of": newest.replace(" ", "T")})
    assert stack.ended("score__bike_demand", again) == "success"
