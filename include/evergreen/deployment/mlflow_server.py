"""Runs the MLflow server of the compose stack: writes its configuration of logins where nobody else can read it, then becomes it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from evergreen.errors import EvergreenError
from evergreen.settings import Variable
from evergreen.stack.mlflow_settings import environment, login_file

PORT = "5000"
HOST = Variable("EVERGREEN_POSTGRES_HOST", "postgres", "PostgreSQL server of the compose stack")
DATABASE = Variable("MLFLOW_DB_PASSWORD", None, "password of the database role mlflow")
LOGIN = Variable("MLFLOW_PASSWORD", None, "password of the login `admin` in MLflow")
SESSION = Variable("MLFLOW_SESSION_KEY", None, "signs sessions of the MLflow UI")
ARTIFACTS = Variable(
    "MLFLOW_ARTIFACTS", "/var/lib/mlflow", "where the server keeps artifacts: a folder, or s3://… or gs://…"
)
HOSTS = Variable(
    "MLFLOW_ALLOWED_HOSTS", "mlflow:*,localhost:*,127.0.0.1:*", "names under which it may be asked for"
)


def main() -> int:
    """Become the server; 1 with the reason where a variable is missing."""
    try:
        url = f"postgresql+psycopg2://mlflow:{quote(DATABASE.read(), safe='')}@{HOST.read()}/mlflow"
        logins = Path(tempfile.mkdtemp(prefix="mlflow-")) / "logins.ini"
        logins.touch(mode=0o600)
        logins.write_text(login_file(url, "admin", LOGIN.read()), encoding="utf-8")
        own = environment(url, logins, SESSION.read())
    except EvergreenError as error:
        print(f"mlflow cannot start: {error}", file=sys.stderr)
        return 1
    for secret in (DATABASE, LOGIN, SESSION):
        os.environ.pop(secret.name)
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", PORT, "--workers", "1",
        "--app-name", "basic-auth", "--allowed-hosts", HOSTS.read(),
        "--serve-artifacts", "--artifacts-destination", ARTIFACTS.read(),
    ]  # fmt: skip
    os.execve(sys.executable, command, {**os.environ, **own})


if __name__ == "__main__":
    sys.exit(main())
