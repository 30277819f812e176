"""What runs in Kubernetes before a new image does: migrates Evergreen's tables and MLflow's. Again, it changes nothing.

Databases and roles are there already, and Airflow's chart migrates Airflow. An image that is older than what a database was
migrated to is refused, as in `prepare`.
"""

from __future__ import annotations

import sys
from urllib.parse import unquote, urlsplit

from evergreen.command import no_arguments
from evergreen.deployment import prepare, variables
from evergreen.deployment.commands import output_of
from evergreen.errors import EvergreenError, TransientError
from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate


def migrate_all() -> None:
    """Migrate the warehouse (EVERGREEN_WAREHOUSE_URL), then MLflow's database (MLFLOW_DATABASE_URL).

    Raises:
        TransientError: a database does not answer, or does not take the login.
        TerminalError: a variable is missing, a migration fails, or a database belongs to a newer image (NEWER_SCHEMA).
    """
    url = variables.mlflow_database()
    try:
        with connect(url) as conn:
            prepare.refuse_newer(conn, "mlflow")
    except TransientError as error:
        # It is told of the warehouse, which `connect` is made for.
        raise TransientError(
            f"MLflow's database does not answer ({error.__cause__ or error}); look at the address in {variables.MLFLOW_DATABASE_URL.name}",
            error.reason,
        ) from error
    with connect() as warehouse:
        applied = migrate(warehouse)
    print(f"warehouse: {prepare.applied_text(applied)}", flush=True)
    _mlflow(url)
    print("mlflow: migrated", flush=True)


def _mlflow(url: str) -> None:
    password = unquote(urlsplit(url).password or "")
    # The password goes by the environment: a command line can be read by others.
    output_of(
        [sys.executable, "-m", "mlflow", "db", "upgrade", variables.sqlalchemy(_without_password(url))],
        "mlflow could not be migrated",
        secrets=(password,),
        variables={"PGPASSWORD": password},
    )


def _without_password(url: str) -> str:
    split = urlsplit(url)
    login, _, host = split.netloc.rpartition("@")
    user = login.partition(":")[0]
    return split._replace(netloc=f"{user}@{host}" if user else host).geturl()


def main(argv: list[str] | None = None) -> int:
    """Migrate; 1 with the reason where it cannot be done."""
    no_arguments("migrate", __doc__, argv)
    try:
        migrate_all()
    except EvergreenError as error:
        print(f"migrate stops: {error}", file=sys.stderr)
        return 1
    return 0
