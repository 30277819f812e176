"""The databases of a PostgreSQL server that Evergreen uses, each with an owner of its own: Airflow's, MLflow's, the warehouse."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from evergreen.warehouse.connection import Connection
from evergreen.warehouse.migrate import FEATURES_ROLE

WAREHOUSE = "warehouse"


def create(administrator: Connection, passwords: Mapping[str, str]) -> list[str]:
    """Create each database and the role of the same name that owns it, where they are missing; nobody else may connect to it.

    The warehouse's owner may take the role under which feature queries run, which has no right of its own. A password that
    is not the role's any more is set anew.

    Args:
        administrator: a login that may create roles and databases; it is put into autocommit.
        passwords: by database.

    Returns:
        The databases that were created.
    """
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        # Two at once would both find a role missing.
        cursor.execute("SELECT pg_advisory_lock(hashtext('evergreen.databases'))")
        try:
            created = _create(cursor, passwords)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('evergreen.databases'))")
    return created


def _create(cursor: Cursor, passwords: Mapping[str, str]) -> list[str]:
    created = []
    for name, password in passwords.items():
        role = sql.Identifier(name)
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
        verb = "ALTER" if cursor.fetchone() else "CREATE"
        cursor.execute(
            sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(sql.SQL(verb), role, sql.Literal(password))
        )
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if not cursor.fetchone():
            cursor.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(role))
            cursor.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role))
            created.append(name)
    features = sql.Identifier(FEATURES_ROLE)
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [FEATURES_ROLE])
    if not cursor.fetchone():
        cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(features))
    cursor.execute(sql.SQL("GRANT {} TO {}").format(features, sql.Identifier(WAREHOUSE)))
    return created
