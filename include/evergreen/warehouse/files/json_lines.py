"""JSON Lines: an object on each line, as columns of text; numbers stay as they are written, but 5.0 is 5."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import opened
from evergreen.warehouse.files.canonical import Kind, kind_of
from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.landed_file import LandedFile
from evergreen.warehouse.files.records import RECORD_BYTES

if TYPE_CHECKING:
    from evergreen.warehouse.files.feed import TextRows

BLOCK_ROWS = 4096
_LARGE = 9e18  # beyond, a whole number may be too long to write out


def columns(dataset: DatasetSpec, file: LandedFile) -> dict[str, Kind]:
    """The names of all objects' keys, in the order in which they appear first, and how their values are written.

    The whole file is read for it.

    Raises:
        UnreadableError: a line that is no object of plain values.
    """
    words = {word.strip() for name in dataset.columns for word in dataset.written(name).missing or ()}
    found: dict[str, set[Kind]] = {}
    for line, text in _lines(dataset, file):
        for name, value in _object(line, text).items():
            kinds = found.setdefault(name, set())
            if value and not (value.kind == "text" and value.strip() in words):
                kinds.add(value.kind)
    if not found:
        raise UnreadableError(
            Failure("file_not_empty", None, "no objects", "at least one row", remedy="deliver the file again, whole")
        )  # fmt: skip
    return {name: kind_of(kinds) for name, kinds in found.items()}


def rows(
    dataset: DatasetSpec, file: LandedFile, feed: TextRows, positions: tuple[int, ...]
) -> Iterator[pa.RecordBatch]:
    """The rows, see `Feed.batches`; a key that an object has not is null in its row."""
    names = [feed.columns[p] for p in positions]
    waiting: list[dict[str, _Value | None]] = []
    size = 0
    for line, text in _lines(dataset, file):
        feed.records += 1
        waiting.append(_object(line, text))
        size += len(text)
        if len(waiting) == BLOCK_ROWS or size > opened.BLOCK_BYTES:
            yield _batch(waiting, names)
            waiting, size = [], 0
    if waiting:
        yield _batch(waiting, names)


def _batch(objects: list[dict[str, _Value | None]], names: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([o.get(name) or None for o in objects], pa.string()) for name in names], names=names
    )


def _lines(dataset: DatasetSpec, file: LandedFile) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, with its number."""
    number, rest = 0, b""
    with opened.text(dataset, file.path, "utf-8") as read:
        while block := read():
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                number += 1
                if line.strip():
                    yield number, line
            if len(rest) > RECORD_BYTES:
                raise _refused(number + 1, f"more than {RECORD_BYTES >> 20} MiB", "shorten the value")
    if rest.strip():
        yield number + 1, rest


class _Value(str):
    """A value as text, and as what it stands in the file."""

    kind: Kind = "text"


class _Number(_Value):
    kind: Kind = "number"


class _Truth(_Value):
    kind: Kind = "truth"


def _object(line: int, text: bytes) -> dict[str, _Value | None]:
    try:
        value = json.loads(text, parse_float=_whole, parse_int=_Number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        told = getattr(error, "msg", "") or (str(error) if isinstance(error, _TwiceError) else "no JSON")
        raise _refused(line, str(told)[:100], "mend the line and deliver the file again") from error
    if not isinstance(value, dict):
        found = "a list" if isinstance(value, list) else "a single value"
        raise _refused(line, f"{found}, not an object", "write an object on each line")
    return {name: _text(line, name, v) for name, v in value.items()}


def _whole(text: str) -> _Number:
    """A number; a whole one without a point, since JSON does not tell 5.0 from 5."""
    if abs(float(text)) < _LARGE and (number := Decimal(text)) == number.to_integral_value():
        return _Number(int(number))
    return _Number(text)


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _TwiceError("a key that is there twice")
    return value


def _text(line: int, name: str, value: Any) -> _Value | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return _Truth("true" if value else "false")
    if isinstance(value, float):  # NaN and Infinity, which JSON has not and Python writes
        return _Number(value)
    if not isinstance(value, str):
        raise _refused(
            line, f"{name[:60]!r} is {'a list' if isinstance(value, list) else 'an object'}", "write plain values"
        )  # fmt: skip
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value if c > "\ud7ff"):
        raise _refused(
            line, f"{name[:60]!r} has a character that is none (NUL or half a pair)", "mend the text"
        )
    return value if isinstance(value, _Value) else _Value(value)


def _refused(line: int, observed: str, remedy: str) -> UnreadableError:
    return UnreadableError(
        Failure("file_readable", None, f"line {line}: {observed}", "a JSON object of plain values on each line",
                remedy=remedy)
    )  # fmt: skip
