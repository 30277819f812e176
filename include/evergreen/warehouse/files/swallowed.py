"""Quoted values that have swallowed whole records of a CSV file.

A stray quote at the begin of a value and another one at the end of a later value (`"5 pipe` ... `7 pipe"`) look like a
value that goes on over several lines: by RFC 4180 it is one, and all records between the two are gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.records import Block

_DIGITS = re.compile(rb"\d+")


def refuse(dataset: DatasetSpec, columns: tuple[str, ...], delimiter: str, block: Block, end: bytes) -> None:
    """Refuse a value over several lines of which each is a record by itself: as many values, and a time like the others.

    Args:
        dataset: says where the event time stands.
        columns: the names in the file's header.
        delimiter: between two values.
        block: the records.
        end: the file's line end.

    Raises:
        UnreadableError: there is one, with its line.
    """
    if not end or block.data.count(end) <= block.records:
        return
    place = _place(dataset, columns)
    if place is None:
        return
    mark = delimiter.encode()
    lines = block.data.split(end)
    for begin, stop in _over_lines(lines):
        times = {_form(line, mark, len(columns), place) for line in lines[begin:stop]}
        if len(times) == 1 and None not in times:
            # Where lines end in two characters, a value can hold one of them.
            first = block.first_line + begin + sum(line.count(end[-1:]) for line in lines[:begin])
            raise UnreadableError(
                Failure(
                    "file_readable", None,
                    f"line {first}: a quoted value goes on to line {first + stop - begin - 1}, and each of these lines is a "
                    "record by itself",
                    'quotes around a whole value, and doubled inside it ("5"" pipe")',
                    remedy="a quote that opens a value by mistake, and one that closes another, swallow what lies between: quote "
                    "the value and double each quote in it",
                )
            )  # fmt: skip


def _place(dataset: DatasetSpec, columns: tuple[str, ...]) -> int | None:
    """Where the event time, or the first part of it, stands; None where the file's own checks will tell."""
    meant = (dataset.columns[dataset.event_time].origin or (dataset.event_time,))[0]
    if isinstance(meant, int):
        return meant - 1 if meant <= len(columns) else None
    if columns.count(meant) == 1:
        return columns.index(meant)
    names = tuple(dataset.columns)
    return names.index(meant) if meant in names and len(names) == len(columns) else None


def _over_lines(lines: list[bytes]) -> Iterator[tuple[int, int]]:
    """Each record that has several lines: the first of them, from 0, and the one behind the last."""
    begin: int | None = None
    for number, line in enumerate(lines):
        if line.count(b'"') % 2 == 0:
            continue
        if begin is None:
            begin = number
        else:
            yield begin, number + 1
            begin = None


def _form(line: bytes, mark: bytes, width: int, place: int) -> bytes | None:
    """How the time of a line that is a record is written, each number as 0; None where it is no record."""
    values = line.split(mark)
    if len(values) != width or not _DIGITS.search(values[place]):
        return None
    return _DIGITS.sub(b"0", values[place].strip(b'" '))
