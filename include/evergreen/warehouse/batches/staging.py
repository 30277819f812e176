"""A batch on its way in: the raw table as the file has it, and the typed table on which the suite runs.

Both are unlogged tables of the schema `staging`, named after the dataset and the file's checksum, and are
dropped in the transaction that decides the batch. What a crashed run left is swept by the next one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg2
import pyarrow as pa
import pyarrow.csv as pacsv
from psycopg2 import sql

from evergreen.spec import Column, DatasetSpec
from evergreen.warehouse.batches import unfit
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.files import formats, opened, shape
from evergreen.warehouse.files.canonical import MARK, UnreadReason
from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.landed_file import LandedFile
from evergreen.warehouse.migrate import TYPES

# Other forms that PostgreSQL reads ("now", "infinity", 3/4/2024, 2 PM IST) mean another thing tomorrow or on
# another server; UTC+2 and Z+2 are POSIX's forms to it, two hours west of Greenwich. So after the day there may be a T,
# and at the end a zone's letters, nothing behind them. LIKE and rtrim take a third of the time of a regular expression.
_AFTER_DAY = "replace(substr({0}, 11), 'UTC', 'Z')"
_ISO = (
    "{0} LIKE '____-__-__%' AND rtrim({0}, '0123456789-:.+ TZUC') = ''"
    f" AND rtrim({_AFTER_DAY}, '0123456789-:.+ TZ') = '' AND rtrim({_AFTER_DAY}) NOT LIKE '%Z_%'"
    f" AND {_AFTER_DAY} NOT LIKE '_%T%'"
)
# Numbers that PostgreSQL reads and nobody writes in a table (0x1F, 0b1, 1_000), and words that are the beginning of one (tru).
_ODD = {
    "integer": "rtrim({0}, E'0123456789+- \\t\\n\\r\\f\\x0B') <> ''",
    "float": "({0} LIKE '%x%' OR {0} LIKE '%X%')",
    "boolean": "lower(btrim({0}, E' \\t\\n\\r\\f\\x0B'))"
    " NOT IN ('t', 'true', 'y', 'yes', 'on', '1', 'f', 'false', 'n', 'no', 'off', '0')",
}
_WRITTEN = pacsv.WriteOptions(include_header=False, quoting_style="all_valid")


@dataclass(frozen=True)
class Staged:
    """The tables of one batch and what they hold; a batch that `bulk` loaded has no raw table.

    `rows` were loaded, of `records` that the file has by its feed's own count. `duplicates` counts rows that are equal to
    an earlier one and were dropped, see `evergreen.warehouse.batches.equal_rows`. `absent` are the dataset's columns that the file
    has not, `ignored` the file's that are left out. `living` is a table of the `living_rows` rows that are not deleted; empty
    where none is, see `evergreen.warehouse.batches.deleted`.
    """

    raw: str
    typed: str
    rows: int
    records: int
    duplicates: int = 0
    absent: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    living: str = ""
    living_rows: int = 0

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of its tables, whether they are there or not."""
        return tuple(name for name in (self.raw, self.typed, self.living) if name)


@dataclass(frozen=True)
class SuiteFinding:
    """A failure and, where single rows are at fault, a query of their `_row`."""

    failure: Failure
    rows: sql.Composable | None = None

    @property
    def by_row(self) -> bool:
        """Whether it can be held back row by row; else `failure.whole` says why not."""
        return self.rows is not None and not self.failure.whole


def sweep(conn: Connection, dataset: DatasetSpec) -> list[str]:
    """Drop what crashed runs of the dataset left in staging; the caller holds the dataset's ingest lock."""
    pattern = f"^{re.escape(dataset.name)}_[0-9a-f]{{12}}(_tl?|_l)?$"
    names = fetch(
        conn, "SELECT tablename FROM pg_tables WHERE schemaname = 'staging' AND tablename ~ %s", (pattern,)
    )
    left = [row["tablename"] for row in names]
    drop(conn, left)
    return left


def drop(conn: Connection, names: list[str] | tuple[str, ...]) -> None:
    """Drop tables of the schema staging."""
    with conn.cursor() as cursor:
        for name in names:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table(name)))


def table(name: str) -> sql.Identifier:
    """A table of the schema staging."""
    return sql.Identifier("staging", name)


def names(dataset: DatasetSpec, file: LandedFile) -> tuple[str, str]:
    """The names of a batch's raw and typed table."""
    raw = f"{dataset.name}_{file.checksum[:12]}"
    return raw, beside(raw, "t")


def beside(raw: str, letter: str) -> str:
    """The name of another table of a batch; PostgreSQL cuts names off after 63 bytes, which the longest dataset's has then."""
    return f"{raw}_{letter}"


def load(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> Staged:
    """COPY a file into its raw table: the spec's columns as text, and `_row`, 1 for the first row.

    Raises:
        UnreadableError: columns are missing or unknown, or the file cannot be read as rows.
        OSError: the file cannot be read any more.
    """
    raw, typed = names(dataset, file)
    with formats.feed(dataset, file) as feed:
        text = _Text(shape.rows(dataset, feed, file.name))
        columns = sql.SQL(", ").join(map(sql.Identifier, dataset.columns))
        with conn.cursor() as cursor:
            cursor.execute(
                sql.SQL(
                    "CREATE UNLOGGED TABLE {} (_row bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000), {})"
                ).format(
                    table(raw),
                    sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(c)) for c in dataset.columns),
                )
            )
            copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table(raw), columns)
            try:
                cursor.copy_expert(copy.as_string(conn), cast(Any, text), size=opened.BLOCK_BYTES)
            except psycopg2.Error as error:
                if text.failure is not None:  # which COPY hides
                    raise text.failure from error
                if (error.pgcode or "")[:2] not in ("22", "54"):
                    raise
                raise UnreadableError(_unreadable(error)) from error
            return Staged(raw, typed, cursor.rowcount, feed.records, absent=feed.absent, ignored=feed.ignored)


class _Text:
    """Rows as what COPY reads. Every value is quoted, so that none is taken for a sign of something else."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self.failure: BaseException | None = None
        self._batches = batches
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        try:
            while not self._rest:
                sink = io.BytesIO()
                pacsv.write_csv(next(self._batches), sink, _WRITTEN)
                self._rest = sink.getbuffer()
        except StopIteration:
            return b""
        except BaseException as error:
            self.failure = error
            raise
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def _unreadable(error: psycopg2.Error) -> Failure:
    # Detail and context of the message quote the row.
    return Failure(
        "file_readable", None, str(error.diag.message_primary)[:200], "text that PostgreSQL can hold",
        remedy="shorten the values, or mend the characters, and deliver the file again",
    )  # fmt: skip


@contextmanager
def local_time(conn: Connection, dataset: DatasetSpec) -> Iterator[None]:
    """Read times as UTC until the block ends: what is local was read before, see `evergreen.warehouse.files.canonical`."""
    with conn.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        cursor.execute("SET LOCAL DateStyle = 'ISO, YMD'")
        yield


def type_rows(conn: Connection, dataset: DatasetSpec, staged: Staged) -> tuple[list[SuiteFinding], int]:
    """Make the typed table of a batch.

    It has the spec's columns in their types, `_row`, and `_key` (the key as one text) where the key has more
    than one column. Rows with a value that is not of its column's type, or NaN or infinite, are not in it.

    Returns:
        What is wrong with the values, and how many rows the typed table has.
    """
    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_typed")
        try:
            # Most batches are good, and asking whether each value is valid takes as long as converting it.
            rows = _make_typed(conn, dataset, staged, [])
            if not _check(conn, dataset, staged, converted=True):
                return [], rows
        except psycopg2.DataError:
            pass
        cursor.execute("ROLLBACK TO SAVEPOINT evergreen_typed")
    findings = _check(conn, dataset, staged, converted=False)
    return findings, _make_typed(conn, dataset, staged, findings)


def _check(conn: Connection, dataset: DatasetSpec, staged: Staged, *, converted: bool) -> list[SuiteFinding]:
    checks = [
        (name, kind, predicate)
        for name, column in dataset.columns.items()
        for kind, predicate in _predicates(name, column, converted)
    ]
    if not checks:
        return []
    counts = sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE {})").format(p) for _, _, p in checks)
    findings = []
    with local_time(conn, dataset), conn.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(counts, table(staged.raw)))
        failed = cursor.fetchone() or ()
        for (name, kind, predicate), count in zip(checks, failed, strict=True):
            if not count:
                continue
            cursor.execute(
                sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY _row LIMIT 5").format(
                    sql.Identifier(name), table(staged.raw), predicate
                )
            )
            values = [v for (v,) in cursor.fetchall()]
            failure = unfit.failure(dataset, name, kind, count, staged.rows, values)
            rows = sql.SQL("SELECT _row FROM {} WHERE {}").format(table(staged.raw), predicate)
            findings.append(SuiteFinding(failure, rows))
    return findings


def _make_typed(conn: Connection, dataset: DatasetSpec, staged: Staged, findings: list[SuiteFinding]) -> int:
    casts = [
        sql.SQL("{0}::{1} AS {0}").format(sql.Identifier(n), sql.SQL(TYPES[c.type]))
        for n, c in dataset.columns.items()
    ]
    if len(dataset.key) > 1:
        parts = (
            sql.SQL("{}::{}").format(sql.Identifier(k), sql.SQL(TYPES[dataset.columns[k].type]))
            for k in dataset.key
        )
        casts.append(sql.SQL("ROW({})::text AS _key").format(sql.SQL(", ").join(parts)))
    bad = {f.failure.column: dataset.columns[f.failure.column] for f in findings if f.failure.column}
    where = [sql.SQL("({}) IS NOT TRUE").format(p) for n, c in bad.items() for _, p in _predicates(n, c)]
    with local_time(conn, dataset), conn.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT _row, {} FROM {} WHERE {}").format(
                table(staged.typed),
                sql.SQL(", ").join(casts),
                table(staged.raw),
                sql.SQL(" AND ").join(where) if where else sql.SQL("true"),
            )
        )
        return cursor.rowcount


def keys(dataset: DatasetSpec, staged: Staged) -> sql.Composable:
    """A query of `_row` and `key` (jsonb, NULL where it cannot be read) of a raw table; to be run in `local_time`."""
    bad = [p for n in dataset.key for _, p in _predicates(n, dataset.columns[n])]
    typed = sql.SQL(", ").join(
        sql.SQL("{}, {}::{}").format(
            sql.Literal(n), sql.Identifier(n), sql.SQL(TYPES[dataset.columns[n].type])
        )
        for n in dataset.key
    )
    return sql.SQL(
        "SELECT _row, CASE WHEN ({bad}) IS NOT TRUE THEN jsonb_build_object({typed}) END AS key FROM {raw}"
    ).format(bad=sql.SQL(" OR ").join(bad) if bad else sql.SQL("false"), typed=typed, raw=table(staged.raw))


def _predicates(name: str, column: Column, converted: bool = False) -> list[tuple[str, sql.Composable]]:
    """What makes a text unfit for a column's type, by kind; NULL is fit. `converted`: the cast is known to work."""
    if column.type in ("text", "category"):
        return []
    value = sql.Identifier(name)
    valid: sql.Composable = sql.SQL("true")
    if not converted:
        valid = sql.SQL("pg_input_is_valid({}, {})").format(value, sql.Literal(TYPES[column.type]))
    if column.type in ("timestamp", "date"):
        iso = sql.SQL(_ISO).format(value)
        length = sql.SQL("AND length({}) = 10").format(value) if column.type == "date" else sql.SQL("")
        wrong = sql.SQL("NOT ({} AND {} {})").format(valid, iso, length)
        if converted:
            return [("of_type", wrong)]
        # A local time that is not told is none of the wrong type.
        local = [
            (kind, sql.SQL("{} LIKE {}").format(value, sql.Literal(f"{MARK}{why.value}%")))
            for kind, why in ((unfit.TWICE, UnreadReason.TWICE), (unfit.NEVER, UnreadReason.NEVER))
        ]
        others = sql.SQL(" AND ").join(sql.SQL("NOT {}").format(p) for _, p in local)
        return [*local, ("of_type", sql.SQL("{} AND {}").format(wrong, others))]
    odd = sql.SQL(_ODD[column.type]).format(value)
    found: list[tuple[str, sql.Composable]] = [
        ("of_type", odd if converted else sql.SQL("(NOT {} OR {})").format(valid, odd))
    ]
    if column.type == "float":
        # A valid number has the letter n in NaN, Inf and Infinity only.
        found.append(("finite", sql.SQL("({0} LIKE '%n%' OR {0} LIKE '%N%') AND {1}").format(value, valid)))
    return found
