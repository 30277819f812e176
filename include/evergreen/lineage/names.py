"""The names under which OpenLineage knows our things, by its naming rules, so that other tools' events meet them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from openlineage.client.naming.dataset import GCS, S3, DatasetNaming, LocalFileSystem, Postgres
from psycopg2.extensions import parse_dsn

from evergreen import settings
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import landing_store

Named = tuple[str, str]
"""Namespace and name."""

_BUCKETS = {"s3": S3, "gs": GCS}
_USER = re.compile(r"(?<=//)[^/@\s]+@")


def table(schema: str, name: str, model: str | None = None) -> Named:
    """A table of the warehouse; with a model, that model's rows of it, as a partition is written.

    Tables of predictions hold those of all models: under the plain name each model would seem to follow from all others.
    """
    given = parse_dsn(settings.WAREHOUSE.read())
    host = (given.get("host") or given.get("hostaddr") or "localhost").split(",")[0]
    port = (given.get("port") or "5432").split(",")[0]
    database = given.get("dbname") or given.get("user") or "postgres"
    # A folder is the server of this machine, by its socket.
    named = _of(Postgres("localhost" if host.startswith("/") else host, port, database, schema, name))
    return named if model is None else (named[0], f"{named[1]}/model={model}")


def landed(dataset: DatasetSpec, file: str) -> Named:
    """A file of a dataset where it landed, in a folder or in a bucket."""
    where = landing_store.place_of(dataset)
    return path(str(where / file) if isinstance(where, Path) else where.where(file))


def path(text: str) -> Named:
    """A file or folder: a path of this machine, or `s3://bucket/key`, or `gs://bucket/key`."""
    scheme, _, rest = text.partition("://")
    if scheme in _BUCKETS:
        bucket, _, key = rest.partition("/")
        return _of(_BUCKETS[scheme](bucket, key))
    return _of(LocalFileSystem(text))


def model(name: str, version: str | None = None) -> Named:
    """A registered model of the MLflow server, or a version of it, which is written as in MLflow's own `models:/NAME/VERSION`."""
    address = urlsplit(without_login(settings.MLFLOW.read()))
    return f"mlflow://{address.netloc}{address.path.rstrip('/')}", f"{name}/{version}" if version else name


def without_login(text: str) -> str:
    """A text without the login and password of any address in it."""
    return _USER.sub("", text)


def _of(naming: DatasetNaming) -> Named:
    return naming.get_namespace(), naming.get_name()
