"""An image that is older than what a database was migrated to refuses it with a sentence."""

from __future__ import annotations

import pytest

from evergreen.deployment.prepare import refuse_newer
from evergreen.errors import Reason, TerminalError
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.migrate import VERSION, migrate


def test_a_warehouse_of_a_newer_release_is_refused(conn: Connection) -> None:
    assert fetch(conn, "SELECT max(version) AS v FROM evergreen.schema_version")[0]["v"] == VERSION
    migrate(conn)
    with conn.cursor() as cursor:
        cursor.execute("INSERT INTO evergreen.schema_version (version) VALUES (%s)", (VERSION + 1,))
    with pytest.raises(TerminalError, match=f"tables are of version {VERSION + 1}") as found:
        migrate(conn)
    assert found.value.reason is Reason.NEWER_SCHEMA
    conn.rollback()
    migrate(conn)


@pytest.mark.parametrize("name", ["airflow", "mlflow"])
def test_a_database_whose_migration_is_not_known_is_refused(conn: Connection, name: str) -> None:
    refuse_newer(conn, name)  # without tables it is new
    with conn.cursor() as cursor:
        cursor.execute("CREATE TABLE alembic_version (version_num text)")
        cursor.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    with pytest.raises(TerminalError, match="its migration ffffffffffff is not known here") as found:
        refuse_newer(conn, name)
    assert found.value.reason is Reason.NEWER_SCHEMA
    known = {"airflow": "937cbd173ca1", "mlflow": "451aebb31d03"}[name]
    with conn.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = %s", (known,))
    refuse_newer(conn, name)
    conn.rollback()
