"""What the warehouse knows of a model's windows as of a time: counts in SQL, and a bounded sample of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
from psycopg2 import sql

from evergreen.monitoring.windows import ANCHOR, Facts, Window, window_at
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse import arrow, features
from evergreen.warehouse.connection import connect, fetch


@dataclass(frozen=True)
class Feed:
    """Counts per window, and the newest event time that had arrived by as-of (None: no row at all in the range)."""

    facts: dict[datetime, Facts]
    newest: datetime | None


def feed(specs: Specs, model: ModelSpec, as_of: datetime, start: datetime) -> Feed:
    """Count the rows, labels and served predictions of every window from `start` to as-of.

    A transaction of its own: the views that show the data as of a time lock tables, which must not last.

    Raises:
        TerminalError: the feature query does not run.
        TransientError: the warehouse does not answer.
    """
    length = model.monitoring.window
    query = sql.SQL(
        "SELECT floor(extract(epoch FROM f._time - {anchor}) / {length})::bigint AS number, count(*) AS rows,"
        " count(f._label) AS labelled, count(p.prediction) AS scored, max(f._time) AS newest"
        " FROM ({rows}) AS f LEFT JOIN ({served}) AS p ON p.key = f._key GROUP BY 1"
    ).format(
        anchor=sql.Literal(ANCHOR),
        length=sql.Literal(length.total_seconds()),
        rows=features.feature_query(
            specs, model, as_of, start, as_of + timedelta(microseconds=1), ordered=False
        ),
        served=_served(model, start, as_of + timedelta(microseconds=1), as_of),
    )
    with arrow.reading(specs.datasets_of(model)) as reader:
        rows = reader.rows(query)
    facts = {window_at(r["number"], length).start: Facts(r["rows"], r["labelled"], r["scored"]) for r in rows}
    return Feed(facts, max((r["newest"] for r in rows), default=None))


def first_scored(model: ModelSpec, as_of: datetime) -> datetime | None:
    """Event time of the model's first prediction that was made for `as_of` or earlier; None if there is none."""
    with connect() as conn:
        return fetch(
            conn,
            "SELECT min(event_time) AS first FROM evergreen.prediction WHERE model = %s AND as_of <= %s",
            (model.name, as_of),
        )[0]["first"]


def sample(specs: Specs, model: ModelSpec, as_of: datetime, window: Window) -> pa.Table:
    """At most `monitoring.sample_rows` rows of a window, those whose key has the smallest MD5.

    Returns:
        The columns of `arrow.feature_schema` and `_prediction` (float64) and `_version` (text), as they were
        served first; null where the row was not scored by as-of.

    Raises:
        TerminalError: the feature query does not run.
        TransientError: the warehouse does not answer.
    """
    schema = arrow.feature_schema(model)
    schema = schema.append(pa.field("_prediction", pa.float64())).append(pa.field("_version", pa.string()))
    query = sql.SQL(
        "SELECT f.*, p.prediction AS _prediction, p.version AS _version"
        " FROM ({rows}) AS f LEFT JOIN ({served}) AS p ON p.key = f._key ORDER BY md5(f._key) LIMIT {limit}"
    ).format(
        rows=features.feature_query(specs, model, as_of, window.start, window.end, ordered=False),
        served=_served(model, window.start, window.end, as_of),
        limit=sql.Literal(model.monitoring.sample_rows),
    )
    with arrow.reading(specs.datasets_of(model)) as reader:
        return reader.table(query, schema).sort_by([("_time", "ascending"), ("_key", "ascending")])


def _served(model: ModelSpec, start: datetime, end: datetime, as_of: datetime) -> sql.Composable:
    """The prediction that was served for each key: the first one, of whatever version."""
    return sql.SQL(
        "SELECT DISTINCT ON (key) key, prediction, version FROM evergreen.prediction WHERE model = {model}"
        " AND event_time >= {start} AND event_time < {end} AND as_of <= {as_of} ORDER BY key, scored_at, version"
    ).format(
        model=sql.Literal(model.name),
        start=sql.Literal(start),
        end=sql.Literal(end),
        as_of=sql.Literal(as_of),
    )
