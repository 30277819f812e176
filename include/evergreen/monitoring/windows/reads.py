"""What the warehouse knows of a model's windows as of a time: counts in SQL, and a bounded sample of the rows.

The sample brings what the naive baseline would have said of each row, from the labels that were in before it: so a served
error can be held against a baseline's error of the same rows.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql

from evergreen.microseconds import in_micros, moment
from evergreen.monitoring.windows.due_windows import EXACT, WindowFacts
from evergreen.reference.calendar import ANCHOR, Window, window_of
from evergreen.spec import ModelSpec, Specs
from evergreen.training.gate import baseline
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.features import arrow, feature_query, views

# The top ten bits of a key's hash are its bucket; the index `prediction_sample` holds the lowest ones.
BUCKETS, LOWEST, INDEXED = 1024, -512, 64
# From `EXACT` predictions on their number is estimated from so many buckets; so near the rows it may as well be all of them.
ESTIMATED, ALL_BUT = 16, 0.02
# Of a window of more rows the baseline is the mean of what the champion learnt from: the labels of a season before are too many.
MOST_FOR_BASELINE = 200_000
LABELS = pa.schema([("_time", pa.timestamp("us", "UTC")), ("_entity", pa.int64()), ("_label", pa.float64())])
# A sample that holds this share of the labels that a window's error may be judged by is enough: more of them make its interval at
# most half as wide, and cost a pass over the window.
ENOUGH = 0.25
BEYOND = "_beyond"
"""The column of a sample that says which rows are in it for their label alone; a sample without such rows has no such column."""
SERVED = pa.schema([("_key", pa.string()), ("_prediction", pa.float64()), ("_version", pa.string())])
# Types that come back from JSON text as they were.
READ_BACK = frozenset({
    "bigint", "integer", "smallint", "numeric", "boolean", "text", "character varying", "uuid", "date",
    "timestamp with time zone", "timestamp without time zone",
})  # fmt: skip


@dataclass(frozen=True)
class Counted:
    """Rows and labels per window, by its start, and the newest event time that had arrived (None: no row)."""

    windows: dict[datetime, tuple[int, int]]
    newest: datetime | None


@dataclass(frozen=True)
class WindowCounts:
    """Counts per window, and the newest event time that had arrived by as-of (None: no row at all in the range)."""

    facts: dict[datetime, WindowFacts]
    newest: datetime | None


def feed(
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    start: datetime,
    look_back: datetime,
    *,
    reader: arrow.Reader | None = None,
) -> WindowCounts:
    """Count the rows, labels and served predictions of every window from `start` to as-of.

    Rows and predictions are counted each for itself, joined is nothing: a key that was scored is one that the feature
    query returned in its window then. Where it has vanished or moved to another window since, it still counts as
    scored here, at most as many as there are rows. The number of very many predictions is an estimate; where it is within four
    standard errors of the rows, all of them count as scored. Online a client names the key, and it may be one that no row ever has: of
    a window with such predictions the rows that have one are counted.

    Args:
        specs: all specs.
        model: whose windows.
        as_of: the cut-off, aware.
        start: of the first window.
        look_back: how far back the newest row is looked for if there is none from `start` on.
        reader: of the model's features as of that time; none: one is opened.

    Raises:
        TerminalError: the feature query does not run.
        TransientError: the warehouse does not answer.
    """
    end = as_of + timedelta(microseconds=1)
    with nullcontext(reader) if reader else views.reading(specs, model, as_of) as reader:
        counts = counted(reader, specs, model, as_of, start, look_back)
        facts = {}
        for begin, (rows, labelled) in counts.windows.items():
            window = window_of(begin, model.monitoring.window)
            made = _made(window.start, min(window.end, end), as_of)
            if _any_online(reader, made):
                scored = _rows_scored(reader, model, window.start, min(window.end, end), made)
            else:
                scored = _scored(reader, made)
                if scored >= max(EXACT, (1 - ALL_BUT) * rows):
                    scored = rows
            facts[begin] = WindowFacts(
                rows, labelled, min(scored, rows), as_of >= window.end + model.label.delay
            )
    return WindowCounts(facts, counts.newest)


def counted(
    reader: arrow.Reader,
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    start: datetime,
    look_back: datetime,
) -> Counted:
    """Count the rows and labels of every window from `start` to as-of; arguments and errors are `feed`'s."""
    length = model.monitoring.window
    end = as_of + timedelta(microseconds=1)
    query = sql.SQL(
        "SELECT date_bin({length}, f._time, {anchor}) AS start, count(*) AS rows, count(f._label) AS labelled,"
        " max(f._time) AS newest FROM ({rows}) AS f GROUP BY 1"
    ).format(
        length=sql.Literal(length),
        anchor=sql.Literal(ANCHOR),
        rows=feature_query.event_query(model, start, end),
    )
    rows = reader.rows(query)
    newest = max((r["newest"] for r in rows), default=None)
    if newest is None:
        newest = _newest(reader, specs, model, as_of, look_back, start)
    return Counted({window_of(r["start"], length).start: (r["rows"], r["labelled"]) for r in rows}, newest)


def first_scored(conn: Connection, model: ModelSpec, as_of: datetime) -> datetime | None:
    """Event time of the first row that the model's scoring predicted for `as_of` or earlier; None if there is none.

    What a client asked online says nothing of it: it names times as it likes.
    """
    found: datetime | None = fetch(
        conn,
        "SELECT min(event_time) AS first FROM evergreen.prediction WHERE model = %s AND as_of <= %s AND run_id NOT LIKE %s",
        (model.name, as_of, "online/%"),
    )[0]["first"]
    return found


def sample(specs: Specs, model: ModelSpec, as_of: datetime, window: Window, facts: WindowFacts) -> pa.Table:
    """At most `monitoring.sample_rows` rows of a window: those whose key has the smallest hash, ties by key.

    The same rows on every re-run, and those that the champion's reference would choose. From a window with very many
    predictions, none of them made online, they are drawn by an index: then only rows with a prediction are candidates, and nothing is read
    but them. Everywhere else rows without one are candidates too, and what fits into `sample_rows` is taken whole.

    A window may have few labels among many rows, and then hardly one in its sample. So where its labels are enough to judge the
    error, and the sample holds too few of them, rows with a label are added by the same rule, at most `sample_rows` of them in all.
    Those are marked (`BEYOND`): they count for the error alone.

    Args:
        specs: all specs.
        model: whose rows.
        as_of: the cut-off, aware.
        window: which rows.
        facts: the window's counts; the number of predictions says how much of the index is to be read.

    Returns:
        The columns of `arrow.feature_schema`; `_prediction` (float64) and `_version` (text), as they were served first, null
        where the row was not scored by as-of; `_baseline` (float64), see `baseline_of`.

    Raises:
        TerminalError: the feature query does not run.
        TransientError: the warehouse does not answer.
    """
    with views.reading(specs, model, as_of) as reader:
        buckets = _buckets(facts.scored, model.monitoring.sample_rows)
        types = _key_types(reader, model) if buckets <= INDEXED else []
        if types and _any_online(reader, _made(window.start, window.end, as_of)):
            types = []  # keys that no row has would take the places of rows
        if types and set(types) <= READ_BACK:
            rows = _drawn(reader, specs, model, as_of, window, buckets, types)
        else:
            rows = _sorted(reader, model, as_of, window)
        if lacks_labels(model, facts, rows):
            known = labelled_rows(reader, model, window.start, window.end)
            rows = with_labelled(rows, _with_predictions(reader, as_of, window, known))
        rows = rows.sort_by([("_time", "ascending"), ("_key", "ascending")])
        said = baseline_of(reader, model, rows, facts.rows)
        names = [n for n in rows.column_names if n != "_entity"]
        return rows.select(names).append_column("_baseline", pa.array(said, from_pandas=True))


def lacks_labels(model: ModelSpec, facts: WindowFacts, rows: pa.Table) -> bool:
    """Whether a sample of a window holds too few of the labels by which its error could be judged."""
    known = rows.num_rows - rows["_label"].null_count
    wanted = min(facts.labelled, model.monitoring.sample_rows)
    return facts.enough_labels(model.monitoring.performance.min_labels) and known < ENOUGH * wanted


def labelled_rows(reader: arrow.Reader, model: ModelSpec, start: datetime, end: datetime) -> pa.Table:
    """At most `monitoring.sample_rows` rows of a range that have a label, chosen as a sample is."""
    query = feature_query.feature_query(model, start, end, labelled=True, ordered=False, entity=True)
    return _smallest(reader, model, query)


def with_labelled(rows: pa.Table, labelled: pa.Table) -> pa.Table:
    """A sample with those rows of another one that it does not hold, marked as such (`BEYOND`)."""
    more = labelled.filter(pc.invert(pc.is_in(labelled["_key"], rows["_key"]))).select(rows.column_names)
    marked = [
        t.append_column(BEYOND, pa.array([beyond] * t.num_rows, pa.bool_()))
        for t, beyond in ((rows, False), (more, True))
    ]
    return pa.concat_tables(marked)


def baseline_of(
    reader: arrow.Reader, model: ModelSpec, rows: pa.Table, count: int
) -> npt.NDArray[np.float64]:
    """What the naive baseline says of the rows of a window, by the labels that the reader knows.

    Args:
        reader: of the model's features as of a time.
        model: which baseline.
        rows: by event time, with `_time` and `_entity`.
        count: the rows of the whole window.

    Returns:
        A prediction for each row; NaN where the mean label of what the champion learnt from is the baseline's answer.
    """
    if model.baseline == "class_prior" or count > MOST_FOR_BASELINE:
        return np.full(rows.num_rows, np.nan)

    def labels_of(begin: int | None, end: int, *, newest: bool = False) -> baseline.Labels:
        assert begin is not None
        query = feature_query.label_query(model, moment(begin), moment(end), newest=newest)
        found = reader.table(query, LABELS)
        return baseline.Labels(
            found["_time"].cast(pa.int64()).to_numpy(),
            found["_entity"].to_numpy(),
            found["_label"].to_numpy(),
        )

    # An entity that had no label for so long has none that tells of now.
    longest = max(model.monitoring.window, model.training.season)
    return baseline.forecast(
        model,
        rows["_time"].cast(pa.int64()).to_numpy(),
        rows["_entity"].to_numpy(),
        labels_of,
        in_micros(longest),
    )


def _sorted(reader: arrow.Reader, model: ModelSpec, as_of: datetime, window: Window) -> pa.Table:
    """The sample out of every row of the window.

    Rows first, then their predictions by key: where PostgreSQL takes both sides of a join for small, as it does before
    their first ANALYZE, it compares each row with each prediction, which takes minutes from 100,000 of both on.
    """
    query = feature_query.feature_query(model, window.start, window.end, ordered=False, entity=True)
    return _with_predictions(reader, as_of, window, _smallest(reader, model, query))


def _smallest(reader: arrow.Reader, model: ModelSpec, rows: sql.Composable) -> pa.Table:
    """At most `monitoring.sample_rows` rows of a feature query, those whose key has the smallest hash."""
    return reader.table(
        sql.SQL("SELECT f.* FROM ({rows}) AS f ORDER BY f._hash, f._key LIMIT {limit}").format(
            rows=rows, limit=sql.Literal(model.monitoring.sample_rows)
        ),
        arrow.feature_schema(model, entity=True),
    )


def _with_predictions(reader: arrow.Reader, as_of: datetime, window: Window, rows: pa.Table) -> pa.Table:
    theirs = sql.SQL("{} AND key = ANY ({})").format(
        _made(window.start, window.end, as_of), _array(rows["_key"], "text")
    )
    served = reader.table(
        sql.SQL("SELECT key, prediction, version FROM ({}) AS served").format(_served(theirs)), SERVED
    )
    return rows.join(served, "_key", join_type="left outer")


def _drawn(
    reader: arrow.Reader,
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    window: Window,
    buckets: int,
    types: list[str],
) -> pa.Table:
    """The sample out of the window's predictions, found in the lowest buckets of the index `prediction_sample`."""
    in_buckets = _lowest(_made(window.start, window.end, as_of), buckets)
    parts = [f"_key_{place}" for place in range(len(types))]
    served = reader.table(
        sql.SQL(
            "SELECT key, prediction, version, {parts} FROM ({served}) AS served"
            " ORDER BY hashtextextended(key, 0), key LIMIT {limit}"
        ).format(
            parts=sql.SQL(", ").join(
                sql.SQL("key::jsonb ->> {}").format(sql.Literal(n)) for n in range(len(types))
            ),
            served=_served(in_buckets),
            limit=sql.Literal(model.monitoring.sample_rows),
        ),
        pa.schema([*SERVED, *((name, pa.string()) for name in parts)]),
    )
    # So few rows are looked up by their key: the default is of disks that had to move an arm.
    reader.rows(sql.SQL("SELECT set_config('random_page_cost', '1.1', true) AS cost"))
    among = {
        column: _array(pc.drop_null(pc.unique(served[part])), type_)
        for column, part, type_ in zip(model.key, parts, types, strict=True)
    }
    rows = reader.table(
        sql.SQL("SELECT f.* FROM ({rows}) AS f WHERE f._key = ANY ({keys})").format(
            rows=feature_query.feature_query(
                model, window.start, window.end, ordered=False, entity=True, among=among
            ),
            keys=_array(served["_key"], "text"),
        ),
        arrow.feature_schema(model, entity=True),
    )
    return rows.join(served.drop_columns(parts), "_key", join_type="inner")


def _key_types(reader: arrow.Reader, model: ModelSpec) -> list[str]:
    types = feature_query.types(reader)
    return [types[name] for name in model.key]


def _array(values: pa.ChunkedArray | pa.Array, type_: str) -> sql.Composable:
    """Texts as one literal, which takes a third of the time that a literal for each of 10,000 does."""
    escaped = pc.replace_substring(pc.replace_substring(values, "\\", "\\\\"), '"', '\\"')
    text = '","'.join(escaped.to_pylist())
    return sql.SQL("{}::{}[]").format(sql.Literal(f'{{"{text}"}}' if len(escaped) else "{}"), sql.SQL(type_))


def _buckets(scored: int, wanted: int) -> int:
    """How many of the 1,024 buckets of the hash surely hold `wanted` of `scored` keys."""
    # A bucket count varies by the root of what is expected; six times that is never seen.
    return math.ceil(BUCKETS * (wanted + 6 * math.sqrt(wanted) + 36) / max(scored, 1))


def _newest(
    reader: arrow.Reader, specs: Specs, model: ModelSpec, as_of: datetime, start: datetime, end: datetime
) -> datetime | None:
    rows = feature_query.event_query(model, start, end)
    found: datetime | None = reader.rows(sql.SQL("SELECT max(_time) AS newest FROM ({}) AS f").format(rows))[
        0
    ]["newest"]
    return found


def _scored(reader: arrow.Reader, made: sql.Composable) -> int:
    """How many keys have a prediction; of very many, an estimate from a sixty-fourth of them.

    The index holds the keys by buckets of their hash. As many keys as `EXACT` are estimated within half a percent, more
    of them better (one standard error, a bucket's count varies by its root).
    """
    few = _keys(reader, _lowest(made, 1)) * BUCKETS
    if few < EXACT:
        return _keys(reader, made)
    return _keys(reader, _lowest(made, ESTIMATED)) * (BUCKETS // ESTIMATED)


def _any_online(reader: arrow.Reader, made: sql.Composable) -> bool:
    """Whether the prediction service has made one of the predictions: the index `prediction_online` knows."""
    found = reader.rows(sql.SQL("SELECT EXISTS ({} AND run_id LIKE 'online/%') AS found").format(made))
    return bool(found[0]["found"])


def _rows_scored(
    reader: arrow.Reader, model: ModelSpec, start: datetime, end: datetime, made: sql.Composable
) -> int:
    """How many rows of the feature query have a prediction."""
    rows = feature_query.feature_query(model, start, end, ordered=False)
    query = "SELECT count(*) AS scored FROM ({}) AS f WHERE EXISTS (SELECT FROM ({}) AS made WHERE made.key = f._key)"
    # Before their first ANALYZE PostgreSQL takes both sides for small and compares each row with each prediction.
    nested = sql.SQL("SELECT set_config('enable_nestloop', {}, true) AS nested")
    reader.rows(nested.format(sql.Literal("off")))
    found = reader.rows(sql.SQL(query).format(rows, made))
    reader.rows(nested.format(sql.Literal("on")))
    return int(found[0]["scored"])


def _keys(reader: arrow.Reader, made: sql.Composable) -> int:
    """How many keys there are: as many as predictions, where one version made them all."""
    # A query for each window: what PostgreSQL expects of it lets it use its parallel workers.
    by_version = reader.rows(
        sql.SQL("SELECT version, count(*) AS made FROM ({}) AS made GROUP BY 1").format(made)
    )
    if len(by_version) < 2:
        return sum(row["made"] for row in by_version)
    each = sql.SQL("SELECT count(*) AS keys FROM (SELECT key FROM ({}) AS made GROUP BY key) AS each").format(
        made
    )
    return int(reader.rows(each)[0]["keys"])


def _lowest(made: sql.Composable, buckets: int) -> sql.Composable:
    """The predictions in the lowest buckets of the hash of their key, at most `INDEXED`: found by `prediction_sample`."""
    return sql.SQL("{made} AND {bucket} = ANY ({wanted}::bigint[]) AND {bucket} < {end}").format(
        made=made,
        bucket=sql.SQL("(hashtextextended(key, 0) >> 54)"),
        wanted=sql.Literal(list(range(LOWEST, LOWEST + buckets))),
        end=sql.Literal(LOWEST + INDEXED),
    )


def _made(start: datetime, end: datetime, as_of: datetime) -> sql.Composable:
    """Every prediction of a range that counts as of a time."""
    return sql.SQL(
        "SELECT key, version, event_time, prediction, scored_at FROM _prediction"
        " WHERE event_time >= {start} AND event_time < {end} AND as_of <= {as_of}"
    ).format(
        start=sql.Literal(start),
        end=sql.Literal(end),
        as_of=sql.Literal(as_of),
    )


def _served(made: sql.Composable) -> sql.Composable:
    """The prediction that was served for each key: the first one, of whatever version."""
    return sql.SQL(
        "SELECT DISTINCT ON (key) key, prediction, version FROM ({}) AS made ORDER BY key, scored_at, version"
    ).format(made)
