"""The loop with the rights of its steps: what ingests logs in as evergreen_ingest, what works on models as evergreen_model."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from psycopg2.extensions import parse_dsn

from evergreen import settings
from evergreen.warehouse import roles
from evergreen.warehouse.connection import connect, fetch
from evergreen_airflow import connections

START = datetime(2024, 1, 1, tzinfo=UTC)
DATASET = {
    "name": "rides", "key": ["ts"], "event_time": "ts", "arrival": {"delay": "1h"},
    "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"}, "demand": {"type": "float", "required": False}},
    "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "max_value": 90}}],
}  # fmt: skip
MODEL = {
    "name": "small", "task": "regression", "datasets": ["rides"], "key": ["ts"], "event_time": "ts",
    "label": {"column": "demand", "delay": "1h"}, "features": {"numeric": ["x"]},
    "training": {"window": "8d", "holdout": "2d", "min_rows": 60, "min_holdout_rows": 24, "max_rounds": 5},
    "monitoring": {"window": "1d", "min_rows": 20},
}  # fmt: skip


@pytest.fixture
def logins(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The connections of the two roles, and nothing else that leads to the warehouse; returns the owner's address."""
    with connect(warehouse_url) as administrator:
        roles.grant(administrator, dict.fromkeys((roles.INGEST, roles.MODEL), "known"))
    monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL")
    at = parse_dsn(warehouse_url)
    for step, role in (("INGEST", roles.INGEST), ("MODEL", roles.MODEL)):
        kept = {"conn_type": "postgres", "host": at["host"], "port": at["port"], "schema": at["dbname"], "login": role,
                "password": "known"}  # fmt: skip
        monkeypatch.setenv(f"AIRFLOW_CONN_EVERGREEN_WAREHOUSE_{step}", json.dumps(kept))
    return warehouse_url


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[EmailMessage]:
    found: list[EmailMessage] = []
    monkeypatch.setattr("evergreen_airflow.mailing.send", found.append)
    return found


@pytest.fixture
def loop(
    make_dagbag: Any, logins: str, sent: list[EmailMessage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Runs a DAG as of a time and asserts how its tasks ended."""
    for kind, content in (("datasets", DATASET), ("models", MODEL)):
        (tmp_path / "specs" / kind).mkdir(parents=True)
        (tmp_path / "specs" / kind / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "specs" / "models" / "small.sql").write_text("SELECT ts, x, demand FROM rides")
    for name in ("HOME", "LANDING", "SNAPSHOTS"):
        monkeypatch.setenv(f"EVERGREEN_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("EVERGREEN_THREADS", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts
    (tmp_path / "landing" / "rides").mkdir(parents=True)
    bag = make_dagbag(tmp_path / "specs")
    assert bag.import_errors == {}

    def run(dag_id: str, as_of: datetime | None, **params: Any) -> dict[str, str]:
        dag = bag.dags[dag_id]
        dag.on_failure_callback, dag.has_on_failure_callback = (
            None,
            False,
        )  # asks an API server, see test_dags_replay
        conf = params | ({"as_of": as_of.isoformat()} if as_of else {})
        done = dag.test(run_conf=conf)
        return {ti.task_id: str(ti.state) for ti in done.get_task_instances()}

    return run


def land(folder: Path, name: str, first: datetime, days: int, bad: int = 0) -> None:
    rng = np.random.default_rng(days)
    lines = ["ts,x,demand"]
    for hour in range(days * 24):
        x = float(rng.normal())
        told = 99.0 if hour < bad else x
        lines.append(f"{(first + timedelta(hours=hour)).isoformat()},{told},{3 * x + float(rng.normal())}")
    (folder / "landing" / "rides" / name).write_text("\n".join(lines) + "\n")


def test_the_loop_runs_with_the_rights_of_its_steps(
    loop: Any, logins: str, sent: list[EmailMessage], tmp_path: Path
) -> None:
    day = [START + timedelta(days=n) for n in range(19)]
    land(tmp_path, "a.csv", day[0], 14)
    assert loop("ingest__rides", day[14])["land"] == "success"
    assert loop("train__small", day[14])["settle"] == "success"
    assert loop("score__small", day[14])["score"] in ("success", "skipped")
    land(tmp_path, "b.csv", day[14], 3)
    land(tmp_path, "broken.csv", day[17], 1, bad=2)
    assert loop("ingest__rides", day[17])["land"] == "success"
    assert loop("score__small", day[17])["score"] == "success"
    assert loop("monitor__small", day[18])["judge"] == "success"
    assert (
        loop("correct__rides", None, action="withdraw", file="b.csv", reason="wrong sensor")["correct"]
        == "success"
    )
    assert loop("mail", None)["send_waiting"] == "success"

    with connect(logins) as conn:
        kinds = {row["kind"] for row in fetch(conn, "SELECT kind FROM evergreen.decision")}
        counts = fetch(
            conn,
            "SELECT (SELECT count(*) FROM evergreen.prediction) AS predictions, (SELECT count(*) FROM evergreen.window_judgement)"
            " AS windows, (SELECT count(*) FROM evergreen.begun) AS begun, (SELECT count(*) FROM data.rides) AS rows,"
            " (SELECT count(*) FROM pg_tables WHERE schemaname = 'staging') AS staged",
        )[0]
        owners = fetch(
            conn, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('data', 'quarantine')"
        )
    assert {"batch_published", "batch_quarantined", "batch_withdrawn", "promoted"} <= kinds
    assert "run_failed" not in kinds
    assert counts["predictions"] > 48
    assert counts["windows"] > 0
    assert (counts["begun"], counts["staged"], counts["rows"]) == (0, 0, 14 * 24)
    assert owners == [{"tableowner": roles.INGEST}]
    assert len(sent) >= 2


@pytest.mark.parametrize(
    ("subject", "role"),
    [("dataset/rides", roles.INGEST), ("model/small", roles.MODEL), ("model/", roles.MODEL)],
)
def test_each_step_has_its_connection_and_the_common_one_where_there_is_none(
    logins: str, subject: str, role: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connections.begin(subject)
    assert parse_dsn(settings.WAREHOUSE.read())["user"] == role
    assert "with the rights of that one" not in caplog.text
    connections._found.clear()
    for name in ("INGEST", "MODEL"):
        monkeypatch.delenv(f"AIRFLOW_CONN_EVERGREEN_WAREHOUSE_{name}")
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_WAREHOUSE", "postgresql://everything:x@h/warehouse")
    assert parse_dsn(settings.WAREHOUSE.read())["user"] == "everything"
    assert "so evergreen_warehouse is used, with the rights of that one" in caplog.text


def test_a_callback_in_the_dag_processor_logs_in_as_its_step_does(
    dagbag: Any, logins: str, sent: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It handles files of all kinds in one process here, as Airflow's calls come."""
    for dag_id, role in (("ingest__bike_hourly", roles.INGEST), ("train__bike_demand", roles.MODEL)) * 2:
        dag = dagbag.dags[dag_id]
        dag.on_failure_callback({"dag": dag, "run_id": "manual__1", "reason": "timed_out"})
        assert parse_dsn(settings.WAREHOUSE.read())["user"] == role
    assert len(sent) == 2
