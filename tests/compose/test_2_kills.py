"""Parts of the compose stack are killed or away while a training runs: each run ends finished, or failed and told; nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from compose_stack import DAG, Stack

AWAY_S = 60
MEMORY, LEFT = "the_workers_memory_is_out", 40_000_000
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


def workers_with_too_little_memory(stack: Stack) -> dict[str, str]:
    """Leave the workers next to nothing beside what they hold, too little for a fit; their limits of before."""
    before = {}
    for worker in stack.containers("airflow-worker"):
        before[worker] = stack.engine("inspect", "--format", "{{.HostConfig.Memory}}", worker).strip()
        _limit(stack, worker, str(stack.memory(worker) + LEFT))
    return before


def _limit(stack: Stack, worker: str, limit: str) -> None:
    stack.engine("update", "--memory", limit, "--memory-swap", limit, worker)


@pytest.mark.parametrize("what", sorted([*ACTS, MEMORY]))
def test_a_training_ends_and_nothing_is_lost_or_doubled(stack: Stack, what: str) -> None:
    limits = workers_with_too_little_memory(stack) if what == MEMORY else {}
    began = int(time.time())

    def disturb(run: str) -> None:
        if what == MEMORY:
            stack.until(lambda: stack.events("oom", began), "the kernel to end a process of a worker", 240)
            time.sleep(10)
            for worker, limit in limits.items():
                _limit(stack, worker, limit)
        else:
            stack.task_running(DAG, run, "fit")
            ACTS[what](stack, stack.worker_of(DAG, run, "fit"))

    stack.training(f"test: {what}", disturb)
    stack.works_again()
