"""Query results as Arrow, in batches of bounded size, straight from PostgreSQL's binary COPY (ADBC).

A reader has a connection of its own and one read-only transaction, so that all its queries see the same rows, whatever
is published meanwhile. Each query goes by the extended protocol, which takes one statement and not two.

Before its first query the driver reads every type and column of the server's catalogue, which takes ten times the CPU of the
connection itself; readers inside `sharing` do so once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

from evergreen import settings
from evergreen.errors import ErrorReason, TerminalError, TransientError, in_one_line
from evergreen.spec import ModelSpec
from evergreen.warehouse import connection
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.storage.full_disk import full, is_full

BATCH_BYTES = 16 << 20
# SQLSTATEs of a query that could not be served now: connection, resources, intervention, locks.
_BUSY = ("53", "55", "40")
_LOST = ("08", "57P")
_SAID = re.compile(r"\b(?:ERROR|FATAL):\s+(.*?)(?:\s*\.)?(?:\s+SQLSTATE: \w+)?$")
_CANCELLED = "57014"
# What a text of a time, an interval or a number means, and how one is written, does not depend on the server's settings.
WRITTEN = {
    "TimeZone": "UTC", "DateStyle": "ISO,MDY", "IntervalStyle": "postgres", "extra_float_digits": "1", "lc_time": "C",
    "lc_numeric": "C", "lc_monetary": "C",
}  # fmt: skip


def feature_schema(model: ModelSpec, *, entity: bool = False) -> pa.Schema:
    """The Arrow schema of `features.feature_query`: times are microseconds in UTC."""
    return pa.schema(
        [("_key", pa.string()), ("_hash", pa.int64()), ("_time", pa.timestamp("us", "UTC"))]
        + ([("_entity", pa.int64())] if entity else [])
        + [(n, pa.float64()) for n in model.features.numeric]
        + [(n, pa.string()) for n in model.features.categorical]
        + [("_label", pa.float64())]
    )


@dataclass
class Reader:
    """One read-only transaction of the warehouse."""

    conn: Connection
    cursor: Any
    timeout_s: int

    def run(self, statement: sql.Composable) -> None:
        """Run one statement that returns nothing; only what prepares a reader may change anything.

        Raises:
            adbc_driver_manager.Error: it does not run; the transaction is over then, see `error`.
        """
        self.cursor.execute(statement.as_string(self.conn))

    def stream(self, query: sql.Composable, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query as record batches of about `BATCH_BYTES`; one query at a time.

        Args:
            query: a SELECT without parameters.
            schema: names and types of its columns, in order.

        Raises:
            TerminalError: the query does not run on these rows (BAD_QUERY).
            TransientError: the warehouse went away, or the query took too long (BUSY).
        """
        started = time.monotonic()
        with self._translated_errors(started):
            self.cursor.execute(query.as_string(self.conn))
            reader = self.cursor.fetch_record_batch()
        while True:
            with self._translated_errors(started):
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            if batch.num_rows:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    def table(self, query: sql.Composable, schema: pa.Schema) -> pa.Table:
        """The whole result of a query that is known to be small enough."""
        return pa.Table.from_batches(list(self.stream(query, schema)), schema=schema)

    def rows(self, query: sql.Composable) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries; for small results."""
        with self._translated_errors(time.monotonic()):
            self.cursor.execute(query.as_string(self.conn))
            found: pa.Table = self.cursor.fetch_arrow_table()
            rows: list[dict[str, Any]] = found.to_pylist()
            return rows

    @contextmanager
    def _translated_errors(self, started: float) -> Iterator[None]:
        try:
            yield
        except (adbc_driver_manager.Error, OSError, pa.ArrowException) as error:
            raise self.error(error, time.monotonic() - started) from error

    def error(self, error: Exception, took_s: float = 0.0) -> Exception:
        """What an error of the driver is to a task."""
        code, line = getattr(error, "sqlstate", None) or "", _line(error)
        # A failure in the middle of the rows comes without its SQLSTATE.
        if code.startswith(_LOST) or not (code or self._alive()):
            return lost(error)
        if code == _CANCELLED or (not code and took_s >= self.timeout_s):
            return TransientError(
                f"the warehouse ended a query after its limit of {self.timeout_s} s ({line}). Try again; if it "
                "stays, choose a smaller window, or add an index that the query can use",
                ErrorReason.BUSY,
            )
        if is_full(error):
            return full("no space left on the disk of the warehouse's server", Exception(line))
        if code.startswith(_BUSY):
            return TransientError(f"the warehouse is busy ({line}); try again in a moment", ErrorReason.BUSY)
        return TerminalError(
            f"the feature query does not run on the rows that have landed: {line}; mend the query or the data, then run "
            "again",
            ErrorReason.BAD_QUERY,
        )

    def _alive(self) -> bool:
        try:
            self.cursor.connection.rollback()
            self.cursor.execute("SELECT 1")
            self.cursor.fetchall()
        except (adbc_driver_manager.Error, OSError, pa.ArrowException):
            return False
        return True


@dataclass
class _Shared:
    """Idle connections, by address, from which the readers of one run are cloned; `left` closes them."""

    left: ExitStack
    idle: dict[str, Any] = field(default_factory=dict)


_shared: ContextVar[_Shared | None] = ContextVar("shared", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let the readers that are opened inside share what the driver learns of the server: for a run of several of them.

    Each has a connection and a transaction of its own still; one idle connection more is open until the end. Inside another
    `sharing` it does nothing.
    """
    if _shared.get() is not None:
        yield
        return
    with ExitStack() as left:
        before = _shared.set(_Shared(left))
        try:
            yield
        finally:
            _shared.reset(before)


def _open(address: str) -> Any:
    shared = _shared.get()
    if shared is None:
        return adbc.connect(address)
    if address not in shared.idle:
        # Without a transaction it keeps nothing in the database from being cleaned up.
        shared.idle[address] = idle = adbc.connect(address, autocommit=True)
        shared.left.callback(_close, idle)
    return shared.idle[address].adbc_clone()


def _close(connection: Any) -> None:
    # Closing a connection that was lost says so once more.
    with suppress(adbc_driver_manager.Error, OSError):
        connection.close()


@contextmanager
def reading(
    *, timeout_s: int = 600, prepare: Callable[[Reader], None] = lambda reader: None
) -> Iterator[Reader]:
    """Open a reader of the warehouse.

    Args:
        timeout_s: the server ends a statement that runs longer.
        prepare: what is to be done in the transaction before it becomes read-only; all of it is rolled back at the end.

    Raises:
        TransientError: the warehouse cannot be reached.
    """
    with connect(timeout_s=timeout_s) as conn:
        given = parse_dsn(settings.WAREHOUSE.read())
        written = " ".join(f"-c {name}={value}" for name, value in WRITTEN.items())
        options = f"{given.pop('options', '')} {written} -c statement_timeout={timeout_s * 1000} -c lock_timeout=60000"
        given.setdefault("connect_timeout", "10")
        try:
            opened = _open(make_dsn(**{**given, "application_name": "evergreen", "options": options}))
        except (adbc_driver_manager.Error, OSError) as error:
            raise lost(error) from error
        try:
            cursor = opened.cursor(
                adbc_stmt_kwargs={"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
            )
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader = Reader(conn, cursor, timeout_s)
            prepare(reader)
            cursor.execute("SET TRANSACTION READ ONLY")
            yield reader
            cursor.close()
        finally:
            _close(opened)


def lost(error: Exception) -> TransientError:
    """What a lost connection is to a task."""
    return connection.lost(_line(error))


def _line(error: Exception) -> str:
    """What PostgreSQL says, without the driver's words around it, or else what the driver says."""
    said = " ".join(str(error).partition("Query was:")[0].split())
    found = _SAID.search(said)
    return in_one_line(found[1] if found else said)
