"""A landing folder with a warehouse behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from validation_room import Room, empty

from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import migrate


@pytest.fixture(scope="session")
def validation_warehouse(postgres_url: str) -> Iterator[str]:
    """One warehouse for all tests of this folder: a database each would take most of their time."""
    admin = psycopg2.connect(postgres_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE warehouse_validation")
    url = postgres_url.removesuffix("/postgres") + "/warehouse_validation"
    with connect(url) as conn:
        migrate(conn)
    yield url
    with admin.cursor() as cursor:
        cursor.execute("DROP DATABASE warehouse_validation WITH (FORCE)")
    admin.close()


@pytest.fixture
def room(validation_warehouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """An empty landing folder and an empty warehouse."""
    empty(validation_warehouse)
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", validation_warehouse)
    folder = tmp_path / "landing"
    folder.mkdir()
    return Room(folder)
