"""Which rows fail an expectation: Great Expectations' own condition as a query of `_row`.

Great Expectations 1.24 offers such a query too, but writes it for people: times in Python's notation, quotes that do not
hold, a row condition left out. Here its condition, as SQLAlchemy has it, gets its values from psycopg2, as every query.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from great_expectations.core.metric_function_types import MetricPartialFunctionTypeSuffixes
from great_expectations.exceptions import GreatExpectationsError
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.core import UnexpectedRowsExpectation
from great_expectations.expectations.expectation import (
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    Expectation,
    MulticolumnMapExpectation,
)
from great_expectations.expectations.registry import get_metric_kwargs, get_metric_provider
from great_expectations.util import get_sqlalchemy_selectable
from great_expectations.validator.metric_configuration import MetricConfiguration
from great_expectations.validator.metrics_calculator import MetricsCalculator
from psycopg2 import sql

BY_ROW = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
# Their conditions are about a query of their own.
_COMPOUND, _UNIQUE = "compound_columns.unique", "column_values.unique"
# Judged by the column's type, without a condition on values.
_OF_TYPE = ("column_values.of_type", "column_values.in_type_list")


def why_not_by_row(kind: type[Expectation]) -> str:
    """Why the rows that fail an expectation cannot be told one by one in PostgreSQL; empty where they can."""
    metric = getattr(kind, "map_metric", None)
    if issubclass(kind, UnexpectedRowsExpectation):
        return ""
    if not issubclass(kind, BY_ROW) or metric is None or metric in _OF_TYPE:
        return "it is about the file as a whole"
    return "" if _has_condition(metric) else "Great Expectations does not judge it in SQL"


def judged_in_sql(kind: type[Expectation]) -> bool:
    """Whether Great Expectations can judge an expectation inside PostgreSQL."""
    metric = getattr(kind, "map_metric", None)
    return metric is None or metric in _OF_TYPE or not issubclass(kind, BY_ROW) or _has_condition(metric)


def _has_condition(metric: str) -> bool:
    try:
        # The registry asks an engine for the name of its class only, and a real one needs a database.
        get_metric_provider(_condition(metric), SqlAlchemyExecutionEngine.__new__(SqlAlchemyExecutionEngine))
    except GreatExpectationsError:
        return False
    return True


def rows_query(batch: Any, expectation: Expectation, table: sql.Composable) -> sql.Composable | str:
    """The `_row` of every row that fails an expectation.

    Args:
        batch: Great Expectations' batch of the typed table.
        expectation: one that failed.
        table: the typed table.

    Returns:
        The query; or, where there is none, why, in words.

    Raises:
        GreatExpectationsError, sqlalchemy.exc.DBAPIError: its condition could not be made.
    """
    if isinstance(expectation, UnexpectedRowsExpectation):
        return _of_own_query(batch, expectation, table)
    metric = getattr(expectation, "map_metric", None)
    if why := why_not_by_row(type(expectation)):
        return why
    return _literal(batch, _select(batch, expectation, str(metric)))


def _select(batch: Any, expectation: Expectation, metric: str) -> Any:
    engine = batch.data.execution_engine
    configuration = expectation.configuration
    configuration.kwargs["batch_id"] = batch.id
    name = _condition(metric)
    kwargs = get_metric_kwargs(name, configuration=configuration, runtime_configuration={})
    wanted = MetricConfiguration(name, kwargs["metric_domain_kwargs"], kwargs["metric_value_kwargs"])
    condition, compute, accessor = MetricsCalculator(engine).get_metric(wanted)
    row: sa.ColumnClause[Any] = sa.column("_row")
    if metric == _COMPOUND:
        return sa.select(row).where(condition)
    domain = {**compute, **accessor}
    records: Any = get_sqlalchemy_selectable(engine.get_domain_records(domain_kwargs=domain))
    if metric == _UNIQUE:
        value: sa.ColumnClause[Any] = sa.column(domain["column"])
        twice = sa.select(value).select_from(records).group_by(value).having(sa.func.count() > 1)
        return sa.select(row).select_from(records).where(value.in_(twice))
    return sa.select(row).select_from(records).where(condition)


def _of_own_query(
    batch: Any, expectation: UnexpectedRowsExpectation, table: sql.Composable
) -> sql.Composable | str:
    with batch.data.execution_engine.engine.connect() as connection:
        name = table.as_string(connection.connection.driver_connection)
    query = expectation.unexpected_rows_query
    if not isinstance(query, str):
        return "its query is no text"
    query = query.format(batch=name).rstrip().rstrip(";")
    return sql.SQL("SELECT _row FROM ({}\n) AS failing").format(sql.SQL(query))


def _literal(batch: Any, select: Any) -> sql.Composable:
    engine = batch.data.execution_engine.engine
    compiled = select.compile(dialect=engine.dialect, compile_kwargs={"render_postcompile": True})
    with engine.connect() as connection, connection.connection.driver_connection.cursor() as cursor:
        return sql.SQL(cursor.mogrify(str(compiled), compiled.construct_params()).decode())


def _condition(metric: str) -> str:
    return f"{metric}.{MetricPartialFunctionTypeSuffixes.CONDITION.value}"
