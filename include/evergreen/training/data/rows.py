"""A snapshot's rows as a training reads them: a few vectors in memory, everything else from the file in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from evergreen.errors import ErrorReason, TerminalError

BATCH_ROWS = 65_536
VECTORS = ("_time", "_label", "_hash", "_entity")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a snapshot, oldest first.

    Attributes:
        path: the snapshot's file (Parquet).
        begin: where in the file the first of them is.
        times: event times, microseconds since 1970 (UTC).
        labels: as numbers.
        hashes: what follows from the key alone; the smallest ones are the sample.
        entities: equal for rows whose key differs in the event time only, see `warehouse.features`.
    """

    path: Path
    begin: int
    times: Ints
    labels: Floats
    hashes: Ints
    entities: Ints

    def __len__(self) -> int:
        return len(self.times)

    @property
    def names(self) -> list[str]:
        """The columns of the file."""
        return [str(name) for name in pq.read_schema(self.path).names]

    def part(self, begin: int, end: int | None = None) -> Rows:
        """The rows from one position to another, counted in these; nothing is copied."""
        cut = slice(begin, end)
        return replace(
            self,
            begin=self.begin + begin,
            times=self.times[cut],
            labels=self.labels[cut],
            hashes=self.hashes[cut],
            entities=self.entities[cut],
        )

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, some columns of them, at most `BATCH_ROWS` at a time."""
        begin, end = self.begin, self.begin + len(self)
        with pq.ParquetFile(self.path) as file:
            edge = 0
            for group in range(file.num_row_groups):
                at, edge = edge, edge + file.metadata.row_group(group).num_rows
                if edge <= begin or at >= end:
                    continue
                # A reader of several groups keeps what it has read of all of them.
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns)):
                    first, last = max(begin - at, 0), min(end - at, batch.num_rows)
                    at += batch.num_rows
                    if first < last:
                        yield batch.slice(first, last - first)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, whole."""
        schema = pq.read_schema(self.path)
        return pa.chunked_array([b.column(0) for b in self.batches([name])], schema.field(name).type)

    def take(self, positions: npt.NDArray[np.intp], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at ascending positions."""
        found, at = [], 0
        for batch in self.batches(columns):
            first, last = np.searchsorted(positions, (at, at + batch.num_rows))
            if first < last:
                found.append(batch.take(pa.array(positions[first:last] - at)))
            at += batch.num_rows
        schema = pq.read_schema(self.path)
        return pa.Table.from_batches(found, pa.schema([schema.field(n) for n in columns])).select(columns)


def opened(path: Path) -> Rows:
    """All rows of a snapshot's file.

    Raises:
        TerminalError: it lacks a column that every snapshot has (NO_ROWS).
    """
    schema, count = pq.read_schema(path), pq.read_metadata(path).num_rows
    absent = [name for name in VECTORS if name not in schema.names]
    if absent:
        raise TerminalError(
            f"the snapshot {path} lacks {', '.join(absent)}: an earlier version of Evergreen took it; run the training "
            "from its first task again",
            ErrorReason.NO_ROWS,
        )
    vectors: dict[str, np.ndarray] = {
        name: np.empty(count, np.float64 if name == "_label" else np.int64) for name in VECTORS
    }
    rows = Rows(path, 0, vectors["_time"], vectors["_label"], vectors["_hash"], vectors["_entity"])
    at = 0
    for batch in rows.batches(VECTORS):
        for name, vector in vectors.items():
            column = batch.column(name)
            plain = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()) if name == "_time" else column
            vector[at : at + len(plain)] = plain.to_numpy(zero_copy_only=False)
        at += batch.num_rows
    return rows
