"""Landing a file (hash, staging, suite, upsert, published) against `\\copy` of it into an equal table with the same key."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from psycopg2 import sql

from benchmarks import data
from benchmarks.table import Row
from evergreen.spec import DatasetSpec, load_specs
from evergreen.validation.ingest import ingest
from evergreen.warehouse.connection import connect
from evergreen.warehouse.migrate import TYPES

MILLION = 1_000_000
LIMIT = 3.0
EQUAL = sql.Identifier("public", "bench_equal")
WARM_ROWS = 1_000
DROP = ("data.{0}", "data.{0}__history", "quarantine.{0}")


def measure(rows: int) -> list[Row]:
    """Land `rows` rows in the warehouse of EVERGREEN_WAREHOUSE_URL; best of two rounds, of one above a million rows.

    Each round is a dataset of its own, because a file that was decided once is not read again.
    """
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-landing-") as folder:
        place = Path(folder)
        _ours(place, "bench_warm", _file(place, "warm", WARM_ROWS), WARM_ROWS)
        warm_mb = _peak_mb()
        file = _file(place, "landed", rows)
        ours, copied = [], []
        for number in range(2 if rows <= MILLION else 1):
            copied.append(_baseline(_dataset(place, data.DATASET), file / "rows.csv"))
            ours.append(_ours(place, f"{data.DATASET}_{number}", file, rows))
        size_mb = (file / "rows.csv").stat().st_size / 1e6
    ratio = min(ours) / min(copied)
    return [
        Row(
            f"landing a file of {rows:,} rows ({size_mb:.0f} MB, 20 columns, 25 expectations)",
            f"{min(ours):.1f} s",
            f"\\copy into a table with the same key {min(copied):.1f} s",
            ratio,
            f"≤ {LIMIT:.0f} ×",
            ratio <= LIMIT,
            f"imports not counted; ours also fills an index on the event time; peak of the process {_peak_mb()} MB, of "
            f"which {warm_mb} MB with {WARM_ROWS:,} rows",
        )
    ]


def _file(place: Path, name: str, rows: int) -> Path:
    folder = place / name
    folder.mkdir()
    # In a process of its own: what making the rows takes is not counted as memory of landing them.
    writer = multiprocessing.get_context("spawn").Process(
        target=data.write_csv, args=(folder / "rows.csv", rows)
    )
    writer.start()
    writer.join()
    if writer.exitcode:
        raise RuntimeError(f"the file of {rows} rows could not be written")
    return folder


def _dataset(place: Path, name: str) -> DatasetSpec:
    data.write_specs(place / "specs" / name, models=(), dataset=name)
    return load_specs(place / "specs" / name).datasets[name]


def _baseline(dataset: DatasetSpec, file: Path) -> float:
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(TYPES[c.type])) for n, c in dataset.columns.items()
    ]
    key = sql.SQL(", ").join(map(sql.Identifier, dataset.key))
    with connect(timeout_s=3600) as conn, conn.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(EQUAL, sql.SQL(", ").join(columns), key)
        )
    _checkpoint()
    began = time.perf_counter()
    with connect(timeout_s=3600) as conn, conn.cursor() as cursor, file.open("rb") as source:
        cursor.copy_expert(sql.SQL("COPY {} FROM STDIN (FORMAT csv, HEADER)").format(EQUAL), source, 1 << 16)
        conn.commit()
        took = time.perf_counter() - began
        cursor.execute(sql.SQL("DROP TABLE {}").format(EQUAL))
    return took


def _ours(place: Path, name: str, folder: Path, rows: int) -> float:
    dataset = _dataset(place, name)
    _checkpoint()
    began = time.perf_counter()
    (outcome,) = ingest(dataset, data.END + timedelta(days=1), f"bench/{name}", folder=folder)
    took = time.perf_counter() - began
    if (outcome.state, outcome.rows_new) != ("published", rows):
        raise RuntimeError(f"{name}: {outcome.state}, {outcome.rows_new} of {rows} rows")
    with connect() as conn, conn.cursor() as cursor:
        for table in DROP:
            cursor.execute(f"DROP TABLE IF EXISTS {table.format(name)}")
    return took


def _checkpoint() -> None:
    """Write out what earlier steps left dirty, so that the next one does not pay for it."""
    with connect(timeout_s=3600) as conn:
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute("SELECT pg_has_role(current_user, 'pg_checkpoint', 'USAGE')")
            if cursor.fetchone() == (True,):
                cursor.execute("CHECKPOINT")


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
