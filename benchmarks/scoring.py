"""Scoring a table against the least that it could be: XGBoost's own prediction and a bare COPY of the result.

The baseline begins with the rows in memory, encoded; ours reads them out of PostgreSQL, looks for keys that come twice
and for rows that are scored already, encodes, predicts and writes a transaction per chunk.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from adbc_driver_postgresql import dbapi
from psycopg2 import sql

from benchmarks import data, room
from benchmarks.table import Row
from evergreen import registry
from evergreen.scoring.score import score
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import arrow, feature_query, views

AS_OF = data.END + timedelta(days=1)
TRIES = 2
MOST_FOR_BASELINE = 1_000_000  # rows of the baseline at a time: what it takes grows with its rows, memory too
EQUAL = "evergreen.prediction_baseline"
BARE = "evergreen.prediction_bare"


def measure(rows: int) -> list[Row]:
    """Score `rows` rows in the warehouse of EVERGREEN_WAREHOUSE_URL, which has to be empty and migrated."""
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-specs-") as folder:
        specs, model = room.specs_in(Path(folder))
        room.champion(specs, model)
        room.land(specs, rows, seed=7, start=data.START, days=data.DAYS, first_id=0)
        room.tidy(f"data.{data.DATASET}")
        ours, equal, bare = [], [], []
        for _ in range(TRIES):
            equal.append(_baseline(specs, model, min(rows, MOST_FOR_BASELINE), EQUAL))
            bare.append(_baseline(specs, model, min(rows, MOST_FOR_BASELINE), BARE))
            ours.append(_ours(rows, Path(folder)))
        fewer = _ours(_fewer(rows), Path(folder))
    rate, against, unindexed = rows / min(o["s"] for o in ours), max(equal), max(bare)
    peak = max(o["peak_mb"] for o in ours)
    return [
        Row(
            f"scoring {rows:,} rows", f"{rate:,.0f} rows/s", f"{against:,.0f} rows/s (inplace_predict + COPY)",
            rate / against, "≥ 0.7", rate >= 0.7 * against,
            f"best of {TRIES}, interleaved; both by binary COPY, the baseline's into an equal table with the same indexes",
        ),
        Row(
            "the same, against a COPY into a table without any index", f"{rate:,.0f} rows/s", f"{unindexed:,.0f} rows/s",
            rate / unindexed, "", True, "no key: scoring twice would write twice, and nothing finds a prediction",
        ),
        Row(
            f"memory of scoring {rows:,} rows against {_fewer(rows):,}", f"{peak} MB", f"{fewer['peak_mb']} MB",
            peak / fewer["peak_mb"], "≤ 1.1", peak <= 1.1 * fewer["peak_mb"], "peak of the process, imports included",
        ),
    ]  # fmt: skip


def _fewer(rows: int) -> int:
    """Enough for several chunks: one chunk alone would need less than any two."""
    return 3 * rows // 10


def _ours(rows: int, folder: Path) -> dict[str, Any]:
    """Score in a fresh process; seconds without its imports, and its peak memory."""
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("TRUNCATE evergreen.prediction")
    return room.aside("benchmarks.scoring.one", rows, folder)


def one(count: str, folder: str) -> None:
    """Score the oldest rows and print how it was, as JSON."""
    rows = int(count)
    specs, model = room.specs_in(Path(folder))
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(f"SELECT max(ts) FROM data.{data.DATASET} WHERE id < %s", (rows,))
        ((newest,),) = cursor.fetchall()
    began = time.perf_counter()
    result = score(
        specs, model, AS_OF, "bench/score", start=data.START, end=newest + timedelta(microseconds=1)
    )
    took = time.perf_counter() - began
    if result.rows != rows:
        raise RuntimeError(f"{result.rows} of {rows} rows were scored")
    print(json.dumps({"s": took, "peak_mb": room.peak_mb()}))


def _binary_copy(table: str, rows: pa.Table) -> None:
    schema, _, name = table.partition(".")
    with dbapi.connect(os.environ["EVERGREEN_WAREHOUSE_URL"]) as conn, conn.cursor() as cursor:
        cursor.adbc_ingest(name, rows, mode="append", db_schema_name=schema)
        conn.commit()


def _baseline(specs: Specs, model: ModelSpec, rows: int, table: str) -> float:
    """Rows a second of one inplace_predict and one COPY of its result."""
    with connect() as conn:
        found = registry.champion(conn, model.name)
    if found is None:
        raise RuntimeError("no champion")
    loaded = registry.load(model, found.version)
    query = feature_query.feature_query(model, data.START, AS_OF, ordered=False)
    schema = arrow.feature_schema(model)
    with views.reading(specs, model, AS_OF) as reader:
        limited = sql.SQL("SELECT * FROM ({}) AS f LIMIT {}").format(query, sql.Literal(rows))
        given = [
            (loaded.encode(pa.table(b)).matrix, b.select(["_key", "_time"]))
            for b in reader.stream(limited, schema)
        ]
    matrix = np.concatenate([m for m, _ in given])
    keys = pa.Table.from_batches([b for _, b in given])
    loaded.booster.set_param({"nthread": len(os.sched_getaffinity(0))})
    like = "INCLUDING ALL" if table == EQUAL else "INCLUDING DEFAULTS"
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {table}")
        cursor.execute(f"CREATE TABLE {table} (LIKE evergreen.prediction {like})")
        conn.commit()
        began = time.perf_counter()
        predicted = loaded.booster.inplace_predict(matrix)
        constant = {"model": model.name, "version": found.version, "as_of": AS_OF, "run_id": "bench/score"}
        result = {
            "key": keys["_key"],
            "event_time": keys["_time"],
            "prediction": predicted.astype(np.float64),
        }
        result |= {name: pa.repeat(pa.scalar(value), len(predicted)) for name, value in constant.items()}
        _binary_copy(table, pa.table(result))
        took = time.perf_counter() - began
        cursor.execute(f"DROP TABLE {table}")
    return len(predicted) / took
