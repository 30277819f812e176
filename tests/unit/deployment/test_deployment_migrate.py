"""The job that migrates in Kubernetes: Evergreen's tables and MLflow's, from nothing but two URLs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from evergreen.deployment import migrate, variables
from evergreen.errors import TerminalError
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.schema_versions import known


@pytest.fixture
def mlflow_database(conn: Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database beside the warehouse, as MLFLOW_DATABASE_URL names it."""
    server = warehouse_url.rpartition("/")[0]
    with closing(psycopg2.connect(f"{server}/postgres")) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        cursor.execute("CREATE DATABASE tracking")
        monkeypatch.setenv(variables.MLFLOW_DATABASE_URL.name, f"{server}/tracking")
        yield f"{server}/tracking"
        cursor.execute("DROP DATABASE tracking WITH (FORCE)")


def test_two_urls_are_enough_and_a_newer_database_is_refused(
    mlflow_database: str, warehouse_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with connect(warehouse_url) as conn, conn.cursor() as cursor:
        cursor.execute("DROP SCHEMA evergreen CASCADE")
    assert migrate.main([]) == 0
    with connect(warehouse_url) as conn:
        assert (
            fetch(conn, "SELECT max(version) AS v FROM evergreen.schema_version")[0]["v"]
            == known()[-1].number
        )
    with connect(mlflow_database) as conn, conn.cursor() as cursor:
        assert fetch(conn, "SELECT count(*) AS n FROM experiments")[0]["n"] == 0
        cursor.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    capfd.readouterr()
    assert migrate.main([]) == 1
    assert "the database mlflow was migrated by a newer image" in capfd.readouterr().err


def test_a_database_of_mlflow_that_is_away_is_not_told_as_the_warehouse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(
        variables.MLFLOW_DATABASE_URL.name, "postgresql://mlflow:secret-word@127.0.0.1:1/mlflow"
    )
    assert migrate.main([]) == 1
    said = capsys.readouterr().err
    assert "MLflow's database does not answer" in said
    assert "MLFLOW_DATABASE_URL" in said
    assert not [word for word in ("warehouse", "make up", "secret-word") if word in said]


def test_what_mlflow_says_is_shown_without_the_password(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "python"
    said.write_text('#!/bin/sh\necho "no table for $PGPASSWORD in $*"; exit 1\n')
    said.chmod(0o755)
    monkeypatch.setattr(migrate.sys, "executable", str(said))
    with pytest.raises(TerminalError, match="mlflow could not be migrated"):
        migrate._mlflow("postgresql://mlflow:p%40ss-word@db.example.org:5432/mlflow?sslmode=require")
    shown = capsys.readouterr().err
    assert "no table for *** in" in shown
    assert "postgresql+psycopg2://mlflow@db.example.org:5432/mlflow?sslmode=require" in shown
    assert "ss-word" not in shown


def test_mlflows_database_is_the_given_one_or_that_of_the_compose_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_DB_PASSWORD", "p@ss")
    monkeypatch.delenv("MLFLOW_DATABASE_URL", raising=False)
    assert variables.mlflow_database() == "postgresql://mlflow:p%40ss@postgres/mlflow"
    monkeypatch.setenv("MLFLOW_DATABASE_URL", "postgres://me:word@db/tracking")
    assert variables.mlflow_database() == "postgresql://me:word@db/tracking"
    assert variables.sqlalchemy(variables.mlflow_database()) == "postgresql+psycopg2://me:word@db/tracking"
    monkeypatch.delenv("MLFLOW_DATABASE_URL")
    monkeypatch.delenv("MLFLOW_DB_PASSWORD")
    with pytest.raises(TerminalError, match="MLFLOW_DB_PASSWORD is not set"):
        variables.mlflow_database()
