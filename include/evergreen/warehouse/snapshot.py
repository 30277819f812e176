"""The training snapshot: the mature rows as of a time, as one Parquet file with a fingerprint.

The same as-of time gives the same rows and the same fingerprint however often it is taken, because the
datasets keep the versions that later corrections replaced.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from evergreen.errors import Reason, TerminalError
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse import arrow, features
from evergreen.warehouse.connection import Connection


@dataclass(frozen=True)
class Snapshot:
    """Where a snapshot lies and what it holds; small enough for XCom."""

    path: str
    fingerprint: str
    rows: int
    start: str
    end: str


def take(conn: Connection, specs: Specs, model: ModelSpec, as_of: datetime, folder: Path) -> Snapshot:
    """Write the snapshot of a model as of a time and return its reference.

    Rows have event time in [as_of - training.window, as_of), features and label arrived by as_of, and a
    label that was mature by then (event time + label.delay <= as_of). The file appears whole or not at all.

    Args:
        conn: a warehouse connection.
        specs: all specs (the model's datasets are among them).
        model: whose rows are taken.
        as_of: the cut-off, aware.
        folder: the snapshots' folder; the file goes to `folder/MODEL/`.

    Raises:
        TerminalError: no row qualifies.
    """
    window = model.training.window
    start = None if window == "all" else as_of - window
    features.open_views(conn, specs.datasets_of(model), as_of)
    query = features.feature_query(model, start, as_of, mature_at=as_of)
    schema = arrow.feature_schema(model)
    target = folder / model.name
    target.mkdir(parents=True, exist_ok=True)
    part = target / f".{os.getpid()}.part"
    digest = hashlib.sha256(str(schema).encode())
    rows, first, last = 0, None, None
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for batch in arrow.stream(conn, query, schema, digest):
                writer.write_batch(batch)
                rows += batch.num_rows
                first = first or batch.column("_time")[0].as_py()
                last = batch.column("_time")[-1].as_py()
        if not rows or first is None or last is None:
            since = "the beginning" if start is None else start.isoformat()
            raise TerminalError(
                f"{model.name}: no row with a mature label between {since} and {as_of.isoformat()} "
                f"(label delay {model.label.delay}); land data for that time, or choose another as-of",
                Reason.NO_ROWS,
            )
        fingerprint = digest.hexdigest()
        path = target / f"{as_of:%Y%m%dT%H%M%SZ}-{fingerprint[:16]}.parquet"
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Snapshot(
        str(path), fingerprint, rows, first.isoformat(), (last + timedelta(microseconds=1)).isoformat()
    )
