"""What a scrape says of a ledger that the project's own functions wrote, and what it does not say where nothing is known."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scraped import NOW, REPOSITORY, WEEK, Scraped, decide, fetched, land, parsed

from evergreen import ledger as decisions
from evergreen.exporter import counts
from evergreen.exporter.collector import WarehouseCollector
from evergreen.exporter.counts import DecisionCounts
from evergreen.exporter.families import FAMILIES, UP
from evergreen.exporter.questions import TABLES
from evergreen.health import fleet
from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.connection import Connection, connect, fetch

Scrape = Callable[[], Scraped]
PAGE = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture
def reader(ledger: None, warehouse_url: str, postgres_url: str):
    """The address of the warehouse for a login that may read what the exporter says it reads, and nothing else."""
    admin = psycopg2.connect(warehouse_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("CREATE ROLE only_reads LOGIN PASSWORD 'reads'")
        cursor.execute("GRANT USAGE ON SCHEMA evergreen TO only_reads")
        cursor.execute(f"GRANT SELECT ON {', '.join(TABLES)} TO only_reads")
    yield re.sub(r"//postgres:[^@]+@", "//only_reads:reads@", warehouse_url)
    with admin.cursor() as cursor:
        cursor.execute("DROP OWNED BY only_reads")
        cursor.execute("DROP ROLE only_reads")
    admin.close()


def test_the_command_serves_every_metric_with_the_right_to_read_alone(
    reader: str, ledger: None, tmp_path: Path
) -> None:
    (tmp_path / "snapshots").mkdir()
    land(tmp_path / "landing")
    with connect() as conn:
        decide(conn, "model/bike_demand", DecisionKind.RUN_FAILED, "NO_SPACE")
        for share in (0.0, 0.25):
            decide(conn, "model/bike_demand", DecisionKind.SERVING_COMPARED, "r", evidence={"share": share})
    environment = {
        **os.environ,
        "EVERGREEN_WAREHOUSE_URL": reader,
        "EVERGREEN_SNAPSHOTS": str(tmp_path / "snapshots"),
    }
    command = [sys.executable, "-m", "evergreen", "exporter", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as server:
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            found = re.fullmatch(r"metrics at (http://127\.0\.0\.1:\d+/metrics)\n", said)
            assert found, said
            text = fetched(found[1])
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(10) == 0
    values = parsed(text)
    assert set(values) == {family.name for family in FAMILIES}
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    for family in FAMILIES:
        assert kinds[family.name.removesuffix("_total")] == (
            "counter" if family.kind == "counter" else "gauge"
        )
        assert family.name.endswith("_total") is (family.kind == "counter")
        # Every metric is on the page, with its labels and what it means.
        shown = ", ".join(f"`{label}`" for label in family.labels)
        assert f"| `{family.name}` | {shown} | {family.meaning} |" in PAGE, family.name
    check(values)
    assert values["evergreen_decisions_total"]["run_failed",] == 1.0
    assert set(values["evergreen_store_free_bytes"]) == {("home",), ("landing",), ("snapshots",)}


def check(values: Scraped) -> None:
    """Compare with what `write_ledger` wrote."""

    def one(name: str, *labels: str) -> float:
        return values[f"evergreen_{name}"][labels]

    now = time.time()
    assert one("warehouse_up") == 1.0
    assert one("warehouse_size_bytes") > 5e6
    assert one("spec_mistakes") == 0.0
    kinds = values["evergreen_decisions_total"]
    assert {k for (k,) in kinds} == {k.value for k in DecisionKind}
    assert (kinds["promoted",], kinds["retrain_requested",], kinds["batch_published",]) == (3.0, 3.0, 1.0)
    assert (one("mails_silenced"), kinds["silenced",]) == (1.0, 1.0)
    assert one("mails_waiting") == 3.0, "two of a drift, one of the file that is held back"
    assert values["evergreen_deliveries_waiting"] == {("email",): 1.0}
    assert values["evergreen_tasks_running"] == {("train",): 2.0, ("mail",): 1.0}
    for name, *labels in (
        ("mail_oldest_waiting",), ("task_oldest_begun", "train"), ("dataset_last_rows", "bike_hourly"), ("champion_since", "bike_demand"),
        ("model_last_training", "bike_rush"), ("model_oldest_open_request", "bike_demand"),
    ):  # fmt: skip
        assert now - 60 < one(f"{name}_timestamp_seconds", *labels) <= now
    assert 0 < one("store_free_bytes", "home") < one("store_size_bytes", "home")
    assert one("dataset_freshness_limit_seconds", "bike_hourly") == 36 * 3600
    assert one("dataset_batches_total", "bike_hourly", "published") == 1.0
    assert one("dataset_batches_total", "bike_hourly", "quarantined") == 1.0
    assert one("dataset_rows_held_total", "bike_hourly") == 1.0
    assert set(values["evergreen_champion_info"]) == {("bike_demand", "1"), ("bike_rush", "7")}
    assert values["evergreen_champion_share"] == {("bike_demand",): 1.0, ("bike_rush",): 1.0}
    assert values["evergreen_model_served_skew_ratio"] == {("bike_demand",): 0.25}
    assert values["evergreen_model_served_skew_limit_ratio"] == {("bike_demand",): 0.05, ("bike_rush",): 0.05}
    assert one("champion_trained_timestamp_seconds", "bike_demand") == (NOW - 9 * WEEK).timestamp()
    assert one("model_training_age_limit_seconds", "bike_demand") == 8 * WEEK.total_seconds()
    assert set(values["evergreen_model_last_training_info"]) == {
        ("bike_demand", "not_worse_than_champion", "promoted"),
        ("bike_rush", "worse_than_champion", "rejected"),
    }
    open_ones = {labels: n for labels, n in values["evergreen_model_open_requests"].items() if n}
    assert open_ones == {("bike_demand", "performance"): 1.0, ("bike_demand", "decay"): 1.0}
    # The newest window has no label yet, so the error is that of the one before, in its newest revision.
    assert values["evergreen_model_served_error"] == {("rmse", "bike_demand"): 70.5}
    assert values["evergreen_model_served_error_limit"] == {("rmse", "bike_demand"): 55.0}
    assert values["evergreen_model_served_error_holdout"] == {("rmse", "bike_demand"): 42.0}
    assert values["evergreen_model_served_error_violated"] == {("rmse", "bike_demand"): 1.0}
    assert (
        one("model_served_error_window_end_timestamp_seconds", "bike_demand") == (NOW + 2 * WEEK).timestamp()
    )
    assert one("model_window_end_timestamp_seconds", "bike_demand") == (NOW + 3 * WEEK).timestamp()
    status = {labels for labels, set_ in values["evergreen_model_window_status"].items() if set_}
    assert status == {("bike_demand", "violation"), ("bike_rush", "stale")}
    # Of a window that could not be judged nothing is told of its columns.
    assert values["evergreen_model_drifting_columns_ratio"] == {("bike_demand",): 2 / 3}
    assert values["evergreen_model_worst_column_drift"] == {
        ("temperature", "bike_demand", "wasserstein"): 0.9
    }
    assert values["evergreen_model_worst_column_drift_limit"] == {
        ("temperature", "bike_demand", "wasserstein"): 0.12
    }


def test_open_requests_are_those_of_the_ledger(ledger: None, scrape: Scrape) -> None:
    with connect() as conn:
        for model in ("bike_demand", "bike_rush"):
            opened = decisions.open_requests(conn, model)
            told = sum(
                n for (name, _), n in scrape()["evergreen_model_open_requests"].items() if name == model
            )
            assert told == len(opened), model
        newest = decisions.open_requests(conn, "bike_demand")[-1]
        decide(
            conn,
            "model/bike_demand",
            DecisionKind.REJECTED,
            "worse_than_champion",
            version="9",
            answers=(newest.id,),
        )
        conn.commit()
        assert scrape()["evergreen_model_open_requests"]["bike_demand", "decay"] == 0.0


def test_where_the_warehouse_does_not_answer_nothing_else_is_told(
    ledger: None, scrape: Scrape, monkeypatch
) -> None:
    up = os.environ["EVERGREEN_WAREHOUSE_URL"]
    assert scrape()[UP.name] == {(): 1.0}
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://nobody:secret-word@127.0.0.1:1/warehouse")
    assert scrape() == {UP.name: {(): 0.0}}
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", up)
    assert len(scrape()) > 20


def test_a_question_that_takes_too_long_is_no_answer(ledger: None, scrape: Scrape, conn: Connection) -> None:
    with conn.cursor() as cursor:
        cursor.execute("LOCK TABLE evergreen.window_judgement IN ACCESS EXCLUSIVE MODE")
    began = time.monotonic()
    assert scrape() == {UP.name: {(): 0.0}}
    assert time.monotonic() - began < 8
    conn.rollback()
    assert scrape()[UP.name] == {(): 1.0}


def test_a_failure_is_logged_once_and_without_a_password(warehouse_url: str, monkeypatch, caplog) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://nobody:secret-word@127.0.0.1:1/warehouse")
    collector = WarehouseCollector(hold_s=0.0)
    assert [[m.name for m in collector.collect()] for _ in range(2)] == [[UP.name]] * 2
    assert len(caplog.records) == 1
    assert "does not answer" in caplog.text
    assert "secret-word" not in caplog.text


def test_an_empty_warehouse_has_no_series_for_what_is_not_known(
    warehouse_url: str, scrape: Scrape, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))
    found = scrape()
    assert found[UP.name] == {(): 1.0}
    assert found["evergreen_mails_waiting"] == {(): 0.0}
    for name in (
        "mail_oldest_waiting_timestamp_seconds", "champion_info", "champion_trained_timestamp_seconds", "model_served_error",
        "model_served_error_violated", "model_window_status", "model_drifting_columns_ratio", "model_worst_column_drift",
        "model_last_training_info", "dataset_last_rows_timestamp_seconds", "model_oldest_open_request_timestamp_seconds",
    ):  # fmt: skip
        assert f"evergreen_{name}" not in found


def test_an_error_that_could_not_be_computed_is_a_violation_without_a_value(
    ledger: None, scrape: Scrape
) -> None:
    from scraped import MetricResult, Status, insert, window

    unreadable = MetricResult(None, 55.0, 42.0, "unreadable", violated=True)
    with connect() as conn:
        insert(conn, window("bike_demand", "1", 4, Status.VIOLATION, metrics={"rmse": unreadable}))
    found = scrape()
    assert found["evergreen_model_served_error_violated"] == {("rmse", "bike_demand"): 1.0}
    assert "evergreen_model_served_error" not in found


def test_a_model_whose_spec_is_gone_or_wrong_has_no_series_and_the_mistake_is_counted(
    ledger: None, scrape: Scrape, tmp_path: Path, monkeypatch
) -> None:
    specs = tmp_path / "specs"
    for kind in ("datasets", "models"):
        (specs / kind).mkdir(parents=True)
        for file in (REPOSITORY / "include" / kind).iterdir():
            (specs / kind / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("EVERGREEN_SPECS", str(specs))
    assert ("bike_rush", "7") in scrape()["evergreen_champion_info"]
    text = (specs / "models" / "bike_rush.yaml").read_text()
    (specs / "models" / "bike_rush.yaml").write_text(text.replace("task: ", "tusk: "))
    found = scrape()
    assert ("bike_rush", "7") not in found["evergreen_champion_info"]
    assert found["evergreen_spec_mistakes"][()] > 0


def test_an_answer_is_given_again_for_a_while(ledger: None) -> None:
    collector = WarehouseCollector(hold_s=60.0)
    first = {m.name: [s.value for s in m.samples] for m in collector.collect()}
    with connect() as conn:
        decide(conn, "model/bike_demand", DecisionKind.RUN_FAILED, "NO_SPACE")
    assert {m.name: [s.value for s in m.samples] for m in collector.collect()} == first


def old(conn: Connection, number: int) -> None:
    """Decisions of two hours ago."""
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.decision (decided_at, as_of, subject, kind, reason, evidence, run_id, dedupe_key)"
            " SELECT now() - interval '2 hours', now(), 'dataset/bike_hourly', 'batch_quarantined', 'x', '{\"rows_held\": 2}', 'r',"
            " gen_random_uuid()::text FROM generate_series(1, %s)",
            (number,),
        )


def test_a_long_ledger_is_counted_in_steps_once(conn: Connection, monkeypatch) -> None:
    monkeypatch.setattr(counts, "STEP", 4)
    counted, now = DecisionCounts(), time.monotonic()
    key = ("bike_hourly", "batch_quarantined")
    old(conn, 10)
    assert counted.read(conn, now - 1) is None, "the time is over after one step"
    found = counted.read(conn, now + 60)
    assert found is not None
    assert (found[0][key], found[1]["bike_hourly"]) == (10, 20)
    assert counted.upto == fetch(conn, "SELECT max(id) AS id FROM evergreen.decision")[0]["id"]
    # What is new is counted each time anew, until it is old enough that no other can come before it.
    decide(conn, "dataset/bike_hourly", DecisionKind.BATCH_QUARANTINED, "x", evidence={"rows_held": 5})
    for _ in range(2):
        found = counted.read(conn, now + 60)
        assert found is not None
        assert (found[0][key], found[1]["bike_hourly"]) == (11, 25)
    for _ in range(4):
        decide(conn, "model/bike_demand", DecisionKind.REJECTED, "x")
    assert counted.read(conn, now + 60) is None, "more in an hour than a step reads: not known"


def test_another_ledger_is_counted_from_its_beginning(conn: Connection) -> None:
    counted = DecisionCounts(upto=99, ledger=1)
    counted.decisions["", "promoted"] = 50
    old(conn, 3)
    found = counted.read(conn, time.monotonic() + 60)
    assert found is not None
    assert found[0] == {("bike_hourly", "batch_quarantined"): 3}


def test_a_port_that_is_taken_and_a_missing_address_are_told_in_a_sentence(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    import socket

    from evergreen.exporter.command import main

    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))
    monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL", raising=False)
    assert main(["--port", "0"]) == 1
    assert "EVERGREEN_WAREHOUSE_URL is not set" in capsys.readouterr().err
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://127.0.0.1:1/warehouse")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err


def test_what_a_channel_has_not_taken_is_counted_by_channel(warehouse_url: str, scrape: Scrape) -> None:
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.mail (incident, subject, kind, sent_at) VALUES ('a', 'model/m', 'drift', NULL),"
            " ('b', 'model/m', 'drift', NULL), ('gone out', 'model/m', 'drift', now())"
        )
        cursor.execute(
            "INSERT INTO evergreen.delivery (mail, channel, sent_at) SELECT id, channel, CASE WHEN channel = 'email' AND incident = 'a'"
            " THEN now() END FROM evergreen.mail, unnest(ARRAY['email', 'channel:oncall']) AS channel"
        )
    assert scrape()["evergreen_deliveries_waiting"] == {("email",): 1.0, ("channel:oncall",): 2.0}


@pytest.mark.parametrize(("days", "told"), [(2.9, [0.4]), (3.1, [])])
def test_a_share_of_skew_is_told_for_three_days_so_that_its_alert_ends(
    conn: Connection, days: float, told: list[float]
) -> None:
    decide(conn, "model/m", DecisionKind.SERVING_COMPARED, "r", evidence={"share": 0.4})
    with conn.cursor() as cursor:  # only time makes a row of the ledger old
        cursor.execute("ALTER TABLE evergreen.decision DISABLE TRIGGER decision_append_only")
        cursor.execute("UPDATE evergreen.decision SET decided_at = now() - %s * interval '1 day'", (days,))
    assert [row["share"] for row in fleet.served_skew(conn, ["m"])] == told
