"""A model's feature query on the datasets as they were known at an as-of time.

Each dataset's name stands for a view that shows, for every key, the version that had arrived by then. The feature
query is plain SQL on those names, the same for training, scoring and monitoring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import psycopg2
from psycopg2 import sql

from evergreen.errors import Reason, TerminalError
from evergreen.spec import DatasetSpec, ModelSpec, Problem, Specs
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.migrate import TYPES

NUMERIC = ("int2", "int4", "int8", "float4", "float8", "numeric", "bool")
TEXTUAL = ("text", "varchar", "bpchar", "bool", "int2", "int4", "int8")
# The same as PostgreSQL writes them out, of columns that a version may have been trained on.
NUMBERS = ("smallint", "integer", "bigint", "real", "double precision", "numeric")
CATEGORIES = ("text", "character varying", "character", "boolean", "smallint", "integer", "bigint")
TIMES = ("timestamptz", "timestamp", "date")


def as_known(datasets: Iterable[DatasetSpec], as_of: datetime) -> sql.Composable:
    """A WITH clause in which each dataset's name is a view of its rows as they were known at a time.

    PostgreSQL plans each view as if it were written in place, so indexes and parallel workers serve it. The conditions
    stand outside of the union: with conditions of its own an arm would be planned by itself, without the order that an
    index gives.

    Args:
        datasets: whose tables exist (`migrate.ensure_dataset`).
        as_of: the time, aware.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no time zone")
    views = []
    for dataset in datasets:
        views.append(
            sql.SQL(
                "{view} AS NOT MATERIALIZED (SELECT {columns}, _arrived_at FROM ("
                "SELECT {columns}, _arrived_at, 'infinity'::timestamptz AS _superseded_at FROM {current}"
                " UNION ALL SELECT {columns}, _arrived_at, _superseded_at FROM {history}"
                ") AS _versions WHERE _arrived_at <= {t} AND _superseded_at > {t})"
            ).format(
                view=sql.Identifier(dataset.name),
                columns=sql.SQL(", ").join(map(sql.Identifier, dataset.columns)),
                current=sql.Identifier("data", dataset.name),
                history=sql.Identifier("data", f"{dataset.name}__history"),
                t=sql.Literal(as_of),
            )
        )
    return sql.SQL("WITH {} ").format(sql.SQL(", ").join(views))


def key_expression(columns: Iterable[str]) -> sql.Composable:
    """Key columns of a feature row as one text, as `evergreen.prediction.key` holds it."""
    return sql.SQL("json_build_array({})::text").format(sql.SQL(", ").join(map(sql.Identifier, columns)))


def feature_query(
    specs: Specs,
    model: ModelSpec,
    as_of: datetime,
    start: datetime | None,
    end: datetime | None,
    *,
    mature_at: datetime | None = None,
    ordered: bool = True,
    entity: bool = False,
    among: Mapping[str, sql.Composable] | None = None,
) -> sql.Composable:
    """The feature rows of an event-time range as they were known at a time, as one SELECT.

    To be run without parameters (a % in the SQL stands for itself). Columns: `_key` (text), `_hash` (a bigint that
    follows from the key: the smallest ones are a sample that is the same whenever it is drawn), `_time` (timestamptz),
    the features, `_label` (double precision, NULL where the label is not in).

    Args:
        specs: all specs.
        model: whose query is run.
        as_of: what had arrived by then is seen; aware.
        start: first event time, included; None for no limit.
        end: last event time, excluded; None for no limit.
        mature_at: leave out rows whose label is missing or was not mature by then.
        ordered: by event time and key; a query that only counts need not be.
        entity: also `_entity` (bigint, after `_time`): equal for rows whose key differs in the event time only; 0
            where nothing but the event time makes the key, or the event time is no part of it.
        among: by column of the query an array of its type: only rows whose values are in all of them. PostgreSQL
            finds few of them by the datasets' indexes, through views and unions, which no join with a table gets.
    """
    time, label = sql.Identifier(model.event_time), sql.Identifier(model.label.column)
    where = _range(model, start, end)
    if mature_at is not None:
        where.append(sql.SQL("{} <= {}").format(time, sql.Literal(mature_at - model.label.delay)))
        where.append(sql.SQL("{} IS NOT NULL").format(label))
    for name, values in (among or {}).items():
        where.append(sql.SQL("{} = ANY ({})").format(sql.Identifier(name), values))
    columns = [
        sql.SQL("{}::double precision AS {}").format(sql.Identifier(n), sql.Identifier(n))
        for n in model.features.numeric
    ]
    columns += [
        sql.SQL("{}::text AS {}").format(sql.Identifier(n), sql.Identifier(n))
        for n in model.features.categorical
    ]
    if entity:
        columns.insert(0, sql.SQL("{} AS _entity").format(_entity(model)))
    names = [*(["_entity"] if entity else []), *model.features.numeric, *model.features.categorical]
    # Ordered, the key is made once for order and hash, as the OFFSET keeps the inner query as it stands; its order comes
    # from the index of the event time where the rows lie in that order, and then they stream without a sort. Without
    # an order nothing is kept apart: what only counts rows makes no keys, and does it in parallel.
    order, fence = (sql.SQL(" ORDER BY _time, _key"), sql.SQL(" OFFSET 0")) if ordered else [sql.SQL("")] * 2
    return sql.SQL(
        "{known}SELECT _key, hashtextextended(_key, 0) AS _hash, _time, {names}, _label FROM ("
        "SELECT {key} AS _key, {time}::timestamptz AS _time, {columns}, {label}::double precision AS _label"
        " FROM ({query}) AS _features WHERE {where}{order}{fence}) AS _rows{order}"
    ).format(
        known=as_known(specs.datasets_of(model), as_of),
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        key=key_expression(model.key),
        time=time,
        columns=sql.SQL(", ").join(columns),
        label=label,
        query=sql.SQL(model.query.rstrip().rstrip(";") + "\n"),
        where=sql.SQL(" AND ").join(where),
        order=order,
        fence=fence,
    )


def event_query(
    specs: Specs, model: ModelSpec, as_of: datetime, start: datetime, end: datetime
) -> sql.Composable:
    """`_time` and `_label` of the rows of `feature_query`, in no order: what counting needs, and not a column more."""
    return sql.SQL(
        "{known}SELECT {time}::timestamptz AS _time, {label}::double precision AS _label FROM ({query}) AS _features"
        " WHERE {where}"
    ).format(
        known=as_known(specs.datasets_of(model), as_of),
        time=sql.Identifier(model.event_time),
        label=sql.Identifier(model.label.column),
        query=sql.SQL(model.query.rstrip().rstrip(";") + "\n"),
        where=sql.SQL(" AND ").join(_range(model, start, end)),
    )


def _range(model: ModelSpec, start: datetime | None, end: datetime | None) -> list[sql.Composable]:
    time = sql.Identifier(model.event_time)
    where: list[sql.Composable] = [sql.SQL("{} IS NOT NULL").format(time)]
    if start is not None:
        where.append(sql.SQL("{} >= {}").format(time, sql.Literal(start)))
    if end is not None:
        where.append(sql.SQL("{} < {}").format(time, sql.Literal(end)))
    return where


def types(conn: Connection, specs: Specs, model: ModelSpec, as_of: datetime) -> dict[str, str]:
    """The columns that the feature query returns, with their SQL types (`timestamp with time zone`); reads no row.

    Raises:
        TerminalError: the query does not run (BAD_QUERY).
    """
    with conn.cursor() as cursor:
        try:
            cursor.execute(
                sql.SQL("{known}SELECT * FROM ({query}) AS _features LIMIT 0").format(
                    known=as_known(specs.datasets_of(model), as_of),
                    query=sql.SQL(model.query.rstrip().rstrip(";") + "\n"),
                )
            )
        except psycopg2.errors.ProgrammingError as error:
            line = " ".join(str(error).split())[:300]
            raise TerminalError(
                f"{model.name}: the feature query does not run: {line}; mend it and run `make check`",
                Reason.BAD_QUERY,
            ) from error
        found = [(column.name, column.type_code) for column in cursor.description or ()]
        cursor.execute(
            "SELECT format_type(t, NULL) FROM unnest(%s::oid[]) WITH ORDINALITY AS o (t, n) ORDER BY n",
            ([oid for _, oid in found],),
        )
        return {name: kind for (name, _), (kind,) in zip(found, cursor.fetchall(), strict=True)}


def key_types(conn: Connection, specs: Specs, model: ModelSpec, as_of: datetime) -> list[str]:
    """The SQL types of the key columns as the feature query returns them, see `types`."""
    found = types(conn, specs, model, as_of)
    return [found[name] for name in model.key]


def lacking(
    model: ModelSpec, found: Mapping[str, str], categories: Mapping[str, Sequence[str]] | None = None
) -> dict[str, str]:
    """The features of a model that its query does not give, each with what is wrong with it.

    A spec is held against its query before anything is done (`check`). This tells of the features of a version that was trained
    from an earlier spec, see `ModelSpec.seeing`.

    Args:
        model: its features.
        found: the columns of the query with their types, see `types`.
        categories: those that a version knows, by feature: words are none of a column that became a number.
    """
    wanted: list[tuple[str, tuple[str, ...], str]] = [
        (name, NUMBERS, "a number") for name in model.features.numeric
    ]
    wanted += [(name, CATEGORIES, "a category") for name in model.features.categorical]
    lacks = {}
    for name, allowed, kind in wanted:
        if name not in found:
            lacks[name] = "the feature query does not return it now"
        elif found[name] not in allowed:
            lacks[name] = f"it was {kind}, and the feature query returns {found[name]} now"
    for name, known in (categories or {}).items():
        if name not in lacks and known and not any(_may_be(value, found[name]) for value in known):
            lacks[name] = (
                f"it was one of {', '.join(known[:3])}, and the feature query returns {found[name]} now"
            )
    return lacks


def _may_be(category: str, type_: str) -> bool:
    """Whether a column of a type can have a value that is written so."""
    if type_ == "boolean":
        return category in ("true", "false")
    return type_ not in ("smallint", "integer", "bigint") or category.lstrip("-").isdigit()


def _entity(model: ModelSpec) -> sql.Composable:
    others = [name for name in model.key if name != model.event_time]
    if model.event_time not in model.key or not others:
        return sql.SQL("0::bigint")
    return sql.SQL("hashtextextended({}, 0)").format(key_expression(others))


def check(conn: Connection, specs: Specs, model: ModelSpec) -> list[Problem]:
    """Plan the feature query on empty tables made from the dataset specs and compare its columns with the model's.

    Needs no data and leaves nothing behind.

    Returns:
        Every mistake found: SQL that does not run, columns that are missing or of the wrong type.
    """
    file = f"models/{model.name}"
    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_check")
        try:
            for dataset in specs.datasets_of(model):
                columns = sql.SQL(", ").join(
                    sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(TYPES[c.type]))
                    for n, c in dataset.columns.items()
                )
                cursor.execute(
                    sql.SQL("CREATE TEMPORARY TABLE {} ({}, _arrived_at timestamptz)").format(
                        sql.Identifier(dataset.name), columns
                    )
                )
            cursor.execute(
                sql.SQL("SELECT * FROM ({}) AS _features LIMIT 0").format(
                    sql.SQL(model.query.rstrip().rstrip(";") + "\n")
                )
            )
            oids = {c.name: c.type_code for c in cursor.description or ()}
            names = {
                r["oid"]: r["typname"]
                for r in fetch(
                    conn, "SELECT oid::int, typname FROM pg_type WHERE oid = ANY(%s)", (list(oids.values()),)
                )
            }
            types = {column: names[oid] for column, oid in oids.items()}
        except psycopg2.Error as error:
            text = " ".join(str(error.diag.message_primary or error).split())
            hint = f" (hint: {error.diag.message_hint})" if error.diag.message_hint else ""
            return [
                Problem(
                    f"{file}.sql", "", "", f"does not run: {text}{hint}; mend the query and run `make check`"
                )
            ]
        finally:
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_check")
    problems = []
    wanted: list[tuple[str, str, tuple[str, ...] | None]] = [
        ("features.numeric", n, NUMERIC) for n in model.features.numeric
    ]
    wanted += [("features.categorical", n, TEXTUAL) for n in model.features.categorical]
    wanted += [("label.column", model.label.column, NUMERIC), ("event_time", model.event_time, TIMES)]
    wanted += [("key", n, None) for n in model.key]
    for where, name, allowed in wanted:
        if name not in types:
            problems.append(
                Problem(
                    f"{file}.yaml",
                    where,
                    name,
                    f"the query returns no such column; it returns {', '.join(types)}",
                )
            )
        elif allowed is not None and types[name] not in allowed:
            problems.append(
                Problem(
                    f"{file}.sql",
                    where,
                    name,
                    f"has type {types[name]}; cast it to one of {', '.join(allowed)}",
                )
            )
        elif allowed is NUMERIC and types[name] == "bool":
            problems.append(
                Problem(
                    f"{file}.sql",
                    where,
                    name,
                    f"is a boolean; write {name}::int, or list it under categorical",
                )
            )
    return problems


def require_valid(conn: Connection, specs: Specs, model: ModelSpec) -> None:
    """Raise if `check` finds anything.

    Raises:
        TerminalError: with every problem, a line each.
    """
    problems = check(conn, specs, model)
    if problems:
        raise TerminalError("\n".join(str(p) for p in problems), Reason.BAD_QUERY)
