"""Chunks of predictions on their way into the warehouse: each by COPY, in a transaction of its own."""

from __future__ import annotations

import io
import logging
import struct
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql

from evergreen.ledger import events
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection

log = logging.getLogger(__name__)

COLUMNS = ("model", "version", "as_of", "run_id", "event_time", "prediction", "key")
SERVED, SHADOW = "evergreen.prediction", "evergreen.shadow_prediction"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of PostgreSQL's times


@dataclass(frozen=True)
class Part:
    """What one version predicted of a chunk's rows, and the table where that goes."""

    table: str
    version: str
    rows: pa.Table
    predicted: np.ndarray


class Writer:
    """Writes one chunk in a thread of its own while the next one is made; an error in either ends both.

    At most one chunk is under way: nothing is begun before it is known that the one before is in the warehouse.
    """

    def __init__(self, conn: Connection, model: ModelSpec, as_of: datetime, run_id: str) -> None:
        """Begin; `conn` must be used by nobody else until the end."""
        self._about = (conn, model, as_of, run_id)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="evergreen-score")
        self._under_way: Future[Counter[str]] | None = None
        self._rows: Counter[str] = Counter()

    def __enter__(self) -> Writer:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the chunk under way: it is in the warehouse whole, or not at all."""
        self._pool.shutdown()

    def write(self, parts: list[Part]) -> None:
        """Hand over a chunk.

        Raises:
            Exception: what the writing of the chunk before raised; this one is not written then.
        """
        self.finish()
        self._under_way = self._pool.submit(_write_whole, *self._about, parts)

    def finish(self) -> Counter[str]:
        """Wait for the chunk under way and return how many predictions were written in all, by table.

        Raises:
            Exception: what its writing raised.
        """
        if self._under_way is not None:
            self._rows.update(self._under_way.result())
            self._under_way = None
        return self._rows


def _write_whole(
    conn: Connection, model: ModelSpec, as_of: datetime, run_id: str, parts: list[Part]
) -> Counter[str]:
    written = Counter({part.table: _write(conn, model, as_of, run_id, part) for part in parts})
    if any(written.values()):
        events.owe(conn, f"predictions/{model.name}", as_of, run_id)
    conn.commit()
    return written


def _write(conn: Connection, model: ModelSpec, as_of: datetime, run_id: str, part: Part) -> int:
    """Write a chunk's predictions into a table in the open transaction and return how many are new.

    Straight into the table, which is right unless some of the keys were scored since the rows were asked for: then
    once more, around them.
    """
    version, chunk, table = part.version, part.rows, part.table
    file = _binary(chunk, part.predicted, (model.name, version, as_of, run_id))
    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_chunk")
        try:
            _copy(cursor, table, file)
            return int(chunk.num_rows)
        except psycopg2.errors.UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_chunk")
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS _scored (LIKE evergreen.prediction INCLUDING DEFAULTS)"
        )
        cursor.execute("TRUNCATE _scored")
        _copy(cursor, "_scored", file)
        cursor.execute(
            sql.SQL(
                "INSERT INTO {} SELECT * FROM _scored ON CONFLICT (model, key, version) DO NOTHING"
            ).format(sql.Identifier(*table.split(".")))
        )
        written = int(cursor.rowcount)
    log.warning(
        "%s: %s of %s rows keep the prediction that version %s made before, in another run or for another event time",
        model.name, chunk.num_rows - written, chunk.num_rows, version,
    )  # fmt: skip
    return written


def _binary(chunk: pa.Table, predicted: np.ndarray, constants: tuple[str | datetime, ...]) -> io.BytesIO:
    """A chunk as PostgreSQL's binary COPY reads it, with `COLUMNS` as its columns; `constants` are the first of them.

    Each row is a part of fixed length and then its key: two arrays, which joined are all rows.
    """
    rows = pa.table({"key": chunk["_key"], "time": chunk["_time"], "prediction": pa.array(predicted)})
    # Two runs at once meet each key in the same order and so wait for each other in one direction only.
    rows = rows.sort_by([("time", "ascending"), ("key", "ascending")]).combine_chunks()
    keys = rows["key"].combine_chunks().cast(pa.large_binary())
    same = struct.pack(">h", len(COLUMNS)) + b"".join(map(_field, constants))
    fixed = np.empty(
        len(keys),
        [
            ("same", f"V{len(same)}"), ("time_size", ">i4"), ("time", ">i8"),
            ("prediction_size", ">i4"), ("prediction", ">f8"), ("key_size", ">i4"),
        ],
    )  # fmt: skip
    fixed["same"] = np.void(same)
    fixed["time_size"] = fixed["prediction_size"] = 8
    fixed["time"] = rows["time"].cast(pa.int64()).to_numpy() - int(EPOCH.timestamp()) * 1_000_000
    fixed["prediction"] = rows["prediction"].to_numpy()
    fixed["key_size"] = pc.binary_length(keys).to_numpy()
    ends = pa.py_buffer(np.arange(len(keys) + 1, dtype=np.int64) * fixed.itemsize)
    parts = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(keys), [None, ends, pa.py_buffer(fixed)])
    joined = pc.binary_join_element_wise(parts, keys, pa.scalar(b"", pa.large_binary()))
    file = io.BytesIO()
    file.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
    file.write(joined.buffers()[2])
    file.write(struct.pack(">h", -1))
    return file


def _field(value: str | datetime) -> bytes:
    if isinstance(value, datetime):
        return struct.pack(">iq", 8, (value - EPOCH) // timedelta(microseconds=1))
    text = value.encode()
    return struct.pack(">i", len(text)) + text


def _copy(cursor: Any, table: str, file: io.BytesIO) -> None:
    file.seek(0)
    cursor.copy_expert(f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)", file, size=1 << 20)
