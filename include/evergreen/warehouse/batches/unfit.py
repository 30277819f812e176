"""What is said of values that are not of their column's type: what they are, and which line of the spec reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evergreen.spec import DatasetSpec
from evergreen.spec.column import NUMBERS, TIMES
from evergreen.warehouse.files.canonical import unmarked
from evergreen.warehouse.files.failure import Failure, sample_of

TWICE = "local_time_told_once"
NEVER = "local_time_on_the_clock"
_REMEDY = {
    "float": "write a number in decimal digits, with a point",
    "integer": "write a whole number in decimal digits, without a point",
    "boolean": "write true or false",
    "timestamp": "write ISO 8601, such as 2024-03-31T14:00:00+00:00",
    "date": "write ISO 8601, such as 2024-03-31",
}
_GROUPED = re.compile(r"\s*[+-]?\d{1,3}(_\d{3})+(\.\d*)?\s*")
# What programs write where there is no value.
_NO_VALUE = re.compile(
    r"#?n/?a|#n/a n/a|<na>|\(?null\)?|#null!?|none|nil|nan|-nan|nat|\\n|missing|unknown|undefined|void|-+|\?+|\.+|\*+|_+|x",
    re.IGNORECASE,
)


def failure(
    dataset: DatasetSpec, name: str, kind: str, count: int, rows: int, found: Sequence[str]
) -> Failure:
    """The failure of a check of types.

    Args:
        dataset: the spec.
        name: the column.
        kind: `of_type`, `finite`, or TWICE or NEVER.
        count: how many rows fail, of `rows`.
        found: some of the values.
    """
    zone = dataset.source.timezone
    file = f"datasets/{dataset.name}.yaml"
    values = [unmarked(value) or "" for value in found]
    expectation, limit = f"expect_column_values_to_be_{kind}", "a finite number, or empty"
    remedy = "leave the field empty where there is no value"
    if kind == TWICE:
        expectation, limit = TWICE, f"a local time that the clock of the time zone {zone} shows once"
        remedy = (
            f"in autumn the clock is turned back and shows an hour twice: set source.fold in {file} to first, second or"
            " by_order and run with force, or deliver times with their offset"
        )
    elif kind == NEVER:
        expectation, limit = NEVER, f"a local time that the clock of the time zone {zone} shows"
        remedy = (
            "in spring the clock leaves an hour out and never shows this time: is source.timezone the zone of the file?"
            " Mend the rows, or deliver times with their offset"
        )
    elif kind == "of_type":
        limit, remedy = _of_type(dataset, name)
        if dataset.columns[name].type in NUMBERS and any(_GROUPED.fullmatch(v) for v in values):
            remedy += f'; if _ stands between groups of three digits, name it as thousands: "_" of columns.{name} in {file}'
    markers = list(dict.fromkeys(v.strip() for v in values if _NO_VALUE.fullmatch(v.strip())))
    if markers and kind in ("of_type", "finite"):
        shown = ", ".join(f'"{m}"' for m in markers)
        remedy = (
            f"{shown} looks like a marker for a missing value: name it in {file}, as source.missing: [{shown}] or in the"
            f" column {name}, and run with force; else {remedy}"
        )
    return Failure(
        expectation, name, f"{count} of {rows} rows", limit[:200], count, sample_of(values), remedy
    )


def _of_type(dataset: DatasetSpec, name: str) -> tuple[str, str]:
    column, written = dataset.columns[name], dataset.written(name)
    field = f"columns.{name} in datasets/{dataset.name}.yaml"
    if column.type in TIMES and column.format:
        said = " or ".join(column.format)
        return f"{column.type} as {said}", f"write it as {said}, or mend format of {field} and run with force"
    if column.type == "boolean" and written.true:
        words = f"{', '.join(written.true)} or {', '.join(written.false or ())}"
        return f"boolean: {words}", f"write one of them, or add the word to true or false of {field}"
    if column.type in ("float", "integer") and (written.decimal or written.thousands):
        signs = f"decimal {written.decimal or '.'!r}"
        signs += f" and thousands {written.thousands!r}" if written.thousands else ""
        return f"{column.type} with {signs}", f"write it so, or mend decimal and thousands of {field}"
    more = {
        "float": "or name the file's sign as decimal",
        "timestamp": 'or name the file\'s form as format, such as "%d/%m/%Y %H:%M"',
        "date": 'or name the file\'s form as format, such as "%d/%m/%Y"',
        "boolean": "or name the file's words as true and false",
    }.get(column.type)
    return column.type, _REMEDY[column.type] + (f", {more}, of {field}" if more else "")
