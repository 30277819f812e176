"""What a channel that is no e-mail gets: a title and plain text, made of the same `Letter`s as a mail.

Plain text, because what others wrote (names of files and columns, comments) can become no markup in it, and each service shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evergreen.alert_kinds import Severity
from evergreen.alerting.content.letter import Letter, Picture, Table

MOST_ROWS = 8


@dataclass(frozen=True)
class Notice:
    """A letter for a channel.

    Attributes:
        title: one line.
        text: the rest.
        severity: the highest of the alerts in it.
        over: whether it tells of nothing but ends of incidents.
        key: the same text for all notices of an incident.
        pictures: to be attached, where the service takes them.
    """

    title: str
    text: str
    severity: Severity
    over: bool
    key: str
    pictures: tuple[Picture, ...] = ()


def text_of(letter: Letter, leftovers: Sequence[tuple[str, str]] = ()) -> str:
    """A letter as lines of text that a narrow screen wraps; a long table by its first rows, those that violate something before others."""
    parts = [_pairs(letter.numbers), "\n".join(letter.lead)]
    if letter.steps:
        parts.append("\n".join([f"{letter.next_title}:", *(f"- {step}" for step in letter.steps)]))
    parts.append("\n".join([*(f"{label}: {url}" for label, url in letter.links if url), *_runbook(letter)]))
    parts += [_table(table) for table in letter.tables]
    parts.append(_pairs(letter.facts))
    if leftovers:
        parts.append(f"Also recorded:\n{_pairs(leftovers)}")
    parts.append(_pairs(letter.small))
    return "\n\n".join(part for part in parts if part)


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{label}: {value}" for label, value in rows)


def _runbook(letter: Letter) -> list[str]:
    if letter.runbook is None:
        return []
    where, url = letter.runbook
    return [f"Runbook: {url or where}"]


def _table(table: Table) -> str:
    marks = table.emphasis or (False,) * len(table.rows)
    rows = [row for _, row in sorted(zip(marks, table.rows, strict=True), key=lambda pair: not pair[0])]
    lines = [
        "- " + ", ".join(f"{column}: {cell}" for column, cell in zip(table.columns, row, strict=True) if cell)
        for row in rows[:MOST_ROWS]
    ]
    more = len(rows) - MOST_ROWS
    return "\n".join(
        [
            f"{table.title}:",
            *lines,
            *([f"and {more} more"] if more > 0 else []),
            *([table.note] if table.note else []),
        ]
    )
