"""Batch predictions: the champion scores the rows that it has not scored yet, into `evergreen.prediction`.

Which rows those are is asked in SQL. They leave PostgreSQL as one Arrow stream, are predicted in chunks of
`scoring.chunk_rows`, and each chunk comes back by COPY and one INSERT in a transaction of its own: a run that is
killed leaves whole chunks, and the next one scores the rest. A key has at most one prediction by a version, and one
that was made stays: what was served can be told later.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from psycopg2 import sql

from evergreen import ledger, registry
from evergreen.errors import Reason, TerminalError
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse import arrow, features
from evergreen.warehouse.connection import Connection, connect

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT_S = 3 * 3600  # one query gives every row; the task that waits for it has 4 hours


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
        query = features.feature_query(specs, model, as_of, first, last)
        schema = arrow.feature_schema(model)
        todo = _unscored(model, query, champion, (first, last), by_any=not chosen)
        conn.commit()
        reader = stack.enter_context(
            arrow.reading(specs.datasets_of(model), timeout_s=STATEMENT_TIMEOUT_S)
        )
        _require_unique(reader, model, query)
        waiting = rechunk(reader.stream(todo, schema), schema, model.scoring.chunk_rows)
        rows = chunks = 0
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
            rows += _write(conn, model, champion.version, chunk, predicted, as_of, run_id)
            conn.commit()
            chunks += 1
            unseen.update(encoded.unseen)
            infinite.update(encoded.infinite)
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
    champion: registry.Champion,
    span: tuple[datetime, datetime],
    *,
    by_any: bool,
) -> sql.Composable:
    """The rows of the query without a prediction: by the champion where it rules or was asked, else by anyone.

    One hash join, however many rows there are; a lookup for each row would be slower from a few thousand on.
    """
    return sql.SQL(
        "SELECT f.* FROM ({query}) AS f LEFT JOIN ("
        " SELECT key, bool_or(version = {version}) AS mine FROM evergreen.prediction"
        " WHERE model = {model} AND event_time >= {first} AND event_time < {last} GROUP BY key"
        ") AS p ON p.key = f._key WHERE p.key IS NULL OR (NOT p.mine AND ({all} OR f._time >= {rules_since}))"
        " ORDER BY _time, _key"
    ).format(
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


def _write(
    conn: Connection,
    model: ModelSpec,
    version: str,
    chunk: pa.Table,
    predicted: np.ndarray,
    as_of: datetime,
    run_id: str,
) -> int:
    text = io.BytesIO()
    pacsv.write_csv(
        pa.table({"key": chunk["_key"], "event_time": chunk["_time"], "prediction": pa.array(predicted)}),
        text,
        pacsv.WriteOptions(include_header=False),
    )
    text.seek(0)
    with conn.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS _scored (key text, event_time timestamptz, prediction double precision)"
        )
        cursor.execute("TRUNCATE _scored")
        cursor.copy_expert("COPY _scored FROM STDIN (FORMAT csv)", text)
        cursor.execute(
            "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, run_id)"
            " SELECT %s, %s, key, event_time, prediction, %s, %s FROM _scored"
            " ON CONFLICT (model, key, version) DO NOTHING",
            (model.name, version, as_of, run_id),
        )
        written = cursor.rowcount
        if written < chunk.num_rows:
            log.warning(
                "%s: %s of %s rows keep the prediction that version %s made before, in another run or for another event time",
                model.name, chunk.num_rows - written, chunk.num_rows, version,
            )  # fmt: skip
        return written


def _any(reader: arrow.Reader, query: sql.Composable) -> bool:
    return bool(reader.rows(sql.SQL("SELECT 1 AS found FROM ({}) AS f LIMIT 1").format(query)))
