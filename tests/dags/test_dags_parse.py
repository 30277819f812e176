"""Every DAG is listed here, so that none appears or vanishes unnoticed, and each keeps the project's conventions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
from airflow.sdk.exceptions import AirflowTaskTimeout

from evergreen import ledger
from evergreen.errors import Reason, TerminalError, TransientError
from evergreen.warehouse.connection import connect

REPOSITORY = Path(__file__).resolve().parents[2]

EXPECTED = {
    "ingest.py": {"ingest__bike_hourly"},
    "train.py": {"train__bike_demand", "train__bike_rush"},
    "score.py": {"score__bike_demand", "score__bike_rush"},
    "monitor.py": {"monitor__bike_demand", "monitor__bike_rush"},
    "rollback.py": {"rollback__bike_demand", "rollback__bike_rush"},
    "specs.py": set(),
    "wiring.py": set(),
}


def test_every_dag_is_listed(dagbag: Any) -> None:
    assert dagbag.import_errors == {}
    found: dict[str, set[str]] = {}
    for dag_id, dag in dagbag.dags.items():
        found.setdefault(Path(dag.fileloc).name, set()).add(dag_id)
    assert found == {name: dags for name, dags in EXPECTED.items() if dags}


def test_every_file_is_listed() -> None:
    assert {p.name for p in (REPOSITORY / "dags").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("dag_id", sorted(set().union(*EXPECTED.values())))
def test_conventions(dagbag: Any, dag_id: str) -> None:
    dag = dagbag.dags[dag_id]
    for part in ("**What.**", "**When.**", "**Params.**", "**How to recover.**"):
        assert part in dag.doc_md, f"the page of {dag_id} has no {part}"
    assert dag.max_active_runs == 1, "single flight"
    assert dag.catchup is False
    assert dag.dagrun_timeout
    assert dag.tags >= {"evergreen"}
    assert dag.owner != "airflow"
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.description, f"{name}: no description"
        assert param.schema.get("title"), f"{name}: no title"
        assert param.schema.get("type"), f"{name}: no type"
    for task in dag.tasks:
        assert task.execution_timeout, f"{task.task_id} has no time-out"
        assert task.execution_timeout <= timedelta(hours=4)
        assert task.retry_policy is not None
        assert task.doc_md or task.python_callable.__doc__


def test_params_of_each_kind(dagbag: Any) -> None:
    params = {dag_id.partition("__")[0]: set(dag.params) for dag_id, dag in dagbag.dags.items()}
    assert params == {
        "ingest": {"as_of", "force"},
        "train": {"as_of", "reason", "dry_run"},
        "score": {"as_of", "from", "to"},
        "monitor": {"as_of"},
        "rollback": {"as_of", "reason", "to_version", "dry_run"},
    }


RETRIES = {
    "our-transient": (TransientError("x"), "retry"),
    "lost-connection": (psycopg2.OperationalError("x"), "retry"),
    "refused": (ConnectionRefusedError("x"), "retry"),
    "mlflow-away": (requests.exceptions.ConnectionError("x"), "retry"),
    "our-terminal": (TerminalError("x", Reason.BAD_BATCH), "fail"),
    "bug": (KeyError("x"), "fail"),
    "time-out": (AirflowTaskTimeout("x"), "fail"),
}


@pytest.mark.parametrize(("error", "action"), RETRIES.values(), ids=RETRIES.keys())
def test_only_what_may_pass_is_tried_again(dagbag: Any, error: BaseException, action: str) -> None:
    for dag in dagbag.dags.values():
        for task in dag.tasks:
            assert task.retry_policy.evaluate(error, 1, 4).action.value == action, task.task_id


def test_a_run_that_hits_its_limit_is_told(
    dagbag: Any, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow skips its tasks and calls back the DAG alone, with no more than this context."""
    import wiring

    sent: list[Any] = []
    monkeypatch.setattr(wiring, "send", sent.append)
    dag = dagbag.dags["train__bike_demand"]
    for reason in ("task_failure", "timed_out"):
        dag.on_failure_callback({"dag": dag, "run_id": "manual__x", "reason": reason})
    with connect() as conn:
        (decision,) = ledger.find(conn)
    assert (decision.kind.value, decision.subject) == ("run_failed", "model/bike_demand")
    assert len(sent) == 1
    assert "limit of 8:00:00" in str(sent[0])


def test_nightly_on_drift_and_by_hand(dagbag: Any) -> None:
    timetable = dagbag.dags["train__bike_demand"].timetable
    assert timetable.timetable.expression == "0 2 * * *"
    assert "drift_bike_demand" in repr(timetable.asset_condition)


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.path[:0] = ['dags', 'include']; import wiring, ingest, train, score, monitor, rollback, specs;"
        "heavy = {'pandas', 'numpy', 'xgboost', 'mlflow', 'evidently', 'great_expectations', 'sklearn', 'matplotlib', 'pyarrow'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip().splitlines()[-1] == "[]"


def test_a_bad_spec_switches_off_its_own_dags_and_is_shown(make_dagbag: Any, tmp_path: Path) -> None:
    for folder in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / folder, tmp_path / folder)
    bad = tmp_path / "models" / "bike_rush.yaml"
    bad.write_text(bad.read_text().replace("training:\n", "training:\n  wimdow: 3d\n"))
    bag = make_dagbag(tmp_path)
    assert "train__bike_demand" in bag.dags
    assert "train__bike_rush" not in bag.dags
    (message,) = bag.import_errors.values()
    assert "models/bike_rush.yaml: training.wimdow: unknown field; did you mean window?" in message
