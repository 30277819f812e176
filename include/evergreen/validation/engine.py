"""Great Expectations at work: judges a table of the warehouse by rules, inside PostgreSQL.

A rule that could not be judged has failed: an exception inside Great Expectations is no pass, and neither is
a verdict that is missing. Nothing is sent anywhere (analytics are off) and nothing is written to disk.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import great_expectations as gx
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent import GxDatasourceWarning
from great_expectations.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from psycopg2 import sql
from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from evergreen import quiet, settings
from evergreen.errors import ErrorReason, TerminalError, TransientError, in_one_line
from evergreen.program import typed
from evergreen.spec import DatasetSpec
from evergreen.validation import failing_rows
from evergreen.validation.suite import Rule
from evergreen.warehouse.batches.staging import SuiteFinding, table
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.files.failure import SAMPLES, Failure, sample_of

quiet.hand_over("great_expectations")

_LOST = ("OperationalError", "InterfaceError")


def sqlalchemy_url(libpq: str, *, timeout_s: int = 600) -> URL:
    """A libpq URL or DSN as SQLAlchemy's URL for psycopg2; a Unix-socket folder stays in the query part."""
    given = parse_dsn(libpq)
    limits = f"-c TimeZone=UTC -c statement_timeout={timeout_s * 1000} -c lock_timeout=60000"
    # An expectation may have a query of its own, and no expectation has anything to write.
    limits += " -c default_transaction_read_only=on"
    options = f"{given.pop('options', '')} {limits}".strip()
    parts = {"username": given.pop("user", None), "password": given.pop("password", None)}
    database = given.pop("dbname", None)
    given.setdefault("connect_timeout", "10")
    query = {**given, "application_name": "evergreen-validation", "options": options}
    return URL.create("postgresql+psycopg2", **parts, database=database, query=query)


def build(dataset: DatasetSpec, rules: Sequence[Rule]) -> list[Expectation]:
    """The rules as Great Expectations' own objects.

    Raises:
        TerminalError: names every rule of the spec that Great Expectations does not know or accept.
    """
    built, problems = [], []
    for index, rule in enumerate(rules):
        try:
            configuration = ExpectationConfiguration(rule.type, rule.kwargs, meta={"rule": index})
            built.append(configuration.to_domain_obj())
        except (GreatExpectationsError, ValueError, TypeError, KeyError) as error:
            problems.append(f"{rule.type} ({rule.column or 'table'}): {in_one_line(error)}")
    if problems:
        raise TerminalError(
            f"datasets/{dataset.name}.yaml: expectations: {'; '.join(problems)}; "
            "mend them, see https://greatexpectations.io/expectations",
            ErrorReason.BAD_SPEC,
        )
    return built


def run_suite(dataset: DatasetSpec, rules: Sequence[Rule], typed: str) -> list[SuiteFinding]:
    """Judge a table of the schema staging by every rule and return what failed, in the order of the rules.

    First every rule is asked for its verdict alone, which Great Expectations does in a few scans; only those
    that failed are asked again, for numbers and samples.

    Raises:
        TerminalError: a rule that Great Expectations does not accept.
        TransientError: the warehouse went away meanwhile.
    """
    expectations = build(dataset, rules)
    with _batch(typed) as batch:
        verdicts = _validate(batch, expectations, "BOOLEAN_ONLY")
        failed = [i for i, r in enumerate(verdicts) if getattr(r, "success", None) is not True]
        details = _validate(batch, [expectations[i] for i in failed], "BASIC") if failed else []
        queries = [
            _failing_rows(batch, rules[i], expectations[i], typed) if _was_judged(detail) else ""
            for i, detail in zip(failed, details, strict=True)
        ]
    for index, detail in zip(failed, details, strict=True):
        if getattr(detail, "success", None) is True:
            raise _lost(f"{rules[index].type} failed and then passed")
    return [
        _finding(rules[i], detail, query) for i, detail, query in zip(failed, details, queries, strict=True)
    ]


def confirm(conn: Connection, finding: SuiteFinding) -> SuiteFinding:
    """Keep a finding's query of rows only if it gives as many rows as Great Expectations counted.

    A finding whose rows cannot be told holds the whole batch back, and says why.
    """
    if finding.rows is None:
        return finding
    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_confirm")
        try:
            cursor.execute(sql.SQL("SELECT count(DISTINCT _row) FROM ({}) AS failing").format(finding.rows))
            told, why = (cursor.fetchone() or (None,))[0], ""
        except (conn.ProgrammingError, conn.DataError) as error:
            told, why = None, f"the query of its rows does not run ({error.diag.message_primary})"
        if told is None:
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_confirm")
        cursor.execute("RELEASE SAVEPOINT evergreen_confirm")
    counted = finding.failure.failed_rows
    if told == counted:
        return finding
    why = why or f"the query of its rows gives {told} rows and Great Expectations counted {counted}"
    return SuiteFinding(replace(finding.failure, whole=finding.failure.whole or why))


@contextmanager
def _batch(typed: str) -> Iterator[Any]:
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    url = sqlalchemy_url(settings.WAREHOUSE.read()).render_as_string(hide_password=False)
    with ExitStack() as stack:
        try:
            with warnings.catch_warnings():
                # add_postgres, which the warning recommends, refuses the URL of a Unix socket.
                warnings.simplefilter("ignore", GxDatasourceWarning)
                source = context.data_sources.add_sql(
                    "warehouse", connection_string=url, create_temp_table=False
                )
            # A connection that stays open in a pool may hold a lock on the table, which the decision drops.
            stack.callback(source.get_engine().dispose)
            stack.callback(source.get_execution_engine().close)
            asset = source.add_table_asset("staging", table_name=typed, schema_name="staging")
            batch = asset.add_batch_definition_whole_table("all").get_batch()
        except (DBAPIError, ConnectionError, GreatExpectationsError) as error:
            raise _lost(error) from error
        yield batch


def _validate(batch: Any, expectations: list[Expectation], result_format: str) -> list[Any]:
    """Results in the order of the expectations; None where there is none, an exception where it was raised.

    Great Expectations asks for many sums in one query: where PostgreSQL refuses one of them (a regular
    expression that does not compile) all fail, so each is asked for alone.
    """
    try:
        return _validate_at_once(batch, expectations, result_format)
    except (GreatExpectationsError, DBAPIError) as error:
        if _was_lost(error):
            raise _lost(error) from error
        if len(expectations) == 1:
            return [error]
        return [result for e in expectations for result in _validate(batch, [e], result_format)]


def _validate_at_once(batch: Any, expectations: list[Expectation], result_format: str) -> list[Any]:
    suite = gx.ExpectationSuite(name="suite")
    rule_of: dict[str, int] = {}
    for expectation in expectations:
        # A suite silently leaves out an expectation that it already has; both get the one verdict.
        if rule_of.setdefault(_identity(expectation), _rule(expectation)) == _rule(expectation):
            suite.add_expectation(expectation.copy())
    form: dict[str, Any] = {"result_format": result_format}
    if result_format != "BOOLEAN_ONLY":
        form["partial_unexpected_count"] = SAMPLES
    results = {
        r.expectation_config.meta["rule"]: r
        for r in batch.validate(suite, result_format=form).results
        if r.expectation_config is not None
    }
    for result in results.values():
        for message, trace in _exceptions(result.exception_info):
            if any(name in message or name in trace for name in _LOST):
                raise _lost(message)
    return [results.get(rule_of[_identity(e)]) for e in expectations]


def _rule(expectation: Expectation) -> int:
    return int((expectation.meta or {})["rule"])


def _identity(expectation: Expectation) -> str:
    fields = expectation.dict(exclude={"id", "meta", "notes", "rendered_content"})
    return f"{expectation.expectation_type} {fields!r}"


def _finding(rule: Rule, result: Any, rows: sql.Composable | str) -> SuiteFinding:
    failure = partial(Failure, rule.type, rule.column, limit=rule.limit, remedy=rule.remedy)
    if result is None:
        return SuiteFinding(failure(observed="no verdict", whole="there is no verdict on any row"))
    raised = [(str(result), "")] if isinstance(result, Exception) else _exceptions(result.exception_info)
    if raised:
        text = " ".join(raised[0][0].split())[:200]
        return SuiteFinding(failure(observed=f"could not be judged: {text}", whole="no row could be judged"))
    found = result.result
    count, of = found.get("unexpected_count"), found.get("element_count")
    if count is None and not isinstance(rows, str):
        # The user's own query of rows: what it returns is what is wrong.
        count = found.get("observed_value")
    if count is None:
        observed = str(found.get("observed_value", "no value"))[:200]
        return SuiteFinding(failure(observed=observed, whole="it is about the file as a whole"))
    told = failure(
        observed=f"{count} of {of} rows" if of is not None else f"{count} rows", failed_rows=int(count),
        sample=sample_of(_plain(v) for v in found.get("partial_unexpected_list") or ()),
    )  # fmt: skip
    if isinstance(rows, str):
        return SuiteFinding(replace(told, whole=rows))
    return SuiteFinding(told if rule.rows else replace(told, whole=rule.whole), rows)


def _was_judged(result: Any) -> bool:
    return result is not None and not isinstance(result, Exception) and not _exceptions(result.exception_info)


def _failing_rows(batch: Any, rule: Rule, expectation: Expectation, typed: str) -> sql.Composable | str:
    if rule.failing is not None:
        return sql.SQL("SELECT _row FROM {} WHERE {}").format(table(typed), rule.failing)
    try:
        return failing_rows.rows_query(batch, expectation, table(typed))
    except (GreatExpectationsError, DBAPIError) as error:
        if _was_lost(error):
            raise _lost(error) from error
        return f"Great Expectations gives no condition of its rows ({in_one_line(error, 120)})"


def _exceptions(info: Any) -> list[tuple[str, str]]:
    """Message and trace of every exception in Great Expectations' exception_info, flat or a level deeper."""
    if not isinstance(info, dict):
        return []
    if "raised_exception" not in info:
        return [found for value in info.values() for found in _exceptions(value)]
    if not info["raised_exception"]:
        return []
    return [
        (str(info.get("exception_message") or "an exception"), str(info.get("exception_traceback") or ""))
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    return value.isoformat() if hasattr(value, "isoformat") else value


def _was_lost(error: Exception) -> bool:
    return any(name in f"{error!r} {error} {error.__cause__!r} {error.__context__!r}" for name in _LOST)


def _lost(error: Any) -> TransientError:
    return TransientError(
        f"the warehouse did not answer while the batch was judged ({in_one_line(error, 200)}); "
        f"nothing was decided, try again. If it stays: {typed('status')}"
    )
