"""Warehouse to Arrow: the feature query by the reader, against pandas.read_sql and COPY BINARY thrown away.

pandas.read_sql reads through SQLAlchemy and psycopg2, as its documentation shows and the plain script does.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psycopg2
import sqlalchemy as sa
from psycopg2 import sql

from benchmarks import data
from benchmarks.table import Row
from evergreen.spec import load_specs
from evergreen.warehouse.connection import Connection, connect
from evergreen.warehouse.features import arrow, feature_query, views
from evergreen.warehouse.migrate import ensure_dataset

ROUNDS = 4
AS_OF = pd.Timestamp("2100-01-01", tz="UTC").to_pydatetime()


class _Nowhere:
    def write(self, block: bytes) -> int:
        return len(block)


def fill(conn: Connection, rows: int) -> None:
    """Put the benchmarks' rows into the dataset's table, by COPY."""
    with tempfile.TemporaryDirectory() as folder:
        data.write_specs(Path(folder))
        specs = load_specs(Path(folder))
        ensure_dataset(conn, specs.datasets[data.DATASET])
        path = Path(folder) / "rows.csv"
        data.write_csv(path, rows)
        names = sql.SQL(", ").join(map(sql.Identifier, specs.datasets[data.DATASET].columns))
        table = sql.Identifier("data", data.DATASET)
        with conn.cursor() as cursor, path.open("rb") as file:
            for name in ("_arrived_at", "_batch"):
                default = sql.SQL("now()" if name == "_arrived_at" else "1")
                cursor.execute(
                    sql.SQL("ALTER TABLE {} ALTER {} SET DEFAULT {}").format(
                        table, sql.Identifier(name), default
                    )
                )
            copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER)").format(table, names)
            cursor.copy_expert(copy.as_string(conn), file)
    conn.commit()
    # As autovacuum leaves a table that is some minutes old; else it would begin in the middle of a measurement.
    conn.autocommit = True
    with conn.cursor() as cursor:
        cursor.execute(sql.SQL("VACUUM ANALYZE {}").format(table))
        cursor.execute("CHECKPOINT")
    conn.autocommit = False


def measure(rows: int) -> list[Row]:
    """Rows a second of the three ways, one after the other in each round; the best of each."""
    with tempfile.TemporaryDirectory() as folder, connect() as conn:
        data.write_specs(Path(folder))
        specs = load_specs(Path(folder))
        model = specs.models[data.MODEL]
        fill(conn, rows)
        query = feature_query.feature_query(model, data.START, data.END)
        # The other two have no reader, so they get all of it in one text.
        text = (
            sql.SQL("{}, _features AS NOT MATERIALIZED ({}) {}")
            .format(views.as_known(specs.datasets_of(model), AS_OF), sql.SQL(model.query), query)
            .as_string(conn)
        )
        schema = arrow.feature_schema(model)
        url = os.environ["EVERGREEN_WAREHOUSE_URL"]

        def pandas() -> int:
            with sa.create_engine(url.replace("://", "+psycopg2://", 1)).connect() as plain:
                return len(pd.read_sql(text, plain))

        def binary() -> int:
            with psycopg2.connect(url) as plain, plain.cursor() as cursor:
                cursor.copy_expert(f"COPY ({text}) TO STDOUT (FORMAT binary)", _Nowhere(), 1 << 20)
                return rows

        def ours() -> int:
            with views.reading(specs, model, AS_OF) as reader:
                return int(reader.table(query, schema).num_rows)

        best = dict.fromkeys((pandas, binary, ours), float("inf"))
        for _ in range(ROUNDS):
            for way in best:
                best[way] = min(best[way], _seconds(way, rows))
    speed = {way: rows / seconds / 1000 for way, seconds in best.items()}
    faster, slower = best[pandas] / best[ours], best[ours] / best[binary]
    return [
        Row(
            f"warehouse → Arrow, {rows:,} rows of the feature query",
            f"{speed[ours]:.0f} k rows/s",
            f"pandas.read_sql {speed[pandas]:.0f} k rows/s",
            faster,
            "≥ 6 × the rows/s",
            faster >= 6,
            f"each the best of {ROUNDS}, interleaved",
        ),
        Row(
            "the same",
            f"{best[ours]:.2f} s",
            f"COPY … TO STDOUT (FORMAT binary), thrown away, {best[binary]:.2f} s",
            slower,
            "≤ 1.5 × the time",
            slower <= 1.5,
        ),
    ]


def _seconds(way: Callable[[], int], rows: int) -> float:
    started = time.monotonic()
    found = way()
    assert found == rows, f"{way.__name__} read {found} of {rows} rows"
    return time.monotonic() - started
