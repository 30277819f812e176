"""`evergreen status`, on a real warehouse, without one, and beside an embedded stack."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from terminal_scene import DEMAND, HOSTILE, NOW, Terminal, decide

import health_scene
from evergreen.ledger.reasons import DecisionKind
from evergreen.stack.layout import Layout
from evergreen.terminal import phrases
from evergreen.warehouse.connection import connect


def test_each_model_and_dataset_is_told_with_what_needs_a_person_first(life: Terminal) -> None:
    told = life("status")
    assert told.status == 0
    assert told.out.startswith("2 models: 1 being answered, 1 silenced; 1 dataset: 1 needs you;")
    assert told.out.index("bike_demand: being answered") < told.out.index("bike_rush: silenced")
    for said in (
        "drift since 2026-03-01", "champion    v2 since 2026-01-06 00:00 UTC", "RMSE 70.5, above its limit 55; 42 when promoted",
        "temperature 0.9, limit 0.12", "1 of 2 columns beyond their limits", "v3 was rejected", "1 open, the oldest since", "silenced by ada",
        "v8 waits for approval", "1 file quarantined", "`evergreen quarantine bike_hourly`", "bike_hourly, batches held back: not tried yet",
    ):  # fmt: skip
        assert said in told.out, said


@pytest.mark.parametrize("address", ["http://[bad", "http://mlflow:port", "ftp://mlflow"])
def test_an_mlflow_address_that_cannot_be_read_is_told_beside_all_else(
    life: Terminal, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    told = life("status")
    assert told.status == 0
    assert "MLflow does not answer" in told.out
    assert "bike_demand: being answered" in told.out
    assert life("status", "--json").json["stack"]["mlflow"] is False


def test_only_what_is_named_is_shown(life: Terminal) -> None:
    told = life("status", "bike_hourly")
    assert "bike_demand" not in told.out
    assert told.out.startswith("1 dataset: 1 needs you")
    wrong = life("status", "bike_hurly")
    assert (wrong.status, wrong.out) == (1, "")
    assert "did you mean bike_hourly" in wrong.err


def test_the_json_has_these_keys_and_times_in_utc(life: Terminal) -> None:
    told = life("status", "--json").json
    assert sorted(told) == ["addresses", "alerts", "datasets", "files", "models", "services", "specs", "stack", "up", "warehouse"]  # fmt: skip
    assert sorted(told["models"][0]) == [
        "attention", "champion", "datasets", "error", "incidents", "name", "newest_rows", "online", "owner", "requests", "schedule", "share",
        "silence", "since", "told", "training", "trend", "waiting", "why", "window", "worst",
    ]  # fmt: skip
    assert sorted(told["datasets"][0]) == [
        "attention", "batches", "held_batches", "held_rows", "incidents", "last_decided", "last_file", "last_state", "models", "name",
        "newest_rows", "owner", "published_rows", "silence", "told", "why",
    ]  # fmt: skip
    assert (told["up"], told["services"], told["models"][0]["since"]) == (True, [], "2026-01-06T00:00:00Z")
    assert told["models"][0]["attention"] == "answered"


def test_what_is_asked_online_is_told_in_a_line(life: Terminal) -> None:
    assert "online" not in life("status", "bike_demand").out
    now = datetime.now(UTC).replace(microsecond=0)
    with connect() as conn:
        health_scene.asked(conn, "bike_demand", "2", now - timedelta(minutes=3), 43_200, took=(1.0, 4.0))
        health_scene.asked(conn, "bike_demand", "", now - timedelta(minutes=3), 43, records=0, errors=43)
        health_scene.asked(conn, "bike_rush", "1", now - timedelta(hours=5), lost=2)
    told = life("status")
    assert "online      12/s, p99 4 ms, 0.1% errors; last asked 3 minutes ago" in told.out
    assert "not asked in the last hour, 2 records lost in the last day;" in told.out
    assert "prediction service" not in told.out, "no process of it has said that it lives"
    found = {m["name"]: m["online"] for m in life("status", "--json").json["models"]}
    assert (found["bike_demand"]["hour"]["requests"], found["bike_demand"]["hour"]["p99_ms"]) == (43_243, 4.0)
    assert found["bike_rush"]["lost"] == 2


def test_a_prediction_service_that_is_away_is_told_with_what_to_do(life: Terminal) -> None:
    now = datetime.now(UTC)
    with connect() as conn:
        health_scene.lives(conn, now)
    assert "prediction service: answers, nothing asked yet\n" in life("status").out
    gone = now - timedelta(hours=5)
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE evergreen.serving_process SET alive_at = %s", (gone,))
    told = " ".join(life("status").out.split())
    assert f"prediction service: not heard of since {gone:%Y-%m-%d %H:%M} UTC: look whether it runs" in told
    assert life("status", "--json").json["stack"]["service"]["answers"] is False


def test_an_empty_ledger_has_no_champion(terminal: Terminal, warehouse_url: str) -> None:
    told = terminal("status")
    assert told.status == 0
    assert told.out.count("champion    none") == 2
    assert "there is no champion yet" in told.out
    assert "nothing has landed yet" in told.out


def test_of_many_models_those_that_need_nobody_have_a_line(
    terminal: Terminal, warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_SPECS", str(tmp_path / "none"))
    with connect() as conn:
        for number in range(30):
            decide(conn, f"model/m{number:02}_{'long' * 14}", DecisionKind.PROMOTED, "first_champion", version="1")  # fmt: skip
    told = terminal("status")
    assert "30 models: 30 not yet known" in told.out
    assert len([line for line in told.out.splitlines() if line.startswith("  m")]) == 30


def test_what_somebody_wrote_is_shown_and_not_obeyed(terminal: Terminal, warehouse_url: str) -> None:
    with connect() as conn:
        decide(conn, DEMAND, DecisionKind.PROMOTED, HOSTILE, version=HOSTILE, as_of=NOW)
    assert "\\x1b[2J\\u202e漢字" in terminal("status").out


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://127.0.0.1:1/nowhere", "The warehouse does not answer"),
        ("", "No warehouse is named here, and no stack was ever up: `evergreen up` starts one"),
        ("no address", "EVERGREEN_WAREHOUSE_URL is no address"),
    ],
    ids=["away", "none named", "no address"],
)
def test_without_a_warehouse_it_is_said_in_a_sentence(
    terminal: Terminal, url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", url)
    told = terminal("status")
    assert told.status == 1
    assert said in " ".join(told.out.split())
    told_as_json = terminal("status", "--json")
    assert (told_as_json.status, told_as_json.json["warehouse"]["answers"]) == (1, False)
    assert not (tmp_path / "home").exists(), "to ask makes no stack"


def test_a_warehouse_without_tables_is_told_with_what_makes_them(
    terminal: Terminal, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", postgres_url)
    told = terminal("status")
    assert told.status == 1
    assert "has not the tables of this release" in told.out
    assert "`evergreen migrate` makes them" in " ".join(told.out.split())


def test_a_login_that_may_not_read_is_told(
    terminal: Terminal, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("DO $$ BEGIN CREATE ROLE nosy LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN END $$")  # fmt: skip
    address = psycopg2.extensions.make_dsn(warehouse_url, user="nosy", password="x")
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", address)
    told = terminal("status")
    assert told.status == 1
    assert "may not read the warehouse" in told.out


@pytest.mark.parametrize("answers", [False, True], ids=["warehouse away", "warehouse of its own"])
def test_a_stopped_stack_is_told_with_its_services_and_the_login(
    terminal: Terminal,
    answers: bool,
    warehouse_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = Layout(tmp_path / "home")
    layout.create()
    _ = layout.secrets
    service = {"state": "stopped", "pid": 1, "port": 8080, "since": 0, "restarts": 2, "message": ""}
    layout.state_file.write_text(json.dumps({"services": {"postgres": service, "api-server": service}}))
    if not answers:
        monkeypatch.delenv("EVERGREEN_WAREHOUSE_URL")
    told = terminal("status")
    assert told.status == 1
    assert "stack is stopped, `evergreen up` starts it" in " ".join(told.out.split())
    assert "SERVICE     STATE    PID  PORT  SINCE  RESTARTS" in told.out
    assert ("bike_demand: not yet known" in told.out) is answers
    assert "admin; the passwords are in" in told.out
    assert not any(secret in told.out for secret in layout.secrets.values())
    shown = terminal("status", "--json")
    assert [s["service"] for s in shown.json["services"]] == ["postgres", "api-server"]
    assert not any(secret in shown.out for secret in layout.secrets.values())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "less than a minute"), (59, "less than a minute"), (61, "1 minute"), (7199, "119 minutes"), (7200, "2 hours"), (86400 * 1.5, "36 hours"), (86400 * 3, "3 days")],
)  # fmt: skip
def test_how_long_ago(seconds: float, said: str) -> None:
    assert phrases.age(NOW - timedelta(seconds=seconds), NOW) == said
