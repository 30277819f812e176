"""What the service `init` does before any other starts: databases, roles, migrations, the first login. Again, it changes nothing.

An image that is older than what a database was migrated to would work on tables that it does not know, so it refuses.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from psycopg2.extensions import make_dsn

from evergreen.errors import EvergreenError, Reason, TerminalError
from evergreen.settings import Variable
from evergreen.warehouse import databases
from evergreen.warehouse.connection import Connection, connect, fetch
from evergreen.warehouse.migrate import migrate

HOST = Variable("EVERGREEN_POSTGRES_HOST", "postgres", "PostgreSQL server of the compose stack")
ADMINISTRATOR = Variable("POSTGRES_PASSWORD", None, "password of PostgreSQL's administrator")
PASSWORDS = {
    "airflow": Variable("AIRFLOW_DB_PASSWORD", None, "password of the database role airflow"),
    "mlflow": Variable("MLFLOW_DB_PASSWORD", None, "password of the database role mlflow"),
    databases.WAREHOUSE: Variable("WAREHOUSE_DB_PASSWORD", None, "password of the database role warehouse"),
}
LOGIN = Variable("AIRFLOW_PASSWORD", None, "password of the login `admin` in Airflow")
USER = "admin"
# Where alembic's scripts lie in the packages that migrate with it.
MIGRATED = {
    "airflow": ("apache-airflow", "airflow/migrations"),
    "mlflow": ("mlflow", "mlflow/store/db_migrations"),
}


def prepare() -> None:
    """Bring the server to what this image needs.

    Raises:
        TerminalError: a variable is missing, or a database belongs to a newer image (NEWER_SCHEMA).
    """
    passwords = {name: variable.read() for name, variable in PASSWORDS.items()}
    with closing(psycopg2.connect(_dsn("postgres", "postgres", ADMINISTRATOR.read()))) as administrator:
        created = databases.create(administrator, passwords)
    _say(f"databases: {f'created {chr(44).join(created)}' if created else 'are there'}")
    for name in MIGRATED:
        with closing(psycopg2.connect(_dsn(name, name, passwords[name]))) as conn:
            refuse_newer(conn, name)
    with connect(_dsn(databases.WAREHOUSE, databases.WAREHOUSE, passwords[databases.WAREHOUSE])) as warehouse:
        migrate(warehouse)
    _say("warehouse: migrated")
    _run("airflow", "airflow", "db", "migrate")
    _run("airflow's logins", "airflow", "fab-db", "migrate")
    _user()
    # The password goes by the environment: a command line can be read by others.
    _run(
        "mlflow", sys.executable, "-m", "mlflow", "db", "upgrade", f"postgresql+psycopg2://mlflow@{HOST.read()}/mlflow",
        PGPASSWORD=passwords["mlflow"],
    )  # fmt: skip


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
                Reason.NEWER_SCHEMA,
            )


def _user() -> None:
    """Make the first login, unless there is one."""
    listed = subprocess.run(
        ["airflow", "users", "list", "--output", "plain"], check=True, capture_output=True, text=True
    ).stdout
    if any(USER in line.split() for line in listed.splitlines()):
        _say("login: is there")
        return
    subprocess.run(
        ["airflow", "users", "create", "--username", USER, "--role", "Admin", "--firstname", "Evergreen",
         "--lastname", "Administrator", "--email", f"{USER}@localhost", "--password", LOGIN.read()],
        check=True, capture_output=True,
    )  # fmt: skip
    _say(f"login: made {USER}, its password is AIRFLOW_PASSWORD in .env")


def _run(what: str, *command: str, **more: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise TerminalError(f"{what} could not be migrated; what it said stands above", Reason.BAD_SPEC)
    _say(f"{what}: migrated in {time.monotonic() - began:.0f} s")


def _dsn(database: str, user: str, password: str) -> str:
    return make_dsn(host=HOST.read(), dbname=database, user=user, password=password, connect_timeout=10)


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Prepare; 1 with the reason where it cannot be done."""
    try:
        prepare()
    except EvergreenError as error:
        print(f"init stops: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
