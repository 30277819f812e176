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
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from psycopg2 import sql

from evergreen.errors import Reason, TerminalError
from evergreen.spec import Column, DatasetSpec
from evergreen.warehouse import feed as feeding
from evergreen.warehouse import opened
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.failure import Failure, UnreadableError, sample_of
from evergreen.warehouse.feed import Feed
from evergreen.warehouse.landing import LandedFile
from evergreen.warehouse.migrate import TYPES

# Other forms that PostgreSQL reads ("now", "infinity", 3/4/2024, 2 PM IST) mean another thing tomorrow or on
# another server. LIKE and rtrim take a third of the time of a regular expression.
_ISO = "{0} LIKE '____-__-__%' AND rtrim({0}, '0123456789-:.+ TZUC') = ''"
_MIDNIGHT = r"[ T]00:00(?::00(?:\.0+)?)?$"
_WRITTEN = pacsv.WriteOptions(include_header=False, quoting_style="all_valid")
_REMEDY = {
    "float": "write a number with a point",
    "integer": "write a whole number, without a point",
    "boolean": "write true or false",
    "timestamp": "write ISO 8601, such as 2024-03-31T14:00:00+00:00",
    "date": "write ISO 8601, such as 2024-03-31",
}


@dataclass(frozen=True)
class Staged:
    """The tables of one batch and what they hold; a batch that `bulk` loaded has no raw table.

    `rows` were loaded, of `records` that the file has by its feed's own count. `duplicates` counts rows that are equal to
    an earlier one and were dropped, see `evergreen.warehouse.equal_rows`.
    """

    raw: str
    typed: str
    rows: int
    records: int
    duplicates: int = 0


@dataclass(frozen=True)
class Finding:
    """A failure and, where single rows are at fault, a query of their `_row`."""

    failure: Failure
    rows: sql.Composable | None = None

    @property
    def by_row(self) -> bool:
        """Whether it can be held back row by row; else `failure.whole` says why not."""
        return self.rows is not None and not self.failure.whole


def sweep(conn: Connection, dataset: DatasetSpec) -> list[str]:
    """Drop what crashed runs of the dataset left in staging; the caller holds the dataset's ingest lock."""
    pattern = f"^{re.escape(dataset.name)}_[0-9a-f]{{12}}(_t)?$"
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
    return raw, f"{raw}_t"


def rows(dataset: DatasetSpec, feed: Feed) -> Iterator[pa.RecordBatch]:
    """The rows of a file as text, with the spec's columns in the spec's order; both ways into a table take them so.

    Columns are matched by name. A time of day at midnight is left out of a date.

    Raises:
        UnreadableError: columns are missing or unknown, or something is wrong with the file.
    """
    require_columns(dataset, feed)
    names = list(dataset.columns)
    for batch in feed.batches([feed.columns.index(name) for name in names]):
        columns = [
            pc.replace_substring_regex(c, _MIDNIGHT, "") if dataset.columns[n].type == "date" else c
            for n, c in zip(names, batch.columns, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, names=names)


def load(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> Staged:
    """COPY a file into its raw table: the spec's columns as text, and `_row`, 1 for the first row.

    Raises:
        UnreadableError: columns are missing or unknown, or the file cannot be read as rows.
        OSError: the file cannot be read any more.
    """
    raw, typed = names(dataset, file)
    with feeding.feed(dataset, file) as feed:
        text = _Text(rows(dataset, feed))
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
            return Staged(raw, typed, cursor.rowcount, feed.records)


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


def require_columns(dataset: DatasetSpec, feed: Feed) -> None:
    """Refuse a file that has not exactly the columns of the spec.

    Raises:
        UnreadableError: columns are missing or unknown.
    """
    twice = sorted({c for c in feed.columns if feed.columns.count(c) > 1})
    if twice:
        raise UnreadableError(
            Failure(
                "expect_table_columns_to_match_set", ", ".join(twice)[:200], "named twice in the header",
                "each column once", sample=sample_of(twice), remedy="rename or remove the second one",
            )
        )  # fmt: skip
    missing = [c for c in dataset.columns if c not in feed.columns]
    extra = [c for c in feed.columns if c not in dataset.columns]
    if not missing and not extra:
        return
    found = "; ".join(
        f"{what} {', '.join(names)}"[:200]
        for what, names in (("missing", missing), ("unknown", [c for c in extra if c.strip()]))
        if names
    )
    unnamed = [str(n + 1) for n, c in enumerate(feed.columns) if not c.strip()]
    remedy = (
        f"deliver the columns that datasets/{dataset.name}.yaml names, or change the spec and run with force"
    )
    if unnamed:
        found = f"column {', '.join(unnamed)} of the header has no name; {found}"[:300]
        ends = len(unnamed) == 1 and not feed.columns[-1].strip()
        remedy = (
            "take the delimiter at the end of the header, and of each line, out"
            if ends
            else "give each column a name, or leave it out (pandas: index=False)"
        )
    elif len(feed.columns) == 1 and len(dataset.columns) > 1 and feed.delimiter:
        remedy = f"is {feed.delimiter!r} the delimiter (source.delimiter)? Else {remedy}"
    elif any(c.strip().lower() in (m.lower() for m in missing) for c in extra):
        remedy = f"spaces and capital letters count in a column's name; {remedy}"
    raise UnreadableError(
        Failure(
            "expect_table_columns_to_match_set",
            ", ".join([*missing, *extra])[:200],
            found,
            f"{', '.join(dataset.columns)}"[:300],
            sample=sample_of([*missing, *extra]),
            remedy=remedy,
        )
    )


def _unreadable(error: psycopg2.Error) -> Failure:
    # Detail and context of the message quote the row.
    return Failure(
        "file_readable", None, str(error.diag.message_primary)[:200], "text that PostgreSQL can hold",
        remedy="shorten the values, or mend the characters, and deliver the file again",
    )  # fmt: skip


@contextmanager
def local_time(conn: Connection, dataset: DatasetSpec) -> Iterator[None]:
    """Read timestamps without a zone in the source's zone, until the block ends."""
    with conn.cursor() as cursor:
        try:
            cursor.execute("SET LOCAL TimeZone = %s", (dataset.source.timezone,))
        except psycopg2.Error as error:
            raise TerminalError(
                f"datasets/{dataset.name}.yaml: source.timezone {dataset.source.timezone!r} is unknown; "
                "write a name such as Europe/Berlin",
                Reason.BAD_SPEC,
            ) from error
        cursor.execute("SET LOCAL DateStyle = 'ISO, YMD'")
        yield
        cursor.execute("SET LOCAL TimeZone = 'UTC'")


def type_rows(conn: Connection, dataset: DatasetSpec, staged: Staged) -> tuple[list[Finding], int]:
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


def _check(conn: Connection, dataset: DatasetSpec, staged: Staged, *, converted: bool) -> list[Finding]:
    checks = [
        (name, column, kind, predicate)
        for name, column in dataset.columns.items()
        for kind, predicate in _predicates(name, column, converted)
    ]
    if not checks:
        return []
    counts = sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE {})").format(p) for _, _, _, p in checks)
    findings = []
    with local_time(conn, dataset), conn.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(counts, table(staged.raw)))
        failed = cursor.fetchone() or ()
        for (name, column, kind, predicate), count in zip(checks, failed, strict=True):
            if not count:
                continue
            cursor.execute(
                sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY _row LIMIT 5").format(
                    sql.Identifier(name), table(staged.raw), predicate
                )
            )
            failure = Failure(
                f"expect_column_values_to_be_{kind}", name, f"{count} of {staged.rows} rows",
                column.type if kind == "of_type" else "a finite number, or empty", count,
                sample_of(v for (v,) in cursor.fetchall()),
                _REMEDY[column.type] if kind == "of_type" else "leave the field empty where there is no value",
            )  # fmt: skip
            rows = sql.SQL("SELECT _row FROM {} WHERE {}").format(table(staged.raw), predicate)
            findings.append(Finding(failure, rows))
    return findings


def _make_typed(conn: Connection, dataset: DatasetSpec, staged: Staged, findings: list[Finding]) -> int:
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
    if column.type in ("text", "category") or (converted and column.type in ("integer", "boolean")):
        return []
    value = sql.Identifier(name)
    valid: sql.Composable = sql.SQL("true")
    if not converted:
        valid = sql.SQL("pg_input_is_valid({}, {})").format(value, sql.Literal(TYPES[column.type]))
    if column.type in ("timestamp", "date"):
        iso = sql.SQL(_ISO).format(value)
        length = sql.SQL("AND length({}) = 10").format(value) if column.type == "date" else sql.SQL("")
        return [("of_type", sql.SQL("NOT ({} AND {} {})").format(valid, iso, length))]
    found: list[tuple[str, sql.Composable]] = []
    if not converted:
        found.append(("of_type", sql.SQL("NOT {}").format(valid)))
    if column.type == "float":
        # A valid number has the letter n in NaN, Inf and Infinity only.
        found.append(("finite", sql.SQL("({0} LIKE '%n%' OR {0} LIKE '%N%') AND {1}").format(value, valid)))
    return found
