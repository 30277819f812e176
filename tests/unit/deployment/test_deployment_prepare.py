"""An image that is older than what a database was migrated to refuses it with a sentence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psycopg2
import pytest

from evergreen.deployment import prepare, variables
from evergreen.deployment.prepare import refuse_newer
from evergreen.errors import ErrorReason, TerminalError
from evergreen.warehouse import databases
from evergreen.warehouse.connection import Connection


@pytest.mark.parametrize("name", ["airflow", "mlflow"])
def test_a_database_whose_migration_is_not_known_is_refused(conn: Connection, name: str) -> None:
    refuse_newer(conn, name)  # without tables it is new
    with conn.cursor() as cursor:
        cursor.execute("CREATE TABLE alembic_version (version_num text)")
        cursor.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    with pytest.raises(TerminalError, match="its migration ffffffffffff is not known here") as found:
        refuse_newer(conn, name)
    assert found.value.reason is ErrorReason.NEWER_SCHEMA
    known = {"airflow": "937cbd173ca1", "mlflow": "451aebb31d03"}[name]
    with conn.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = %s", (known,))
    refuse_newer(conn, name)
    conn.rollback()


def test_a_server_that_lets_nobody_in_is_told_with_the_next_step() -> None:
    with pytest.raises(TerminalError, match=r"does not let init in: .*bring that one back") as found:
        prepare.reach("host=127.0.0.1 port=1 user=postgres password=secret-word connect_timeout=2")
    assert "secret-word" not in str(found.value)


def test_a_login_that_cannot_be_made_shows_no_password(tmp_path, monkeypatch, capsys) -> None:
    airflow = tmp_path / "airflow"
    airflow.write_text('#!/bin/sh\n[ "$2" = list ] && exit 0\necho "no role Admin for $*"; exit 1\n')
    airflow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for variable in (*prepare.PASSWORDS.values(), *prepare.ROLES.values(), variables.AIRFLOW_PASSWORD):
        monkeypatch.setenv(variable.name, f"secret-{variable.name}")
    with pytest.raises(TerminalError, match="the first login could not be made") as found:
        prepare._user()
    said = capsys.readouterr().err + str(found.value)
    assert "no role Admin" in said
    assert "--password ***" in said
    assert "secret-" not in said


def test_two_at_once_make_the_databases_once(conn: Connection, warehouse_url: str) -> None:
    names = {name: "word" for name in ("warehouse", "twice_a", "twice_b")}
    url = warehouse_url.rpartition("/")[0] + "/postgres"
    try:
        with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
            admins = [stack.enter_context(closing(psycopg2.connect(url))) for _ in range(3)]
            made = list(pool.map(lambda admin: databases.create(admin, names), admins))
            assert sorted(name for each in made for name in each if name != "warehouse") == [
                "twice_a",
                "twice_b",
            ]
    finally:
        with closing(psycopg2.connect(url)) as admin, admin.cursor() as cursor:
            admin.autocommit = True
            for name in ("twice_a", "twice_b"):
                cursor.execute(f"DROP DATABASE IF EXISTS {name}")
                cursor.execute(f"DROP ROLE IF EXISTS {name}")
