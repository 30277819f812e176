"""The rows of the time that a champion learnt from, in memory or read column by column."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Frame(Protocol):
    """Rows of the time that a champion learnt from, by event time; columns are read one at a time.

    `times` are microseconds since 1970 (UTC), `hashes` numbers that follow from the key alone.
    """

    @property
    def names(self) -> list[str]:
        """The columns."""

    @property
    def times(self) -> npt.NDArray[np.int64]:
        """Event times."""

    @property
    def hashes(self) -> npt.NDArray[np.int64]:
        """What the rows are sampled by."""

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""

    def take(self, positions: npt.NDArray[np.intp], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at ascending positions."""


@dataclass(frozen=True)
class InMemory:
    """A table as a `Frame`."""

    table: pa.Table
    times: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, table: pa.Table) -> InMemory:
        """Order a table by event time and key; keys are hashed here if it has no `_hash`."""
        table = table.sort_by([("_time", "ascending"), ("_key", "ascending")])
        times = table["_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
        if "_hash" in table.column_names:
            return cls(table, times, table["_hash"].to_numpy())
        digests = (hashlib.blake2b(k.encode(), digest_size=8).digest() for k in table["_key"].to_pylist())
        return cls(table, times, np.frombuffer(b"".join(digests), dtype="<i8"))

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self.table.column_names)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        return self.table[name]

    def take(self, positions: npt.NDArray[np.intp], columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows at ascending positions."""
        return self.table.select(columns).take(pa.array(positions))
