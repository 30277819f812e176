"""One dataset: its batches, what failed, and the rows that are held back, each with file, line, column, value and rule."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2.errors
from psycopg2 import sql

from evergreen.alert_kinds import AlertKind
from evergreen.health.model import IncidentRow, incidents
from evergreen.health.overview import overview
from evergreen.health.subjects import DatasetHealth
from evergreen.incidents import held_batches, threads
from evergreen.ledger import dataset_subject
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, fetch

PAGE = 40
MOST_BATCHES = 50
_BATCH = (
    "SELECT id, file, state, as_of, decided_at, rows_read, rows_new, rows_changed, rows_unchanged, rows_held, failures, replaced_by"
    " FROM evergreen.batch WHERE dataset = %(name)s"
)


@dataclass(frozen=True)
class Failed:
    """A failed expectation: column (or columns; empty: the whole file), rule in words, what was expected and found, how many rows, what to do."""

    column: str
    rule: str
    expected: str
    found: str
    rows: int | None
    remedy: str


@dataclass(frozen=True)
class Batch:
    """A landed file and what became of it.

    Attributes:
        id: in evergreen.batch.
        file: its name in the landing folder.
        state: such as `published`.
        as_of, decided_at: of the run, and by the clock.
        read, new, changed, unchanged, held: rows; unchanged is None where an earlier release decided.
        failures: what failed.
        replaced: it was judged again, and another batch counts.
        waits: something of it is held back still, and nobody has mended or dismissed it.
    """

    id: int
    file: str
    state: str
    as_of: datetime
    decided_at: datetime
    read: int
    new: int
    changed: int
    unchanged: int | None
    held: int
    failures: tuple[Failed, ...]
    replaced: bool
    waits: bool


@dataclass(frozen=True)
class Broken:
    """A value of a held row that breaks a rule: the column (or columns), its value as the file had it, the rule, what is expected."""

    column: str
    value: str
    rule: str
    expected: str


@dataclass(frozen=True)
class HeldRow:
    """A row that is held back.

    Attributes:
        batch, file: of which it is.
        row: its number among the rows of the file; the first one is 1.
        line: the line of the file on which it begins; None: not known.
        broken: what of it breaks which rule.
        values: the whole row as the file had it, by column.
    """

    batch: int
    file: str
    row: int
    line: int | None
    broken: tuple[Broken, ...]
    values: dict[str, str]


@dataclass(frozen=True)
class DatasetDetails:
    """All that the page of a dataset shows beside its row of the overview.

    Attributes:
        health: its row.
        batches: the newest first.
        waiting: ids of all batches of which something is held back still, and nobody has mended or dismissed it.
        incidents: newest first.
    """

    health: DatasetHealth
    batches: tuple[Batch, ...]
    waiting: tuple[int, ...]
    incidents: tuple[IncidentRow, ...]


def details(conn: Connection, specs: Specs, name: str, *, before: int | None = None) -> DatasetDetails:
    """Everything about one dataset but its held rows; `before`: only batches with a smaller id."""
    rows = fetch(
        conn, f"{_BATCH} AND (%(before)s IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(most)s",
        {"name": name, "before": before, "most": MOST_BATCHES},
    )  # fmt: skip
    held = waiting(conn, name)
    return DatasetDetails(
        health=overview(conn, specs, models=(), datasets=[name], mlflow=False).datasets[0],
        batches=tuple(_batch(row, row["id"] in held) for row in rows),
        waiting=held,
        incidents=tuple(incidents(conn, dataset_subject(name))),
    )


def waiting(conn: Connection, name: str) -> tuple[int, ...]:
    """Ids of the batches of which something is held back still, and that nobody has mended or dismissed, the newest first."""
    spells = threads.open_ones(conn, dataset_subject(name), AlertKind.BATCH_QUARANTINED)
    held = held_batches.of_spells(conn, spells) if spells else {}
    return tuple(sorted({batch.id for batches in held.values() for batch in batches}, reverse=True))


def held_rows(
    conn: Connection,
    name: str,
    *,
    batches: Sequence[int] | None = None,
    after: tuple[int, int] | None = None,
    limit: int = PAGE,
) -> list[HeldRow] | None:
    """The rows of a dataset that are held back, the newest batch first; of a large batch its first rows are kept.

    Args:
        conn: the warehouse.
        name: of the dataset.
        batches: only of these; None for all.
        after: batch and row of the last one that was shown.
        limit: most rows.

    Returns:
        Nothing where none was ever held; None where this login may not read such rows.
    """
    try:
        with conn.cursor() as cursor:
            cursor.execute("SAVEPOINT held")
        rows = fetch(
            conn,
            sql.SQL(
                "SELECT h.batch, b.file, b.failures, h.row_number, h.row, h.reasons FROM {} AS h JOIN evergreen.batch AS b ON b.id = h.batch"
                " WHERE (%(batches)s::bigint[] IS NULL OR h.batch = ANY(%(batches)s::bigint[])) AND (%(last)s::bigint IS NULL OR (-h.batch, h.row_number) > (-%(last)s::bigint, %(row)s::bigint))"
                " ORDER BY h.batch DESC, h.row_number LIMIT %(limit)s"
            ).format(sql.Identifier("quarantine", name)),
            {
                "batches": list(batches) if batches is not None else None,
                "last": after[0] if after else None,
                "row": after[1] if after else None,
                "limit": limit,
            },
        )
    except (
        psycopg2.errors.UndefinedTable,
        psycopg2.errors.InvalidSchemaName,
        psycopg2.errors.InsufficientPrivilege,
    ) as error:
        with conn.cursor() as cursor:
            cursor.execute("ROLLBACK TO SAVEPOINT held")
        return None if isinstance(error, psycopg2.errors.InsufficientPrivilege) else []
    offsets = {row["batch"]: _offsets(row["failures"]) for row in rows}
    return [
        HeldRow(
            row["batch"], row["file"], row["row_number"], line_of(row["row_number"], offsets[row["batch"]]),
            tuple(broken(reason, row["row"]) for reason in row["reasons"]), {k: v or "" for k, v in row["row"].items()},
        )
        for row in rows
    ]  # fmt: skip


def still_held(conn: Connection, name: str, *, batch: int | None = None) -> list[Batch]:
    """The batches that are `waiting`; or only this one, whatever became of it."""
    held = waiting(conn, name)
    asked = held if batch is None else (batch,)
    found = fetch(
        conn, f"{_BATCH} AND id = ANY(%(ids)s) ORDER BY id DESC", {"name": name, "ids": list(asked)}
    )
    return [_batch(row, row["id"] in held) for row in found]


def line_of(row: int, known: Sequence[tuple[int, int]]) -> int | None:
    """The line on which a row begins, where it follows from rows whose line is known.

    A row begins at least one line after the one before, so the lines that a file has beside its rows never become fewer: between
    two rows that have as many, each row has as many.

    Args:
        row: its number.
        known: number of a row and its line, ascending.
    """
    numbers = [number for number, _ in known]
    left, right = bisect_right(numbers, row) - 1, bisect_left(numbers, row)
    if left < 0 or right >= len(known):
        return None
    before, after = known[left][1] - known[left][0], known[right][1] - known[right][0]
    return row + before if before == after else None


def broken(reason: str, values: dict[str, Any]) -> Broken:
    """A reason for which a row is held, as `Failure.of_row` wrote it, with the value of its columns."""
    column, _, said = reason.partition(": ")
    rule, _, expected = said.partition(", expected ")
    names = [name for name in column.split(", ") if name in values]
    return Broken(
        column,
        ", ".join(values[name] if values[name] is not None else "" for name in names),
        rule_in_words(rule),
        expected,
    )


def rule_in_words(expectation: str) -> str:
    """The name of an expectation as people read it: `expect_column_values_to_be_between` is `be between`."""
    for beginning in (
        "expect_column_values_to_",
        "expect_column_pair_values_",
        "expect_column_",
        "expect_table_",
        "expect_",
    ):
        if expectation.startswith(beginning):
            return expectation.removeprefix(beginning).replace("_", " ")
    return expectation.replace("_", " ")


def _offsets(failures: Any) -> list[tuple[int, int]]:
    return sorted(
        {
            (example["row"], example["line"])
            for failure in failures or ()
            for example in failure.get("rows") or ()
            if example.get("row") and example.get("line")
        }
    )


def _batch(row: dict[str, Any], waits: bool) -> Batch:
    return Batch(
        id=row["id"],
        file=row["file"],
        state=row["state"],
        as_of=row["as_of"],
        decided_at=row["decided_at"],
        read=row["rows_read"],
        new=row["rows_new"],
        changed=row["rows_changed"],
        unchanged=row["rows_unchanged"],
        held=row["rows_held"],
        failures=tuple(
            Failed(
                f.get("column") or "", rule_in_words(str(f.get("expectation") or "")), str(f.get("limit") or ""),
                str(f.get("observed") or ""), f.get("failed_rows"), f.get("remedy") or "",
            )
            for f in row["failures"] or ()
        ),
        replaced=row["replaced_by"] is not None,
        waits=waits,
    )  # fmt: skip
