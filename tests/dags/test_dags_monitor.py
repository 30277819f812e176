"""The monitor DAG where a part of it failed: the rest is announced, the run is red, and its end is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evergreen import ledger
from evergreen.errors import ErrorReason
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.monitor import Run
from evergreen.warehouse.connection import connect, fetch

DATASET = {"name": "rides", "key": ["ts"], "event_time": "ts", "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"},
           "demand": {"type": "float", "required": False}}}  # fmt: skip
MODEL = {"name": "small", "task": "regression", "datasets": ["rides"], "key": ["ts"], "event_time": "ts",
         "label": {"column": "demand", "delay": "1h"}, "features": {"numeric": ["x"]}}  # fmt: skip


@pytest.fixture
def dag(make_dagbag: Any, warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for kind, content in (("datasets", DATASET), ("models", MODEL)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "models" / "small.sql").write_text("SELECT ts, x, demand FROM rides")
    monkeypatch.setattr("evergreen_airflow.mailing.send", lambda message: None)
    return make_dagbag(tmp_path).dags["monitor__small"]


def run(dag: Any, monkeypatch: pytest.MonkeyPatch, found: Run) -> tuple[str, dict[str, str]]:
    """Run the DAG with what the monitor came to; the run's state and its tasks'."""
    monkeypatch.setattr("evergreen.monitoring.monitor.monitor", lambda *_: found)
    done = dag.test()
    return str(done.state.value), {ti.task_id: str(ti.state) for ti in done.get_task_instances()}


def test_a_part_that_failed_turns_the_run_red_once_the_rest_is_announced(
    dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Run(
        (),
        None,
        None,
        True,
        7,
        ("judging the windows: the reference is lost",),
        ErrorReason.REGISTRY_MISMATCH,
    )
    state, tasks = run(dag, monkeypatch, broken)
    assert (state, tasks["judge"], tasks["announce"], tasks["verdict"]) == (
        "failed",
        "success",
        "success",
        "failed",
    )
    with connect() as conn:
        # The run tells of itself too: without an API server, as here, it cannot ask which of its tasks have told already.
        (failed,) = (
            d
            for d in ledger.find(conn, "model/small", (DecisionKind.RUN_FAILED,))
            if d.evidence.to_json()["task_id"] != "(run)"
        )
        (owed,) = fetch(
            conn,
            "SELECT incident FROM evergreen.mail WHERE kind = 'run_failed' AND decision_id = %s",
            (failed.id,),
        )
    assert "judging the windows: the reference is lost" in str(failed.evidence.to_json())
    assert failed.evidence.to_json()["reason"] == "registry_mismatch"
    assert "monitor__small.verdict" in owed["incident"]

    state, tasks = run(dag, monkeypatch, Run((), None, None, False, None))
    assert (state, tasks["judge"], tasks["announce"], tasks["verdict"]) == (
        "success",
        "success",
        "skipped",
        "skipped",
    )
    with connect() as conn:
        assert {d.reason for d in ledger.find(conn, "model/small", (DecisionKind.RECOVERED,))} == {
            "works_again"
        }
