"""A model's feature query on the datasets as they were known at an as-of time.

The feature query is plain SQL on the datasets' names, the same for training, scoring and monitoring. All that is here
reads the view `_features` of a reader, see `views.reading`, which knows the as-of time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import ModelSpec, Problem, Specs

if TYPE_CHECKING:
    from evergreen.warehouse.features import arrow

# As PostgreSQL writes them out.
NUMBERS = ("smallint", "integer", "bigint", "real", "double precision", "numeric")
NUMERIC = (*NUMBERS, "boolean")
CATEGORIES = ("text", "character varying", "character", "boolean", "smallint", "integer", "bigint")
TIMES = ("timestamp with time zone", "timestamp without time zone", "date")
LATEST = datetime(9999, 1, 1, tzinfo=UTC)


def key_expression(columns: Iterable[str]) -> sql.Composable:
    """Key columns of a feature row as one text, as `evergreen.prediction.key` holds it."""
    return sql.SQL("json_build_array({})::text").format(sql.SQL(", ").join(map(sql.Identifier, columns)))


def feature_query(  # noqa: PLR0913  # each is a clause of the one SELECT, and none goes with another
    model: ModelSpec,
    start: datetime | None,
    end: datetime | None,
    *,
    mature_at: datetime | None = None,
    labelled: bool = False,
    ordered: bool = True,
    entity: bool = False,
    among: Mapping[str, sql.Composable] | None = None,
) -> sql.Composable:
    """The feature rows of an event-time range as the reader knows them, as one SELECT.

    Columns: `_key` (text), `_hash` (a bigint that
    follows from the key: the smallest ones are a sample that is the same whenever it is drawn), `_time` (timestamptz),
    the features, `_label` (double precision, NULL where the label is not in).

    Args:
        model: whose query is run.
        start: first event time, included; None for no limit.
        end: last event time, excluded; None for no limit.
        mature_at: leave out rows whose label was not mature by then; what has none by then may never get one.
        labelled: leave out rows without a label.
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
    if labelled:
        where.append(sql.SQL("{} IS NOT NULL").format(label))
    for name, values in (among or {}).items():
        where.append(sql.SQL("{} = ANY ({})").format(sql.Identifier(name), values))
    columns = _features(model)
    if entity:
        columns.insert(0, sql.SQL("{} AS _entity").format(_entity(model)))
    names = [*(["_entity"] if entity else []), *model.features.numeric, *model.features.categorical]
    # Ordered, the key is made once for order and hash, as the OFFSET keeps the inner query as it stands; its order comes
    # from the index of the event time where the rows lie in that order, and then they stream without a sort. Without
    # an order nothing is kept apart: what only counts rows makes no keys, and does it in parallel.
    order, fence = (sql.SQL(" ORDER BY _time, _key"), sql.SQL(" OFFSET 0")) if ordered else [sql.SQL("")] * 2
    return sql.SQL(
        "SELECT _key, hashtextextended(_key, 0) AS _hash, _time, {names}, _label FROM ("
        "SELECT {key} AS _key, {time}::timestamptz AS _time, {columns}, {label}::double precision AS _label"
        " FROM _features WHERE {where}{order}{fence}) AS _rows{order}"
    ).format(
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        key=key_expression(model.key),
        time=time,
        columns=sql.SQL(", ").join(columns),
        label=label,
        where=sql.SQL(" AND ").join(where),
        order=order,
        fence=fence,
    )


def event_query(model: ModelSpec, start: datetime, end: datetime) -> sql.Composable:
    """`_time` and `_label` of the rows of `feature_query`, in no order: what counting needs, and not a column more."""
    return sql.SQL(
        "SELECT {time}::timestamptz AS _time, {label}::double precision AS _label FROM _features WHERE {where}"
    ).format(
        time=sql.Identifier(model.event_time),
        label=sql.Identifier(model.label.column),
        where=sql.SQL(" AND ").join(_range(model, start, end)),
    )


def label_query(model: ModelSpec, start: datetime, end: datetime, *, newest: bool = False) -> sql.Composable:
    """`_time`, `_entity` (see `feature_query`) and `_label` of the rows of a range that have a label, by event time.

    `newest`: of each entity the newest alone.
    """
    found = sql.SQL(
        "SELECT {time}::timestamptz AS _time, {entity} AS _entity, {label}::double precision AS _label"
        " FROM _features WHERE {where} AND {label} IS NOT NULL"
    ).format(
        time=sql.Identifier(model.event_time),
        entity=_entity(model),
        label=sql.Identifier(model.label.column),
        where=sql.SQL(" AND ").join(_range(model, start, end)),
    )
    if newest:
        found = sql.SQL(
            "SELECT DISTINCT ON (_entity) * FROM ({}) AS f ORDER BY _entity, _time DESC, _label DESC"
        ).format(found)
    return sql.SQL("SELECT * FROM ({}) AS l ORDER BY _time, _label").format(found)


def newest_query(model: ModelSpec) -> sql.Composable:
    """The newest row of each entity: `_entity` (the key's columns but the event time, as text), `_key`, `_time` and the features.

    Two rows of the same time come both, so that whoever reads them sees that the query returns a key twice.
    """
    time, others = sql.Identifier(model.event_time), [name for name in model.key if name != model.event_time]
    return sql.SQL(
        "SELECT _entity, _key, _time, {names} FROM (SELECT {entity} AS _entity, {key} AS _key, {time}::timestamptz AS _time, {columns},"
        " rank() OVER (PARTITION BY {others} ORDER BY {time} DESC) AS _rank FROM _features WHERE {where} AND isfinite({time})"
        ") AS _rows WHERE _rank = 1"
    ).format(
        names=sql.SQL(", ").join(map(sql.Identifier, model.features.all)),
        entity=key_expression(others),
        key=key_expression(model.key),
        time=time,
        columns=sql.SQL(", ").join(_features(model)),
        others=sql.SQL(", ").join(map(sql.Identifier, others)),
        where=sql.SQL(" AND ").join(_range(model, None, None)),
    )


def asked_query(
    model: ModelSpec, columns: Sequence[str], types: Mapping[str, str], *, newest: bool = False
) -> sql.Composable:
    """The feature rows of keys that are asked for, as a SELECT with an array of values for each column as $1, $2 and so on.

    Columns: `_position` (of the values in the arrays, from 1), `_key`, `_time` and the features, as in `feature_query`. In no order.

    Args:
        model: whose query is asked.
        columns: those that the arrays are of: the key's.
        types: the SQL types of the columns, see `types`.
        newest: of each position the two newest rows, of columns that are not the whole key; the second one tells whether the
            first is the only one of its time.
    """
    time, arrays = sql.Identifier(model.event_time), list(range(1, len(columns) + 1))
    rows = sql.SQL("SELECT {key} AS _key, {time}::timestamptz AS _time, {features}").format(
        key=key_expression(model.key), time=time, features=sql.SQL(", ").join(_features(model))
    )
    where = _range(model, None, None)
    if newest:
        # For each position by itself: an index that has the time after these columns then gives the newest row without the others.
        where += [
            sql.SQL("{} = _asked.{}").format(sql.Identifier(name), sql.Identifier(f"_{i}"))
            for i, name in zip(arrays, columns, strict=True)
        ]
        found = sql.SQL(
            "CROSS JOIN LATERAL ({} FROM _features WHERE {} ORDER BY {} DESC LIMIT 2) AS _rows"
        ).format(rows, sql.SQL(" AND ").join(where), time)
    else:
        # Both ways: the arrays are found by an index through views and unions, and name each a column; the join names the whole key.
        # The OFFSET keeps the two apart: PostgreSQL would take them for conditions that have nothing to do with each other, and so
        # expect fewer rows than there are.
        given, same = [], []
        for i, name in zip(arrays, columns, strict=True):
            where.append(sql.SQL("{} = ANY ({})").format(sql.Identifier(name), sql.SQL(f"${i}")))
            given.append(sql.SQL("{} AS {}").format(sql.Identifier(name), sql.Identifier(f"_{i}")))
            same.append(sql.SQL("_rows.{0} = _asked.{0}").format(sql.Identifier(f"_{i}")))
        found = sql.SQL("JOIN ({}, {} FROM _features WHERE {} OFFSET 0) AS _rows ON {}").format(
            rows, sql.SQL(", ").join(given), sql.SQL(" AND ").join(where), sql.SQL(" AND ").join(same)
        )
    return sql.SQL("SELECT _position, _key, _time, {} FROM {} {}").format(
        sql.SQL(", ").join(sql.Identifier("_rows", name) for name in model.features.all),
        asked(columns, types),
        found,
    )


def asked(columns: Sequence[str], types: Mapping[str, str]) -> sql.Composable:
    """What is asked for, as rows: `_1`, `_2` and so on of the arrays $1, $2 and so on, and `_position`, from 1."""
    numbers = range(1, len(columns) + 1)
    return sql.SQL("unnest({}) WITH ORDINALITY AS _asked ({}, _position)").format(
        sql.SQL(", ").join(
            sql.SQL(f"${i}::{array_type(types[name])}") for i, name in zip(numbers, columns, strict=True)
        ),
        sql.SQL(", ").join(sql.Identifier(f"_{i}") for i in numbers),
    )


def array_type(type_: str) -> str:
    """The type of an array of a column's values, by its name in `types`; `character` would be one letter."""
    return f"{'bpchar' if type_ == 'character' else type_}[]"


def _features(model: ModelSpec) -> list[sql.Composable]:
    return [
        sql.SQL("{0}::{1} AS {0}").format(sql.Identifier(name), sql.SQL(type_))
        for names, type_ in (
            (model.features.numeric, "double precision"),
            (model.features.categorical, "text"),
        )
        for name in names
    ]


def _range(model: ModelSpec, start: datetime | None, end: datetime | None) -> list[sql.Composable]:
    time = sql.Identifier(model.event_time)
    where: list[sql.Composable] = [sql.SQL("{} IS NOT NULL").format(time)]
    if start is not None:
        where.append(sql.SQL("{} >= {}").format(time, sql.Literal(start)))
    if end is not None:
        where.append(sql.SQL("{} < {}").format(time, sql.Literal(end)))
    return where


def types(reader: arrow.Reader) -> dict[str, str]:
    """The columns that the feature query returns, with their SQL types (`timestamp with time zone`); reads no row."""
    rows = reader.rows(
        sql.SQL(
            "SELECT attname::text AS name, format_type(atttypid, NULL) AS type FROM pg_attribute"
            " WHERE attrelid = to_regclass('pg_temp._features') AND attnum > 0 ORDER BY attnum"
        )
    )
    return {row["name"]: row["type"] for row in rows}


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


def check(specs: Specs, model: ModelSpec) -> list[Problem]:
    """Let PostgreSQL read the feature query as it would run it, and compare its columns with the model's.

    Needs no data, reads no row and leaves nothing behind; a dataset that never landed is an empty table.

    Returns:
        Every mistake found: SQL that does not run, that reads or does what it may not, columns that are missing or of
        the wrong type.

    Raises:
        TerminalError: the role under which feature queries run is missing (NO_ROLE).
        TransientError: the warehouse does not answer.
    """
    file = f"models/{model.name}"
    from evergreen.warehouse.features import (
        views,  # imports Arrow, which who only writes a query does not need
    )
    from evergreen.warehouse.features.query_mistakes import UnusableQuery

    try:
        with views.reading(specs, model, LATEST) as reader:
            found = types(reader)
    except UnusableQuery as error:
        return list(error.problems)
    problems = []
    wanted: list[tuple[str, str, tuple[str, ...] | None]] = [
        ("features.numeric", n, NUMERIC) for n in model.features.numeric
    ]
    wanted += [("features.categorical", n, CATEGORIES) for n in model.features.categorical]
    wanted += [("label.column", model.label.column, NUMERIC), ("event_time", model.event_time, TIMES)]
    wanted += [("key", n, None) for n in model.key]
    for where, name, allowed in wanted:
        if name not in found:
            problems.append(
                Problem(
                    f"{file}.yaml",
                    where,
                    name,
                    f"the query returns no such column; it returns {', '.join(found)}",
                )
            )
        elif allowed is not None and found[name] not in allowed:
            problems.append(
                Problem(
                    f"{file}.sql",
                    where,
                    name,
                    f"has type {found[name]}; cast it to one of {', '.join(allowed)}",
                )
            )
        elif allowed is NUMERIC and found[name] == "boolean":
            problems.append(
                Problem(
                    f"{file}.sql",
                    where,
                    name,
                    f"is a boolean; write {name}::int, or list it under categorical",
                )
            )
    return problems


def require_valid(specs: Specs, model: ModelSpec) -> None:
    """Raise if `check` finds anything.

    Raises:
        TerminalError: with every problem, a line each.
    """
    problems = check(specs, model)
    if problems:
        raise TerminalError("\n".join(str(p) for p in problems), ErrorReason.BAD_QUERY)
