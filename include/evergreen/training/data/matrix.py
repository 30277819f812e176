"""Encoded rows in a file: written once, read in batches as often as a fit or a prediction needs them.

XGBoost goes over its input four times. Reading float32 numbers back costs a fraction of encoding the rows again, and
the memory for them is one batch, not the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import xgboost as xgb

from evergreen.registry.encoding import Encoding, encode
from evergreen.registry.models import predict
from evergreen.training.data.rows import Rows

BATCH_BYTES = 128 << 20
"""Rows that take up to this in memory are one batch: XGBoost then sees them as one array."""


@dataclass(frozen=True)
class Matrix:
    """Consecutive encoded rows: float32, row by row, NaN is missing.

    `dense` tells that no value of the file is missing; XGBoost then needs less memory.
    """

    path: Path
    begin: int
    rows: int
    columns: int
    dense: bool

    def __len__(self) -> int:
        return self.rows

    @property
    def quantised_bytes(self) -> int:
        """What XGBoost keeps of them in a QuantileDMatrix (measured): bins by row, bins by column, row pointers."""
        return self.rows * (self.columns * (2 if self.dense else 5) + 8)

    def part(self, begin: int, end: int | None = None) -> Matrix:
        """The rows from one position to another, counted in these."""
        end = self.rows if end is None else end
        return replace(self, begin=self.begin + begin, rows=end - begin)

    def counts(self) -> list[int]:
        """How many rows each batch has: all in one if they fit, else as many as fit into half of `BATCH_BYTES`."""
        width = 4 * self.columns
        size = self.rows if self.rows * width <= BATCH_BYTES else max(1, BATCH_BYTES // 2 // width)
        return [min(size, self.rows - at) for at in range(0, self.rows, size)] if self.rows else []

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the rows in order, in batches of bounded size; each is an array of its own."""
        at = self.begin
        for count in self.counts():
            offset = 4 * self.columns * at
            read = np.fromfile(self.path, np.float32, count * self.columns, offset=offset)
            yield read.reshape(count, self.columns)
            at += count

    def predict(self, booster: xgb.Booster) -> np.ndarray:
        """A booster's predictions (float64), one a row."""
        found = np.empty(self.rows)
        at = 0
        for batch in self.batches():
            found[at : at + len(batch)] = predict(booster, batch)
            at += len(batch)
        return found


@dataclass
class Lost:
    """By feature, how many values of some rows became missing: categories not known, numbers not finite."""

    unseen: dict[str, int]
    infinite: dict[str, int]


def write(encoding: Encoding, parts: Sequence[Rows], path: Path) -> tuple[Matrix, list[Lost]]:
    """Encode the parts of a snapshot, one after the other, into a file; says what was lost in each part."""
    rows, dense, lost = 0, True, []
    with path.open("wb") as file:
        for part in parts:
            lost.append(Lost({}, {}))
            for batch in part.batches(encoding.features):
                encoded = encode(encoding, pa.Table.from_batches([batch]))
                file.write(encoded.matrix.data)  # numpy says of a full disk only that less was written
                dense = dense and not np.isnan(encoded.matrix).any()
                rows += batch.num_rows
                for counts, more in (
                    (lost[-1].unseen, encoded.unseen),
                    (lost[-1].infinite, encoded.infinite),
                ):
                    counts.update({name: counts.get(name, 0) + count for name, count in more.items()})
    return Matrix(path, 0, rows, len(encoding.features), dense), lost
