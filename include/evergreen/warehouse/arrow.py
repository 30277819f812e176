"""Query results as Arrow, in batches whose size is a setting: COPY out of PostgreSQL, Arrow's own CSV reader."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv
from psycopg2 import sql

from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection

BLOCK_BYTES = 8 << 20
SPOOL_BYTES = 64 << 20


def feature_schema(model: ModelSpec) -> pa.Schema:
    """The Arrow schema of `features.feature_query`: times are microseconds in UTC."""
    return pa.schema(
        [("_key", pa.string()), ("_time", pa.timestamp("us", "UTC"))]
        + [(n, pa.float64()) for n in model.features.numeric]
        + [(n, pa.string()) for n in model.features.categorical]
        + [("_label", pa.float64())]
    )


@dataclass
class _Hashing:
    """A file that hashes what is written to it."""

    file: IO[bytes]
    digest: Any

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


def stream(
    conn: Connection, query: sql.Composable, schema: pa.Schema, digest: Any = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query as record batches of about 8 MB of text each.

    Args:
        conn: an open connection.
        query: a SELECT; may hold no parameters.
        schema: names and types of its columns, in order.
        digest: a hashlib object that is fed the rows as PostgreSQL writes them (CSV), for a fingerprint.
    """
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
        with conn.cursor() as cursor:
            text = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(query).as_string(conn)
            cursor.copy_expert(text, _Hashing(file, digest or hashlib.sha256()))
        if file.tell() == 0:
            return
        file.seek(0)
        yield from pacsv.open_csv(
            file,
            read_options=pacsv.ReadOptions(column_names=schema.names, block_size=BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=schema,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
                timestamp_parsers=["%Y-%m-%d %H:%M:%S%z", pacsv.ISO8601],
            ),
        )


def table(conn: Connection, query: sql.Composable, schema: pa.Schema) -> pa.Table:
    """The whole result of a query that is known to be small enough."""
    return pa.Table.from_batches(list(stream(conn, query, schema)), schema=schema)
