"""The expectations of a dataset: what its spec says about columns, as Great Expectations, and its own ones.

What cannot be asked of a text (is it a number at all?) is asked before, in `evergreen.warehouse.batches.staging`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from psycopg2 import sql

from evergreen.spec import Column, ColumnType, DatasetSpec
from evergreen.spec.column import TIMES
from evergreen.warehouse.migrate import TYPES


@dataclass(frozen=True)
class Rule:
    """One expectation and what is known about it here.

    Args:
        type: Great Expectations' name of it.
        kwargs: its arguments.
        column: the column or columns for the report; None for the whole table.
        limit: what is expected, in words.
        remedy: what to do when it fails.
        rows: whether the rows that fail can be held back by themselves.
        failing: the condition under which a row of the typed table fails; None: ask Great Expectations.
        whole: where rows cannot be held back by themselves: why not.
    """

    type: str
    kwargs: dict[str, Any]
    column: str | None
    limit: str
    remedy: str
    rows: bool
    failing: sql.Composable | None = field(default=None, compare=False)
    whole: str = "it is about the file as a whole"


def rules(dataset: DatasetSpec, as_of: datetime, typed: sql.Composable) -> tuple[Rule, ...]:
    """The expectations on a batch of the dataset.

    Args:
        dataset: the spec.
        as_of: the run's as-of time, aware; event times may lie at most `future_tolerance` after it.
        typed: the typed table, for the condition of the rows with a doubled key.
    """
    found: list[Rule] = []
    for name, column in dataset.delivered.columns.items():
        found += _of_column(dataset, name, column)
    if not dataset.generated:
        found.append(_unique(dataset, typed))
    found += _within_time(dataset, as_of)
    found += [
        Rule(
            item.type,
            dict(item.kwargs),
            _named(item.kwargs),
            ", ".join(f"{k} {v}" for k, v in item.kwargs.items() if not k.startswith("column"))[:200]
            or "true",
            f"mend the data, or the expectation in datasets/{dataset.name}.yaml and run with force",
            item.rows,
            whole="the spec does not say `rows: true` of it",
        )
        for item in dataset.expectations
    ]
    return tuple(found)


def split(dataset: DatasetSpec, rules: Sequence[Rule]) -> tuple[list[Rule], list[Rule]]:
    """The rules that hold for every row, and those that a deleted row need not meet: all but those about key and arrival."""
    always = {*dataset.key, dataset.arrival.column}
    of_every_row = [r for r in rules if r.column and set(r.column.split(", ")) <= always]
    return of_every_row, [r for r in rules if r not in of_every_row]


def _of_column(dataset: DatasetSpec, name: str, column: Column) -> Iterator[Rule]:
    value = sql.Identifier(name)
    always = {*dataset.key, dataset.event_time, dataset.arrival.column}
    spec = f"or change columns.{name} in datasets/{dataset.name}.yaml and run with force"
    if column.required or name in always:
        yield Rule(
            "expect_column_values_to_not_be_null", {"column": name}, name, "no missing value",
            f"deliver the values, {spec}", True, sql.SQL("{} IS NULL").format(value),
        )  # fmt: skip
    if column.null_share_max is not None:
        yield Rule(
            "expect_column_values_to_not_be_null",
            {"column": name, "mostly": round(1 - column.null_share_max, 9)},
            name, f"at most {column.null_share_max:.4g} of the values missing",
            f"ask the source why so much is missing, {spec}", False,
        )  # fmt: skip
    low, high = _bound(dataset, column, column.min), _bound(dataset, column, column.max)
    if low is not None or high is not None:
        yield Rule(
            "expect_column_values_to_be_between",
            {"column": name, **{k: v for k, v in (("min_value", low), ("max_value", high)) if v is not None}},
            name,
            " and ".join(
                f"{word} {bound if isinstance(bound, str) else format(bound, '.6g')}"
                for word, bound in (("at least", low), ("at most", high))
                if bound is not None
            ),
            f"did the unit change? Mend the data, {spec}", True,
            _outside(value, column.type, low, high),
        )  # fmt: skip
    if column.values is not None:
        yield Rule(
            "expect_column_values_to_be_in_set",
            {"column": name, "value_set": list(column.values)},
            name, f"one of {', '.join(column.values)}"[:200], f"mend the data, {spec}", True,
            sql.SQL("{} <> ALL ({}::text[])").format(value, sql.Literal(list(column.values))),
        )  # fmt: skip


def _unique(dataset: DatasetSpec, typed: sql.Composable) -> Rule:
    # expect_compound_columns_to_be_unique drags every column through two joins: 2.8 s for a million rows
    # against 0.4 s for one text column, and Great Expectations 1.24's own query of its rows is a cross join.
    key = dataset.key[0] if len(dataset.key) == 1 else "_key"
    column = sql.Identifier(key)
    return Rule(
        "expect_column_values_to_be_unique", {"column": key}, ", ".join(dataset.key), "each key once",
        "deliver each key once; Evergreen does not guess which of two rows is right", True,
        sql.SQL("{0} IN (SELECT {0} FROM {1} GROUP BY 1 HAVING count(*) > 1)").format(column, typed),
    )  # fmt: skip


def _bound(dataset: DatasetSpec, column: Column, bound: float | date | datetime | None) -> float | str | None:
    """A spec's `min` or `max` as it is compared: a number, or a time as ISO 8601 with its offset."""
    if not isinstance(bound, date):
        return bound
    if column.type == "date":
        return (bound.date() if isinstance(bound, datetime) else bound).isoformat()
    moment = bound if isinstance(bound, datetime) else datetime(bound.year, bound.month, bound.day)
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(dataset.source.timezone))).isoformat()


def _outside(
    value: sql.Composable, kind: ColumnType, low: float | str | None, high: float | str | None
) -> sql.Composable:
    """The condition under which a value is not within its bounds."""
    cast = sql.SQL("::" + TYPES[kind]) if kind in TIMES else sql.SQL("")
    return sql.SQL(" OR ").join(
        sql.SQL("{} {} {}{}").format(value, sql.SQL(sign), sql.Literal(bound), cast)
        for sign, bound in (("<", low), (">", high))
        if bound is not None
    )


def _within_time(dataset: DatasetSpec, as_of: datetime) -> Iterator[Rule]:
    """Event and arrival times lie neither in the future nor in a past that stands for a missing time."""
    latest = as_of + dataset.future_tolerance
    for name in dict.fromkeys(n for n in (dataset.event_time, dataset.arrival.column) if n):
        value, kind = sql.Identifier(name), dataset.columns[name].type
        bound = latest.date().isoformat() if kind == "date" else latest.isoformat()
        yield Rule(
            "expect_column_values_to_be_between", {"column": name, "max_value": bound}, name,
            f"not after {bound} (as-of + future_tolerance)",
            "is the time zone right (source.timezone), or the clock of the source?", True,
            _outside(value, kind, None, bound),
        )  # fmt: skip
        if dataset.earliest is not None:
            first = dataset.earliest.isoformat()
            bound = first if kind == "date" else f"{first}T00:00:00+00:00"
            yield Rule(
                "expect_column_values_to_be_between", {"column": name, "min_value": bound}, name,
                f"not before {first} (earliest)",
                "does it stand for a missing time, or is the format wrong? Mend the data; of an older history set earliest in"
                f" datasets/{dataset.name}.yaml and run with force", True,
                _outside(value, kind, bound, None),
            )  # fmt: skip


def _named(kwargs: dict[str, Any]) -> str | None:
    names = [
        kwargs.get("column"),
        kwargs.get("column_A"),
        kwargs.get("column_B"),
        *(kwargs.get("column_list") or ()),
    ]
    return ", ".join(str(n) for n in names if n) or None
