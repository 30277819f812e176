"""How a letter is laid out: its templates, and what they need to fold text and to fit tables to a screen."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from evergreen.alerting.content.letter import Table
from evergreen.templates import templates

TEXT_WIDTH = 76
PHONE_WIDTH = 44
MOST_COLUMNS = 4
LONG_WORD = 20


@cache
def layouts() -> jinja2.Environment:
    """The layouts of a mail, as HTML and as text."""
    environment = templates("evergreen.alerting")
    environment.filters["fold"] = _fold
    environment.filters["columns"] = _columns
    environment.filters["wrapping"] = _wrapping
    environment.filters["soft"] = _soft
    environment.filters["stacks"] = _stacks
    return environment


def _fold(text: Any, width: int, indent: int = 0) -> str:
    # A path or a name is copied from the mail, so it stays whole.
    lines = textwrap.wrap(
        str(text), width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [""]
    return "\n".join(lines)


def _wrapping(text: Any) -> str:
    # Breaking words anywhere keeps a narrow screen from scrolling, but it squeezes cells of short words.
    return "anywhere" if max(map(len, str(text).split()), default=0) > LONG_WORD else "break-word"


def _soft(text: Any) -> Markup:
    """Text that a narrow screen breaks after a slash or an underscore, before it breaks a word."""
    return Markup(re.sub(r"([/_])(?=\w)", r"\1<wbr>", str(escape(str(text)))))


def _stacks(table: Table) -> bool:
    """Whether a table is too wide for a phone, which then shows a block of lines for each row."""
    rows: Sequence[Sequence[str]] = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    return len(widths) > MOST_COLUMNS or (len(widths) > 1 and sum(widths) > PHONE_WIDTH)


def _columns(table: Table) -> str:
    rows: Sequence[Sequence[str]] = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    if sum(widths) + 2 * len(widths) > TEXT_WIDTH:
        # Too wide for a mail of plain text: a block of lines for each row.
        blocks = []
        for row in table.rows:
            pairs = (f"{c}: {v}" if c else v for c, v in zip(table.columns, row, strict=True) if v)
            blocks.append("\n".join(f"  {_fold(pair, TEXT_WIDTH - 2, 4)}" for pair in pairs))
        return "\n\n".join(blocks)
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [f"  {lines[0]}", "  " + "  ".join("-" * w for w in widths), *(f"  {x}" for x in lines[1:])]
    )
