"""The one way into a landed file, whatever its format: its rows as columns of text, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

import pyarrow as pa

from evergreen.spec import DatasetSpec
from evergreen.warehouse.files import csv_rows, json_lines, opened, parquet
from evergreen.warehouse.files.failure import UnreadableError, empty_file
from evergreen.warehouse.files.feed import TextRows
from evergreen.warehouse.files.landed_file import LandedFile


@contextmanager
def feed(dataset: DatasetSpec, file: LandedFile) -> Iterator[TextRows]:
    """Open a file.

    Raises:
        UnreadableError: it is empty, damaged, in another encoding, or has no usable header.
        TerminalError: the spec's encoding or delimiter cannot be used.
        OSError: it cannot be read.
    """
    if file.version.size == 0:
        raise UnreadableError(empty_file("0 bytes"))
    match file.format:
        case "parquet":
            with parquet.opened(dataset, file) as (columns, blocks):
                yield TextRows(
                    columns,
                    lambda feed, positions: _counted(feed, blocks(positions)),
                    kinds=parquet.kinds(file),
                )
        case "jsonl":
            named = json_lines.columns(dataset, file)
            yield TextRows(
                tuple(named),
                lambda feed, positions: json_lines.rows(dataset, file, feed, positions),
                kinds=tuple(named.values()),
            )
        case "csv" | "tsv":
            with opened.text(dataset, file.path) as read:
                yield csv_rows.opened_csv(dataset, file, read)
        case _:
            assert_never(file.format)


def _counted(feed: TextRows, blocks: Iterator[tuple[pa.RecordBatch, int]]) -> Iterator[pa.RecordBatch]:
    for batch, records in blocks:
        feed.records += records
        yield batch
