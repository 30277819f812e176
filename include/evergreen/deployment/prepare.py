"""What the service `init` does before any other starts: databases, roles, migrations, the first login, the bucket. Again, it changes nothing.

An image that is older than what a database was migrated to would work on tables that it does not know, so it refuses.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from psycopg2.extensions import make_dsn

from evergreen.command import no_arguments
from evergreen.deployment import store, variables
from evergreen.deployment.commands import output_of
from evergreen.errors import ErrorReason, EvergreenError, TerminalError
from evergreen.warehouse import databases, roles
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.migrate import migrate

PASSWORDS = {
    "airflow": variables.AIRFLOW_DB_PASSWORD,
    "mlflow": variables.MLFLOW_DB_PASSWORD,
    databases.WAREHOUSE: variables.WAREHOUSE_DB_PASSWORD,
}
ROLES = {
    roles.INGEST: variables.WAREHOUSE_INGEST_PASSWORD,
    roles.MODEL: variables.WAREHOUSE_MODEL_PASSWORD,
    roles.SERVING: variables.WAREHOUSE_SERVING_PASSWORD,
    roles.EXPORTER: variables.WAREHOUSE_EXPORTER_PASSWORD,
}
# Where alembic's scripts lie in the packages that migrate with it.
MIGRATED = {
    "airflow": ("apache-airflow", "airflow/migrations"),
    "mlflow": ("mlflow", "mlflow/store/db_migrations"),
}


def prepare() -> None:
    """Bring the server to what this image needs.

    Raises:
        TerminalError: a variable is missing, PostgreSQL or the store lets nobody in, a migration fails, or a database belongs to a
            newer image (NEWER_SCHEMA).
    """
    passwords = {name: variable.read() for name, variable in PASSWORDS.items()}
    logins = {role: variable.read() for role, variable in ROLES.items()}
    own = variables.POSTGRES_PASSWORD.read()
    with closing(reach(_dsn("postgres", "postgres", own))) as administrator:
        created = databases.create(administrator, passwords)
    _say(f"databases: {f'created {chr(44).join(created)}' if created else 'are there'}")
    for name in MIGRATED:
        with closing(reach(_dsn(name, name, passwords[name]))) as conn:
            refuse_newer(conn, name)
    with connect(_dsn(databases.WAREHOUSE, databases.WAREHOUSE, passwords[databases.WAREHOUSE])) as warehouse:
        applied = migrate(warehouse)
    with connect(_dsn(databases.WAREHOUSE, "postgres", own)) as administrator:
        roles.grant(administrator, logins)
    _say(f"warehouse: {applied_text(applied)}, its roles have their rights")
    _run("airflow", "airflow", "db", "migrate")
    _run("airflow's logins", "airflow", "fab-db", "migrate")
    _user()
    # The password goes by the environment: a command line can be read by others.
    _run(
        "mlflow", sys.executable, "-m", "mlflow", "db", "upgrade", f"postgresql+psycopg2://mlflow@{variables.POSTGRES}/mlflow",
        PGPASSWORD=passwords["mlflow"],
    )  # fmt: skip
    if bucket := variables.STORE_BUCKET.read():
        _say(f"bucket {bucket}: {'created' if store.prepare(bucket) else 'is there'}")


def reach(dsn: str) -> Connection:
    """Connect.

    Raises:
        TerminalError: PostgreSQL does not answer, or does not take the password.
    """
    try:
        return psycopg2.connect(dsn)
    except psycopg2.OperationalError as error:
        said = " ".join(str(error).split())
        raise TerminalError(
            f"PostgreSQL does not let init in: {said}. Where it says that the password is wrong, .env is not the one with which the "
            "volume was made: bring that one back, or set the administrator's password anew in the database",
            ErrorReason.UNREACHABLE,
        ) from error


def applied_text(applied: Sequence[str]) -> str:
    """What was done to the warehouse's tables, for the log."""
    return f"migrated by {', '.join(applied)}" if applied else "is up to date"


def refuse_newer(conn: Connection, name: str) -> None:
    """Refuse a database whose newest migration this image does not know; one without tables is new.

    Raises:
        TerminalError: it belongs to a newer image (NEWER_SCHEMA).
    """
    if not fetch(conn, "SELECT 1 FROM pg_tables WHERE tablename = 'alembic_version'"):
        return
    rows = fetch(conn, "SELECT version_num FROM alembic_version")
    package, folder = MIGRATED[name]
    root = find_spec(folder.partition("/")[0])
    assert root is not None
    assert root.origin is not None
    scripts = "".join(
        script.read_text(encoding="utf-8")
        for script in (Path(root.origin).parents[1] / folder / "versions").rglob("*.py")
    )
    for row in rows:
        if row["version_num"] not in scripts:
            raise TerminalError(
                f"the database {name} was migrated by a newer image ({package} after {version(package)}: its migration "
                f"{row['version_num']} is not known here); start that image again, or restore the backup of before the upgrade",
                ErrorReason.NEWER_SCHEMA,
            )


def _user() -> None:
    """Make the first login, unless there is one."""
    listed = _output_of("the logins could not be listed", "airflow", "users", "list", "--output", "plain")
    if any(variables.USER in line.split() for line in listed.splitlines()):
        _say("login: is there")
        return
    _output_of(
        "the first login could not be made", "airflow", "users", "create", "--username", variables.USER, "--role", "Admin",
        "--firstname", "Evergreen", "--lastname", "Administrator", "--email", f"{variables.USER}@localhost",
        "--password", variables.AIRFLOW_PASSWORD.read(),
    )  # fmt: skip
    _say(f"login: made {variables.USER}, its password is AIRFLOW_PASSWORD in .env")


def _run(what: str, *command: str, **more: str) -> None:
    began = time.monotonic()
    _output_of(f"{what} could not be migrated", *command, **more)
    _say(f"{what}: migrated in {time.monotonic() - began:.0f} s")


def _output_of(failure: str, *command: str, **more: str) -> str:
    secrets = (variables.AIRFLOW_PASSWORD, *PASSWORDS.values(), *ROLES.values())
    return output_of(command, failure, secrets=(secret.read() for secret in secrets), variables=more)


def _dsn(database: str, user: str, password: str) -> str:
    return make_dsn(
        host=variables.POSTGRES, dbname=database, user=user, password=password, connect_timeout=10
    )


def _say(text: str) -> None:
    print(text, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Prepare; 1 with the reason where it cannot be done."""
    no_arguments("prepare", __doc__, argv)
    try:
        prepare()
    except EvergreenError as error:
        print(f"init stops: {error}", file=sys.stderr)
        return 1
    return 0
