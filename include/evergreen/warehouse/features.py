"""Runs a model's feature query on the datasets as they were known at an as-of time.

Each dataset becomes a temporary view of its own name that shows, for every key, the version that had arrived
by then. The feature query is plain SQL on those names, the same for training, scoring and monitoring.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import psycopg2
from psycopg2 import sql

from evergreen.errors import Reason, TerminalError
from evergreen.spec import DatasetSpec, ModelSpec, Problem, Specs
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.migrate import TYPES, ensure_dataset

NUMERIC = ("int2", "int4", "int8", "float4", "float8", "numeric", "bool")
TEXTUAL = ("text", "varchar", "bpchar", "bool", "int2", "int4", "int8")
TIMES = ("timestamptz", "timestamp", "date")


def open_views(conn: Connection, datasets: Iterable[DatasetSpec], as_of: datetime) -> None:
    """Make the temporary views of this connection show what was known at `as_of` (aware, UTC).

    The views end with the transaction's connection. A dataset that never landed is an empty table.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no time zone")
    with conn.cursor() as cursor:
        for dataset in datasets:
            ensure_dataset(conn, dataset)
            columns = sql.SQL(", ").join(map(sql.Identifier, dataset.columns))
            cursor.execute(
                sql.SQL("DROP VIEW IF EXISTS {} CASCADE").format(sql.Identifier("pg_temp", dataset.name))
            )
            cursor.execute(
                sql.SQL(
                    "CREATE TEMPORARY VIEW {view} AS"
                    " SELECT {columns}, _arrived_at FROM {current} WHERE _arrived_at <= {t}"
                    " UNION ALL"
                    " SELECT {columns}, _arrived_at FROM {history} WHERE _arrived_at <= {t} AND _superseded_at > {t}"
                ).format(
                    view=sql.Identifier(dataset.name),
                    columns=columns,
                    current=sql.Identifier("data", dataset.name),
                    history=sql.Identifier("data", f"{dataset.name}__history"),
                    t=sql.Literal(as_of),
                )
            )


def key_expression(model: ModelSpec) -> sql.Composable:
    """The key of a feature row as one text, as `evergreen.prediction.key` holds it."""
    return sql.SQL("jsonb_build_array({})::text").format(sql.SQL(", ").join(map(sql.Identifier, model.key)))


def feature_query(
    model: ModelSpec, start: datetime | None, end: datetime | None, *, mature_at: datetime | None = None
) -> sql.Composable:
    """The feature rows of an event-time range, ordered by event time and key.

    To be run without parameters (a % in the SQL stands for itself). Columns: `_key` (text), `_time` (timestamptz), the features, `_label` (double precision, NULL where the
    label is not in). Needs `open_views` on the same connection.

    Args:
        model: whose query is run.
        start: first event time, included; None for no limit.
        end: last event time, excluded; None for no limit.
        mature_at: leave out rows whose label is missing or was not mature by then.
    """
    time = sql.Identifier(model.event_time)
    label = sql.Identifier(model.label.column)
    where = [sql.SQL("{} IS NOT NULL").format(time)]
    if start is not None:
        where.append(sql.SQL("{} >= {}").format(time, sql.Literal(start)))
    if end is not None:
        where.append(sql.SQL("{} < {}").format(time, sql.Literal(end)))
    if mature_at is not None:
        where.append(sql.SQL("{} <= {}").format(time, sql.Literal(mature_at - model.label.delay)))
        where.append(sql.SQL("{} IS NOT NULL").format(label))
    features = [
        sql.SQL("{}::double precision AS {}").format(sql.Identifier(n), sql.Identifier(n))
        for n in model.features.numeric
    ]

    features += [
        sql.SQL("{}::text AS {}").format(sql.Identifier(n), sql.Identifier(n))
        for n in model.features.categorical
    ]
    return sql.SQL(
        "SELECT {key} AS _key, {time}::timestamptz AS _time, {features}, {label}::double precision AS _label"
        " FROM ({query}) AS _features WHERE {where} ORDER BY _time, _key"
    ).format(
        key=key_expression(model),
        time=time,
        features=sql.SQL(", ").join(features),
        label=label,
        query=sql.SQL(model.query.rstrip().rstrip(";") + "\n"),
        where=sql.SQL(" AND ").join(where),
    )


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
