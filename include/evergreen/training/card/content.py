"""What a model card is made of, before it is a page or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; `strong` are the places of rows that a reader should see, `note` stands below."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Sequence[int] = ()
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One chapter: paragraphs, then points, tables and figures, what there is of each; figures by their names."""

    title: str
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[str] = ()


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        title: names the version.
        verdict: the gate's sentence.
        passed: whether the gate let it through.
        facts: what a reader asks first, by label.
        links: labels and addresses.
        sections: the chapters.
        marks: what names the version beyond doubt, for programs and auditors; it stands last.
    """

    title: str
    verdict: str
    passed: bool
    facts: Sequence[tuple[str, str]]
    links: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    marks: Sequence[tuple[str, str]]
