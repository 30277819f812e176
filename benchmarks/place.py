"""Where the benchmarks run: a stack of their own with its own specs, and an empty database for each part."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql

from evergreen.stack import control
from evergreen.stack.airflow_api import AirflowApi
from evergreen.stack.layout import Layout
from evergreen.stack.postgres import Postgres
from evergreen.stack.variables import environment
from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate


@dataclass(frozen=True)
class Place:
    """A running stack."""

    layout: Layout
    specs: Path
    api: AirflowApi

    @property
    def landing(self) -> Path:
        """Where files land, a folder for each dataset."""
        return Path(os.environ["EVERGREEN_LANDING"])


@contextmanager
def place() -> Iterator[Place]:
    """Start a stack below a temporary folder and remove it at the end; its variables are in the environment."""
    base = Path(tempfile.mkdtemp(prefix="evergreen-bench-"))
    base.chmod(0o755)
    (base / "specs" / "datasets").mkdir(parents=True)
    (base / "specs" / "models").mkdir()
    before = dict(os.environ)
    os.environ["EVERGREEN_HOME"] = str(base / "home")
    os.environ["EVERGREEN_SPECS"] = str(base / "specs")
    layout = Layout.of()
    try:
        login = control.up(layout.home, say=lambda text: None)
        os.environ.update(environment(layout.home))
        yield Place(layout, base / "specs", AirflowApi(login.airflow_url, login.user, login.airflow_password))
    finally:
        control.down(layout.home, say=lambda text: None)
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def database(layout: Layout, name: str) -> Iterator[str]:
    """An empty, migrated warehouse of its own in the stack's PostgreSQL; dropped at the end."""
    port = layout.ports()["postgres"]
    admin = psycopg2.connect(
        host="127.0.0.1", port=port, user="postgres", password=layout.secrets["postgres"], dbname="postgres"
    )
    with closing(admin) as conn, conn.cursor() as cursor:
        conn.autocommit = True
        cursor.execute("GRANT pg_checkpoint TO warehouse")
        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER warehouse").format(sql.Identifier(name)))
        url = Postgres(layout).url("warehouse", port).rpartition("/")[0] + f"/{name}"
        try:
            with connect(url) as warehouse:
                migrate(warehouse)
            yield url
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
