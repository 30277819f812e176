"""Parquet as columns of text, by the type that the file gives each column.

What is one value in a file is one text here, however the file stores it: a whole number has no point and no exponent,
whether it was an integer, a float (as pandas makes them of integers with a gap) or a decimal; a moment with a zone is
in UTC, with a Z; a time of day without one is left without, and read in the source's zone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evergreen.errors import in_one_line
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import opened as files
from evergreen.warehouse.files.canonical import Kind, kind_of
from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.landed_file import LandedFile, printable
from evergreen.warehouse.files.records import RECORD_BYTES

BLOCK_ROWS = 16_384
BLOCK_BYTES = 32 << 20

Blocks = Callable[[tuple[int, ...]], Iterator[tuple[pa.RecordBatch, int]]]


@contextmanager
def opened(dataset: DatasetSpec, file: LandedFile) -> Iterator[tuple[tuple[str, ...], Blocks]]:
    """Open a Parquet file, or a folder of them.

    Yields:
        The columns, and a function that gives those at some positions: batches of text, each with how many records the
        file's own footer counts up to the end of it beyond those told before.

    Raises:
        UnreadableError: it is damaged, or its parts have other columns.
    """
    paths = file.parts or (file.path,)
    with _reader(paths[0]) as first:
        columns = tuple(first.schema_arrow.names)

    def blocks(positions: tuple[int, ...]) -> Iterator[tuple[pa.RecordBatch, int]]:
        for path in paths:
            with _reader(path) as reader:
                yield from _rows(reader, columns, positions, path if file.parts else None)

    yield columns, blocks


def kinds(file: LandedFile) -> tuple[Kind, ...]:
    """How the file has each of its columns, in the order of its first part; a part without a value says nothing.

    Raises:
        UnreadableError: it is damaged.
    """
    found: list[pa.Schema] = []
    for path in file.parts or (file.path,):
        with _reader(path) as reader:
            found.append(reader.schema_arrow)
    if len(found) == 1:
        return tuple(kind_of(_kinds(field.type)) for field in found[0])
    # Names that are there twice stand in one order in every part, which is looked at later.
    return tuple(
        kind_of(
            kind for schema in found for at in schema.get_all_field_indices(name) for kind in _kinds(schema.field(at).type)
        )
        for name in found[0].names
    )  # fmt: skip


def _kinds(kind: pa.DataType) -> tuple[Kind, ...]:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return () if pa.types.is_null(kind) else (_kind(kind),)


def _kind(kind: pa.DataType) -> Kind:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    if pa.types.is_boolean(kind):
        return "truth"
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return "number" if number else "text"


@contextmanager
def _reader(path: Any) -> Iterator[pq.ParquetFile]:
    with files.binary(path) as content:
        try:
            # INT96 in nanoseconds would wrap around for years before 1678 and after 2261.
            reader = pq.ParquetFile(content, pre_buffer=False, coerce_int96_timestamp_unit="us")
        except (pa.ArrowException, OSError) as error:
            raise UnreadableError(_damaged(error)) from error
        with reader:
            yield reader


def _rows(
    reader: pq.ParquetFile, columns: tuple[str, ...], positions: tuple[int, ...], part: Any
) -> Iterator[tuple[pa.RecordBatch, int]]:
    names = reader.schema_arrow.names
    twice = len(set(names)) < len(names)
    if sorted(names) != sorted(columns) or (twice and names != list(columns)):
        raise UnreadableError(
            Failure(
                "file_readable", None, f"{printable(part)} has other columns than the first part"[-200:],
                ", ".join(columns)[:300], remedy="write all parts with the same columns",
            )
        )  # fmt: skip
    places = positions if twice else tuple(names.index(columns[p]) for p in positions)
    read = range(len(names)) if twice else sorted(set(places))  # a name that is there twice brings both
    instants, size = _instants(reader), _row_bytes(reader)
    if size > RECORD_BYTES:
        raise UnreadableError(_too_long(f"{size >> 20} MiB a row"))
    try:
        for batch in reader.iter_batches(
            batch_size=max(min(BLOCK_ROWS, BLOCK_BYTES // max(size, 1)), 1),
            columns=None if twice else [names[p] for p in read],
        ):
            there = dict(zip(read, batch.columns, strict=True))
            texts = {p: _text(there[p], names[p], instant=p in instants) for p in set(places)}
            found = pa.RecordBatch.from_arrays([texts[p] for p in places], names=[names[p] for p in places])
            yield found, batch.num_rows
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableError(_damaged(error)) from error
    except pa.ArrowException as error:
        raise UnreadableError(_damaged(error)) from error


def _row_bytes(reader: pq.ParquetFile) -> int:
    groups = map(reader.metadata.row_group, range(reader.metadata.num_row_groups))
    return max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)


def _instants(reader: pq.ParquetFile) -> set[int]:
    """The columns in INT96: Spark and Hive write moments in UTC so, only Impala what a clock on the wall shows."""
    if reader.metadata.created_by.lower().startswith("impala"):
        return set()
    leaves = [reader.schema.column(i) for i in range(len(reader.schema.names))]
    names = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}
    return {i for i, name in enumerate(reader.schema_arrow.names) if name in names}


def _text(values: pa.Array, name: str, *, instant: bool) -> pa.Array:
    """A column as text; empty becomes null.

    Raises:
        UnreadableError: it is of a kind that has no plain values.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if isinstance(kind, pa.UuidType):
        return pa.array(
            [None if v is None else str(uuid.UUID(bytes=v)) for v in values.storage.to_pylist()], pa.string()
        )
    if pa.types.is_timestamp(kind):
        return _moments(values, instant or kind.tz is not None)
    if pa.types.is_float16(kind):
        values, kind = values.cast(pa.float32()), pa.float32()
    if pa.types.is_floating(kind):
        return _floats(values)
    if pa.types.is_decimal(kind):
        scaled = values.cast(pa.decimal256(76, max(kind.scale, 0)))
        return pc.replace_substring_regex(scaled.cast(pa.string()), r"\.0*$", "")
    plain = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if plain:
        text = values.cast(pa.string())
        longest = pc.max(pc.binary_length(text)).as_py() or 0
        if longest > RECORD_BYTES:
            raise UnreadableError(_too_long(f"{name}: a value of {longest >> 20} MiB"))
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if any(
        test(kind)
        for test in (
            pa.types.is_integer,
            pa.types.is_boolean,
            pa.types.is_date,
            pa.types.is_time,
            pa.types.is_null,
        )
    ):
        return values.cast(pa.string())
    raise UnreadableError(
        Failure(
            "file_readable", name[:200], f"a column of {kind}"[:200], "a whole Parquet file of plain columns",
            remedy="lists, structs and binary columns are not taken; write the column as text or numbers",
        )
    )  # fmt: skip


def _floats(values: pa.Array) -> pa.Array:
    whole = pc.and_(pc.equal(pc.round(values), values), pc.less(pc.abs(values), pa.scalar(9e18, values.type)))
    if not pc.any(whole).as_py():
        return values.cast(pa.string())
    integers = pc.if_else(whole, values, pa.scalar(0.0, values.type)).cast(pa.int64())
    return pc.if_else(whole, integers.cast(pa.string()), values.cast(pa.string()))


def _moments(values: pa.Array, instant: bool) -> pa.Array:
    unit = values.type.unit
    if unit == "ns":
        numbers = values.cast(pa.int64())
        fine = pc.not_equal(pc.multiply(pc.divide(numbers, 1000), 1000), numbers)
        unit = "ns" if pc.any(fine).as_py() else "us"
    return values.cast(pa.timestamp(unit, "UTC" if instant else None)).cast(pa.string())


def _too_long(observed: str) -> Failure:
    return Failure(
        "file_readable",
        None,
        observed,
        f"values of at most {RECORD_BYTES >> 20} MiB",
        remedy="shorten the value",
    )


def _damaged(error: Exception) -> Failure:
    return Failure(
        "file_readable", None, in_one_line(error, 200), "a whole Parquet file of plain columns",
        remedy="deliver the file again, whole; lists, structs and binary columns are not taken",
    )  # fmt: skip
