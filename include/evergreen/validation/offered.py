"""Can the expectations of a spec be judged at all, and row by row where the spec asks for it? Told before a file lands.

Needs Great Expectations, which takes seconds to import, and no database.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from great_expectations.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation as Implementation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from evergreen.spec import DatasetSpec, Problem, sql_text
from evergreen.spec.dataset import Expectation
from evergreen.spec.types import unknown
from evergreen.validation.failing_rows import judged_in_sql, why_not_by_row


def offered_by_row() -> set[str]:
    """The expectations that may have `rows: true`."""
    every = ((name, get_expectation_impl(name)) for name in list_registered_expectation_implementations())
    return {name for name, kind in every if not why_not_by_row(kind)}


def problems(dataset: DatasetSpec) -> list[Problem]:
    """What is wrong with the expectations of a spec."""
    return [
        Problem(f"datasets/{dataset.name}.yaml", f"expectations.{index}{field}", value, remedy)
        for index, item in enumerate(dataset.expectations)
        for field, value, remedy in _of(dataset, item)
    ]


def _of(dataset: DatasetSpec, item: Expectation) -> Iterator[tuple[str, str, str]]:
    known = list_registered_expectation_implementations()
    if item.type not in known:
        close = difflib.get_close_matches(item.type, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "see https://greatexpectations.io/expectations"
        yield ".type", item.type, f"Great Expectations knows no such expectation; {hint}"
        return
    columns = [(f".kwargs.{name}", item.kwargs.get(name)) for name in ("column_A", "column_B")]
    several = item.kwargs.get("column_list")
    columns += [(".kwargs.column_list", name) for name in (several if isinstance(several, list) else ())]
    wrong = [
        (field, str(name)) for field, name in columns if name is not None and name not in dataset.columns
    ]
    for field, name in wrong:
        yield field, name, unknown("there is", str(name), dataset.columns)
    if wrong:
        return
    kind: type[Implementation] = get_expectation_impl(item.type)
    try:
        ExpectationConfiguration(item.type, dict(item.kwargs)).to_domain_obj()
    except (GreatExpectationsError, ValueError, TypeError, KeyError) as error:
        yield ".kwargs", "", f"Great Expectations refuses them: {' '.join(str(error).split())[:300]}"
        return
    query = item.kwargs.get("unexpected_rows_query")
    if isinstance(query, str) and sql_text.several(query):
        yield ".kwargs.unexpected_rows_query", query, "has more than one statement; keep one SELECT"
        return
    low, high = item.kwargs.get("min_value"), item.kwargs.get("max_value")
    if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
        yield ".kwargs", "", f"min_value {low} is larger than max_value {high}; swap them"
    elif not judged_in_sql(kind):
        yield (
            ".type", item.type,
            "Great Expectations does not judge it in SQL, so every file would be held back; take another one, such as "
            "expect_column_values_to_match_regex",
        )  # fmt: skip
    elif item.rows and (why := why_not_by_row(kind)):
        yield (
            ".rows", "true",
            f"{item.type} names no single rows, {why}: a file that fails it is held back whole; remove `rows: true`",
        )  # fmt: skip
