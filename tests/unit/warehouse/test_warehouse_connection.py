"""What a connection tells of a server that takes too long, and of one that is gone."""

from __future__ import annotations

import psycopg2
import pytest

from evergreen.errors import ErrorReason, TransientError
from evergreen.warehouse.connection import connect, fetch


def test_a_statement_over_its_limit_is_no_lost_server(warehouse_url: str) -> None:
    with pytest.raises(TransientError, match="its limit is 1 s") as caught, connect(timeout_s=1) as conn:
        fetch(conn, "SELECT pg_sleep(30)")
    assert caught.value.reason is ErrorReason.BUSY
    assert "does not answer" not in str(caught.value)
    assert "smaller window" in str(caught.value)
    assert "index" in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg2.errors.QueryCanceled)


def test_a_connection_that_the_server_ends_is_a_lost_server(warehouse_url: str) -> None:
    with pytest.raises(TransientError, match="does not answer") as caught, connect() as conn:
        with connect() as other:
            fetch(other, "SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
        fetch(conn, "SELECT 1")
    assert caught.value.reason is ErrorReason.UNREACHABLE


def test_a_connection_is_kept_alive(warehouse_url: str) -> None:
    with connect() as conn:
        given = conn.get_dsn_parameters()
    assert {k: v for k, v in given.items() if k.startswith("keepalives")} == {
        "keepalives": "1", "keepalives_idle": "60", "keepalives_interval": "15", "keepalives_count": "4",
    }  # fmt: skip
