"""Odd files among the specs: the DAGs of all others are built as before, the odd ones are shown and mailed."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from evergreen import ledger
from evergreen.warehouse.connection import connect

REPOSITORY = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """The project's specs, and beside them everything that must not be able to harm them."""
    for folder in ("datasets", "models"):
        shutil.copytree(REPOSITORY / "include" / folder, tmp_path / folder)
    models, datasets = tmp_path / "models", tmp_path / "datasets"
    (models / ".#bike_rush.yaml").symlink_to("me@host.1:2")
    (models / "link.yaml").symlink_to("nowhere")
    (models / "old.yaml").mkdir()
    os.mkfifo(models / "pipe.yaml")
    good, query = (models / "bike_rush.yaml").read_text(), (models / "bike_rush.sql").read_text()
    (models / "comment.yaml").write_text(good.replace("name: bike_rush", "name: comment"))
    (models / "comment.sql").write_bytes(query.encode() + b"\n-- m\xe9t\xe9o")
    (models / "team.yaml").write_text(
        good.replace("name: bike_rush", "name: team") + "\nalerts: {{ team }}\n"
    )
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    (models / "bomb.yaml").write_text(bomb)
    hourly = (datasets / "bike_hourly.yaml").read_text().replace("name: bike_hourly", "name: {}")
    for name, more in (
        ("long", "future_tolerance: 999999999999999d"),
        ("cron", 'schedule: "0 2 30 2 *"'),
        ("minute", 'schedule: "61 2 * * *"'),
        ("day", "description: 2024-13-45"),
    ):
        text = "\n".join(
            line for line in hourly.splitlines() if not line.startswith(f"{more.partition(':')[0]}:")
        )
        (datasets / f"{name}.yaml").write_text(f"{text.replace('{}', name, 1)}\n{more}\n")
    return tmp_path


def test_the_dags_of_all_other_specs_are_built_and_the_odd_ones_are_shown(
    make_dagbag: Any, dagbag: Any, odd: Path
) -> None:
    from airflow.dag_processing import processor

    bag = make_dagbag(odd)
    assert set(bag.dags) == set(dagbag.dags), "none is missing, none is made of an odd file"
    (message,) = bag.import_errors.values()
    for file in ("link.yaml", "old.yaml", "pipe.yaml", "comment.sql", "team.yaml", "bomb.yaml"):
        assert f"models/{file}: " in message
    for file in ("long.yaml", "cron.yaml", "minute.yaml", "day.yaml"):
        assert f"datasets/{file}: " in message
    assert ".#bike_rush" not in message
    _, failed = processor._serialize_dags(bag, structlog.get_logger())
    assert failed == {}


def test_they_are_mailed_once_by_the_dag_that_sends_mail(
    dagbag: Any, odd: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen_airflow import mailing

    sent: list[Any] = []
    monkeypatch.setattr(mailing, "send", sent.append)
    monkeypatch.setenv("EVERGREEN_SPECS", str(odd))
    monkeypatch.setenv("EVERGREEN_MAIL_TO", "fleet@example.org")
    run = SimpleNamespace(dag_id="mail", run_id="scheduled__1", run_after=NOW, run_type="scheduled")
    task = dagbag.dags["mail"].get_task("send_waiting").python_callable
    notes: list[str] = []
    ti = SimpleNamespace(xcom_push=lambda key, value: notes.append(value))
    assert task(dag_run=run, ti=ti) == ["fleet/specs"]
    assert task(dag_run=run, ti=ti) == []
    assert notes == ["sent what waited for fleet/specs", "nothing waits to be sent"]
    (mail,) = sent
    assert mail["To"] == "fleet@example.org"
    assert "models/pipe.yaml cannot be used" in mail.get_body(("plain",)).get_content()
    with connect() as conn:
        assert {d.subject for d in ledger.find(conn)} == {"fleet/specs"}


BAD = {
    "EVERGREEN_DIGEST": "61 6 * * 1",
    "EVERGREEN_SCHEDULES": "no",
    "EVERGREEN_THREADS": "two",
    "EVERGREEN_AIRFLOW_URL": "x:y",
}


@pytest.mark.parametrize(("name", "value"), BAD.items(), ids=BAD.keys())
def test_a_bad_variable_of_the_environment_takes_no_dag_away(
    make_dagbag: Any, dagbag: Any, name: str, value: str, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evergreen_airflow import mailing

    monkeypatch.setenv(name, value)
    bag = make_dagbag()
    assert set(bag.dags) == set(dagbag.dags)
    (message,) = bag.import_errors.values()
    assert f"{name}: " in message, "shown by Airflow on every page"
    sent: list[Any] = []
    monkeypatch.setattr(mailing, "send", sent.append)
    run = SimpleNamespace(dag_id="mail", run_id="scheduled__1", run_after=NOW, run_type="scheduled")
    task = bag.dags["mail"].get_task("send_waiting").python_callable
    ti = SimpleNamespace(xcom_push=lambda key, value: None)
    task(dag_run=run, ti=ti)
    task(dag_run=run, ti=ti)
    (mail,) = sent
    assert mail["Subject"] == f"[Evergreen] specs: {name} cannot be used"
    told = mail.get_body(("plain",)).get_content()
    assert "All DAGs run on" in told
    assert "Airflow services" in told
    monkeypatch.delenv(name)
    task(dag_run=run, ti=ti)
    assert "recovered" in sent[1]["Subject"]
