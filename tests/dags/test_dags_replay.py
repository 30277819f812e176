"""The replay DAG's task, run as Airflow runs it: where its files lie, what it tells, and that it goes on."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2.extras
import pytest
import yaml
from airflow.models.xcom import XComModel
from airflow.sdk.exceptions import AirflowFailException
from airflow.utils.session import create_session

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import load_specs
from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import ensure_dataset

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DATASET = {
    "name": "rides", "key": ["ts"], "event_time": "ts",
    "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"}, "demand": {"type": "float", "required": False}},
}  # fmt: skip
MODEL = {
    "name": "small", "task": "regression", "datasets": ["rides"], "key": ["ts"], "event_time": "ts",
    "label": {"column": "demand", "delay": "1h"}, "features": {"numeric": ["x"]},
    "training": {"window": "8d", "holdout": "2d", "min_rows": 60, "min_holdout_rows": 24, "max_rounds": 5},
    "monitoring": {"window": "2d", "min_rows": 24},
}  # fmt: skip


@pytest.fixture
def dag(make_dagbag: Any, warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The DAG of a small model with sixteen days of hourly rows, and EVERGREEN_HOME of its own."""
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    specs = tmp_path / "specs"
    for kind, content in (("datasets", DATASET), ("models", MODEL)):
        (specs / kind).mkdir(parents=True)
        (specs / kind / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    (specs / "models" / "small.sql").write_text("SELECT ts, x, demand FROM rides")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})  # one worker
    monkeypatch.setattr("evergreen_airflow.mailing.send", lambda message: None)
    # A commit between two runs would make them two replays.
    monkeypatch.setattr("evergreen.replay.request.git_commit", lambda: "same")
    rng = np.random.default_rng(1)
    with connect() as conn, conn.cursor() as cursor:
        ensure_dataset(conn, load_specs(specs).datasets["rides"])
        rows = []
        for hour in range(16 * 24):
            ts, x = START + timedelta(hours=hour), float(rng.normal())
            rows.append((ts, x, 3 * x + float(rng.normal()), ts + timedelta(hours=1), 1))
        psycopg2.extras.execute_values(
            cursor, "INSERT INTO data.rides (ts, x, demand, _arrived_at, _batch) VALUES %s", rows
        )
    bag = make_dagbag(specs)
    assert bag.import_errors == {}
    found = bag.dags["replay__small"]
    # dag.test() calls it with the serialized DAG, whose required Params have no value; the DAG processor does not.
    found.on_failure_callback, found.has_on_failure_callback = None, False
    return found


def run(dag: Any, **params: Any) -> tuple[str, Any]:
    """Run the DAG as Airflow does; returns the run's state and what its task returned."""
    done = dag.test(run_conf=params)
    with create_session() as session:
        found = XComModel.get_many(
            run_id=done.run_id, dag_ids=dag.dag_id, task_ids="replay", key="return_value"
        )
        values = [XComModel.deserialize_value(row) for row in session.scalars(found)]
    return str(done.state.value), values[0] if values else None


def test_the_task_goes_on_after_a_failure_and_leaves_its_files(
    dag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen.replay import run as replays
    from evergreen.replay.loop import Loop

    asked = {
        "from": (START + 10 * DAY).isoformat(), "to": (START + 16 * DAY).isoformat(), "policies": ["never"],
    }  # fmt: skip
    do, whole = Loop.step, replays.replay

    def broken(self: Loop, number: int) -> Any:
        if number == 2:
            raise TerminalError("the disk is full", ErrorReason.BAD_SPEC)
        return do(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "step", broken)
        patched.setattr(replays, "replay", lambda *args, **more: whole(*args, workers=0, **more))
        assert run(dag, **asked) == ("failed", None)
    (folder,) = (tmp_path / "home" / "replays" / "small").iterdir()
    assert folder.name.startswith("20240112-20240116-")

    def steps() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in sorted(folder.rglob("steps/*.json"))}

    before = steps()
    assert list(before) == ["000000.json", "000001.json"]
    state, told = run(dag, **asked)
    assert state == "success"
    after = steps()
    assert list(after) == [*before, "000002.json"]
    assert after.items() >= before.items(), "it went on after the last finished window"
    names = {"index.html", "error.png", "table.csv", "windows.csv", "result.json"}
    assert {Path(path) for path in told["files"].values()} == {folder / name for name in names}
    assert all((folder / name).stat().st_size for name in names)
    (totals,) = told["policies"]
    (row,) = csv.DictReader((folder / "table.csv").open())
    assert (totals["policy"], totals["rows"], totals["retrains"]) == ("never", 96, 0)
    assert (row["policy"], float(row["error"])) == ("never", totals["error"])
    assert [p["policy"] for p in json.loads((folder / "result.json").read_text())["policies"]] == ["never"]

    assert run(dag, **asked) == ("success", told), "a finished replay is read"
    assert steps() == after


def test_without_a_time_range_it_says_what_to_fill_in(dag: Any) -> None:
    task = dag.get_task("replay")
    with pytest.raises(AirflowFailException, match="From, To: a replay needs a time range"):
        task.python_callable(params={"from": None, "to": None, "policies": ["never"]})
