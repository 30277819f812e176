"""Runs the MLflow server: writes its configuration of logins where nobody else can read it, makes the login that reads, then becomes it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from evergreen.command import no_arguments
from evergreen.deployment import variables
from evergreen.errors import EvergreenError
from evergreen.stack.mlflow_settings import environment, login_file

PORT = "5000"


def main(argv: list[str] | None = None) -> int:
    """Become the server; 1 with the reason where a variable is missing."""
    no_arguments("mlflow-server", __doc__, argv)
    try:
        url = variables.sqlalchemy(variables.mlflow_database())
        logins = Path(tempfile.mkdtemp(prefix="mlflow-")) / "logins.ini"
        logins.touch(mode=0o600)
        logins.write_text(login_file(url, variables.USER, variables.MLFLOW_PASSWORD.read()), encoding="utf-8")
        own = environment(url, logins, variables.MLFLOW_SESSION_KEY.read())
        reader = variables.MLFLOW_SERVING_PASSWORD.read()
    except EvergreenError as error:
        print(f"mlflow cannot start: {error}", file=sys.stderr)
        return 1
    for secret in (
        variables.MLFLOW_DATABASE_URL,
        variables.MLFLOW_DB_PASSWORD,
        variables.MLFLOW_PASSWORD,
        variables.MLFLOW_SERVING_PASSWORD,
        variables.MLFLOW_SESSION_KEY,
    ):
        os.environ.pop(secret.name, None)
    os.environ.update(own)
    ensure_reader(url, variables.READER, reader)
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", PORT, "--workers", "1",
        "--app-name", "basic-auth", "--allowed-hosts", variables.MLFLOW_ALLOWED_HOSTS.read(),
        "--serve-artifacts", "--artifacts-destination", variables.MLFLOW_ARTIFACTS.read(),
    ]  # fmt: skip
    os.execv(sys.executable, command)


def ensure_reader(url: str, user: str, password: str) -> None:
    """Have a login that may read, as `default_permission` lets every login, and nothing else; with this password from now on.

    Args:
        url: of MLflow's database, in SQLAlchemy's form.
        user: the login.
        password: of it; a changed one takes the former's place.
    """
    # It reads the configuration of logins when it is imported.
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore()
    store.init_db(url)
    try:
        if not store.has_user(user):
            store.create_user(user, password)
        elif not store.authenticate_user(user, password):
            store.update_user(user, password=password, is_admin=False)
    finally:
        store.engine.dispose()
