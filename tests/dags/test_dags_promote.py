"""The approval DAG: every model has one, as a champion may be lost; parked while it waits, and never twice for one challenger."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "bike_rush"


@pytest.fixture
def bag(make_dagbag: Any, tmp_path: Path) -> Any:
    for folder in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / folder, tmp_path / folder)
    spec = tmp_path / "models" / f"{MODEL}.yaml"
    spec.write_text(
        spec.read_text().replace("gate:\n", "gate:\n  approval: manual\n  approval_timeout: 5d\n")
    )
    return make_dagbag(tmp_path)


@pytest.fixture
def dag(bag: Any) -> DAG:
    assert bag.import_errors == {}
    found: DAG = bag.dags[f"promote__{MODEL}"]
    return found


def test_every_model_has_it_and_only_one_that_asks_a_person_looks_by_the_clock(bag: Any) -> None:
    """A challenger of any model waits for a person where the champion cannot be evaluated."""
    models = {d.removeprefix("train__") for d in bag.dags if d.startswith("train__")}
    assert {d for d in bag.dags if d.startswith("promote__")} == {f"promote__{name}" for name in models}
    for name in models:
        assert "announce_challenger" in {t.task_id for t in bag.dags[f"train__{name}"].tasks}
        by_clock = getattr(bag.dags[f"promote__{name}"].timetable, "timetable", None) is not None
        assert by_clock is (name == MODEL)


def test_its_tasks_and_what_wakes_it(bag: Any, dag: DAG) -> None:
    assert [t.task_id for t in dag.topological_sort()] == ["find", "ask", "decide", "announce", "notify"]
    assert dag.get_task("decide").upstream_task_ids == {"find", "ask"}
    assert "challenger_bike_rush" in repr(dag.timetable.asset_condition)
    assert dag.timetable.timetable.expression == "47 * * * *", (
        "an event that was lost is found within an hour"
    )
    outlets = {t.task_id: [a.name for a in t.outlets] for t in dag.tasks if t.outlets}
    assert outlets == {"announce": [f"model_{MODEL}"]}
    train = bag.dags[f"train__{MODEL}"].get_task("announce_challenger")
    assert [a.name for a in train.outlets] == [f"challenger_{MODEL}"]


def test_the_wait_ends_before_the_run_does_and_nobody_approves_by_silence(dag: DAG) -> None:
    ask = dag.get_task("ask")
    assert ask.response_timeout == timedelta(days=5)
    assert dag.dagrun_timeout > ask.response_timeout
    assert ask.defaults == ["Reject"]
    assert ask.options == ["Approve", "Reject"]
    assert set(ask.params) == {"comment"}
    assert dag.max_active_runs > 1, (
        "a challenger that was superseded must not keep the newest one from being shown"
    )
    assert dag.catchup is False


def test_conventions(dag: DAG) -> None:
    for part in ("**What.**", "**When.**", "**Params.**", "**How to recover.**"):
        assert part in dag.doc_md
    for task in dag.tasks:
        assert task.execution_timeout
        assert task.retry_policy is not None
        assert task.doc_md or task.python_callable.__doc__


class Waited:
    """What Airflow hands to a run when the wait is over."""

    def __init__(self, dag: DAG) -> None:
        self.ask = dag.get_task("ask")

    def __call__(self, chosen: str, user: dict[str, str] | None, **more: Any) -> Any:
        import pendulum

        event = {
            "chosen_options": [chosen], "params_input": {"comment": "fine"}, "responded_at": pendulum.datetime(2026, 5, 1),
            "responded_by_user": user, **more,
        }  # fmt: skip
        return self.ask.execute_complete({}, event)


def test_an_answer_says_who_gave_it_and_silence_is_nobodys(dag: DAG) -> None:
    answer = Waited(dag)
    ada = {"id": "1", "name": "ada"}
    assert answer("Approve", ada) == {
        "approved": True,
        "by": "ada",
        "at": "2026-05-01T00:00:00+00:00",
        "comment": "fine",
    }
    assert answer("Reject", ada)["approved"] is False
    assert answer("Reject", None, timedout=True)["by"] is None
    assert answer("Approve", ada, timedout=True)["by"] is None
    with pytest.raises(ValueError, match="not in"):
        answer("Yes", ada)


class Runs:
    """Airflow's answer about the tasks of a run."""

    def __init__(self, states: dict[str, dict[str, str | None]]) -> None:
        self.states = states

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str | None]]:
        return self.states


@pytest.mark.parametrize(
    ("states", "asks"),
    [
        ({}, False),
        ({"r": {}}, True),
        ({"r": {"decide": None}}, True),
        ({"r": {"decide": "up_for_retry"}}, True),
        ({"r": {"decide": "failed"}}, False),
        ({"r": {"decide": "upstream_failed"}}, False),
        ({"r": {"decide": "skipped"}}, False),
    ],
    ids=["deleted", "not begun", "waits", "retries", "failed", "could not ask", "ended"],
)
def test_a_run_that_asks_no_more_is_replaced(states: Any, asks: bool) -> None:
    from evergreen_airflow.dags import promote

    assert promote._still_asks(Runs(states), "promote__bike_rush/r") is asks
