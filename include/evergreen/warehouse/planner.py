"""What PostgreSQL's planner knows of a table, brought up to date after a large write.

Autovacuum looks once a minute and later under load; the step that reads the rows comes seconds after the one that wrote
them. Planned for an empty table, a join of 100,000 rows takes minutes instead of a second.
"""

from __future__ import annotations

from psycopg2 import sql

from evergreen.warehouse.connection import Connection, fetch

# Autovacuum's own rule and numbers (PostgreSQL documentation, "Updating Planner Statistics").
SHARE, LEAST = 0.1, 50


def refresh(conn: Connection, name: str, rows: int) -> bool:
    """ANALYZE a table in the open transaction if autovacuum would, after so many rows were written to it.

    A table that another process has locked for VACUUM or ANALYZE is left to that one.

    Args:
        conn: owner of the table, or, from PostgreSQL 17 on, a role with MAINTAIN on it; what its transaction wrote counts.
            For any other the server leaves it at a warning, and autovacuum does it later.
        name: of the table, as `schema.table`.
        rows: how many rows were inserted or changed.

    Returns:
        Whether it was asked for.
    """
    table = sql.Identifier(*name.split(".", 1))
    found = fetch(
        conn, "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", (table.as_string(conn),)
    )
    known = max(found[0]["reltuples"], 0.0) if found else 0.0
    if rows <= SHARE * known + LEAST:
        return False
    with conn.cursor() as cursor:
        cursor.execute(sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(table))
    return True
