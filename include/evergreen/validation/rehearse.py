"""Tries a dataset's own expectations on nothing: does Great Expectations know them, and PostgreSQL their patterns?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg2

from evergreen.spec import DatasetSpec, Problem
from evergreen.spec.problem import near
from evergreen.warehouse.connection import Connection

# Whose values are columns.
COLUMNS = ("column", "column_A", "column_B", "column_list", "column_set")


def expectation_problems(dataset: DatasetSpec) -> list[Problem]:
    """What Great Expectations does not know or accept, and limits that no value can keep."""
    if not dataset.expectations:
        return []
    # Seconds to import, and only where there is something to ask.
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    found: list[Problem] = []
    known = sorted(list_registered_expectation_implementations())
    for index, item in enumerate(dataset.expectations):
        where = f"expectations.{index}"
        if item.type not in known:
            said = f"Great Expectations has none of that name; {near(item.type, known)}"
            found.append(_problem(dataset, f"{where}.type", item.type, said))
            continue
        try:
            ExpectationConfiguration(item.type, dict(item.kwargs)).to_domain_obj()
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines()]
            said = f"{item.type} does not take these: {'; '.join(lines[1:] or lines)[:300]}; see https://greatexpectations.io/expectations"
            found.append(_problem(dataset, f"{where}.kwargs", "", said))
        low, high = item.kwargs.get("min_value"), item.kwargs.get("max_value")
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
            said = f"min_value {low} is larger than max_value {high}; swap them"
            found.append(_problem(dataset, f"{where}.kwargs", "", said))
        found += _columns(dataset, where, item.kwargs)
    return found


def pattern_problems(conn: Connection, dataset: DatasetSpec) -> list[Problem]:
    """Patterns that PostgreSQL, which applies them, does not understand."""
    found = []
    for index, item in enumerate(dataset.expectations):
        for name in ("regex", "regex_list"):
            given = item.kwargs.get(name)
            for pattern in given if isinstance(given, list) else [given]:
                if not isinstance(pattern, str):
                    continue
                with conn.cursor() as cursor:
                    cursor.execute("SAVEPOINT evergreen_pattern")
                    try:
                        cursor.execute("SELECT '' ~ %s", (pattern,))
                    except psycopg2.Error as error:
                        said = f"no pattern that PostgreSQL reads ({error.diag.message_primary}); mend it"
                        found.append(_problem(dataset, f"expectations.{index}.kwargs.{name}", pattern, said))
                    finally:
                        cursor.execute("ROLLBACK TO SAVEPOINT evergreen_pattern")
    return found


def _columns(dataset: DatasetSpec, where: str, kwargs: Mapping[str, Any]) -> Iterator[Problem]:
    for name in COLUMNS[1:]:  # that of `column` is checked with the spec
        given = kwargs.get(name)
        for column in given if isinstance(given, list) else [given] if given is not None else []:
            if column not in dataset.columns:
                said = f"no such column; {near(str(column), dataset.columns)}"
                yield _problem(dataset, f"{where}.kwargs.{name}", str(column), said)


def _problem(dataset: DatasetSpec, field: str, value: str, said: str) -> Problem:
    return Problem(f"datasets/{dataset.name}.yaml", field, value, said)
