"""Feature rows as a training finds them: in a snapshot's file."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evergreen.training.data.matrix import Matrix
from evergreen.training.data.rows import Rows, opened


def number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def complete(table: pa.Table) -> pa.Table:
    """The table with `_hash` and `_entity` as the warehouse makes them; the last part of a key is its event time."""
    keys = table["_key"].to_pylist()
    if "_hash" not in table.column_names:
        table = table.append_column("_hash", pa.array([number(k) for k in keys], pa.int64()))
    if "_entity" not in table.column_names:
        others = [json.loads(k)[:-1] for k in keys]
        entities = [number(json.dumps(o)) if o else 0 for o in others]
        table = table.append_column("_entity", pa.array(entities, pa.int64()))
    return table


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """A training here asks for no more."""


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Rows]:
    """Write feature rows to a file, in small row groups, and open it."""
    counter = itertools.count()

    def store(table: pa.Table, row_group_size: int = 500) -> Rows:
        path = tmp_path / f"rows-{next(counter)}.parquet"
        pq.write_table(complete(table), path, row_group_size=row_group_size)
        return opened(path)

    return store


@pytest.fixture
def in_file(tmp_path: Path) -> Callable[[np.ndarray], Matrix]:
    """Write encoded rows to a file."""
    counter = itertools.count()

    def write(values: np.ndarray) -> Matrix:
        path = tmp_path / f"matrix-{next(counter)}.f32"
        values.astype(np.float32).tofile(path)
        return Matrix(path, 0, *values.shape, dense=not np.isnan(values).any())

    return write
