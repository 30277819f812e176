"""Batch predictions: the champion scores the rows that it has not scored yet, into `evergreen.prediction`.

Which rows those are is asked in SQL. They leave PostgreSQL as one Arrow stream, in whatever order it gives them, are
predicted in chunks of `scoring.chunk_rows`, and each chunk comes back by COPY in a transaction of its own, while the
next one is read and predicted: a run that is killed leaves whole chunks, and the next one scores the rest. A key has at
most one prediction by a version, and one that was made stays: what was served can be told later.
"""

from __future__ import annotations

import io
import logging
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql

from evergreen import ledger, registry
from evergreen.errors import Reason, TerminalError
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse import arrow, features
from evergreen.warehouse.connection import Connection, connect

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT_S = 3 * 3600  # one query gives every row; the task that waits for it has 4 hours
COLUMNS = ("model", "version", "as_of", "run_id", "event_time", "prediction", "key")
EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)  # of PostgreSQL's times


@dataclass(frozen=True)
class ScoreResult:
    """What a scoring did.

    `rows` predictions were written in `chunks` transactions, for event times in [start, end) (ISO, UTC). `unseen`
    and `infinite` count values by feature that the model does not know and took as missing. `state` is `scored`,
    `up_to_date` (every row has its prediction) or `no_rows` (the feature query returns nothing for the range).
    """

    version: str
    rows: int
    chunks: int
    unseen: dict[str, int]
    start: str
    end: str
    infinite: dict[str, int]
    state: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def score(
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    run_id: str,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> ScoreResult:
    """Score with the champion of `as_of`, on the features as they were known then.

    Without a range: rows that no version has scored, since the first champion's as-of less the label's delay, and
    rows since this champion's as-of that it has not scored itself. With `start` or `end`: every row of that range
    that this version has not scored. A prediction that is there is never changed.

    Args:
        specs: all specs.
        model: whose champion scores.
        as_of: the cut-off, aware.
        run_id: the DAG run.
        start: first event time, included.
        end: last event time, excluded; default as_of.

    Raises:
        TerminalError: no champion (NO_CHAMPION), a prediction that is not finite (BAD_METRIC), a key that the
            feature query returns twice in the range (nothing is written then) or a start that is not before the end
            (BAD_QUERY), a champion that is not in MLflow as registered or needs features that are gone
            (REGISTRY_MISMATCH).
        TransientError: warehouse or MLflow do not answer.
    """
    with ExitStack() as stack:
        conn = stack.enter_context(connect(timeout_s=STATEMENT_TIMEOUT_S))
        champion = registry.champion(conn, model.name, as_of=as_of)
        if champion is None:
            raise TerminalError(
                f"{model.name} has no champion as of {as_of.isoformat()}, so nothing can be scored; run its training first, "
                "or choose a later as-of",
                Reason.NO_CHAMPION,
            )
        chosen = start is not None or end is not None
        # Rows whose label was not mature then were not learnt, so they are the champion's to predict.
        first = start or ledger.champions(conn, model.name, as_of)[-1].as_of - model.label.delay
        last = end or as_of
        if start is not None and first >= last:
            raise TerminalError(
                f"{model.name}: start {first.isoformat()} is not before end {last.isoformat()}; correct the range",
                Reason.BAD_QUERY,
            )
        loaded = registry.load(model, champion.version)
        query = features.feature_query(specs, model, as_of, first, last, ordered=False)
        schema = pa.schema([f for f in arrow.feature_schema(model) if f.name not in ("_hash", "_label")])
        todo = _unscored(model, query, schema, champion, (first, last), by_any=not chosen)
        conn.commit()
        reader = stack.enter_context(arrow.reading(specs.datasets_of(model), timeout_s=STATEMENT_TIMEOUT_S))
        _require_unique(reader, model, query)
        waiting = rechunk(reader.stream(todo, schema), schema, model.scoring.chunk_rows)
        writer = stack.enter_context(_Writer(conn, model, champion.version, as_of, run_id))
        chunks = 0
        unseen: Counter[str] = Counter()
        infinite: Counter[str] = Counter()
        for chunk in waiting:
            encoded = loaded.encode(chunk)
            predicted = loaded.predict_encoded(encoded)
            if bad := int((~np.isfinite(predicted)).sum()):
                raise TerminalError(
                    f"{model.name} version {champion.version}: {bad} of {len(predicted)} predictions are not finite; this "
                    "chunk was not written. Roll back to the previous champion",
                    Reason.BAD_METRIC,
                )
            writer.write(chunk, predicted)
            chunks += 1
            unseen.update(encoded.unseen)
            infinite.update(encoded.infinite)
        rows = writer.finish()
        state = "scored" if rows else "up_to_date" if chunks or _any(reader, query) else "no_rows"
    if state == "no_rows":
        log.warning(
            "%s: the feature query returns no row for %s to %s as of %s", model.name, first, last, as_of
        )
    return ScoreResult(
        champion.version,
        rows,
        chunks,
        dict(unseen),
        first.isoformat(),
        last.isoformat(),
        dict(infinite),
        state,
    )


def rechunk(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Batches of any size as tables of exactly `rows` rows; the last one may be smaller."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            batch = batch.slice(part.num_rows)
            waiting.append(part)
            count += part.num_rows
            if count == rows:
                yield pa.Table.from_batches(waiting, schema)
                waiting, count = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def _unscored(
    model: ModelSpec,
    query: sql.Composable,
    schema: pa.Schema,
    champion: registry.Champion,
    span: tuple[datetime, datetime],
    *,
    by_any: bool,
) -> sql.Composable:
    """The rows of the query without a prediction: by the champion where it rules or was asked, else by anyone.

    One hash join, however many rows there are; a lookup for each row would be slower from a few thousand on.
    """
    return sql.SQL(
        "SELECT {columns} FROM ({query}) AS f LEFT JOIN ("
        " SELECT key, bool_or(version = {version}) AS mine FROM evergreen.prediction"
        " WHERE model = {model} AND event_time >= {first} AND event_time < {last} GROUP BY key"
        ") AS p ON p.key = f._key WHERE p.key IS NULL OR (NOT p.mine AND ({all} OR f._time >= {rules_since}))"
    ).format(
        columns=sql.SQL(", ").join(sql.Identifier("f", name) for name in schema.names),
        query=query,
        version=sql.Literal(champion.version),
        model=sql.Literal(model.name),
        first=sql.Literal(span[0]),
        last=sql.Literal(span[1]),
        all=sql.Literal(not by_any),
        rules_since=sql.Literal(champion.as_of),
    )


def _require_unique(reader: arrow.Reader, model: ModelSpec, query: sql.Composable) -> None:
    """Refuse a query that returns a key twice, however far its rows are apart and whether or not one is scored.

    PostgreSQL counts, on its disk where its memory ends. Columns that are not asked for cost it next to nothing.
    """
    twice = reader.rows(
        sql.SQL("SELECT _key FROM ({}) AS f GROUP BY _key HAVING count(*) > 1 ORDER BY _key LIMIT 1").format(
            query
        )
    )
    if twice:
        raise TerminalError(
            f"{model.name}: the feature query returns the key {twice[0]['_key']} more than once; a key names one row. Mend "
            f"the SQL (a join that doubles rows?) or the key in models/{model.name}.yaml",
            Reason.BAD_QUERY,
        )


class _Writer:
    """Writes one chunk in a thread of its own while the next one is made; an error in either ends both.

    At most one chunk is under way: nothing is begun before it is known that the one before is in the warehouse.
    """

    def __init__(
        self, conn: Connection, model: ModelSpec, version: str, as_of: datetime, run_id: str
    ) -> None:
        """Begin; `conn` must be used by nobody else until the end."""
        self._about = (conn, model, version, as_of, run_id)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="evergreen-score")
        self._under_way: Future[int] | None = None
        self._rows = 0

    def __enter__(self) -> _Writer:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the chunk under way: it is in the warehouse whole, or not at all."""
        self._pool.shutdown()

    def write(self, chunk: pa.Table, predicted: np.ndarray) -> None:
        """Hand over a chunk.

        Raises:
            Exception: what the writing of the chunk before raised; this one is not written then.
        """
        self.finish()
        self._under_way = self._pool.submit(_write_whole, *self._about, chunk, predicted)

    def finish(self) -> int:
        """Wait for the chunk under way and return how many predictions were written in all.

        Raises:
            Exception: what its writing raised.
        """
        if self._under_way is not None:
            self._rows += self._under_way.result()
            self._under_way = None
        return self._rows


def _write_whole(
    conn: Connection,
    model: ModelSpec,
    version: str,
    as_of: datetime,
    run_id: str,
    chunk: pa.Table,
    predicted: np.ndarray,
) -> int:
    written = _write(conn, model, version, chunk, predicted, as_of, run_id)
    conn.commit()
    return written


def _write(
    conn: Connection,
    model: ModelSpec,
    version: str,
    chunk: pa.Table,
    predicted: np.ndarray,
    as_of: datetime,
    run_id: str,
) -> int:
    """Write a chunk's predictions in the open transaction and return how many are new.

    Straight into the table, which is right unless some of the keys were scored since the rows were asked for: then
    once more, around them.
    """
    file = _binary(chunk, predicted, (model.name, version, as_of, run_id))
    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_chunk")
        try:
            _copy(cursor, "evergreen.prediction", file)
            return chunk.num_rows
        except psycopg2.errors.UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_chunk")
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS _scored (LIKE evergreen.prediction INCLUDING DEFAULTS)"
        )
        cursor.execute("TRUNCATE _scored")
        _copy(cursor, "_scored", file)
        cursor.execute(
            "INSERT INTO evergreen.prediction SELECT * FROM _scored ON CONFLICT (model, key, version) DO NOTHING"
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


def _any(reader: arrow.Reader, query: sql.Composable) -> bool:
    return bool(reader.rows(sql.SQL("SELECT 1 AS found FROM ({}) AS f LIMIT 1").format(query)))
