"""A warehouse of an earlier release, with all that people have in it, goes on under this one. README.md says how it was made."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from evergreen import ledger
from evergreen.alerting import delivery, weekly
from evergreen.alerting.content import history
from evergreen.exporter import questions
from evergreen.incidents import silences, threads
from evergreen.ledger import Decision, words
from evergreen.ledger.reasons import DecisionKind
from evergreen.monitoring.monitor import monitor
from evergreen.monitoring.windows import judgement
from evergreen.monitoring.windows.judgement import Status
from evergreen.registry.encoding import Encoding
from evergreen.spec import Specs, load_specs
from evergreen.spec.hashes import training_hash
from evergreen.training.record.outcome import TrainingOutcome
from evergreen.validation.ingest import ingest
from evergreen.validation.undo import correct
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.migrate import migrate
from evergreen.warehouse.schema_versions import known

HERE = Path(__file__).parent
THEN = "7ba715b"
WEEK = timedelta(days=7)
NEXT_WEEK = datetime(2025, 12, 15, tzinfo=UTC)  # the first one of which that release knew nothing
_count = itertools.count()


@pytest.fixture(scope="module")
def restored(postgres_url: str) -> str:
    """The name of the database as the earlier release left it; to be copied."""
    name = f"of_{THEN}"
    url = postgres_url.removesuffix("/postgres")
    with closing(psycopg2.connect(postgres_url)) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
    with closing(psycopg2.connect(f"{url}/{name}")) as conn, conn, conn.cursor() as cursor:
        cursor.execute(gzip.decompress((HERE / f"{THEN}.sql.gz").read_bytes()).decode())
    return name


@pytest.fixture
def old(postgres_url: str, restored: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a copy, which is not migrated; also in EVERGREEN_WAREHOUSE_URL."""
    name = f"upgrade_{next(_count)}"
    url = f"{postgres_url.removesuffix('/postgres')}/{name}"
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", url)
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "team@example.org")
    with closing(psycopg2.connect(postgres_url)) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {restored}")
        yield url
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def upgraded(old: str) -> Iterator[Connection]:
    """The copy, migrated."""
    with connect() as conn:
        assert migrate(conn) == [migration.name for migration in known()]
    with connect() as conn:
        yield conn


@pytest.fixture(scope="module")
def specs() -> Specs:
    """The specs of then."""
    return load_specs(HERE / "specs")


def shape(conn: Connection) -> dict[str, list[Any]]:
    """What the tables, their columns, rules, indexes, views and triggers are, whatever the order in which they were made."""
    questions = {
        "columns": "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,"
        " pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
        " LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE c.relnamespace = 'evergreen'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped",
        "rules": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'evergreen'::regnamespace",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'evergreen'",
        "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'evergreen'",
        "triggers": "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid"
        " WHERE c.relnamespace = 'evergreen'::regnamespace AND NOT t.tgisinternal",
        "functions": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'evergreen'::regnamespace",
        "schemas": "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'",
    }
    return {
        what: sorted(tuple(row.values()) for row in fetch(conn, f"{query} ORDER BY 1"))
        for what, query in questions.items()
    }


TABLES = (
    "evergreen.decision", "evergreen.batch", "evergreen.prediction", "evergreen.shadow_prediction", "evergreen.window_judgement",
    "evergreen.window_column", "evergreen.mail", "data.bike_hourly", "quarantine.bike_hourly",
)  # fmt: skip


MOVED = """
    SELECT jsonb_strip_nulls(to_jsonb(m) || jsonb_build_object('attempts', coalesce(d.attempts, 0), 'last_error', d.last_error,
        'message_id', d.message_id, 'taken_by', to_jsonb(d.taken_by)))::text AS row
    FROM evergreen.mail AS m LEFT JOIN evergreen.delivery AS d ON d.mail = m.id AND d.channel = 'email' ORDER BY 1
"""
"""Mails as they were: what was tried of them is kept with their delivery by e-mail now."""


def contents(conn: Connection) -> dict[str, list[str]]:
    """Every row of every table of then, without what it has got since."""
    found = {}
    moved = fetch(conn, "SELECT to_regclass('evergreen.delivery') AS there")[0]["there"]
    for name in TABLES:
        whole = f"SELECT jsonb_strip_nulls(to_jsonb(t))::text AS row FROM {name} AS t ORDER BY 1"
        rows = fetch(conn, MOVED if moved and name == "evergreen.mail" else whole)
        found[name] = [row["row"] for row in rows]
    return found


def test_it_gets_the_tables_of_a_new_warehouse(upgraded: Connection, warehouse_url: str) -> None:
    with connect(warehouse_url) as conn:
        new = shape(conn)
    assert shape(upgraded) == new


def test_no_row_is_lost_or_changed(old: str) -> None:
    with connect() as conn:
        before = contents(conn)
        migrate(conn)
        assert contents(conn) == before
    assert all(before.values()), "the dump has rows in each table"


def test_the_ledger_is_read_and_written(upgraded: Connection) -> None:
    rows = ledger.find(upgraded)
    assert {row.kind for row in rows} == {
        DecisionKind.BATCH_PUBLISHED, DecisionKind.BATCH_QUARANTINED, DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED, DecisionKind.PROMOTED, DecisionKind.REJECTED,
        DecisionKind.WATCHED, DecisionKind.WATCH_ENDED, DecisionKind.ROLLED_BACK, DecisionKind.RECOVERED, DecisionKind.SILENCED, DecisionKind.MAIL_FAILED,
    }  # fmt: skip
    for row in rows:
        assert words.sentence(row.kind.value, row.reason, row.evidence)
    told = history.timeline_text(history.timeline_rows(upgraded, "bike_demand", ["bike_hourly"]))
    assert "rmse of the challenger 55.79, champion (version 2) 99.22" in " ".join(told.split())
    assert [row.version for row in ledger.champions(upgraded, "bike_demand")] == ["2", "3", "2", "1"]
    # That release knew no such subject.
    new = Decision(
        NEXT_WEEK,
        "fleet/specs",
        DecisionKind.SPEC_UNUSABLE,
        "bad_spec",
        "mail/1",
        "spec:a",
        {"message": "a: no key"},
    )
    assert (ledger.append(upgraded, new).id or 0) > max(row.id or 0 for row in rows)
    with (
        pytest.raises(psycopg2.errors.InsufficientPrivilege, match="append-only"),
        upgraded.cursor() as cursor,
    ):
        cursor.execute("UPDATE evergreen.decision SET reason = 'x'")
    upgraded.rollback()


def text(message: EmailMessage) -> str:
    """The plain part of a mail, as one line."""
    body = message.get_body(("plain",))
    assert body is not None
    return " ".join(body.get_content().split())


def test_mails_that_wait_are_delivered(upgraded: Connection, specs: Specs) -> None:
    sent: list[EmailMessage] = []
    now = datetime(2026, 12, 1, tzinfo=UTC)
    assert delivery.deliver(specs, sent.append, now=now) == delivery.DeliveryResult(3, 0, 0, ())
    assert [message["Subject"].removeprefix("[Evergreen] ") for message in sent] == [
        "bike_hourly: file quarantined, 90 rows, humidity n/a%, expected float (bike_hourly_2025-12-15.csv)",
        "bike_demand: rolled back to version 2 from version 3",
        "bike_demand: data is stale",
    ]
    # The fourth is held by a silence of then.
    silences.silence(upgraded, "model/bike_rush", "now", "it is done", "ann", now, "silence/1")
    upgraded.commit()
    delivery.deliver(specs, sent.append, now=now)
    assert "silence ended, one alert was held" in sent[3]["Subject"]
    assert "rejected version 5" in text(sent[3])
    assert not [message["Subject"] for message in sent if "could not be laid out" in text(message)]


def test_every_mail_can_be_laid_out_again(upgraded: Connection, specs: Specs) -> None:
    with upgraded.cursor() as cursor:
        cursor.execute("UPDATE evergreen.mail SET sent_at = NULL, held_by = NULL")
    upgraded.commit()
    sent: list[EmailMessage] = []
    found = delivery.deliver(specs, sent.append, now=datetime(2027, 6, 1, tzinfo=UTC))
    assert (found.failed, found.pending) == (0, 0)
    assert not [message["Subject"] for message in sent if "could not be laid out" in text(message)]


def test_the_digest_tells_of_each_week_of_then(upgraded: Connection, specs: Specs) -> None:
    sent: list[EmailMessage] = []
    weeks = [datetime(2025, 9, 29, 6, tzinfo=UTC) + number * WEEK for number in range(12)]
    for as_of in weeks:
        assert weekly.owe_digests(specs, as_of) == 1
    delivery.deliver(specs, sent.append, subject=weekly.SUBJECT)
    told = [text(message) for message in sent]
    assert len(told) == len(weeks)
    assert not [one for one in told if "could not be laid out" in one]
    assert "bike_demand v1 since 2025-09-22 1 judged RMSE 53.33, at most 77.13" in told[0]
    assert "1 batch held back" in told[-1]


def test_incidents_judgements_and_numbers_are_read(upgraded: Connection, specs: Specs) -> None:
    assert [(thread.subject, thread.kind) for thread in threads.open_ones(upgraded)] == [
        ("model/bike_demand", "data_problem"), ("dataset/bike_hourly", "batch_quarantined"),
    ]  # fmt: skip
    for name in specs.models:
        found = judgement.newest(
            upgraded, name, None, ends_after=NEXT_WEEK - 20 * WEEK, as_of=NEXT_WEEK + WEEK, limit=100
        )
        assert len(found) == 12
        assert all(one.columns for one in found)
        assert {one.status for one in found} == {Status.OK, Status.VIOLATION}
    assert questions.read(upgraded, specs)


def test_batches_of_then_are_corrected(upgraded: Connection, specs: Specs) -> None:
    bikes, as_of = specs.datasets["bike_hourly"], datetime(2026, 12, 1, tzinfo=UTC)
    for action, file in (
        ("dismiss", "bike_hourly_2025-12-15.csv"),
        ("withdraw", "bike_hourly_2025-12-08.csv"),
    ):
        assert correct(bikes, action, file, as_of, f"correct/{action}", why="another city", by="ann").decision
    assert fetch(upgraded, "SELECT state FROM evergreen.batch WHERE id >= 18 ORDER BY id") == [
        {"state": "withdrawn"}, {"state": "dismissed"},
    ]  # fmt: skip
    assert fetch(upgraded, "SELECT count(*) AS n FROM data.bike_hourly WHERE _batch = 18") == [{"n": 0}]


def test_files_go_on_landing(upgraded: Connection, specs: Specs, tmp_path: Path) -> None:
    bikes, as_of = specs.datasets["bike_hourly"], datetime(2026, 12, 1, tzinfo=UTC)
    rows = [f"2025-12-15T{hour:02}:00:00Z,false,true,clear,47.3,63.0,9.4,3.2,3" for hour in range(24)]
    rows.append("2025-12-14T23:00:00Z,false,true,clear,40.0,60.0,9.0,3.2,5")  # of a batch of then
    file = tmp_path / "bike_hourly_2025-12-16.csv"
    file.write_text(
        "\n".join(["ts,holiday,workingday,weather,temperature,humidity,windspeed,price,demand", *rows, ""])
    )
    (landed,) = ingest(bikes, as_of, "ingest/1", folder=tmp_path)
    assert (landed.state, landed.rows_new, landed.rows_changed) == ("published", 24, 1)
    assert ingest(bikes, as_of, "ingest/2", folder=tmp_path) == []
    again = correct(
        bikes, "judge_again", file.name, as_of, "correct/1", why="again", by="ann", folder=tmp_path
    )
    assert "judged again" in again.message
    withdrawn = correct(
        bikes, "withdraw", file.name, as_of, "correct/2", why="wrong", by="ann", folder=tmp_path
    )
    assert "keys gone: 24" in withdrawn.message
    (row,) = fetch(upgraded, "SELECT demand, _batch FROM data.bike_hourly WHERE ts = '2025-12-14T23:00:00Z'")
    assert row["_batch"] == 18, "what the batch of then said is in force again"
    owed = fetch(upgraded, "SELECT DISTINCT asset FROM evergreen.owed_event")
    assert owed == [{"asset": "dataset/bike_hourly"}]


def test_an_upgrade_is_no_change_of_the_spec(upgraded: Connection, specs: Specs) -> None:
    for name, model in specs.models.items():
        made = ledger.champions(upgraded, name)[-1]
        assert made.evidence.to_json()["training_hash"] == training_hash(specs, model), (
            "each model would be trained again"
        )


def test_a_training_of_then_can_be_settled() -> None:
    kept = {name: json.loads((HERE / "run" / name).read_text()) for name in ("outcome.json", "features.json")}
    assert (
        "RMSE of the challenger 55.79, champion (version 2) 99.22"
        in TrainingOutcome.from_dict(kept["outcome.json"]).sentence()
    )
    assert "temperature" in Encoding.from_dict(kept["features.json"]).numeric


def weeks_go_on(conn: Connection, weeks: int, warmer: float = 0.0) -> None:
    """Weeks after what that release knew, each like its last but one, with predictions of its champion."""
    with conn.cursor() as cursor:
        for number in range(weeks):
            cursor.execute(
                "INSERT INTO data.bike_hourly SELECT ts + %(by)s, holiday, workingday, weather, temperature + %(warmer)s, humidity,"
                " windspeed, price, demand, _arrived_at + %(by)s, _batch FROM data.bike_hourly"
                " WHERE ts >= %(start)s AND ts < %(start)s + %(week)s;"
                "INSERT INTO evergreen.prediction SELECT model, version,"
                " json_build_array(to_char(event_time + %(by)s, 'YYYY-MM-DD\"T\"HH24:MI:SS+00:00'))::text, event_time + %(by)s,"
                " prediction, as_of + %(by)s, scored_at, run_id FROM evergreen.prediction"
                " WHERE event_time >= %(start)s AND event_time < %(start)s + %(week)s",
                {"by": (2 + number) * WEEK, "week": WEEK, "start": NEXT_WEEK - 2 * WEEK, "warmer": warmer},
            )
    conn.commit()


def mlflow_of_then(conn: Connection, url: str, folder: Path, reference: Path) -> None:
    """MLflow with the versions, and of the champion's training the run with its reference."""
    from mlflow import MlflowClient

    shutil.copytree(reference, folder / "run" / "reference")
    client, source = MlflowClient(url), (folder / "run").as_uri()
    client.create_registered_model("bike_demand")
    for _ in range(3):
        client.create_model_version("bike_demand", source)
    client.set_registered_model_alias("bike_demand", "champion", "2")
    run = ledger.champions(conn, "bike_demand", NEXT_WEEK)[0].evidence.to_json()["mlflow_run"]
    with (
        closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as store,
        store,
    ):  # the client chooses its own id
        store.execute(
            "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri,"
            " experiment_id) VALUES (?, 'then', 'LOCAL', 'then', 'FINISHED', 1, 2, 'active', ?, 1)",
            (run, source),
        )


@pytest.mark.parametrize("reference", ["run/reference", "reference_format_2"])
def test_the_champion_of_then_is_watched(
    upgraded: Connection, specs: Specs, mlflow_url: str, tmp_path: Path, reference: str
) -> None:
    weeks_go_on(upgraded, 1)
    mlflow_of_then(upgraded, mlflow_url, tmp_path, HERE / reference)
    model = specs.models["bike_demand"]
    found = monitor(specs, model, NEXT_WEEK + WEEK + timedelta(hours=2), "monitor__bike_demand/1")
    assert found is not None
    assert found.problems == ()
    (judged,) = found.judged
    assert (judged.window_start, judged.version, judged.status) == (NEXT_WEEK, "3", Status.OK)
    error = judged.metrics["rmse"]
    assert error.value == pytest.approx(32.09, abs=0.005), "what that release found of the same rows"
    assert (error.limit or 0) > 1.6 * 55.79, "what chance adds to the spec's max_worse is known"
    assert {column.column for column in judged.columns} >= {*model.features.all, "_prediction"}
    assert found.decision is None


def test_a_drift_is_decided_with_what_was_decided_then(
    upgraded: Connection, specs: Specs, mlflow_url: str, tmp_path: Path
) -> None:
    weeks_go_on(upgraded, 2, warmer=80.0)
    mlflow_of_then(upgraded, mlflow_url, tmp_path, HERE / "run" / "reference")
    model = specs.models["bike_demand"]
    found = monitor(specs, model, NEXT_WEEK + 2 * WEEK + timedelta(hours=2), "monitor__bike_demand/1")
    assert found is not None
    assert found.problems == ()
    assert [judged.status for judged in found.judged] == [Status.VIOLATION] * 2
    assert found.decision is not None
    assert found.decision.kind is DecisionKind.RETRAIN_REQUESTED
    assert "data_drift:temperature" in found.decision.evidence.to_json()["drifted"]
    sent: list[EmailMessage] = []
    delivery.deliver(specs, sent.append, subject="model/bike_demand")
    (told,) = [text(message) for message in sent if "drift, temperature" in message["Subject"]]
    assert "could not be laid out" not in told
