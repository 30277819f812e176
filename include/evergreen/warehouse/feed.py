"""The records of a landed file as columns of text, a block at a time, whatever its format.

This is the one way into a file: the quick load and the thorough one both read from here, so what it refuses nobody
reads, and what it counted has to come out at the other end.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from evergreen.errors import Reason, TerminalError
from evergreen.spec import DatasetSpec
from evergreen.warehouse import json_lines, opened, parquet, swallowed
from evergreen.warehouse.canonical import Kind
from evergreen.warehouse.failure import Failure, UnreadableError
from evergreen.warehouse.landing import LandedFile
from evergreen.warehouse.records import Block, Records

_EXCEL = b"sep="


@dataclass
class Feed:
    """The rows of a file.

    Args:
        columns: the names in the file's own header, in its order; a name can be there twice, or be empty.
        records: how many records the file has by a count of its own, which no reader of values has a part in; all of
            them once `batches` has come to its end.
        ended: False where the last line has no line end, once `batches` has come to its end.
        delimiter: of a CSV file; None of another one.
        named: whether the file names its columns; else `columns` are made up.
        kinds: how the file has each column; None: as text.
        absent: the dataset's columns that the file has not, once that is known.
        ignored: the file's columns that are left out, once that is known.
        line_of: the line on which a row of the last batch begins, by its number in it, from 1; None where rows have none.
    """

    columns: tuple[str, ...]
    read: Callable[[Feed, tuple[int, ...]], Iterator[pa.RecordBatch]]
    records: int = 0
    ended: bool = True
    delimiter: str | None = None
    line_of: Callable[[int], int] | None = None
    named: bool = True
    kinds: tuple[Kind, ...] | None = None
    absent: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def batches(self, positions: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in their order, as columns of pa.string(); a missing value and an empty one are both null.

        Args:
            positions: which columns, by their place in `columns`; default: all.

        Raises:
            UnreadableError: something is wrong with the file, with its line where it has lines.
            OSError: it cannot be read any more.
        """
        return self.read(self, tuple(range(len(self.columns)) if positions is None else positions))


@contextmanager
def feed(dataset: DatasetSpec, file: LandedFile) -> Iterator[Feed]:
    """Open a file.

    Raises:
        UnreadableError: it is empty, damaged, in another encoding, or has no usable header.
        TerminalError: the spec's encoding or delimiter cannot be used.
        OSError: it cannot be read.
    """
    if file.version.size == 0:
        raise UnreadableError(_empty("0 bytes"))
    if file.format == "parquet":
        with parquet.opened(dataset, file) as (columns, blocks):
            yield Feed(
                columns, lambda feed, positions: _counted(feed, blocks(positions)), kinds=parquet.kinds(file)
            )
    elif file.format == "jsonl":
        named = json_lines.columns(dataset, file)
        yield Feed(
            tuple(named),
            lambda feed, positions: json_lines.rows(dataset, file, feed, positions),
            kinds=tuple(named.values()),
        )
    else:
        with opened.text(dataset, file.path) as read:
            yield _csv(dataset, file, read)


def _counted(feed: Feed, blocks: Iterator[tuple[pa.RecordBatch, int]]) -> Iterator[pa.RecordBatch]:
    for batch, records in blocks:
        feed.records += records
        yield batch


def _csv(dataset: DatasetSpec, file: LandedFile, read: opened.Read) -> Feed:
    delimiter = "\t" if file.format == "tsv" else dataset.source.delimiter
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n\\':
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: source.delimiter {delimiter!r} cannot be used; "
            "write one ASCII character that is no quote, backslash or line end, such as ;",
            Reason.BAD_SPEC,
        )
    records = Records(read, delimiter, dataset.source.escape)
    try:
        named = dataset.source.header
        header, line = records.header(take=named)
        said = header.strip(b'"')
        if said[:4].lower() == _EXCEL:
            # Excel's own line: the delimiter of what follows. Saved again it has a value for each column.
            told = said[4:].decode()[:1] or delimiter
            if told != delimiter:
                raise UnreadableError(
                    Failure(
                        "file_readable", None, f"line {line}: Excel's sep= names the delimiter {told!r}", repr(delimiter),
                        remedy=f"set source.delimiter to {told!r}, or take the line out",
                    )
                )  # fmt: skip
            if not named:
                records.header()
            header, line = records.header(take=named)
    except UnreadableError as error:
        failure = error.failure
        # What is wrong with the packing or the encoding may be anywhere in the first block.
        if not failure.observed.startswith("line "):
            raise
        raise UnreadableError(
            Failure(
                failure.expectation, None, f"header: {failure.observed}", failure.limit, remedy=failure.remedy
            )
        ) from error
    if not header and not records.lines:
        raise UnreadableError(_empty("no characters"))
    if not (header.strip(b' \t"' + delimiter.encode()) if named else header):
        raise UnreadableError(
            Failure(
                "file_readable", None, f"header: line {line} is blank", "the names of the columns in the first line",
                remedy="take the blank line out and deliver the file again",
            )
        )  # fmt: skip
    names = _names(header, delimiter, line)
    if not named:
        names = tuple(f"column {number}" for number, _ in enumerate(names, 1))
    return Feed(
        names,
        lambda feed, positions: _parsed(dataset, feed, records, positions),
        delimiter=delimiter,
        named=named,
    )


def _names(header: bytes, delimiter: str, line: int) -> tuple[str, ...]:
    try:
        return tuple(next(csv.reader([header.decode()], delimiter=delimiter, strict=True)))
    except csv.Error as error:
        raise UnreadableError(
            Failure(
                "file_readable", None, f"header: line {line}: {error}", "one line of column names",
                remedy="mend the header and deliver the file again",
            )
        ) from error  # fmt: skip


def _parsed(
    dataset: DatasetSpec, feed: Feed, records: Records, positions: tuple[int, ...]
) -> Iterator[pa.RecordBatch]:
    width = len(feed.columns)
    names = [str(n) for n in range(width)]
    wanted = [names[p] for p in positions]
    for block in records.blocks(empty_lines=width == 1):
        batch = _block(block, names, wanted, feed, records)
        if batch.num_rows != block.records:
            raise UnreadableError(
                Failure(
                    "file_readable", None, f"from line {block.first_line} on: {batch.num_rows} rows of {block.records} records",
                    "a row of each record", remedy="deliver the file again; it is read in two ways",
                )
            )  # fmt: skip
        swallowed.refuse(dataset, feed.columns, records.delimiter, block, records.line_end)
        feed.records, feed.ended = records.records, records.ended
        feed.line_of = partial(records.line_of, block)
        yield batch


def _block(block: Block, names: list[str], wanted: list[str], feed: Feed, records: Records) -> pa.RecordBatch:
    wrong: list[Any] = []

    def note(row: Any) -> str:
        wrong.append(row)
        return "error"

    try:
        table = pacsv.read_csv(
            pa.BufferReader(block.data),
            read_options=pacsv.ReadOptions(
                column_names=names, block_size=len(block.data) + 1, use_threads=False
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=feed.delimiter, newlines_in_values=True, ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()), include_columns=list(dict.fromkeys(wanted)),
                null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True,
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        raise UnreadableError(_fields(block, wrong, feed, records, error)) from error
    whole = table.combine_chunks()
    columns = [whole[w].combine_chunks() if whole.num_rows else pa.array([], pa.string()) for w in wanted]
    return pa.RecordBatch.from_arrays(columns, names=[feed.columns[int(w)] for w in wanted])


def _fields(block: Block, wrong: list[Any], feed: Feed, records: Records, error: pa.ArrowInvalid) -> Failure:
    if not wrong:
        # Arrow's text would quote the record.
        return Failure(
            "file_readable", None, f"from line {block.first_line} on: {type(error).__name__}", "records of CSV",
            remedy="deliver the file again, whole",
        )  # fmt: skip
    row = wrong[0]
    line, found = records.line_of(block, row.number), row.actual_columns
    few = found < len(feed.columns)
    told = (
        f'missing data for column "{feed.columns[found]}"' if few else "extra data after last expected column"
    )
    remedy = "mend the line; quote a value that holds the delimiter"
    if not few and row.text.rstrip("\r\n").endswith(feed.delimiter or ""):
        told += ", the line ends with a delimiter"
        remedy = "take the delimiter at the end of the lines out, or name the column in the header"
    if few and not records.ended and row.number == block.records:
        told, remedy = (
            f"{told}; it is the last and has no line end",
            "the file is cut off; deliver it again, whole",
        )
    return Failure(
        "file_readable", None, f"line {line}: {told} ({found} values)"[:200],
        f"{len(feed.columns)} values on a line, quotes in pairs", remedy=remedy,
    )  # fmt: skip


def _empty(observed: str) -> Failure:
    return Failure(
        "file_not_empty", None, observed, "a header and at least one row",
        remedy="deliver the file again, whole",
    )  # fmt: skip
