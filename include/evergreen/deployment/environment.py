"""`make compose-env`: writes `.env` with a secret of its own for everything in docker-compose.yaml that needs one.

With STORE=s3 also the settings of the store that comes with that file: they stand in `.env`, as a command that is given without them
would look for the data in another place. Needs nothing but Python, since a server has no virtual environment. What is in the file
already stays as it is.
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


class ChosenError(Exception):
    """Why a store cannot be chosen, and what to do."""


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
    "WAREHOUSE_SERVING_PASSWORD": (_word, "of the database role evergreen_serving"),
    "WAREHOUSE_EXPORTER_PASSWORD": (_word, "of the database role evergreen_exporter"),
    "REDIS_PASSWORD": (_word, "of the broker"),
    "AIRFLOW_PASSWORD": (_word, "of the login `admin` in Airflow"),
    "MLFLOW_PASSWORD": (_word, "of the login `admin` in MLflow"),
    "MLFLOW_SERVING_PASSWORD": (_word, "of the login `serving` in MLflow, which may only read"),
    "JWT_SECRET": (_word, "signs what Airflow's services say to each other; the same in all of them"),
    "API_SECRET_KEY": (_word, "signs sessions of the Airflow UI"),
    "FERNET_KEY": (_fernet, "encrypts connections and variables in Airflow's database"),
    "MLFLOW_SESSION_KEY": (_word, "signs sessions of the MLflow UI"),
    "STORE_ROOT_PASSWORD": (
        _word,
        "of the store's own key, with the profile s3; only `init` and the store know it",
    ),
    "GRAFANA_PASSWORD": (_word, "of the login `admin` in Grafana; taken at its first start"),
}
"""Each secret with what makes it and what it is for."""

STORES: dict[str, dict[str, str]] = {
    "s3": {
        "STORE_BUCKET": "evergreen",
        "EVERGREEN_LANDING": "s3://evergreen/landing",
        "EVERGREEN_SNAPSHOTS": "s3://evergreen/snapshots",
        "EVERGREEN_PROGRESS": "s3://evergreen/progress",
        "MLFLOW_ARTIFACTS": "s3://evergreen/mlflow",
        "AWS_ENDPOINT_URL": "http://store:7070",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "evergreen",
    }
}
"""What `--store` sets beside the profile of the same name and the secret of the workers' key."""
_PROFILES, KEY = "COMPOSE_PROFILES", "AWS_SECRET_ACCESS_KEY"
# With these set another store, or another key, would be used all the same.
_WINNING = ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN")

SETTINGS = """\
# Settings; each has a default, and a line that begins with # does nothing.
# EVERGREEN_BIND=0.0.0.0                  address of this machine on which the UIs are published; default: loopback alone
# EVERGREEN_PORT=8080                     port of the Airflow UI; MLFLOW_PORT=5000 that of MLflow
# SERVING_PORT=8088                       port of the prediction service; 8088-8091 for up to four of them (docs/serving.md)
# EVERGREEN_AIRFLOW_URL=https://airflow.example.org    as people reach it; for links in e-mails
# EVERGREEN_MLFLOW_URL=https://mlflow.example.org
# EVERGREEN_MAIL_TO=ml-team@example.org
# EVERGREEN_MAIL_FROM=evergreen@example.org
# EVERGREEN_CHANNELS=oncall,team          alerts to Slack, PagerDuty and others: the URLs are Airflow connections (docs/alerts.md)
# EVERGREEN_SMTP={"conn_type": "smtp", "host": "smtp.example.org", "login": "…", "password": "…", "port": 465}
# MLFLOW_ARTIFACTS=s3://bucket/mlflow     default: a volume
# COMPOSE_PROFILES=metrics                Prometheus and Grafana run too (docs/metrics.md); set AIRFLOW_STATSD=True with it
# AIRFLOW_STATSD=True
# EVERGREEN_LANDING=s3://bucket/landing   default: a volume; EVERGREEN_SNAPSHOTS and EVERGREEN_PROGRESS likewise (docs/storage.md);
#                                         `make compose-env STORE=s3` sets them and the rest for the store that comes with this file
"""


def read(path: Path) -> dict[str, str]:
    """The variables of an env file; empty where there is none."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def write(path: Path, store: str = "") -> list[str]:
    """Add what a file lacks; it can be read by its owner alone.

    Args:
        path: the file.
        store: one of `STORES`, whose settings are added, too; empty: none.

    Returns:
        The names of what was added; empty where nothing was missing.

    Raises:
        ChosenError: the file names another place for something than the store would.
    """
    known = read(path)
    wanted = {name: (meaning, make()) for name, (make, meaning) in SECRETS.items()}
    if store:
        wanted |= _of_store(known, store)
    added = {
        name: (meaning, value)
        for name, (meaning, value) in wanted.items()
        if not known.get(name) or (name == _PROFILES and known[name] != value)
    }
    if not added:
        return []
    # An empty line of the same name would win where it stands later.
    kept = path.read_text(encoding="utf-8").splitlines() if path.exists() else [*HEAD.splitlines(), ""]
    kept = [line for line in kept if line.partition("=")[0].strip() not in added]
    for name, (meaning, value) in added.items():
        kept += [f"# {meaning}", f"{name}={value}"]
    if not known:
        kept += ["", *SETTINGS.splitlines()]
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=".env.", delete=False, encoding="utf-8"
    ) as file:
        file.write("\n".join(kept) + "\n")
    Path(file.name).replace(path)
    return list(added)


def _of_store(known: dict[str, str], store: str) -> dict[str, tuple[str, str]]:
    """What a store adds: for each name what it means and the value."""
    own = STORES[store]
    apart = own | dict.fromkeys(_WINNING, "")
    if other := [name for name, value in apart.items() if known.get(name, "") not in ("", value)]:
        raise ChosenError(
            f"another place than the store of the profile {store} is chosen there by {', '.join(other)}; remove these lines to replace it"
        )
    profiles = list(filter(None, known.get(_PROFILES, "").split(",")))
    return {
        _PROFILES: ("profiles that run, too", ",".join(dict.fromkeys([*profiles, store]))),
        **{name: (f"the store of the profile {store}", value) for name, value in own.items()},
        KEY: ("of the workers' key in that store", _word()),
    }


def main(argv: list[str] | None = None) -> int:
    """Write the file and say what was added, never a secret."""
    parser = argparse.ArgumentParser(
        prog="evergreen compose-env", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--file", type=Path, default=Path(".env"), help="where (default: .env)")
    parser.add_argument(
        "--store",
        choices=sorted(STORES),
        default="",
        help="keep in the store of this profile what else lies in volumes",
    )
    args = parser.parse_args(argv)
    path = args.file.absolute()
    try:
        added = write(path, args.store)
    except OSError as error:
        print(f"{path} cannot be written: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return 1
    except ChosenError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {f'added {len(added)}: ' + ', '.join(added) if added else 'nothing was missing'}")
    return 0
