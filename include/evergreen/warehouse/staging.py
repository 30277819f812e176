"""A batch on its way in: the raw table as the file has it, and the typed table on which the suite runs.

Both are unlogged tables of the schema `staging`, named after the dataset and the file's checksum, and are
dropped in the transaction that decides the batch. What a crashed run left is swept by the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg2
from psycopg2 import sql

from evergreen.errors import Reason, TerminalError
from evergreen.spec import Column, DatasetSpec
from evergreen.warehouse import landing
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.failure import Failure, UnreadableError, sample_of
from evergreen.warehouse.landing import Feed, LandedFile
from evergreen.warehouse.migrate import TYPES

# Other forms that PostgreSQL reads ("now", "infinity", 3/4/2024, 2 PM IST) mean another thing tomorrow or on
# another server. LIKE and rtrim take a third of the time of a regular expression.
_ISO = "{0} LIKE '____-__-__%' AND rtrim({0}, '0123456789-:.+ TZUC') = ''"
_REMEDY = {
    "float": "write a number with a point",
    "integer": "write a whole number, without a point",
    "boolean": "write true or false",
    "timestamp": "write ISO 8601, such as 2024-03-31T14:00:00+00:00",
    "date": "write ISO 8601, such as 2024-03-31",
}


@dataclass(frozen=True)
class Staged:
    """The tables of one batch and what they hold; a batch that `bulk` loaded has no raw table."""

    raw: str
    typed: str
    rows: int


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


def load(conn: Connection, dataset: DatasetSpec, file: LandedFile) -> Staged:
    """COPY a file into its raw table: the spec's columns as text, and `_row`, 1 for the first row.

    Columns are matched by name, in any order. An empty field is NULL, quoted or not.

    Raises:
        UnreadableError: columns are missing or unknown, or COPY cannot make rows of the file.
    """
    raw, typed = names(dataset, file)
    with landing.feed(dataset, file) as feed:
        require_columns(dataset, feed)
        columns = sql.SQL(", ").join(map(sql.Identifier, feed.columns))
        with conn.cursor() as cursor:
            cursor.execute(
                sql.SQL(
                    "CREATE UNLOGGED TABLE {} (_row bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000), {})"
                ).format(
                    table(raw),
                    sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(c)) for c in dataset.columns),
                )
            )
            copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, DELIMITER {}, FORCE_NULL ({}))").format(
                table(raw), columns, sql.Literal(feed.delimiter), columns
            )
            try:
                cursor.copy_expert(copy.as_string(conn), cast(Any, feed), size=landing.BLOCK_BYTES)
            except psycopg2.Error as error:
                inside = feed.failure()
                if inside is not None:
                    raise inside from error
                if (error.pgcode or "")[:2] not in ("22", "54"):
                    raise
                raise UnreadableError(_unreadable(error, feed)) from error
            return Staged(raw, typed, cursor.rowcount)


def require_columns(dataset: DatasetSpec, feed: Feed) -> None:
    """Refuse a file that has not exactly the columns of the spec.

    Raises:
        UnreadableError: columns are missing or unknown.
    """
    missing = [c for c in dataset.columns if c not in feed.columns]
    extra = [c for c in feed.columns if c not in dataset.columns]
    if not missing and not extra:
        return
    found = "; ".join(
        f"{what} {', '.join(names)}"[:200]
        for what, names in (("missing", missing), ("unknown", extra))
        if names
    )
    remedy = (
        f"deliver the columns that datasets/{dataset.name}.yaml names, or change the spec and run with force"
    )
    if len(feed.columns) == 1 and len(dataset.columns) > 1:
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


def _unreadable(error: psycopg2.Error, feed: Feed) -> Failure:
    # The context quotes the line's content; only its number is passed on.
    line = re.search(r"line (\d+)", error.diag.context or "")
    where = f"line {int(line[1]) + feed.header_lines}: " if line else ""
    return Failure(
        "file_readable", None, f"{where}{error.diag.message_primary}"[:200],
        f"{len(feed.columns)} fields a line, quotes in pairs, valid characters",
        remedy="a line that is cut short or a quote that is not closed; deliver the file again, whole",
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
