"""Brings Evergreen's own tables in the warehouse up to date; safe to run at every start, and twice at once."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import DatabaseError, OperationalError, errors, sql

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import ColumnType, DatasetSpec
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.schema_versions import Migration, known, pending

TYPES: dict[ColumnType, str] = {
    "float": "double precision",
    "integer": "bigint",
    "boolean": "boolean",
    "text": "text",
    "category": "text",
    "timestamp": "timestamptz",
    "date": "date",
}


FEATURES_ROLE = "evergreen_features"
"""The role under which feature queries run; it owns nothing and may read nothing of its own."""


def migrate(conn: Connection, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply the migrations that the warehouse has not had, and make the role under which feature queries run.

    Each is applied in a transaction of its own, with its row in `evergreen.schema_version`: what is killed in between leaves the
    tables as they were before it. Where there is nothing to do, nothing is locked.

    Args:
        conn: nothing is written in it yet; it is committed after each migration.
        migrations: default: those of this release.

    Returns:
        The names of those that were applied now.

    Raises:
        TerminalError: this login may not migrate (NO_ACCESS) or make the role, see `ensure_role`; a newer release has migrated the
            tables (NEWER_SCHEMA); a migration fails, or is another than the one that was applied (BAD_MIGRATION).
    """
    migrations = known() if migrations is None else migrations
    applied = []
    try:
        while pending(conn, migrations):
            if name := _apply_next(conn, migrations):
                applied.append(name)
    except errors.InsufficientPrivilege as error:
        raise TerminalError(
            f"{conn.info.user} may not migrate the warehouse ({error.diag.message_primary}); let the owner of the database "
            f"{conn.info.dbname} do it, as `init` and the migration job do",
            ErrorReason.NO_ACCESS,
        ) from error
    ensure_role(conn)
    return applied


def _apply_next(conn: Connection, migrations: Sequence[Migration]) -> str | None:
    """Apply the first of those that are missing; None where another process was faster."""
    with conn.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = 0")  # whoever migrates at the same time may take long
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('evergreen.migrate'))")
        if not (left := pending(conn, migrations)):
            conn.commit()
            return None
        # A large table takes its time; but behind one who waits for a table that a task holds, everybody else would wait, too.
        cursor.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout TO DEFAULT")
        try:
            cursor.execute(left[0].statements)
        except (errors.InsufficientPrivilege, OperationalError):
            raise
        except DatabaseError as error:
            raise TerminalError(
                f"the migration {left[0].name} failed ({error.diag.message_primary}). The warehouse is as it was before it; report this, "
                "and restore the backup of before the upgrade to go on with the release before",
                ErrorReason.BAD_MIGRATION,
            ) from error
        cursor.execute(
            "INSERT INTO evergreen.schema_version (version, name, sha256) VALUES (%(number)s, %(name)s, %(sha256)s) ON CONFLICT (version)"
            " DO UPDATE SET name = %(name)s, sha256 = %(sha256)s, migrated_at = clock_timestamp()",
            {"number": left[0].number, "name": left[0].name, "sha256": left[0].sha256},
        )
    conn.commit()
    return left[0].name


def ensure_role(conn: Connection) -> None:
    """Create the role under which feature queries run and let this login take it, where that is still to be done.

    Roles belong to the server and not to one database, so several warehouses may share it.

    Raises:
        TerminalError: this login may not do it (NO_ROLE); the message has the statements for one that may.
    """
    if not _missing(conn):
        return
    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_role")
        try:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('evergreen.migrate'))")
            while missing := _missing(conn):
                cursor.execute(missing[0])
                if len(_missing(conn)) >= len(missing):  # said as a warning only
                    raise errors.InsufficientPrivilege("the server did not grant it")
        except (errors.InsufficientPrivilege, errors.DuplicateObject, errors.UniqueViolation) as error:
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_role")
            missing = _missing(conn)
            if not missing:  # another database's migration was faster
                return
            raise TerminalError(
                f"feature queries run under the role {FEATURES_ROLE}, which {conn.info.user} can neither make nor take as it "
                f"is ({' '.join(str(error).split())}). Let an administrator of the server run once: "
                f"{'; '.join(statement.as_string(conn) for statement in missing)};",
                ErrorReason.NO_ROLE,
            ) from error


def _missing(conn: Connection) -> list[sql.Composable]:
    """What is still to be said to the server so that this login may take the role, and both make temporary views."""
    role, login = sql.Identifier(FEATURES_ROLE), sql.Identifier(conn.info.user)
    database = sql.Identifier(conn.info.dbname)
    found = fetch(
        conn,
        "SELECT pg_has_role(oid, %s) AS takes, has_database_privilege(oid, current_database(), 'TEMPORARY')"
        " AND has_database_privilege(current_database(), 'TEMPORARY') AS makes FROM pg_roles WHERE rolname = %s",
        ("SET" if conn.server_version >= 160000 else "MEMBER", FEATURES_ROLE),
    )
    makes = fetch(conn, "SELECT has_database_privilege('public', current_database(), 'TEMPORARY') AS all_may")
    missing: list[sql.Composable] = [] if found else [sql.SQL("CREATE ROLE {} NOLOGIN").format(role)]
    if not found or not found[0]["takes"]:
        missing.append(sql.SQL("GRANT {} TO {}").format(role, login))
    if not (found[0]["makes"] if found else makes[0]["all_may"]):
        missing.append(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}, {}").format(database, role, login))
    return missing


def ensure_dataset(conn: Connection, dataset: DatasetSpec) -> None:
    """Create the tables of a dataset, or add columns that its spec has gained.

    `data.NAME` holds the newest version of each row, `data.NAME__history` the versions it replaced:
    together they tell what was known at any time. Columns that left the spec stay in the table. Where nothing
    is missing, nothing is locked: readers and the publishing of a batch do not wait for each other.
    """
    if _complete(conn, dataset):
        return
    current = sql.Identifier("data", dataset.name)
    history = sql.Identifier("data", f"{dataset.name}__history")
    with conn.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"evergreen.dataset.{dataset.name}",))
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(TYPES[c.type]))
            for n, c in dataset.columns.items()
        )
        cursor.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} ({}, _arrived_at timestamptz NOT NULL, _batch bigint NOT NULL,"
                " PRIMARY KEY ({}))"
            ).format(current, columns, sql.SQL(", ").join(map(sql.Identifier, dataset.key)))
        )
        cursor.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} ({}, _arrived_at timestamptz NOT NULL, _batch bigint NOT NULL,"
                " _superseded_at timestamptz NOT NULL)"
            ).format(history, columns)
        )
        for name, column in dataset.columns.items():
            for table in (current, history):
                cursor.execute(
                    sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(
                        table, sql.Identifier(name), sql.SQL(TYPES[column.type])
                    )
                )
        if dataset.key[0] != dataset.event_time:
            cursor.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} ({})").format(
                    sql.Identifier(f"{dataset.name}_event_time"), current, sql.Identifier(dataset.event_time)
                )
            )


def _complete(conn: Connection, dataset: DatasetSpec) -> bool:
    rows = fetch(
        conn,
        "SELECT attname FROM pg_attribute WHERE attrelid IN (to_regclass(%s), to_regclass(%s)) AND attnum > 0"
        " AND NOT attisdropped GROUP BY attname HAVING count(*) = 2",
        (f"data.{dataset.name}", f"data.{dataset.name}__history"),
    )
    return set(dataset.columns) <= {row["attname"] for row in rows} and bool(rows)


def dataset_exists(conn: Connection, name: str) -> bool:
    """Whether anything of the dataset was ever published."""
    return bool(fetch(conn, "SELECT 1 FROM pg_tables WHERE schemaname = 'data' AND tablename = %s", (name,)))
