"""What a run came to is its note, and its log holds no warning that is not about somebody's data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import evergreen_airflow.preload  # noqa: F401 - what libraries say when they are imported is said before a worker's tasks

START = datetime(2024, 1, 1, tzinfo=UTC)
DATASET = {
    "name": "rides", "key": ["ts"], "event_time": "ts", "arrival": {"delay": "1h"},
    "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"}, "demand": {"type": "float", "required": False}},
}  # fmt: skip
MODEL = {
    "name": "small", "task": "regression", "datasets": ["rides"], "key": ["ts"], "event_time": "ts",
    "label": {"column": "demand", "delay": "1h"}, "features": {"numeric": ["x"]},
    "training": {"window": "8d", "holdout": "2d", "min_rows": 60, "min_holdout_rows": 24, "max_rounds": 5},
    "monitoring": {"window": "1d", "min_rows": 20},
}  # fmt: skip


@pytest.fixture
def seen() -> Iterator[list[logging.LogRecord]]:
    """Every record that is made, whoever handles it: Airflow configures logging anew for each task."""
    made: list[logging.LogRecord] = []
    factory = logging.getLogRecordFactory()

    def keep(*args: Any, **more: Any) -> logging.LogRecord:
        made.append(factory(*args, **more))
        return made[-1]

    logging.setLogRecordFactory(keep)
    yield made
    logging.setLogRecordFactory(factory)


@pytest.fixture
def loop(
    make_dagbag: Any,
    warehouse_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: list[logging.LogRecord],
) -> Any:
    """Runs a DAG as of a time; returns its tasks' states, the note, and the warnings in its log."""
    for kind, content in (("datasets", DATASET), ("models", MODEL)):
        (tmp_path / "specs" / kind).mkdir(parents=True)
        (tmp_path / "specs" / kind / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "specs" / "models" / "small.sql").write_text("SELECT ts, x, demand FROM rides")
    for name in ("HOME", "LANDING", "SNAPSHOTS"):
        monkeypatch.setenv(f"EVERGREEN_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("evergreen_airflow.mailing.send", lambda message: None)
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts
    (tmp_path / "landing" / "rides").mkdir(parents=True)

    bag = make_dagbag(tmp_path / "specs")
    assert bag.import_errors == {}

    def run(dag_id: str, as_of: datetime, **params: Any) -> tuple[dict[str, str], str, list[str]]:
        seen.clear()
        dag = bag.dags[dag_id]
        done = dag.test(run_conf={"as_of": as_of.isoformat(), **params})
        states = {ti.task_id: str(ti.state) for ti in done.get_task_instances()}
        warned = [f"{r.name}: {r.getMessage()}" for r in seen if r.levelno >= logging.WARNING]
        return states, note(dag_id, done.run_id), warned

    return run


def note(dag_id: str, run_id: str) -> str:
    """The note of a run that has ended, written as the scheduler has it written: `dag.test` has no scheduler."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
        return ended(session, found)


def ended(session: Any, run: Any) -> str:
    """The note of a run once the scheduler has found it ended: in a session that nobody may commit."""
    from airflow.models.dagrun import DagRunNote
    from airflow.utils.sqlalchemy import prohibit_commit
    from sqlalchemy import select

    from evergreen_airflow.notes import Notes

    with prohibit_commit(session) as guard:
        Notes().on_dag_run_success(run, "success")
        guard.commit()
    return str(session.scalar(select(DagRunNote.content).where(DagRunNote.dag_run_id == run.id)))


def land(folder: Path, name: str, first: datetime, days: int) -> None:
    rng = np.random.default_rng(days)
    lines = ["ts,x,demand"]
    for hour in range(days * 24):
        x = float(rng.normal())
        lines.append(f"{(first + timedelta(hours=hour)).isoformat()},{x},{3 * x + float(rng.normal())}")
    (folder / "landing" / "rides" / name).write_text("\n".join(lines) + "\n")


def test_each_run_of_the_loop_has_a_note_and_a_calm_log(
    loop: Any, seen: list[logging.LogRecord], tmp_path: Path
) -> None:
    day = [START + timedelta(days=n) for n in range(19)]
    states, told, _ = loop("monitor__small", day[1])
    assert (states["judge"], told) == (
        "success",
        "nothing to judge: no champion yet, run train__small first",
    )
    land(tmp_path, "a.csv", day[0], 14)
    states, told, warned = loop("ingest__rides", day[14])
    assert (told, warned) == ("1 file published: 336 new", [])
    assert [r for r in seen if r.name == "evergreen.validation.log_lines" and r.levelno == logging.INFO]
    _, told, _ = loop("ingest__rides", day[14])
    assert told == f"nothing new in {tmp_path}/landing/rides"
    states, told, warned = loop("train__small", day[14])
    assert told.endswith(": promoted version 1"), told
    assert "rounds, RMSE " in told or "round, RMSE " in told
    assert warned == []
    land(tmp_path, "b.csv", day[14], 3)
    loop("ingest__rides", day[17])
    states, told, warned = loop("score__small", day[17])
    assert told == "73 rows predicted by version 1"
    assert (states["score"], warned) == ("success", [])
    states, told, _ = loop("score__small", day[17])
    assert states["score"] == "success"
    assert told.startswith("nothing new to score: version 1 has predicted every row of "), told
    states, told, _ = loop("score__small", day[17], **{"from": "2024-13-45T00:00:00Z"})
    assert states["score"] == "failed"
    assert (
        told
        == "failed in score: From: '2024-13-45T00:00:00Z' is no ISO time; write it like 2026-05-01T02:00:00Z"
    )
    _, told, _ = loop("monitor__small", day[18])
    assert " judged" in told

    assert written_again(by=None) == told, "a run that was cleared and ends again has what it came to last"
    assert written_again(by="7") == "a person's own words"


def written_again(by: str | None) -> str:
    """The note after the newest run of the monitor has ended once more, where somebody had changed it."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    newest = select(DagRun).where(DagRun.dag_id == "monitor__small").order_by(DagRun.id.desc()).limit(1)
    with create_session() as session:
        run = session.scalars(newest).one()
        run.dag_run_note.content, run.dag_run_note.user_id = "a person's own words", by
        session.flush()
        return ended(session, run)
