"""Batch predictions: the champion scores the rows that it has not scored yet, into `evergreen.prediction`.

Which rows those are is asked in SQL. They leave PostgreSQL as one Arrow stream, are predicted in chunks of
`scoring.chunk_rows`, and each chunk comes back by COPY and one INSERT in a transaction of its own: a run that is
killed leaves whole chunks, and the next one scores the rest. A key has at most one prediction by a version.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from psycopg2 import sql

from evergreen import ledger, registry
from evergreen.errors import Reason, TerminalError
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse import arrow, features
from evergreen.warehouse.connection import Connection, connect, fetch

log = logging.getLogger(__name__)


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
    rescore: bool = False,
) -> ScoreResult:
    """Score with the champion of now, on the features as they were known at `as_of`.

    Without a range: rows since the first champion's as-of that no version has scored, and rows since this
    champion's as-of that it has not scored itself. With `start` or `end`: every row of that range that this
    version has not scored. With `rescore`: every row of the range again; a prediction that comes out equal stays as
    it is, one that differs is replaced and counts as made now.

    Args:
        specs: all specs.
        model: whose champion scores.
        as_of: the cut-off, aware.
        run_id: the DAG run.
        start: first event time, included.
        end: last event time, excluded; default as_of.
        rescore: also rows that this version has scored.

    Raises:
        TerminalError: no champion (NO_CHAMPION), a prediction that is not finite (BAD_METRIC), a key that the
            feature query returns twice or a start that is not before the end (BAD_QUERY), a champion that is not
            in MLflow as registered or needs features that are gone (REGISTRY_MISMATCH).
        TransientError: warehouse or MLflow do not answer.
    """
    with connect() as conn:
        champion = registry.champion(conn, model.name)
        if champion is None:
            raise TerminalError(
                f"{model.name} has no champion yet, so nothing can be scored; run its training first",
                Reason.NO_CHAMPION,
            )
        chosen = start is not None or end is not None or rescore
        first = start or ledger.champions(conn, model.name)[-1].as_of
        last = end or as_of
        if start is not None and first >= last:
            raise TerminalError(
                f"{model.name}: start {first.isoformat()} is not before end {last.isoformat()}; correct the range",
                Reason.BAD_QUERY,
            )
        loaded = registry.load(model, champion.version)
        features.open_views(conn, specs.datasets_of(model), as_of)
        query = features.feature_query(model, first, last)
        schema = arrow.feature_schema(model)
        todo = query if rescore else _unscored(model, query, champion, (first, last), by_any=not chosen)
        # The views must outlive the first chunk's commit; they belong to the connection.
        conn.commit()
        rows = chunks = 0
        unseen: Counter[str] = Counter()
        infinite: Counter[str] = Counter()
        for chunk in _checked(
            model, rechunk(arrow.stream(conn, todo, schema), schema, model.scoring.chunk_rows)
        ):
            encoded = loaded.encode(chunk)
            predicted = loaded.predict_encoded(encoded)
            if bad := int((~np.isfinite(predicted)).sum()):
                raise TerminalError(
                    f"{model.name} version {champion.version}: {bad} of {len(predicted)} predictions are not finite; this "
                    "chunk was not written. Roll back to the previous champion",
                    Reason.BAD_METRIC,
                )
            rows += _write(conn, model, champion.version, chunk, predicted, as_of, run_id, replace=rescore)
            conn.commit()
            chunks += 1
            unseen.update(encoded.unseen)
            infinite.update(encoded.infinite)
        state = "scored" if rows else "up_to_date" if chunks or _any(conn, query) else "no_rows"
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


def _checked(model: ModelSpec, chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Refuse a key that comes twice: its rows stand next to each other, also across chunks."""
    previous: Any = None
    for chunk in chunks:
        keys = chunk["_key"].combine_chunks()
        twice = pc.any(pc.equal(keys[1:], keys[:-1])).as_py() or keys[0].as_py() == previous
        if twice:
            counted = pc.value_counts(keys)
            repeated = [c["values"].as_py() for c in counted if c["counts"].as_py() > 1] or [previous]
            raise TerminalError(
                f"{model.name}: the feature query returns the key {repeated[0]} more than once; a key names one row. Mend "
                f"the SQL (a join that doubles rows?) or the key in models/{model.name}.yaml",
                Reason.BAD_QUERY,
            )
        previous = keys[-1].as_py()
        yield chunk


def _write(
    conn: Connection,
    model: ModelSpec,
    version: str,
    chunk: pa.Table,
    predicted: np.ndarray,
    as_of: datetime,
    run_id: str,
    *,
    replace: bool,
) -> int:
    text = io.BytesIO()
    pacsv.write_csv(
        pa.table({"key": chunk["_key"], "event_time": chunk["_time"], "prediction": pa.array(predicted)}),
        text,
        pacsv.WriteOptions(include_header=False),
    )
    text.seek(0)
    conflict = (
        "DO UPDATE SET prediction = excluded.prediction, event_time = excluded.event_time, as_of = excluded.as_of,"
        " scored_at = clock_timestamp(), run_id = excluded.run_id WHERE p.prediction <> excluded.prediction"
        if replace
        else "DO NOTHING"
    )
    with conn.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS _scored (key text, event_time timestamptz, prediction double precision)"
        )
        cursor.execute("TRUNCATE _scored")
        cursor.copy_expert("COPY _scored FROM STDIN (FORMAT csv)", text)
        cursor.execute(
            sql.SQL(
                "INSERT INTO evergreen.prediction AS p (model, version, key, event_time, prediction, as_of, run_id)"
                " SELECT %s, %s, key, event_time, prediction, %s, %s FROM _scored"
                " ON CONFLICT (model, key, version) {}"
            ).format(sql.SQL(conflict)),
            (model.name, version, as_of, run_id),
        )
        return cursor.rowcount


def _any(conn: Connection, query: sql.Composable) -> bool:
    return bool(fetch(conn, sql.SQL("SELECT 1 FROM ({}) AS f LIMIT 1").format(query)))
