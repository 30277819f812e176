"""The warehouse and MLflow as Airflow connections: where they are looked up, when, what wins, and what a task says without."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
from psycopg2.sql import SQL

from evergreen import ledger, settings
from evergreen.errors import TerminalError, TransientError
from evergreen.monitoring.monitor import Run
from evergreen.warehouse.connection import connect, fetch
from evergreen.warehouse.features.arrow import reading

RIDES = {"name": "rides", "key": ["ts"], "event_time": "ts",
         "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"}},
         "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0}}]}  # fmt: skip
SECRET = "p@:/?#[]% 'x"


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment names neither the warehouse nor MLflow; what is looked up leaves nothing behind."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL", raising=False)
    return


@pytest.fixture
def login(postgres_url: str, warehouse_url: str, unset: None) -> dict[str, Any]:
    """The warehouse by a login whose password holds what addresses are made of; not in the environment."""
    address = psycopg2.extensions.parse_dsn(warehouse_url)
    with psycopg2.connect(postgres_url) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = 'odd'")
        if not cursor.fetchone():
            cursor.execute("CREATE ROLE odd LOGIN SUPERUSER PASSWORD %s", (SECRET,))
    return {"conn_type": "postgres", "host": address["host"], "port": int(address["port"]), "login": "odd",
            "password": SECRET, "schema": address["dbname"]}  # fmt: skip


def uri(login: dict[str, Any], **extra: str) -> str:
    query = "&".join(f"{name}={quote(value)}" for name, value in extra.items())
    return (f"postgresql://{login['login']}:{quote(login['password'], safe='')}@{login['host']}:{login['port']}/"
            f"{login['schema']}?{query}")  # fmt: skip


def user() -> str:
    with connect() as conn:
        return str(fetch(conn, "SELECT current_user::text AS u")[0]["u"])


@pytest.mark.parametrize("form", ["an address", "JSON", "the metastore"])
def test_a_task_runs_on_a_connection_wherever_it_is_kept(
    dagbag: Any, login: dict[str, Any], form: str, monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
) -> None:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    users = []

    def monitor(*_: Any) -> Run:
        users.append(user())
        return Run((), None, None, False, None)

    monkeypatch.setattr("evergreen.monitoring.monitor.monitor", monitor)
    if form == "the metastore":
        with create_session() as session:
            session.add(Connection(conn_id="evergreen_warehouse", **{**login, "conn_type": "generic"}))
    else:
        kept = uri(login, connect_timeout="7") if form == "an address" else json.dumps(login)
        monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_WAREHOUSE", kept)
    caplog.set_level(logging.DEBUG)
    try:
        done = dagbag.dags["monitor__bike_demand"].test()
    finally:
        with create_session() as session:
            session.query(Connection).delete()
    assert (done.state, users) == ("success", ["odd"])
    assert "EVERGREEN_WAREHOUSE_URL" not in os.environ
    said = caplog.text + "".join(capfd.readouterr())
    assert "monitor__bike_demand" in said
    assert not {form for form in (SECRET, quote(SECRET, safe=""), quote(SECRET, safe=" +")) if form in said}


def test_nothing_is_looked_up_while_files_are_parsed(
    make_dagbag: Any, unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(conn_id: str) -> Any:
        raise AssertionError(f"{conn_id} was looked up")

    monkeypatch.setattr("airflow.sdk.execution_time.context._get_connection", refuse)
    bag = make_dagbag()
    assert bag.import_errors == {}
    assert len(bag.dags) > 10
    with pytest.raises(AssertionError, match="evergreen_warehouse_model was looked up"):
        settings.WAREHOUSE.read()


def test_the_environment_wins(
    login: dict[str, Any], warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_WAREHOUSE", uri(login))
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_MLFLOW", "http://me:there@elsewhere:1")
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", warehouse_url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here")
    assert (user(), settings.MLFLOW.read()) == ("postgres", "http://here")
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_extras_reach_every_driver(login: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server speaks no TLS, so each of them has to refuse."""
    from evergreen.spec import DatasetSpec
    from evergreen.validation import engine
    from evergreen.warehouse.batches import bulk

    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_WAREHOUSE", uri(login, sslmode="require"))
    with pytest.raises(TransientError, match="SSL"), connect():
        pass
    with pytest.raises(Exception, match="SSL"), bulk._cursor(9):
        pass
    spec = DatasetSpec.model_validate(RIDES)
    with pytest.raises(Exception, match="SSL") as caught:
        engine.run_suite(spec, spec.expectations, "none")
    assert SECRET not in str(caught.value)


def test_options_of_the_connection_are_kept_beside_the_projects_own(
    login: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_WAREHOUSE", uri(login, options="-c work_mem=7MB"))
    shown = "SELECT current_setting('work_mem') AS m, current_setting('TimeZone') AS z"
    with connect() as conn:
        assert fetch(conn, shown) == [{"m": "7MB", "z": "UTC"}]
    with reading() as reader:
        assert reader.rows(SQL(shown)) == [{"m": "7MB", "z": "UTC"}]


def test_mlflow_gets_address_and_login_of_the_connection(
    unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_MLFLOW", f"http://me:{quote(SECRET, safe='')}@[::1]:5000")
    assert settings.MLFLOW.read() == "http://[::1]:5000"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == SECRET


def test_a_login_of_the_environment_is_not_mixed_with_the_connections(
    unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_MLFLOW", "https://me:there@mlflow.example.org")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "other")
    assert settings.MLFLOW.read() == "https://mlflow.example.org"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


@pytest.mark.parametrize("variable", [settings.WAREHOUSE, settings.MLFLOW], ids=lambda v: v.name)
def test_without_either_both_are_named(unset: None, variable: settings.Variable) -> None:
    """Airflow says of a secrets backend that does not answer the same as of a missing connection; so it is tried again."""
    with pytest.raises(TransientError) as caught:
        variable.read()
    for name in (variable.name, variable.connection):
        assert name in str(caught.value)


def test_a_connection_that_cannot_be_used_is_not_tried_again(
    unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kept, said in (
        ({"conn_type": "postgres", "extra": "{sslmode: require}", "schema": "w"}, "no JSON object"),
        ({"conn_type": "postgres", "extra": {"sslmod": "require"}, "schema": "w"}, "sslmod"),
        ({"conn_type": "mysql"}, "mysql"),
    ):
        monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_WAREHOUSE", json.dumps(kept))
        with pytest.raises(TerminalError, match=said):
            settings.WAREHOUSE.read()


def test_a_failed_run_is_told_out_of_the_dag_processor(
    dagbag: Any, login: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its callbacks run in a process that Airflow gives connections too."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ConnectionResult, GetConnection, TaskStatesResult

    asked = []

    class Supervisor:
        def send(self, msg: Any) -> Any:
            asked.append(type(msg).__name__)
            if isinstance(msg, GetConnection):
                return ConnectionResult(conn_id=msg.conn_id, extra=None, **login)
            return TaskStatesResult(task_states={"manual__1": {"land": "failed"}})

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)
    monkeypatch.setattr("evergreen_airflow.mailing.send", lambda message: None)
    dag = dagbag.dags["ingest__bike_hourly"]
    dag.on_failure_callback({"dag": dag, "run_id": "manual__1", "reason": "task_failure"})
    assert "GetConnection" in asked
    with connect() as conn:
        assert [d.evidence.to_json()["task_id"] for d in ledger.find(conn, "dataset/bike_hourly")] == ["land"]


@pytest.mark.parametrize("kept", ["JSON", "the environment"])
def test_a_channel_is_found_in_its_connection_and_the_environment_wins(
    dagbag: Any, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    variable = settings.channel("told_here" if kept == "JSON" else "told_there")
    monkeypatch.setenv(
        f"AIRFLOW_CONN_{variable.connection.upper()}",
        json.dumps({"conn_type": "generic", "password": "slack://a/b/c"}),
    )
    if kept == "JSON":
        assert variable.read() == "slack://a/b/c"
    else:
        monkeypatch.setenv(variable.name, "json://127.0.0.1")
        assert variable.read() == "json://127.0.0.1"


def test_a_channel_without_either_names_both(dagbag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransientError, match=r"EVERGREEN_CHANNEL_NONE .* evergreen_channel_none"):
        settings.channel("none").read()
