"""What a model's feature query can see: a view of each dataset that the model names, as it was known at a time.

A reader makes the views for itself, as temporary ones, and takes a role that may read them and nothing else: no table
behind them, no dataset that the model does not name, no ledger. `_features` is the model's SQL, word for word; whatever
is read of the features is read from it. The rows of a view are those that had arrived by then; PostgreSQL plans views as
if they were written in place, so indexes and parallel workers serve them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

import adbc_driver_manager
from psycopg2 import sql

from evergreen import settings
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.warehouse.batches import deleted
from evergreen.warehouse.features import arrow, query_mistakes
from evergreen.warehouse.features.repeatable import SHIFT_H, objections
from evergreen.warehouse.migrate import FEATURES_ROLE, TYPES, ensure_role

FEATURES, PREDICTIONS, SHADOW = "_features", "_prediction", "_shadow_prediction"
"""The views that a reader has besides the datasets: the feature query, and the model's predictions of each kind."""

_TABLES = {PREDICTIONS: "prediction", SHADOW: "shadow_prediction"}
_passed: set[tuple[object, ...]] = set()  # the queries that this process has judged already


class Session(Protocol):
    """A connection in which views are made: a reader's, or one of those that answer by key."""

    def run(self, statement: sql.Composable) -> None:
        """Run one statement that returns nothing."""

    def rows(self, query: sql.Composable) -> list[dict[str, Any]]:
        """The rows of a query; for small results."""


@contextmanager
def reading(
    specs: Specs, model: ModelSpec, as_of: datetime, *, timeout_s: int = 600
) -> Iterator[arrow.Reader]:
    """Open a reader on a model's features as they were known at a time.

    A dataset that never landed is an empty table, a column that it has not got yet is NULL. The reader may read the views
    of this module and the datasets' by their names, and write nothing.

    Args:
        specs: all specs.
        model: whose feature query.
        as_of: what had arrived by then is seen; aware.
        timeout_s: the server ends a statement that runs longer.

    Raises:
        UnusableQuery: the query does not run on the datasets, or reads or does what it may not.
        TerminalError: the role is missing (NO_ROLE).
        TransientError: the warehouse does not answer.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no time zone")

    def prepare(reader: arrow.Reader) -> None:
        ensure_role(reader.conn)
        reader.conn.commit()
        try:
            _prepare(reader, specs, model, as_of)
        except adbc_driver_manager.Error as error:
            raise reader.error(error) from error

    with arrow.reading(timeout_s=timeout_s, prepare=prepare) as reader:
        yield reader


def read_by(specs: Specs, model: ModelSpec, as_of: datetime, *, timeout_s: int = 600) -> tuple[str, ...]:
    """The datasets that a model's feature query reads, sorted: not those that its spec names, those that PostgreSQL found in it.

    Args and errors are those of `reading`.
    """
    # What a view's query reads is what the view depends on.
    query = sql.SQL(
        "SELECT DISTINCT c.relname::text AS name FROM pg_rewrite AS r JOIN pg_depend AS d ON d.objid = r.oid"
        " AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass"
        " JOIN pg_class AS c ON c.oid = d.refobjid WHERE r.ev_class = to_regclass({view}) AND c.oid <> r.ev_class"
        " ORDER BY name"
    ).format(view=sql.Literal(f"pg_temp.{FEATURES}"))
    with reading(specs, model, as_of, timeout_s=timeout_s) as reader:
        return tuple(row["name"] for row in reader.rows(query))


def as_known(datasets: Iterable[DatasetSpec], as_of: datetime) -> sql.Composable:
    """A WITH clause in which each dataset's name is a view of its rows as they were known at a time.

    For reads of the datasets by their owner; a feature query gets views.

    Args:
        datasets: whose tables exist (`migrate.ensure_dataset`).
        as_of: the time, aware.
    """
    views = [
        sql.SQL("{} AS NOT MATERIALIZED ({})").format(
            sql.Identifier(d.name), _known(d, as_of, frozenset(d.columns))
        )
        for d in datasets
    ]
    return sql.SQL("WITH {} ").format(sql.SQL(", ").join(views))


def stand(
    session: Session, specs: Specs, model: ModelSpec, columns: Sequence[str]
) -> dict[str, frozenset[str]]:
    """Make the views of the datasets as they are now, and `_features` on them, for as long as a session lasts.

    The views read the newest versions alone, and what is asked of `_features` by key is found by the indexes of `data.NAME`.
    A session is left in the role that may read these views and nothing else.

    Args:
        session: its transaction has begun and has done nothing.
        specs: all specs.
        model: whose query; `reading` has taken it as it is, so that it is one statement and a function of the datasets.
        columns: those that the query returns, see `feature_query.types`.

    Returns:
        The columns that each dataset has now; one that comes later is NULL to these views.
    """
    datasets = specs.datasets_of(model)
    there = {d.name: present(session, d) for d in datasets}
    for dataset in datasets:
        _make(session, dataset.name, _known(dataset, None, there[dataset.name]))
    _hand_over(session, [d.name for d in datasets])
    session.run(sql.SQL("SET ROLE {}").format(sql.Identifier(FEATURES_ROLE)))
    # Of columns with one name the later ones have got another one, which the query does not say.
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    session.run(
        sql.SQL("CREATE TEMPORARY VIEW {} ({}) AS ").format(sql.Identifier(FEATURES), names)
        + sql.SQL(model.query)
    )
    return there


def _known(dataset: DatasetSpec, as_of: datetime | None, there: frozenset[str]) -> sql.Composable:
    """The rows of a dataset as they were known at a time, without those that were deleted by then.

    `there` are the columns that both its tables have. Without a time: as they are now, whenever the query runs.
    """
    shown = [
        sql.Identifier(n)
        if n in there
        else sql.SQL("NULL::{} AS {}").format(sql.SQL(TYPES[c.type]), sql.Identifier(n))
        for n, c in dataset.columns.items()
    ]
    if not there:
        return sql.SQL("SELECT {}, NULL::timestamptz AS _arrived_at WHERE false").format(
            sql.SQL(", ").join(shown)
        )
    columns = sql.SQL(", ").join(sql.Identifier(n) for n in dataset.columns if n in there)
    living = (
        sql.SQL(" AND NOT {}").format(deleted.is_deleted(dataset))
        if dataset.deleted in there
        else sql.SQL("")
    )
    current = sql.Identifier("data", dataset.name)
    if as_of is None:
        return sql.SQL("SELECT {}, _arrived_at FROM {} WHERE _arrived_at <= now(){}").format(
            sql.SQL(", ").join(shown), current, living
        )
    # The conditions stand outside of the union: with conditions of its own an arm would be planned by itself, without the
    # order that an index gives.
    return sql.SQL(
        "SELECT {shown}, _arrived_at FROM ("
        "SELECT {columns}, _arrived_at, 'infinity'::timestamptz AS _superseded_at FROM {current}"
        " UNION ALL SELECT {columns}, _arrived_at, _superseded_at FROM {history}"
        ") AS _versions WHERE _arrived_at <= {t} AND _superseded_at > {t}{living}"
    ).format(
        shown=sql.SQL(", ").join(shown),
        columns=columns,
        current=current,
        history=sql.Identifier("data", f"{dataset.name}__history"),
        t=sql.Literal(as_of),
        living=living,
    )


def _prepare(reader: arrow.Reader, specs: Specs, model: ModelSpec, as_of: datetime) -> None:
    datasets = specs.datasets_of(model)
    there = {d.name: present(reader, d) for d in datasets}
    # A warehouse in which a draft is checked may have no table of Evergreen's yet.
    predictions = {view: table for view, table in _TABLES.items() if _exists(reader, f"evergreen.{table}")}
    for dataset in datasets:
        _make(reader, dataset.name, _known(dataset, as_of, there[dataset.name]))
    _hand_over(reader, [d.name for d in datasets])
    _take_role(reader)
    _define(reader, specs, model, there)
    # These come after the query: it cannot name what is not there yet.
    reader.run(sql.SQL("SET LOCAL ROLE NONE"))
    for view, table in predictions.items():
        rows = sql.SQL("SELECT * FROM {} WHERE model = {}").format(
            sql.Identifier("evergreen", table), sql.Literal(model.name)
        )
        _make(reader, view, rows)
    if predictions:
        _hand_over(reader, list(predictions))
    _take_role(reader)


def _make(session: Session, name: str, rows: sql.Composable) -> None:
    session.run(sql.SQL("CREATE TEMPORARY VIEW {} AS {}").format(sql.Identifier(name), rows))


def _hand_over(session: Session, names: list[str]) -> None:
    session.run(
        sql.SQL("GRANT SELECT ON {} TO {}").format(
            sql.SQL(", ").join(sql.Identifier("pg_temp", n) for n in names), sql.Identifier(FEATURES_ROLE)
        )
    )


def _take_role(reader: arrow.Reader) -> None:
    reader.run(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(FEATURES_ROLE)))


def present(session: Session, dataset: DatasetSpec) -> frozenset[str]:
    """The columns of a dataset's spec that both its tables have; none where they do not exist. Any role may ask."""
    rows = session.rows(
        sql.SQL(
            "SELECT attname::text AS name FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid"
            " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'data' AND c.relname IN ({}, {})"
            " AND attnum > 0 AND NOT attisdropped GROUP BY attname HAVING count(*) = 2"
        ).format(sql.Literal(dataset.name), sql.Literal(f"{dataset.name}__history"))
    )
    return frozenset(r["name"] for r in rows) & frozenset(dataset.columns)


def _exists(reader: arrow.Reader, table: str) -> bool:
    query = sql.SQL("SELECT to_regclass({}) IS NOT NULL AS there").format(sql.Literal(table))
    return bool(reader.rows(query)[0]["there"])


def _define(
    reader: arrow.Reader, specs: Specs, model: ModelSpec, there: Mapping[str, frozenset[str]]
) -> None:
    """Make `_features` out of the model's SQL, as the role that may read the datasets' views only.

    Raises:
        UnusableQuery: PostgreSQL does not take it, or it is no function of the datasets.
    """
    before = 0
    try:
        # Asks PostgreSQL for the columns and runs nothing. A query may return a name twice, a view may not.
        head = _head(FEATURES, reader.cursor.adbc_execute_schema(model.query).names)
        before = len(head.as_string(reader.conn))
        reader.run(head + sql.SQL(model.query))
    except adbc_driver_manager.Error as error:
        found = query_mistakes.problem_of(error, specs, model, before=before)
        if found is None:
            raise
        raise query_mistakes.UnusableQuery([found]) from error
    seen = (
        settings.WAREHOUSE.read(),
        model.query,
        repr(specs.datasets_of(model)),
        tuple(sorted(there.items())),
    )
    if seen not in _passed:
        _judge(reader, model, head)
        _passed.add(seen)


def _head(view: str, columns: Sequence[str]) -> sql.Composed:
    """The beginning of a view's definition; of columns with one name the later ones get another."""
    begin = sql.SQL("CREATE TEMPORARY VIEW {} ").format(sql.Identifier(view))
    if len(set(columns)) == len(columns):
        return begin + sql.SQL("AS ")
    before: Counter[str] = Counter()
    unique = []
    for column in columns:
        before[column] += 1
        unique.append(column if before[column] == 1 else f"{column} ({before[column]})")
    return begin + sql.SQL("({}) AS ").format(sql.SQL(", ").join(map(sql.Identifier, unique)))


def _judge(reader: arrow.Reader, model: ModelSpec, head: sql.Composed) -> None:
    """Refuse a query that is no function of the datasets; once in a process.

    Raises:
        UnusableQuery: it is not.
    """
    kept = sql.SQL(
        "SELECT ev_action::text AS tree, (extract(epoch FROM now()) * 1000000)::bigint - 946684800000000 AS now"
        " FROM pg_rewrite WHERE ev_class = to_regclass({})"
    ).format(sql.Literal(f"pg_temp.{FEATURES}"))

    def catalogue(query: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
        array = sql.SQL("{}::oid[]").format(sql.Literal(list(numbers)))
        return reader.rows(sql.SQL(query).format(array)) if numbers else []

    here = reader.rows(kept)[0]
    views = reader.rows(
        sql.SQL(
            "SELECT oid::bigint AS oid FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relname <> {}"
        ).format(sql.Literal(FEATURES))
    )
    reader.run(sql.SQL("SAVEPOINT evergreen_elsewhere"))
    reader.run(sql.SQL("DROP VIEW {}").format(sql.Identifier("pg_temp", FEATURES)))
    reader.run(sql.SQL("SET LOCAL TimeZone = '<+{0}>-{0}'").format(sql.Literal(SHIFT_H)))
    reader.run(head + sql.SQL(model.query))
    elsewhere = reader.rows(kept)[0]
    reader.run(sql.SQL("ROLLBACK TO SAVEPOINT evergreen_elsewhere"))
    found = objections(here["tree"], elsewhere["tree"], here["now"], {v["oid"] for v in views}, catalogue)
    if found:
        raise query_mistakes.UnusableQuery(query_mistakes.objected(o, model) for o in found)
