"""What each role may not do, tried; and that the rights of an older warehouse come by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import make_dsn

from evergreen.exporter.questions import TABLES
from evergreen.health import dataset, online
from evergreen.health.overview import overview
from evergreen.scoring import newest
from evergreen.serving import deliver, grants
from evergreen.serving.spool import Answered, Made, Minute, Spool, waiting
from evergreen.spec import DatasetSpec, ModelSpec, Specs, load_specs
from evergreen.warehouse import databases, roles
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.features import feature_query, views
from evergreen.warehouse.features.arrow import reading
from evergreen.warehouse.features.lookup import Lookup
from evergreen.warehouse.migrate import FEATURES_ROLE, ensure_dataset, migrate
from health_scene import asked, lives

SPECS = Path(__file__).resolve().parents[3] / "include"
RIDES = DatasetSpec.model_validate(
    {
        "name": "rides",
        "key": ["ts"],
        "event_time": "ts",
        "columns": {"ts": {"type": "timestamp"}, "x": {"type": "float"}},
    }
)
WIDER = RIDES.model_copy(update={"columns": {**RIDES.columns, "y": RIDES.columns["x"]}})
LOGINS = (roles.INGEST, roles.MODEL, roles.SERVING, roles.EXPORTER)


def as_role(url: str, role: str, **more: str) -> str:
    return make_dsn(url, user=role, password="known", **more)


@pytest.fixture
def rows(warehouse_url: str) -> str:
    """A warehouse with its roles and a row in each kind of table; returns the owner's address."""
    with connect(warehouse_url) as owner:
        roles.grant(owner, dict.fromkeys(LOGINS, "known"))
    with connect(as_role(warehouse_url, roles.INGEST)) as conn, conn.cursor() as cursor:
        ensure_dataset(conn, RIDES)
        cursor.execute("INSERT INTO data.rides VALUES ('2026-01-01', 1, now(), 1)")
        cursor.execute("CREATE TABLE quarantine.rides (batch bigint); CREATE TABLE staging.rides_1 (x text)")
    with connect(as_role(warehouse_url, roles.MODEL)) as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
            " VALUES ('m', '1', '[1]', now(), 1, now(), 'r');"
            "INSERT INTO evergreen.decision (as_of, subject, kind, reason, run_id, dedupe_key)"
            " VALUES (now(), 'model/m', 'promoted', 'r', 'r', 'k')"
        )
    with connect(warehouse_url) as owner:
        grants.add(owner, "web-shop", ["*"], 10)
    return warehouse_url


FORBIDDEN = {
    "everyone": [
        "UPDATE evergreen.decision SET reason = 'another'", "DELETE FROM evergreen.decision", "TRUNCATE evergreen.decision",
        "ALTER TABLE evergreen.decision DISABLE TRIGGER decision_append_only", "DROP TABLE evergreen.decision",
        "DROP TABLE evergreen.mail", "DROP SCHEMA data CASCADE", "CREATE TABLE evergreen.own (x int)",
        "CREATE TABLE public.own (x int)", "CREATE SCHEMA own", "CREATE ROLE own", "INSERT INTO evergreen.schema_version VALUES (9)",
        "DELETE FROM evergreen.mail", "DELETE FROM evergreen.batch", "DELETE FROM evergreen.prediction",
        "INSERT INTO evergreen.client (name, key_sha256, models, rate) VALUES ('own', 'x', '{*}', 1)",
        "UPDATE evergreen.client SET revoked_at = NULL", "DELETE FROM evergreen.client", "UPDATE evergreen.request SET version = '0'",
        "UPDATE evergreen.traffic SET errors = 0",
        "UPDATE evergreen.prediction SET prediction = 0", "UPDATE evergreen.window_judgement SET revision = 0",
        "COPY evergreen.decision TO PROGRAM 'true'",
    ],
    roles.INGEST: [
        "SELECT * FROM evergreen.prediction", "SELECT * FROM evergreen.shadow_prediction",
        "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
        " VALUES ('m', '1', '[2]', now(), 1, now(), 'r')",
        "SELECT * FROM evergreen.window_judgement", "SET ROLE evergreen_features", "SET ROLE evergreen_model",
        "SELECT * FROM evergreen.client", "SELECT * FROM evergreen.request", "SELECT * FROM evergreen.latest_features",
        "SELECT * FROM evergreen.serving_process",
    ],
    roles.MODEL: [
        "INSERT INTO data.rides VALUES ('2026-01-02', 1, now(), 1)", "UPDATE data.rides SET x = 2", "DELETE FROM data.rides",
        "TRUNCATE data.rides", "ALTER TABLE data.rides ADD COLUMN z int", "DROP TABLE data.rides",
        "CREATE TABLE data.own (x int)", "SELECT * FROM quarantine.rides", "SELECT * FROM staging.rides_1",
        "CREATE TABLE staging.own (x int)", "UPDATE evergreen.batch SET state = 'withdrawn'", "SET ROLE evergreen_ingest",
        "INSERT INTO evergreen.held_key VALUES (1, 1, NULL)", "SELECT key_sha256 FROM evergreen.client", "DELETE FROM evergreen.request",
        "INSERT INTO evergreen.traffic SELECT * FROM evergreen.traffic", "UPDATE evergreen.serving_process SET alive_at = now()",
        "SET ROLE evergreen_serving",
    ],
    roles.SERVING: [
        "INSERT INTO evergreen.decision (as_of, subject, kind, reason, run_id, dedupe_key)"
        " VALUES (now(), 'model/m', 'promoted', 'r', 'r', 'l')",
        "INSERT INTO evergreen.window_judgement DEFAULT VALUES", "SELECT * FROM evergreen.mail",
        "SELECT * FROM evergreen.batch", "SELECT * FROM quarantine.rides", "SELECT * FROM staging.rides_1", "UPDATE data.rides SET x = 2",
        "INSERT INTO data.rides VALUES ('2026-01-02', 1, now(), 1)", "CREATE TABLE data.own (x int)",
        "DELETE FROM evergreen.shadow_prediction", "INSERT INTO evergreen.latest_features SELECT * FROM evergreen.latest_features",
        "SET ROLE evergreen_model", "SET ROLE evergreen_ingest",
    ],
    roles.EXPORTER: [
        "SELECT * FROM data.rides", "SELECT * FROM evergreen.client", "SELECT * FROM evergreen.request", "SELECT * FROM evergreen.prediction", "SELECT * FROM evergreen.held_key",
        "SELECT * FROM quarantine.rides", "SET ROLE evergreen_features", "SET ROLE evergreen_model", "CREATE TABLE data.own (x int)",
        "INSERT INTO evergreen.decision (as_of, subject, kind, reason, run_id, dedupe_key)"
        " VALUES (now(), 'model/m', 'promoted', 'r', 'r', 'l')",
        "UPDATE evergreen.mail SET sent_at = now()", "DELETE FROM evergreen.begun", "CREATE TEMPORARY TABLE own (x int)",
    ],
}  # fmt: skip


def answer(conn: Connection, statement: str) -> str:
    try:
        with conn, conn.cursor() as cursor:
            cursor.execute(statement)
    except InsufficientPrivilege as error:
        return str(error)
    return "it may"


@pytest.mark.parametrize("role", LOGINS)
def test_what_a_step_has_no_business_with_is_refused(rows: str, role: str) -> None:
    with connect(rows) as owner, owner.cursor() as cursor:
        # As `databases.create` leaves the warehouse: nobody has a right by being somebody.
        cursor.execute(f"REVOKE ALL ON DATABASE {owner.info.dbname} FROM PUBLIC")
        roles.grant(owner, {})
    statements = (*FORBIDDEN["everyone"], *FORBIDDEN[role])
    with closing(psycopg2.connect(as_role(rows, role))) as conn:
        told = {statement: answer(conn, statement) for statement in statements}
    # Not by the ledger's own trigger, say.
    refusals = ("permission denied", "must be owner")
    assert {s: said for s, said in told.items() if not said.startswith(refusals)} == {}


def test_the_service_writes_what_it_answered_and_forgets_it_later(
    rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))
    at = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    made = [Made("1", 2.0, "[2]", "2026-01-01T00:00:00+00:00", (1.0,), "0", 3.0), Made("1", 4.0)]
    log = Spool("here-1")
    log.add(Answered("r", "m", "web-shop", at, "record", ("x",), made))
    log.add_minute(Minute("m", "1", at, 1, 2, 0, 0, 0, 1.0, 2.0))
    log.live()
    log.flush()
    log.live()
    log.flush()
    with connect(as_role(rows, roles.SERVING)) as conn:
        assert [deliver.deliver(conn, segment) for segment in waiting()] == [2, 0]
        with conn.cursor() as cursor:
            cursor.execute("INSERT INTO evergreen.serving_process VALUES ('gone', '2026-01-01')")
    counts = (
        "SELECT (SELECT count(*) FROM evergreen.request) AS r, (SELECT count(*) FROM evergreen.traffic) AS t"
    )
    for role in (roles.SERVING, roles.MODEL):
        with connect(as_role(rows, role)) as conn:
            assert fetch(conn, counts) == [{"r": 2, "t": 1}]
            assert fetch(conn, "SELECT prediction FROM evergreen.prediction WHERE key = '[2]'") == [
                {"prediction": 2.0}
            ]
    model = next(iter(load_specs(SPECS).models.values())).model_copy(update={"name": "m"})
    with connect(as_role(rows, roles.SERVING)) as conn:
        assert deliver.forget_old(conn, Specs({}, {"m": model})) == 2
        assert fetch(conn, counts) == [{"r": 0, "t": 0}]
        assert fetch(conn, "SELECT instance FROM evergreen.serving_process") == [{"instance": "here-1"}]


def test_the_service_follows_the_ledger_and_reads_features_under_the_role_for_it(
    rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(as_role(rows, roles.SERVING)) as conn, conn.cursor() as cursor:
        cursor.execute("LISTEN evergreen_serving")
        assert fetch(conn, "SELECT version FROM evergreen.decision") == [{"version": None}]
        assert fetch(conn, "SELECT name FROM evergreen.client") == [{"name": "web-shop"}]
        for table in ("latest_features", "window_judgement"):
            fetch(conn, f"SELECT count(*) FROM evergreen.{table}")
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", as_role(rows, roles.SERVING))
    model = next(iter(load_specs(SPECS).models.values())).model_copy(
        update={"datasets": ("rides",), "query": "SELECT ts, x FROM rides"}
    )
    with views.reading(Specs({"rides": RIDES}, {model.name: model}), model, datetime.now(UTC)) as reader:
        assert reader.rows(sql.SQL("SELECT x FROM _features")) == [{"x": 1.0}]
        with pytest.raises(Exception, match="permission denied"):
            reader.rows(sql.SQL("SELECT * FROM data.rides"))


def test_the_exporter_reads_what_is_counted(rows: str) -> None:
    with connect(as_role(rows, roles.EXPORTER)) as conn:
        for table in (*TABLES, "evergreen.traffic"):
            fetch(conn, f"SELECT count(*) FROM {table}")
        assert fetch(conn, "SELECT pg_database_size(current_database()) > 0 AS known") == [{"known": True}]


def test_the_pages_are_read_as_the_steps_log_in(rows: str) -> None:
    """A model's by the login of its steps, a dataset's by that of the ingest, which sees no prediction and no traffic."""
    with connect(rows) as owner:
        asked(owner, "m", "1", datetime.now(UTC) - timedelta(minutes=2))
        lives(owner, datetime.now(UTC))
    specs = Specs({RIDES.name: RIDES}, {})
    with connect(as_role(rows, roles.MODEL)) as conn:
        shown = overview(conn, specs, models=["m"], mlflow=False)
        (found,) = shown.models
        assert found.online is not None
        assert shown.stack.service is not None
        assert online.details(conn, "m").day.requests == 60
    with connect(as_role(rows, roles.INGEST)) as conn:
        assert dataset.details(conn, specs, "rides").health.name == "rides"


@pytest.mark.parametrize("table", ["evergreen.decision", "evergreen.prediction", "data.rides"])
def test_a_feature_query_reads_nothing_by_itself(
    rows: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", as_role(rows, roles.MODEL))
    with reading() as reader:
        reader.run(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(FEATURES_ROLE)))
        with pytest.raises(Exception, match="permission denied"):
            reader.rows(sql.SQL(f"SELECT * FROM {table}"))


@pytest.mark.parametrize("role", [roles.MODEL, roles.SERVING])
@pytest.mark.parametrize("features", ["query", "latest"])
def test_the_model_and_the_service_ask_by_key(
    rows: str, features: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", as_role(rows, roles.MODEL))
    model = ModelSpec.model_validate({
        "name": "m", "task": "regression", "datasets": ["rides"], "key": ["place", "ts"], "event_time": "ts", "label": {"column": "y"},
        "features": {"numeric": ["x"]}, "query": "SELECT 'a' AS place, ts, x, x AS y FROM rides", "serving": {"features": features},
    })  # fmt: skip
    specs, now = Specs({RIDES.name: RIDES}, {model.name: model}), datetime.now(UTC)
    with connect() as conn, views.reading(specs, model, now) as reader:
        newest.keep(conn, reader, model, model, feature_query.types(reader), now)
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", as_role(rows, role))
    lookup = Lookup(specs, model)
    try:
        assert [f and f.features for f in lookup.rows([{"place": "a"}], timeout_s=20)] == [{"x": 1.0}]
    finally:
        lookup.close()


@contextmanager
def old_server(postgres_url: str) -> Iterator[tuple[Connection, str]]:
    """The three databases, made as an earlier release made them: one role owns all of the warehouse."""
    names = ("airflow", "mlflow", databases.WAREHOUSE)
    admin = psycopg2.connect(postgres_url)
    try:
        databases.create(admin, dict.fromkeys(names, "known"))
        url = as_role(postgres_url, databases.WAREHOUSE, dbname=databases.WAREHOUSE)
        with connect(url) as conn:
            migrate(conn)
            ensure_dataset(conn, RIDES)
        yield admin, url
    finally:
        with admin.cursor() as cursor:
            for name in names:
                cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.close()


def test_an_older_warehouse_gets_its_rights_and_one_login_goes_on(postgres_url: str) -> None:
    with old_server(postgres_url) as (_, url):
        by_admin = make_dsn(postgres_url, dbname=databases.WAREHOUSE)
        acls = []
        for _ in range(3):
            with connect(by_admin) as conn:
                roles.grant(conn, dict.fromkeys(LOGINS, "known"))
                acls.append(fetch(conn, "SELECT oid, relowner, relacl::text FROM pg_class ORDER BY oid"))
                acls.append(fetch(conn, "SELECT defaclobjtype, defaclacl::text FROM pg_default_acl"))
        assert acls[0:2] == acls[2:4] == acls[4:6]
        with connect(as_role(url, roles.INGEST)) as conn:
            ensure_dataset(conn, WIDER)
        # The owner's login alone, as in the embedded stack: it migrates and ingests, also beside the roles.
        with connect(url) as conn, conn.cursor() as cursor:
            migrate(conn)
            ensure_dataset(
                conn, WIDER.model_copy(update={"columns": {**WIDER.columns, "z": RIDES.columns["x"]}})
            )
            ensure_dataset(conn, RIDES.model_copy(update={"name": "later"}))
            cursor.execute(
                "INSERT INTO data.rides (ts, x, _arrived_at, _batch) VALUES ('2026-01-01', 1, now(), 1)"
            )
        with connect(as_role(url, roles.MODEL)) as conn:
            assert fetch(conn, "SELECT count(*) AS n FROM data.rides") == [{"n": 1}]
            assert fetch(conn, "SELECT count(*) AS n FROM data.later") == [{"n": 0}]
        for role in LOGINS:
            for name in ("airflow", "mlflow"):
                with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
                    psycopg2.connect(as_role(url, role, dbname=name))
