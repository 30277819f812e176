"""The rows of a CSV file as columns of text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import opened, swallowed
from evergreen.warehouse.files.failure import Failure, UnreadableError, empty_file
from evergreen.warehouse.files.feed import TextRows
from evergreen.warehouse.files.landed_file import LandedFile
from evergreen.warehouse.files.records import Block, Records

_EXCEL = b"sep="


def opened_csv(dataset: DatasetSpec, file: LandedFile, read: opened.Read) -> TextRows:
    delimiter = "\t" if file.format == "tsv" else dataset.source.delimiter
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n\\':
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: source.delimiter {delimiter!r} cannot be used; "
            "write one ASCII character that is no quote, backslash or line end, such as ;",
            ErrorReason.BAD_SPEC,
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
        raise UnreadableError(empty_file("no characters"))
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
    return TextRows(
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
    dataset: DatasetSpec, feed: TextRows, records: Records, positions: tuple[int, ...]
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


def _block(
    block: Block, names: list[str], wanted: list[str], feed: TextRows, records: Records
) -> pa.RecordBatch:
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


def _fields(
    block: Block, wrong: list[Any], feed: TextRows, records: Records, error: pa.ArrowInvalid
) -> Failure:
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
