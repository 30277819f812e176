"""Batch predictions: the champion scores the rows that it has not scored yet, into `evergreen.prediction`.

Which rows those are is asked in SQL. They leave PostgreSQL as one Arrow stream, in whatever order it gives them, are
predicted in chunks of `scoring.chunk_rows`, and each chunk comes back by COPY in a transaction of its own, while the
next one is read and predicted: a run that is killed leaves whole chunks, and the next one scores the rest. A key has at
most one prediction by a version, and one that was made stays: what was served can be told later.

While a new champion is watched the previous one predicts the same rows, out of the same read, into
`evergreen.shadow_prediction`, in the transaction of the champion's chunk. What stands there was never served and never
counts as scored.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg2 import sql

from evergreen import ledger, registry
from evergreen.errors import ErrorReason, TerminalError
from evergreen.progress import Progress, counted, moment, took
from evergreen.registry.under_watch import champion_under_watch
from evergreen.scoring import newest, shadow
from evergreen.scoring.shadow import Shadow, Shadowed
from evergreen.scoring.writer import SERVED, SHADOW, Part, Writer
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse import planner
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import arrow, feature_query, views

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT_S = 3 * 3600  # one query gives every row; the task that waits for it has 4 hours
HASHES = pa.schema([("_hash", pa.int64())])
MOST_HASHES = 8_000_000  # 64 MB, as much as a chunk of rows
MINE, ITS = "_mine", "_its"  # whether a row is the champion's to predict, and the previous champion's


@dataclass(frozen=True)
class ScoreResult:
    """What a scoring did.

    `rows` predictions were written in `chunks` transactions, for event times in [start, end) (ISO, UTC). `unseen`
    and `infinite` count values by feature that the model does not know and took as missing. `state` is `scored`,
    `up_to_date` (every row has its prediction) or `no_rows` (the feature query returns nothing for the range).
    `shadow` is what the previous champion did beside it; None where the champion is not watched.
    """

    version: str
    rows: int
    chunks: int
    unseen: dict[str, int]
    start: str
    end: str
    infinite: dict[str, int]
    state: str
    shadow: Shadowed | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """What it came to, in one line, such as `5,038 rows predicted by version 4, 5,038 in the shadow by version 3`."""
        span = " to ".join(moment(datetime.fromisoformat(at)) for at in (self.start, self.end))
        told = {
            "scored": f"{counted(self.rows, 'row')} predicted by version {self.version}",
            "up_to_date": f"nothing new to score: version {self.version} has predicted every row of {span}",
            "no_rows": f"nothing new to score: the feature query returns no row for {span}",
        }[self.state]
        if self.shadow is None or not self.shadow.rows:
            return told
        return f"{told}, {self.shadow.rows:,} in the shadow by version {self.shadow.version}"


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

    Within the watch period of a promotion the previous champion predicts every row since the champion's last label that
    the champion has scored or scores now. Where it cannot, the champion's scoring goes on and the result says why.

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
                ErrorReason.NO_CHAMPION,
            )
        chosen = start is not None or end is not None
        changes = ledger.champions(conn, model.name, as_of)
        # Rows whose label was not mature then were not learnt, so they are the champion's to predict.
        first, last = start or changes[-1].as_of - model.label.delay, end or as_of
        _require_range(model, start, last)
        loaded = registry.load(model, champion.version)
        conn.commit()
        reader = stack.enter_context(views.reading(specs, model, as_of, timeout_s=STATEMENT_TIMEOUT_S))
        types = feature_query.types(reader)
        seen = loaded.seen_by(model)
        _require_features(seen, champion, feature_query.lacking(seen, types, loaded.categories))
        under = champion_under_watch(model, changes)
        beside = Shadow(model, under, seen, types) if under and shadow.active(under, as_of) else None
        previous = beside.version if beside and beside.there else None
        if beside is not None:
            seen = beside.seen
        query = feature_query.feature_query(seen, first, last, ordered=False)
        schema = pa.schema([f for f in arrow.feature_schema(seen) if f.name not in ("_hash", "_label")])
        todo = _unscored(query, schema, champion, previous, (first, last), by_any=not chosen)
        if previous is not None:
            schema = schema.append(pa.field(MINE, pa.bool_())).append(pa.field(ITS, pa.bool_()))
        _require_unique(reader, model, query)
        waiting = rechunk(reader.stream(todo, schema), schema, model.scoring.chunk_rows)
        writer = stack.enter_context(Writer(conn, model, as_of, run_id))
        chunks, done, progress = 0, 0, Progress(log, f"{model.name}: scoring with version {champion.version}")
        unseen: Counter[str] = Counter()
        infinite: Counter[str] = Counter()
        for chunk in waiting:
            parts = []
            mine = chunk if previous is None else chunk.filter(chunk[MINE])
            if mine.num_rows:
                encoded = loaded.encode(mine)
                predicted = loaded.predict_encoded(encoded)
                _require_finite(model, champion, predicted)
                parts.append(Part(SERVED, champion.version, mine, predicted))
                unseen.update(encoded.unseen)
                infinite.update(encoded.infinite)
            if beside is not None and previous is not None:
                its = chunk.filter(chunk[ITS])
                shadowed = beside.predict(its) if its.num_rows else None
                if shadowed is not None:
                    parts.append(Part(SHADOW, previous, its, shadowed))
            writer.write(parts)
            chunks += 1
            done += chunk.num_rows
            progress.tell(done)
        written = writer.finish()
        for table, count in written.items():
            planner.refresh(conn, table, count)
        newest.keep(conn, reader, model, seen, types, as_of)
        rows = written[SERVED]
        state = "scored" if rows else "up_to_date" if chunks or _any(reader, query) else "no_rows"
    result = ScoreResult(
        champion.version,
        rows,
        chunks,
        dict(unseen),
        first.isoformat(),
        last.isoformat(),
        dict(infinite),
        state,
        beside.result(written[SHADOW]) if beside else None,
    )
    _tell(model, result, progress.seconds)
    return result


def _tell(model: ModelSpec, result: ScoreResult, seconds: float) -> None:
    """What a scoring came to, and values that the champion does not know."""
    log.info(
        "%s: %s%s", model.name, result.sentence(), f" {took(result.rows, seconds)}" if result.rows else ""
    )
    for what, counts in (("has not learnt", result.unseen), ("cannot hold", result.infinite)):
        for feature, count in counts.items():
            log.warning(
                "%s: %s: %s that version %s %s, taken as missing",
                model.name, feature, counted(count, "value"), result.version, what,
            )  # fmt: skip


def _require_range(model: ModelSpec, start: datetime | None, last: datetime) -> None:
    if start is not None and start >= last:
        raise TerminalError(
            f"{model.name}: start {start.isoformat()} is not before end {last.isoformat()}; correct the range",
            ErrorReason.BAD_QUERY,
        )


def _require_finite(model: ModelSpec, champion: registry.Champion, predicted: np.ndarray) -> None:
    if bad := int((~np.isfinite(predicted)).sum()):
        raise TerminalError(
            f"{model.name} version {champion.version}: {bad} of {len(predicted)} predictions are not finite; "
            "this chunk was not written. Roll back to the previous champion",
            ErrorReason.BAD_METRIC,
        )


def _require_features(seen: ModelSpec, champion: registry.Champion, lacks: Mapping[str, str]) -> None:
    """See that the feature query gives what the champion was trained on, whatever the spec asks for now."""
    if lacks:
        told = "; ".join(f"{name}: {why}" for name, why in lacks.items())
        raise TerminalError(
            f"{seen.name}: the champion, version {champion.version}, needs the features {', '.join(lacks)} ({told}). Put them "
            f"back into models/{seen.name}.sql until another model is champion; or run train__{seen.name}: its challenger is judged "
            f"without this champion, and waits in promote__{seen.name} for a person's approval",
            ErrorReason.REGISTRY_MISMATCH,
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
    query: sql.Composable,
    schema: pa.Schema,
    champion: registry.Champion,
    previous: str | None,
    span: tuple[datetime, datetime],
    *,
    by_any: bool,
) -> sql.Composable:
    """The rows of the query without a prediction: by the champion where it rules or was asked, else by anyone.

    With a previous champion also the rows that the champion has predicted, or will, and it has not; two more columns say
    whose a row is. One hash join, however many rows there are; a lookup for each row would be slower from a few
    thousand on.
    """
    wanted = sql.SQL("(p.key IS NULL OR (NOT p.mine AND ({all} OR f._time >= {rules_since})))").format(
        all=sql.Literal(not by_any), rules_since=sql.Literal(champion.as_of)
    )
    columns = sql.SQL(", ").join(sql.Identifier("f", name) for name in schema.names)
    joined = sql.SQL(
        "({query}) AS f LEFT JOIN ("
        " SELECT key, bool_or(version = {version}) AS mine FROM _prediction"
        " WHERE event_time >= {first} AND event_time < {last} GROUP BY key"
        ") AS p ON p.key = f._key"
    ).format(
        query=query,
        version=sql.Literal(champion.version),
        first=sql.Literal(span[0]),
        last=sql.Literal(span[1]),
    )
    if previous is None:
        return sql.SQL("SELECT {} FROM {} WHERE {}").format(columns, joined, wanted)
    # Rows that the champion has learnt say nothing about which of the two is better.
    shadowed = sql.SQL("(s.key IS NULL AND f._time >= {learnt} AND ({wanted} OR p.mine))").format(
        learnt=sql.Literal(champion.trained_until), wanted=wanted
    )
    return sql.SQL(
        "SELECT {columns}, {wanted} AS {mine}, {shadowed} AS {its} FROM {joined} LEFT JOIN ("
        " SELECT key FROM _shadow_prediction"
        " WHERE version = {previous} AND event_time >= {first} AND event_time < {last}"
        ") AS s ON s.key = f._key WHERE {wanted} OR {shadowed}"
    ).format(
        columns=columns,
        wanted=wanted,
        mine=sql.Identifier(MINE),
        shadowed=shadowed,
        its=sql.Identifier(ITS),
        joined=joined,
        previous=sql.Literal(previous),
        first=sql.Literal(max(span[0], champion.trained_until)),
        last=sql.Literal(span[1]),
    )


def _require_unique(reader: arrow.Reader, model: ModelSpec, query: sql.Composable) -> None:
    """Refuse a query that returns a key twice, however far its rows are apart and whether or not one is scored.

    Keys whose hashes all differ are all different: that is soon seen. Where two hashes are alike, or there are too many to
    be held, PostgreSQL groups the keys, on its disk where its memory ends, which takes three times as long.
    """
    if _all_differ(reader, query):
        return
    twice = reader.rows(
        sql.SQL("SELECT _key FROM ({}) AS f GROUP BY _key HAVING count(*) > 1 ORDER BY _key LIMIT 1").format(
            query
        )
    )
    if twice:
        raise TerminalError(
            f"{model.name}: the feature query returns the key {twice[0]['_key']} more than once; a key names one row. Mend "
            f"the SQL (a join that doubles rows?) or the key in models/{model.name}.yaml",
            ErrorReason.BAD_QUERY,
        )


def _all_differ(reader: arrow.Reader, query: sql.Composable) -> bool:
    """Whether the hashes of all keys are known to differ; not beyond `MOST_HASHES` keys."""
    # Numbers cost the workers little to hand over; PostgreSQL thinks of whole rows.
    usual = _tuple_cost(reader, "0")
    hashed = sql.SQL("SELECT _hash FROM ({}) AS f LIMIT {}").format(query, sql.Literal(MOST_HASHES + 1))
    parts = [batch.column(0).to_numpy() for batch in reader.stream(hashed, HASHES)]
    _tuple_cost(reader, usual)
    hashes = np.concatenate([np.empty(0, np.int64), *parts])
    hashes.sort()
    return len(hashes) <= MOST_HASHES and not (hashes[1:] == hashes[:-1]).any()


def _tuple_cost(reader: arrow.Reader, cost: str) -> str:
    """Set what a row from a parallel worker costs in PostgreSQL's plans, for this transaction; returns what it was."""
    query = sql.SQL(
        "SELECT current_setting('parallel_tuple_cost') AS before, set_config('parallel_tuple_cost', {}, true)"
    )
    return str(reader.rows(query.format(sql.Literal(cost)))[0]["before"])


def _any(reader: arrow.Reader, query: sql.Composable) -> bool:
    return bool(reader.rows(sql.SQL("SELECT 1 AS found FROM ({}) AS f LIMIT 1").format(query)))
