"""The records of a landed file as columns of text, a block at a time, whatever its format.

This is the one way into a file: the quick load and the thorough one both read from here, so what it refuses nobody
reads, and what it counted has to come out at the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from evergreen.warehouse.files.canonical import Kind


@dataclass
class TextRows:
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
    read: Callable[[TextRows, tuple[int, ...]], Iterator[pa.RecordBatch]]
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
