"""`make compose-env`: writes `.env` with a secret of its own for everything in docker-compose.yaml that needs one.

Needs nothing but Python, since a server has no virtual environment. What is in the file already stays as it is.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HEAD = """\
# Secrets and settings of docker-compose.yaml; made by `make compose-env`, which adds what is missing and changes nothing.
# Keep a copy where you keep secrets: without FERNET_KEY stored connections cannot be read, without POSTGRES_PASSWORD nothing.
"""


def _word() -> str:
    # Letters and digits alone: it goes into addresses, where another character would need to be written otherwise.
    return secrets.token_hex(24)


def _fernet() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


SECRETS: dict[str, tuple[Callable[[], str], str]] = {
    "POSTGRES_PASSWORD": (_word, "of PostgreSQL's administrator; only `init` knows it"),
    "AIRFLOW_DB_PASSWORD": (_word, "of the database role airflow"),
    "MLFLOW_DB_PASSWORD": (_word, "of the database role mlflow"),
    "WAREHOUSE_DB_PASSWORD": (_word, "of the role warehouse, which owns it; only `init` knows it"),
    "WAREHOUSE_INGEST_PASSWORD": (_word, "of the database role evergreen_ingest"),
    "WAREHOUSE_MODEL_PASSWORD": (_word, "of the database role evergreen_model"),
    "WAREHOUSE_EXPORTER_PASSWORD": (_word, "of the database role evergreen_exporter"),
    "REDIS_PASSWORD": (_word, "of the broker"),
    "AIRFLOW_PASSWORD": (_word, "of the login `admin` in Airflow"),
    "MLFLOW_PASSWORD": (_word, "of the login `admin` in MLflow"),
    "JWT_SECRET": (_word, "signs what Airflow's services say to each other; the same in all of them"),
    "API_SECRET_KEY": (_word, "signs sessions of the Airflow UI"),
    "FERNET_KEY": (_fernet, "encrypts connections and variables in Airflow's database"),
    "MLFLOW_SESSION_KEY": (_word, "signs sessions of the MLflow UI"),
    "GRAFANA_PASSWORD": (_word, "of the login `admin` in Grafana; taken at its first start"),
}
"""Each secret with what makes it and what it is for."""

SETTINGS = """\
# Settings; each has a default, and a line that begins with # does nothing.
# EVERGREEN_BIND=0.0.0.0                  address of this machine on which the UIs are published; default: loopback alone
# EVERGREEN_PORT=8080                     port of the Airflow UI; MLFLOW_PORT=5000 that of MLflow
# EVERGREEN_AIRFLOW_URL=https://airflow.example.org    as people reach it; for links in e-mails
# EVERGREEN_MLFLOW_URL=https://mlflow.example.org
# EVERGREEN_MAIL_TO=ml-team@example.org
# EVERGREEN_MAIL_FROM=evergreen@example.org
# EVERGREEN_CHANNELS=oncall,team          alerts to Slack, PagerDuty and others: the URLs are Airflow connections (docs/alerts.md)
# EVERGREEN_SMTP={"conn_type": "smtp", "host": "smtp.example.org", "login": "…", "password": "…", "port": 465}
# MLFLOW_ARTIFACTS=s3://bucket/mlflow     default: a volume
# COMPOSE_PROFILES=metrics                Prometheus and Grafana run too (docs/metrics.md); set AIRFLOW_STATSD=True with it
# AIRFLOW_STATSD=True
# EVERGREEN_LANDING=s3://bucket/landing   default: a volume; EVERGREEN_SNAPSHOTS and EVERGREEN_PROGRESS likewise (docs/storage.md)
"""


def read(path: Path) -> dict[str, str]:
    """The variables of an env file; empty where there is none."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def write(path: Path) -> list[str]:
    """Add the secrets that a file lacks; it can be read by its owner alone.

    Returns:
        Their names; empty where nothing was missing.
    """
    known = read(path)
    missing = [name for name in SECRETS if not known.get(name)]
    if not missing:
        return []
    # An empty line of the same name would win where it stands later.
    kept = path.read_text(encoding="utf-8").splitlines() if path.exists() else [*HEAD.splitlines(), ""]
    kept = [line for line in kept if line.partition("=")[0].strip() not in missing]
    for name in missing:
        make, meaning = SECRETS[name]
        kept += [f"# {meaning}", f"{name}={make()}"]
    if not known:
        kept += ["", *SETTINGS.splitlines()]
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=".env.", delete=False, encoding="utf-8"
    ) as file:
        file.write("\n".join(kept) + "\n")
    Path(file.name).replace(path)
    return missing


def main(argv: list[str] | None = None) -> int:
    """Write the file and say what was added, never a secret."""
    parser = argparse.ArgumentParser(prog="make compose-env", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, default=Path(".env"), help="where (default: .env)")
    path = parser.parse_args(argv).file.absolute()
    try:
        added = write(path)
    except OSError as error:
        print(f"{path} cannot be written: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return 1
    print(f"{path}: {f'made {len(added)} secrets: ' + ', '.join(added) if added else 'nothing was missing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
