"""Brings Evergreen's own tables in the warehouse up to date; safe to run at every start, and twice at once."""

from __future__ import annotations

from importlib import resources

from psycopg2 import errors, sql

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import ColumnType, DatasetSpec
from evergreen.warehouse.connection import Connection, fetch

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


VERSION = 2
"""Of `schema.sql`; it rises with a change after which the release before must not work on the tables any more."""


def migrate(conn: Connection) -> None:
    """Create or update the schemas and tables of `schema.sql`, and the role under which feature queries run.

    Raises:
        TerminalError: this login may not make the role, see `ensure_role`, or a newer release has migrated the tables
            (NEWER_SCHEMA).
    """
    with conn.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('evergreen.migrate'))")
        _refuse_newer(conn)
        cursor.execute(
            resources.files("evergreen.warehouse").joinpath("schema.sql").read_text(encoding="utf-8")
        )
        if not fetch(conn, "SELECT to_regclass('evergreen.delivery') AS there")[0]["there"]:
            second = resources.files("evergreen.warehouse").joinpath("migrations", "0002_delivery.sql")
            cursor.execute(second.read_text(encoding="utf-8"))
        cursor.execute(
            "INSERT INTO evergreen.schema_version (version) VALUES (%s) ON CONFLICT DO NOTHING", (VERSION,)
        )
    ensure_role(conn)


def _refuse_newer(conn: Connection) -> None:
    if not fetch(conn, "SELECT to_regclass('evergreen.schema_version') AS there")[0]["there"]:
        return
    found = fetch(conn, "SELECT max(version) AS version FROM evergreen.schema_version")[0]["version"]
    if found is not None and found > VERSION:
        raise TerminalError(
            f"the warehouse was migrated by a newer release (its tables are of version {found}, this release knows {VERSION}); "
            "start that release again, or restore the backup of before the upgrade",
            ErrorReason.NEWER_SCHEMA,
        )


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
