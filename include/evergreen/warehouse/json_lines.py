"""JSON Lines: an object on each line, as columns of text; numbers stay as they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evergreen.spec import DatasetSpec
from evergreen.warehouse import opened
from evergreen.warehouse.failure import Failure, UnreadableError
from evergreen.warehouse.landing import LandedFile
from evergreen.warehouse.records import RECORD_BYTES

if TYPE_CHECKING:
    from evergreen.warehouse.feed import Feed

BLOCK_ROWS = 4096


def columns(dataset: DatasetSpec, file: LandedFile) -> tuple[str, ...]:
    """The names of all objects' keys, in the order in which they appear first; the whole file is read for it.

    Raises:
        UnreadableError: a line that is no object of plain values.
    """
    names: dict[str, None] = {}
    for line, text in _lines(dataset, file):
        names.update(dict.fromkeys(_object(line, text)))
    if not names:
        raise UnreadableError(
            Failure("file_not_empty", None, "no objects", "at least one row", remedy="deliver the file again, whole")
        )  # fmt: skip
    return tuple(names)


def rows(
    dataset: DatasetSpec, file: LandedFile, feed: Feed, positions: tuple[int, ...]
) -> Iterator[pa.RecordBatch]:
    """The rows, see `Feed.batches`; a key that an object has not is null in its row."""
    names = [feed.columns[p] for p in positions]
    waiting: list[dict[str, Any]] = []
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


def _batch(objects: list[dict[str, Any]], names: list[str]) -> pa.RecordBatch:
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


def _object(line: int, text: bytes) -> dict[str, str | None]:
    try:
        value = json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        told = getattr(error, "msg", "") or (str(error) if isinstance(error, _TwiceError) else "no JSON")
        raise _refused(line, str(told)[:100], "mend the line and deliver the file again") from error
    if not isinstance(value, dict):
        raise _refused(line, f"{type(value).__name__}, not an object", "write an object on each line")
    return {name: _text(line, name, v) for name, v in value.items()}


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _TwiceError("a key that is there twice")
    return value


def _text(line: int, name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):  # NaN and Infinity, which JSON has not and Python writes
        return str(value)
    if not isinstance(value, str):
        raise _refused(
            line, f"{name[:60]!r} is {'a list' if isinstance(value, list) else 'an object'}", "write plain values"
        )  # fmt: skip
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value if c > "\ud7ff"):
        raise _refused(
            line, f"{name[:60]!r} has a character that is none (NUL or half a pair)", "mend the text"
        )
    return value


def _refused(line: int, observed: str, remedy: str) -> UnreadableError:
    return UnreadableError(
        Failure("file_readable", None, f"line {line}: {observed}", "a JSON object of plain values on each line",
                remedy=remedy)
    )  # fmt: skip
