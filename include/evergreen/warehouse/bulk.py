"""The quick way of a good file into its typed table: Arrow parses it, ADBC sends it as binary COPY.

That takes less than half of the time of COPY as text with a conversion in PostgreSQL afterwards. But Arrow does not
read every file as PostgreSQL does, so it has no say in what is good: a file goes this way only as long as both read it
the same, value by value. Whatever is in doubt is left to `evergreen.warehouse.staging`, which names what is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

from evergreen import settings
from evergreen.spec import ColumnType, DatasetSpec
from evergreen.warehouse import landing, staging
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.failure import UnreadableError
from evergreen.warehouse.landing import Feed, LandedFile
from evergreen.warehouse.migrate import TYPES
from evergreen.warehouse.staging import Staged

log = logging.getLogger(__name__)

_UTC = ("UTC", "Etc/UTC")
_PARSED: dict[ColumnType, pa.DataType] = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "category": pa.string(),
    "timestamp": pa.string(),
    "date": pa.date32(),
}
_TRUE = [w for word in ("t", "true", "y", "yes", "on", "1") for w in {word, word.upper(), word.capitalize()}]
_FALSE = [
    w for word in ("f", "false", "n", "no", "off", "0") for w in {word, word.upper(), word.capitalize()}
]
# The times that PostgreSQL and Arrow read alike: no year 0, no hour alone, no offset of 16 hours.
_TIME = (
    r"^(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})-\d\d-\d\d"
    r"(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-](?:0\d|1[0-5])(?::?\d\d)?)?)?$"
)
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
        with landing.feed(dataset, file) as feed, _cursor(timeout_s) as cursor:
            staging.require_columns(dataset, feed)
            rows = _Rows(dataset, feed)
            cursor.execute(_create(dataset, typed).as_string(conn))
            cursor.adbc_ingest(typed, rows.reader(), mode="append", db_schema_name="staging")
            if not rows.count or not rows.whole() or not landing.unchanged(file):
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
    return Staged(raw, typed, rows.count)


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

    Raises _DoubtError, pa.ArrowException or UnreadableError out of the reader, wherever that is read.
    """

    dataset: DatasetSpec
    feed: Feed
    count: int = 0
    closed: bool = False
    _quotes: int = 0
    _line_ends: set[str] = field(default_factory=set)

    def reader(self) -> pa.RecordBatchReader:
        """All rows: `_row`, the columns in the spec's order and types, `_key` where the key has several columns."""
        fields = [("_row", pa.int64())]
        fields += [
            (n, pa.timestamp("us", "UTC") if c.type == "timestamp" else _PARSED[c.type])
            for n, c in self.dataset.columns.items()
        ]
        if len(self.dataset.key) > 1:
            fields.append(("_key", pa.string()))
        schema = pa.schema(fields)
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def whole(self) -> bool:
        """Whether every quote that was opened was closed, once all is read."""
        return self._quotes % 2 == 0

    # What pyarrow asks of a file.

    def read(self, size: int) -> bytes:
        """At most about so many bytes of UTF-8."""
        block = self._bytes(size)
        while block.endswith(b"\r") and (more := self._bytes(1)):
            block += more
        self._doubt(block)
        return block

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def _bytes(self, size: int) -> bytes:
        block = self.feed.read(size)
        return block.encode() if isinstance(block, str) else block

    def _doubt(self, block: bytes) -> None:
        self._quotes += block.count(b'"')
        if b"\r" in block:
            pairs = block.count(b"\r\n")
            if block.count(b"\r") != pairs or block.count(b"\n") != pairs:
                raise _DoubtError("line ends of several kinds")
            self._line_ends.add("\r\n")
        elif b"\n" in block:
            self._line_ends.add("\n")
        if len(self._line_ends) > 1:
            raise _DoubtError("line ends of several kinds")
        if (b"x" in block and b"0x" in block) or (b"X" in block and b"0X" in block):
            # Arrow takes the integer 0xFFFFFFFFFFFFFFFF for -1.
            raise _DoubtError("hexadecimal numbers")

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        types = {n: _PARSED[c.type] for n, c in self.dataset.columns.items()}
        parsed = pacsv.open_csv(
            self,
            read_options=pacsv.ReadOptions(
                column_names=list(self.feed.columns), block_size=landing.BLOCK_BYTES, use_threads=False
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=self.feed.delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=True,
                quoted_strings_can_be_null=True, true_values=_TRUE, false_values=_FALSE,
            ),
        )  # fmt: skip
        for batch in parsed:
            columns = {n: self._column(c.type, batch.column(n)) for n, c in self.dataset.columns.items()}
            numbers = pa.array(np.arange(self.count + 1, self.count + batch.num_rows + 1))
            self.count += batch.num_rows
            arrays = [numbers, *columns.values()]
            if len(self.dataset.key) > 1:
                arrays.append(_joined([columns[k] for k in self.dataset.key]))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _column(self, kind: ColumnType, values: pa.Array) -> pa.Array:
        if kind == "float" and not _all(pc.is_finite(values)):
            raise _DoubtError("a number that is none, or too large for one")
        if kind in ("text", "category") and not _all(pc.invert(pc.match_substring(values, '"'))):
            # Arrow takes a quote inside a field as it is, PostgreSQL as the begin of a quoted part.
            raise _DoubtError("a quote in a value")
        return self._time(values) if kind == "timestamp" else values

    def _time(self, values: pa.Array) -> pa.Array:
        if not _all(pc.match_substring_regex(values, _TIME)):
            raise _DoubtError("a time in another form")
        zoned = next((bool(_zoned(v)) for v in values if v.is_valid), True)
        if zoned:
            return values.cast(pa.timestamp("us", "UTC"))
        if self.dataset.source.timezone not in _UTC:
            raise _DoubtError("local times")
        return values.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))


def _zoned(value: pa.Scalar) -> bool:
    return bool(pc.match_substring_regex(value, _ZONED).as_py())


def _all(holds: pa.Array) -> bool:
    return pc.all(holds).as_py() is not False


def _joined(parts: list[pa.Array]) -> pa.Array:
    """Several columns as one text, which differs where they do."""
    texts = [pc.cast(p, pa.string()) for p in parts]
    if any(not _all(pc.invert(pc.match_substring(t, _BETWEEN_KEYS))) for t in texts):
        raise _DoubtError("a key that holds what is put between its parts")
    return pc.binary_join_element_wise(*texts, _BETWEEN_KEYS, null_handling="replace", null_replacement="")
