"""The newest features of each entity, for models with `serving.features: latest`: `evergreen.latest_features` as of a scoring.

Each scoring reads them anew, whole, in the transaction in which it reads the rows to score: a row that was corrected, withdrawn or
deleted since is then in the table as it is now, or not at all, whether or not it had been scored before. They go by COPY beside the
table; then one statement writes those that are new or other ones, and one takes away the entities that have no row any more.
"""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import psycopg2
import pyarrow as pa

from evergreen.errors import ErrorReason, TerminalError
from evergreen.progress import counted
from evergreen.spec import ModelSpec
from evergreen.warehouse import planner
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.features import arrow, feature_query

log = logging.getLogger(__name__)

TABLE = "evergreen.latest_features"
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})  # of COPY's text format


def keep(
    conn: Connection,
    reader: arrow.Reader,
    model: ModelSpec,
    seen: ModelSpec,
    types: Mapping[str, str],
    as_of: datetime,
) -> int:
    """Bring the newest features of a model up to date, in a transaction of its own; returns how many entities changed.

    Where the spec has `serving.features: query` there are none, and what is left of an earlier spec is removed.

    Args:
        conn: nothing is written in it yet; it is committed.
        reader: of the model's features as of the run.
        model: as the spec has it now; a challenger is trained on these features.
        seen: with the features that the versions in office read.
        types: the columns of the feature query, see `feature_query.types`.
        as_of: of the run; one that is earlier than that of the table changes nothing.

    Raises:
        TerminalError: two rows are the newest of one entity (BAD_QUERY).
        TransientError: the warehouse does not answer.
    """
    if model.serving.features != "latest":
        with conn.cursor() as cursor:
            cursor.execute("DELETE FROM evergreen.latest_filled WHERE model = %s", (model.name,))
            if cursor.rowcount:
                cursor.execute("DELETE FROM evergreen.latest_features WHERE model = %s", (model.name,))
        conn.commit()
        return 0
    wanted = _with_features(model, seen, types)
    query = feature_query.newest_query(wanted)
    schema = pa.schema(
        [("_entity", pa.string())]
        + [f for f in arrow.feature_schema(wanted) if f.name not in ("_hash", "_label")]
    )
    with conn.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pg_temp._newest")
        cursor.execute(
            "CREATE TEMPORARY TABLE _newest (entity text PRIMARY KEY, key text NOT NULL, event_time timestamptz NOT NULL,"
            " features jsonb NOT NULL) ON COMMIT DROP"
        )
    _stage(conn, model, wanted, reader.stream(query, schema))
    changed = _settle(conn, model, as_of)
    planner.refresh(conn, TABLE, changed)
    conn.commit()
    if changed:
        log.info("%s: the newest features of %s kept", model.name, counted(changed, "entity", "entities"))
    return changed


def _with_features(model: ModelSpec, seen: ModelSpec, types: Mapping[str, str]) -> ModelSpec:
    """The spec with the features of the versions in office, and those of the spec that the query gives."""
    lacks = feature_query.lacking(model, types)
    numeric = [n for n in model.features.numeric if n not in lacks and n not in seen.features.categorical]
    categorical = [n for n in model.features.categorical if n not in lacks and n not in seen.features.numeric]
    return seen.seeing(
        dict.fromkeys((*seen.features.numeric, *numeric)),
        dict.fromkeys((*seen.features.categorical, *categorical)),
    )


def _stage(conn: Connection, model: ModelSpec, wanted: ModelSpec, batches: Iterable[pa.RecordBatch]) -> None:
    try:
        for batch in batches:
            file = io.StringIO("".join(lines(wanted, batch)))
            with conn.cursor() as cursor:
                cursor.copy_expert("COPY pg_temp._newest FROM STDIN", file, size=1 << 20)
    except psycopg2.errors.UniqueViolation as error:
        raise TerminalError(
            f"{model.name}: the feature query returns the newest row of an entity more than once ({error.diag.message_detail}); a key "
            f"names one row. Mend the SQL (a join that doubles rows?) or the key in models/{model.name}.yaml",
            ErrorReason.BAD_QUERY,
        ) from error


def _settle(conn: Connection, model: ModelSpec, as_of: datetime) -> int:
    """Make the table what was staged, unless a scoring as of a later time has been here; returns how many entities changed."""
    with conn.cursor() as cursor:
        # The row is locked by this, so that two scorings at once come one after the other.
        cursor.execute(
            "INSERT INTO evergreen.latest_filled AS f VALUES (%s, %s) ON CONFLICT (model) DO UPDATE SET as_of = EXCLUDED.as_of"
            " WHERE f.as_of <= EXCLUDED.as_of RETURNING 1",
            (model.name, as_of),
        )
        if not cursor.fetchall():
            return 0
        cursor.execute("ANALYZE pg_temp._newest")
        cursor.execute(
            "INSERT INTO evergreen.latest_features AS l (model, entity, key, event_time, features, as_of)"
            " SELECT %s, entity, key, event_time, features, %s FROM pg_temp._newest"
            " ON CONFLICT (model, entity) DO UPDATE SET key = EXCLUDED.key, event_time = EXCLUDED.event_time,"
            " features = EXCLUDED.features, as_of = EXCLUDED.as_of"
            " WHERE (l.key, l.event_time, l.features) IS DISTINCT FROM (EXCLUDED.key, EXCLUDED.event_time, EXCLUDED.features)",
            (model.name, as_of),
        )
        changed = cursor.rowcount
        cursor.execute(
            "DELETE FROM evergreen.latest_features AS l WHERE model = %s"
            " AND NOT EXISTS (SELECT 1 FROM pg_temp._newest AS n WHERE n.entity = l.entity)",
            (model.name,),
        )
        return int(changed + cursor.rowcount)


def lines(model: ModelSpec, batch: pa.RecordBatch) -> Iterator[str]:
    """Rows of `newest_query` as COPY's text format has them."""
    numbers = [[_number(v) for v in batch.column(n).to_pylist()] for n in model.features.numeric]
    texts = [batch.column(n).to_pylist() for n in model.features.categorical]
    names = model.features.all
    for entity, key, at, *values in zip(
        *(batch.column(n).to_pylist() for n in ("_entity", "_key", "_time")), *numbers, *texts, strict=True
    ):
        features = json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False)
        yield "\t".join(v.translate(_ESCAPED) for v in (entity, key, at.isoformat(), features)) + "\n"


def _number(value: float | None) -> float | str | None:
    """A number so that it comes out of jsonb as it is: that has no NaN, no infinity, and no zero below zero."""
    if value is None or (value != 0 and math.isfinite(value)):
        return value
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else 0.0
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
