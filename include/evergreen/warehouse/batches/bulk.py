"""The quick way of a good file into its typed table: Arrow converts its values, ADBC sends them as binary COPY.

That takes less than half of the time of COPY as text with a conversion in PostgreSQL afterwards. But Arrow does not
read every value as PostgreSQL does, so it has no say in what is good: a file goes this way only as long as both read it
the same, value by value. Whatever is in doubt is left to `evergreen.warehouse.batches.staging`, which names what is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

from evergreen import settings
from evergreen.spec import ColumnType, DatasetSpec
from evergreen.warehouse.batches import staging
from evergreen.warehouse.batches.staging import Staged
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.files import formats, landing, shape
from evergreen.warehouse.files.failure import UnreadableError
from evergreen.warehouse.files.feed import TextRows
from evergreen.warehouse.files.landed_file import LandedFile
from evergreen.warehouse.migrate import TYPES

log = logging.getLogger(__name__)

_UTC = ("UTC", "Etc/UTC")
_TYPED: dict[ColumnType, pa.DataType] = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "category": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}
_TRUE, _FALSE = (
    pa.array([w for word in words for w in (word, word.upper(), word.capitalize())])
    for words in (("t", "true", "y", "yes", "on", "1"), ("f", "false", "n", "no", "off", "0"))
)
# The times that PostgreSQL and Arrow read alike: no year 0, no hour alone, no offset of 16 hours.
_DATE = r"^(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d"
_DAY = _DATE + "$"
_TIME = _DATE + r"(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-](?:0\d|1[0-5])(?::?\d\d)?)?)?$"
_ZONED = "(?:Z|[ T].*[+-][0-9:]*)$"
_BETWEEN_KEYS = "\x1f"


class _DoubtError(Exception):
    """Arrow and PostgreSQL might read the file differently."""


def load(conn: Connection, dataset: DatasetSpec, file: LandedFile, *, timeout_s: int) -> Staged | None:
    """Make the typed table of a batch, as `staging.type_rows` does, without a raw table; committed.

    Args:
        conn: a connection without an open transaction.
        dataset: whose rows these are.
        file: the file.
        timeout_s: the server ends the COPY if it takes longer.

    Returns:
        None where the file is not beyond doubt, or changed meanwhile, or could not be loaded for whatever reason; then
        nothing is there.

    Raises:
        TerminalError: the spec's encoding or time zone is unknown.
    """
    with staging.local_time(conn, dataset):
        pass
    conn.rollback()
    raw, typed = staging.names(dataset, file)
    try:
        with formats.feed(dataset, file) as feed, _cursor(timeout_s) as cursor:
            rows = _Rows(dataset, feed, file.name)
            cursor.execute(_create(dataset, typed).as_string(conn))
            cursor.adbc_ingest(typed, rows.reader(), mode="append", db_schema_name="staging")
            if not rows.count or rows.count != feed.records or not landing.unchanged(file):
                return None
            cursor.connection.commit()
    except (
        _DoubtError,
        UnreadableError,
        adbc_driver_manager.Error,
        pa.ArrowException,
        OSError,
        ValueError,
    ) as error:
        # The text may quote a row.
        log.info("%s: %s goes the long way (%s)", dataset.name, file.name, type(error).__name__)
        return None
    return Staged(raw, typed, rows.count, feed.records, absent=feed.absent, ignored=feed.ignored)


def _create(dataset: DatasetSpec, typed: str) -> sql.Composable:
    columns: list[sql.Composable] = [sql.SQL("_row bigint")]
    columns += [
        sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(TYPES[c.type])) for n, c in dataset.columns.items()
    ]
    if len(dataset.key) > 1:
        columns.append(sql.SQL("_key text"))
    return sql.SQL("CREATE UNLOGGED TABLE {} ({})").format(staging.table(typed), sql.SQL(", ").join(columns))


@contextmanager
def _cursor(timeout_s: int) -> Iterator[Any]:
    """A cursor in a transaction of its own, which is undone unless it is committed."""
    given = parse_dsn(settings.WAREHOUSE.read())
    limits = f"-c TimeZone=UTC -c statement_timeout={timeout_s * 1000} -c lock_timeout=60000"
    # The server then ends the work of a client that was killed within seconds.
    options = f"{given.pop('options', '')} {limits} -c client_connection_check_interval=2s"
    given.setdefault("connect_timeout", "10")
    opened = adbc.connect(make_dsn(**{**given, "application_name": "evergreen", "options": options}))
    try:
        with closing(opened.cursor()) as cursor:
            yield cursor
    finally:
        with suppress(adbc_driver_manager.Error, OSError):
            opened.close()


@dataclass
class _Rows:
    """The rows of a file as Arrow, a block at a time.

    Raises _DoubtError, pa.ArrowException, UnreadableError or OSError out of the reader, wherever that is read.
    """

    dataset: DatasetSpec
    feed: TextRows
    file: str
    count: int = 0

    def reader(self) -> pa.RecordBatchReader:
        """All rows: `_row`, the columns in the spec's order and types, `_key` where the key has several columns."""
        fields = [("_row", pa.int64())]
        fields += [(n, _TYPED[c.type]) for n, c in self.dataset.columns.items()]
        if len(self.dataset.key) > 1:
            fields.append(("_key", pa.string()))
        schema = pa.schema(fields)
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for batch in shape.rows(self.dataset, self.feed, self.file):
            columns = {n: self._column(c.type, batch.column(n)) for n, c in self.dataset.columns.items()}
            numbers = pa.array(np.arange(self.count + 1, self.count + batch.num_rows + 1))
            self.count += batch.num_rows
            arrays = [numbers, *columns.values()]
            if len(self.dataset.key) > 1:
                arrays.append(_joined([columns[k] for k in self.dataset.key]))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _column(self, kind: ColumnType, values: pa.Array) -> pa.Array:
        if kind == "float":
            return _floats(values)
        if kind == "integer":
            if _any(pc.match_substring(values, "x", ignore_case=True)):
                # Arrow takes the integer 0xFFFFFFFFFFFFFFFF for -1.
                raise _DoubtError("hexadecimal numbers")
            return _number(values, pa.int64())
        if kind == "boolean":
            return _booleans(values)
        if kind == "timestamp":
            return self._time(values)
        if kind == "date":
            if not _all(pc.match_substring_regex(values, _DAY)):
                raise _DoubtError("a date in another form")
            return values.cast(pa.date32())
        return values

    def _time(self, values: pa.Array) -> pa.Array:
        if not _all(pc.match_substring_regex(values, _TIME)):
            raise _DoubtError("a time in another form")
        zoned = next((bool(_zoned(v)) for v in values if v.is_valid), True)
        if zoned:
            return values.cast(pa.timestamp("us", "UTC"))
        if self.dataset.source.timezone not in _UTC:
            raise _DoubtError("local times")
        return values.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))


def _number(values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        # PostgreSQL takes blanks around a number.
        return pc.ascii_trim_whitespace(values).cast(kind)


def _floats(values: pa.Array) -> pa.Array:
    numbers = _number(values, pa.float64())
    if not _all(pc.is_finite(numbers)):
        raise _DoubtError("a number that is none, or too large for one")
    zeros = values.filter(pc.equal(numbers, 0.0))
    if _any(pc.match_substring_regex(zeros, "[1-9]")):
        # PostgreSQL refuses what is too small for a number, Arrow makes 0 of it.
        raise _DoubtError("a number too small for one")
    return numbers


def _booleans(values: pa.Array) -> pa.Array:
    true, false = pc.is_in(values, _TRUE), pc.is_in(values, _FALSE)
    if not _all(pc.or_(pc.or_(true, false), pc.is_null(values))):
        raise _DoubtError("a boolean in another form")
    return pc.if_else(pc.is_null(values), pa.scalar(None, pa.bool_()), true)


def _zoned(value: pa.Scalar) -> bool:
    return bool(pc.match_substring_regex(value, _ZONED).as_py())


def _all(holds: pa.Array) -> bool:
    return pc.all(holds).as_py() is not False


def _any(holds: pa.Array) -> bool:
    return pc.any(holds).as_py() is True


def _joined(parts: list[pa.Array]) -> pa.Array:
    """Several columns as one text, which differs where they do."""
    texts = [pc.cast(p, pa.string()) for p in parts]
    if any(not _all(pc.invert(pc.match_substring(t, _BETWEEN_KEYS))) for t in texts):
        raise _DoubtError("a key that holds what is put between its parts")
    return pc.binary_join_element_wise(*texts, _BETWEEN_KEYS, null_handling="replace", null_replacement="")
