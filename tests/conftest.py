"""A real PostgreSQL for the tests: one server for the session, one empty database for each test that asks."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from evergreen.stack.layout import Layout
from evergreen.stack.postgres import Postgres
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.migrate import migrate

REPOSITORY = Path(__file__).resolve().parents[1]
_count = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of the `postgres` database of a server of the stack's own kind, without its care for the disk."""
    with tempfile.TemporaryDirectory(prefix="evergreen-test-pg-") as folder:
        layout = Layout(Path(folder) / "home")
        layout.create()
        postgres = Postgres(layout)
        postgres.prepare()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [*postgres.command(port), "-c", "fsync=off"]
        with layout.log("postgres").open("wb") as log, subprocess.Popen(
            command, stdout=log, stderr=log, preexec_fn=postgres.become(), cwd="/"
        ) as server:  # fmt: skip
            try:
                for _ in range(200):
                    if postgres.is_ready(port):
                        break
                    time.sleep(0.1)
                yield f"postgresql://postgres:{layout.secrets['postgres']}@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # a fast shutdown, whoever is still connected
                server.wait(30)


@pytest.fixture
def warehouse_url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty, migrated warehouse; also in EVERGREEN_WAREHOUSE_URL."""
    name = f"warehouse_{next(_count)}"
    admin = psycopg2.connect(postgres_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    url = postgres_url.removesuffix("/postgres") + f"/{name}"
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", url)
    with connect(url) as conn:
        migrate(conn)
    yield url
    with admin.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    admin.close()


@pytest.fixture
def conn(warehouse_url: str) -> Iterator[Connection]:
    """An open connection to an empty warehouse; committed at the end of the test."""
    with connect(warehouse_url) as connection:
        yield connection
