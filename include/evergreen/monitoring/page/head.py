"""What stands above the figures: whose window it is, the verdict, the numbers with their limits. It needs no script."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import jinja2

from evergreen.templates import templates

# The place of the table of all numbers, which is packed like the scripts: that of a wide model is long.
NUMBERS = "numbers"


@dataclass(frozen=True)
class Number:
    """A number that the verdict rests on, in words: what it is, its value, its limit, what more is known of it."""

    name: str
    value: str
    limit: str
    beyond: bool
    more: str = ""


@dataclass(frozen=True)
class Row:
    """One statistic of one column.

    Attributes:
        column, measure, value, limit: as people read them.
        of_limit: how many times its limit the value is.
        state: in violation, within its limit, or why it is not judged.
        beyond: it is in violation.
        drawn: the column is among the figures.
        detail: what else is known.
    """

    column: str
    measure: str
    value: str
    limit: str
    of_limit: str
    state: str
    beyond: bool
    drawn: bool
    detail: str


@dataclass(frozen=True)
class Head:
    """What a page says in words.

    Attributes:
        model, version: whose window.
        window, as_of: its time and when it was judged, UTC.
        status: the window's, one word.
        verdict: the outcome in a sentence.
        beyond: whether something is in violation.
        numbers: two or three that the verdict rests on.
        findings: what is in violation, a line each, and what is known of the error.
        notes: how it was measured and drawn.
        rows: every number of every column, the farthest beyond its limit first, what is not judged last.
    """

    model: str
    version: str
    window: str
    as_of: str
    status: str
    verdict: str
    beyond: bool
    numbers: tuple[Number, ...] = ()
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[Row, ...] = field(default=(), repr=False)


def text(head: Head) -> str:
    """The head as HTML."""
    return _templates().get_template("head.html").render(head=head, place=NUMBERS)


def style(head: Head) -> str:
    """The title of the page and its style, which follows Evidently's choice of light or dark."""
    return _templates().get_template("style.html").render(head=head)


def numbers(head: Head) -> str:
    """The table of all numbers as HTML."""
    return _templates().get_template("numbers.html").render(rows=head.rows)


@cache
def _templates() -> jinja2.Environment:
    return templates("evergreen.monitoring.page")
