"""The reader: what a query that cannot be served is to a task, and that a reader sees one moment."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pyarrow as pa
import pytest
from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError, TransientError
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import arrow
from evergreen.warehouse.features.snapshot import Fingerprint

NUMBERS = pa.schema([("n", pa.int64())])


def drain(query: str, *, timeout_s: int = 600, schema: pa.Schema = NUMBERS) -> pa.Table:
    with arrow.reading(timeout_s=timeout_s) as reader:
        return reader.table(sql.SQL(query), schema)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT nope AS n",
        "SELECT 1/0 AS n",
        "SELECT 1/(i - 900000) AS n FROM generate_series(1, 1000000) AS i",
    ],
    ids=["planning", "first row", "in the middle of the rows"],
)
def test_a_query_that_does_not_run_is_terminal(warehouse_url: str, query: str) -> None:
    with pytest.raises(TerminalError, match="does not run") as caught:
        drain(query)
    assert caught.value.reason == ErrorReason.BAD_QUERY


@pytest.mark.parametrize(
    "query",
    ["SELECT 1::bigint AS n FROM pg_sleep(5)", "SELECT i AS n FROM generate_series(1, 9e8::bigint) AS i"],
)
def test_a_query_that_takes_too_long_is_tried_again(warehouse_url: str, query: str) -> None:
    with pytest.raises(TransientError, match="limit of 1 s") as caught:
        drain(query, timeout_s=1)
    assert caught.value.reason == ErrorReason.BUSY


def test_a_server_that_goes_away_in_the_middle_is_tried_again(warehouse_url: str) -> None:
    with arrow.reading() as reader:
        batches = reader.stream(
            sql.SQL("SELECT i AS n FROM generate_series(1, 30000000::bigint) AS i"), NUMBERS
        )
        next(batches)
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
        with pytest.raises(TransientError, match="does not answer"):
            for _ in batches:
                pass


def test_no_server_is_tried_again(warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_WAREHOUSE_URL", "postgresql://x:y@127.0.0.1:1/x")
    with pytest.raises(TransientError, match="does not answer") as caught, arrow.reading():
        pass
    assert "y@" not in str(caught.value)


def test_a_reader_sees_one_moment_and_writes_nothing(warehouse_url: str) -> None:
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 1::bigint AS n")
    with arrow.reading() as reader:
        assert reader.rows(sql.SQL("SELECT n FROM t")) == [{"n": 1}]
        with connect() as conn, conn.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (2)")
        assert reader.rows(sql.SQL("SELECT n FROM t")) == [{"n": 1}]
    with psycopg2.connect(warehouse_url) as conn, conn.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION bad() RETURNS bigint LANGUAGE sql AS 'INSERT INTO t VALUES (3) RETURNING n'"
        )
    with pytest.raises(TerminalError, match="read-only"):
        drain("SELECT bad() AS n")


def test_a_large_result_comes_in_bounded_batches(warehouse_url: str) -> None:
    with arrow.reading() as reader:
        query = sql.SQL("SELECT i AS n FROM generate_series(1, 6000000::bigint) AS i")
        sizes = [b.nbytes for b in reader.stream(query, NUMBERS)]
    assert sum(sizes) == 48_000_000
    assert max(sizes) <= arrow.BATCH_BYTES


def test_the_fingerprint_follows_the_rows_and_not_their_batches(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.float64()), ("t", pa.timestamp("us", "UTC"))])
    rows = [("ab", 1.5, 0), ("c", None, 1), (None, float("nan"), 2), ("", -0.0, 3)] * 50

    def of(rows: list, *cuts: int) -> str:  # type: ignore[type-arg]
        found = Fingerprint(schema)
        columns = [pa.array([r[i] for r in rows], schema.field(i).type) for i in range(3)]
        whole = pa.RecordBatch.from_arrays(columns, schema=schema)
        for start, end in zip((0, *cuts), (*cuts, len(rows)), strict=True):
            found.update(whole.slice(start, end - start))
        return found.hexdigest()

    assert of(rows) == of(rows, 1, 7, 8, 100)
    changes = {
        "moved boundary": [("a", 1.5, 0), ("bc", None, 1), *rows[2:]],
        "null for empty": [*rows[:-1], (None, -0.0, 3)],
        "zero for null": [rows[0], ("c", 0.0, 1), *rows[2:]],
        "order": [rows[1], rows[0], *rows[2:]],
        "time": [("ab", 1.5, 1), *rows[1:]],
        "fewer": rows[:-1],
    }
    assert len({of(rows), *(of(c) for c in changes.values())}) == len(changes) + 1
