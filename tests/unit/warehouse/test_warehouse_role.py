"""The role under which feature queries run, for a login that may not make or take it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest

from evergreen.errors import ErrorReason, TerminalError, may_pass
from evergreen.warehouse import migrate
from evergreen.warehouse.connection import connect

LOGIN = "evergreen_visitor"


@pytest.fixture
def visitor(warehouse_url: str) -> Iterator[str]:
    """The address of the warehouse for a login without any right of its own."""
    with psycopg2.connect(warehouse_url) as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD 'known'")
        address = psycopg2.extensions.make_dsn(warehouse_url, user=LOGIN, password="known")
    yield address
    with psycopg2.connect(warehouse_url) as admin, admin.cursor() as cursor:
        cursor.execute(f"DROP ROLE {LOGIN}; DROP ROLE IF EXISTS evergreen_absent")


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        pytest.param(migrate.FEATURES_ROLE, ["GRANT"], id="not granted"),
        pytest.param("evergreen_absent", ["CREATE ROLE", "GRANT"], id="missing"),
    ],
)
def test_the_message_has_the_statements_that_help(
    warehouse_url: str, visitor: str, role: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "FEATURES_ROLE", role)
    with pytest.raises(TerminalError) as caught, connect(visitor) as conn:
        migrate.ensure_role(conn)
    said = str(caught.value)
    assert caught.value.reason is ErrorReason.NO_ROLE
    assert not may_pass(caught.value), "trying again does not help"
    assert role in said
    assert f"which {LOGIN} can neither make nor take" in said
    statements = said.partition("run once: ")[2]
    assert [s.split(' "')[0].strip() for s in statements.rstrip(";").split(";")] == wanted
    with psycopg2.connect(warehouse_url) as admin, admin.cursor() as cursor:
        cursor.execute(statements)
    with connect(visitor) as conn:
        migrate.ensure_role(conn)
