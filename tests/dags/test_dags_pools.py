"""Which tasks take slots of which pool, and how a pool comes to exist: Airflow never starts a task of a missing one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from evergreen import settings


@pytest.fixture
def plugin(airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin of a scheduler that starts, in an Airflow that has only its own pool."""
    from evergreen_airflow import plugin as module

    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", lambda: None)
    monkeypatch.setenv("EVERGREEN_POOLS", "on")
    yield module
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(Pool).filter(Pool.pool.in_(settings.POOL_SIZES)).delete()


def pools() -> dict[str, int]:
    from airflow.models.pool import Pool

    return {pool.pool: pool.slots for pool in Pool.get_pools() if pool.pool != "default_pool"}


def used(bag: Any) -> dict[str, str]:
    return {
        f"{d}.{t.task_id}": t.pool
        for d, dag in bag.dags.items()
        for t in dag.tasks
        if t.pool != "default_pool"
    }


def test_no_task_needs_a_pool_unless_somebody_says_that_there_are_some(dagbag: Any) -> None:
    assert used(dagbag) == {}


def test_what_takes_memory_takes_slots(make_dagbag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_POOLS", "on")
    training, judging = "evergreen_training", "evergreen_judging"
    steps = {"train__{}.fit": training, "replay__{}.replay": training, "score__{}.score": judging,
             "monitor__{}.judge": judging}  # fmt: skip
    assert used(make_dagbag()) == {
        step.format(model): pool for step, pool in steps.items() for model in ("bike_demand", "bike_rush")
    }
    assert set(steps.values()) == set(settings.POOL_SIZES)


def test_a_scheduler_makes_what_is_missing_and_leaves_what_a_person_has_changed(plugin: ModuleType) -> None:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    plugin.Start().on_starting(component=None)
    assert pools() == settings.POOL_SIZES
    with create_session() as session:
        Pool.get_pool("evergreen_training", session=session).slots = 7
        session.query(Pool).filter_by(pool="evergreen_judging").delete()
    plugin.Start().on_starting(component=None)
    assert pools() == {**settings.POOL_SIZES, "evergreen_training": 7}


@pytest.mark.parametrize("fails", [1, 99])
def test_a_scheduler_that_cannot_make_them_does_not_run_without_them(
    plugin: ModuleType, fails: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.utils import session
    from sqlalchemy.exc import OperationalError

    from evergreen_airflow import pools as plugin_pools

    asked, real = [], session.create_session

    def away(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        if len(asked) <= fails:
            raise OperationalError("SELECT", {}, Exception("the server is starting up"))
        return real(*args, **kwargs)

    monkeypatch.setattr(plugin_pools, "PAUSE_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(session, "create_session", away)
        if fails == 1:
            plugin.Start().on_starting(component=None)
        else:
            # Airflow passes over any other exception of a listener.
            with pytest.raises(SystemExit, match="no training or scoring starts"):
                plugin.Start().on_starting(component=None)
            assert len(asked) == plugin_pools.TRIES
    assert pools() == (settings.POOL_SIZES if fails == 1 else {})


@pytest.mark.parametrize(("program", "setting"), [("scheduler", "off"), ("triggerer", "on"), ("tasks", "on")])
def test_nothing_else_makes_pools(
    plugin: ModuleType, program: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_POOLS", setting)
    monkeypatch.setattr(sys, "argv", ["airflow", program])
    plugin.Start().on_starting(component=None)
    assert pools() == {}


def test_a_task_which_is_a_fork_of_the_scheduler_makes_none(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow calls the listener there too; a task may not ask the database, and each log began with an error about it."""
    from airflow.sdk.execution_time.task_runner import TaskRunnerMarker

    monkeypatch.setenv("EVERGREEN_POOLS", "on")
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    plugin.Start().on_starting(component=TaskRunnerMarker())
    assert pools() == {}
