"""The lines of a command: never wider than 80 columns, and coloured only where a person looks at them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from evergreen.terminal.text import clean, pad, width, wrapped

WIDEST = 80
NARROWEST = 40
GAP = 2
_COLOURS = {"bold": "1", "dim": "2", "bad": "31", "warn": "33", "good": "32"}


class Page:
    """Writes lines to a stream.

    Args:
        out: the stream; default: standard output.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        person = self._out.isatty()
        self._coloured = person and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        here = shutil.get_terminal_size((WIDEST, 24)).columns if person else WIDEST
        self.width = max(NARROWEST, min(WIDEST, here))

    def gap(self) -> None:
        """An empty line."""
        self._write("")

    def head(self, text: str) -> None:
        """A heading, with an empty line before it."""
        self.gap()
        self.line(text, style="bold")

    def line(
        self, text: str, indent: int = 0, *, hang: int = 0, style: str = "", lines: int | None = None
    ) -> None:
        """A sentence, wrapped.

        Args:
            text: any text; see `text.clean`.
            indent: columns before it.
            hang: more of them before the lines after the first.
            style: `bold`, `dim`, `bad`, `warn` or `good`.
            lines: how many at most.
        """
        parts = wrapped(clean(text), self.width - indent - hang, lines)
        for number, part in enumerate(parts):
            self._write(" " * (indent + (hang if number else 0)) + self._styled(part, style))

    def verbatim(self, text: str) -> None:
        """A line with its spaces as they are; one that is too wide is wrapped like a sentence."""
        text = text.expandtabs()
        shown = "".join(clean(part) if part.strip(" ") else part for part in re.split("( +)", text))
        if width(shown) > self.width:
            self.indented(text)
        else:
            self._write(shown.rstrip())

    def indented(self, text: str, *, style: str = "") -> None:
        """A line that has its own spaces before it; those after the first stand two further in."""
        depth = len(text) - len(text.lstrip(" "))
        self.line(text, depth, hang=2, style=style)

    def pair(self, label: str, text: str, indent: int = 0, *, space: int = 12, style: str = "") -> None:
        """A label with what belongs to it in a column of its own."""
        for number, part in enumerate(wrapped(clean(text), self.width - indent - space)):
            named = pad("" if number else label, space)
            self._write(" " * indent + self._styled(named, "dim") + self._styled(part, style))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        indent: int = 0,
        right: Sequence[int] = (),
        lines: int | None = None,
        styles: Sequence[str] = (),
    ) -> None:
        """A table whose columns are as wide as they need; where that is too wide, the widest are narrowed and their cells wrapped.

        Args:
            columns: their headings.
            rows: of texts, see `text.clean`.
            indent: columns before it.
            right: numbers of the columns that stand at their right end.
            lines: how many a cell has at most.
            styles: of the rows, as of `line`.
        """
        cells = [[clean(cell) for cell in row] for row in rows]
        every = [list(columns), *cells]
        widths = [max(width(row[i]) for row in every) for i in range(len(columns))]
        room = self.width - indent - GAP * (len(columns) - 1)
        while sum(widths) > room and max(widths) > 4:
            widths[widths.index(max(widths))] -= 1
        for number, row in enumerate(every):
            style = "dim" if number == 0 else styles[number - 1] if number <= len(styles) else ""
            parts = [wrapped(cell, widths[i], lines) for i, cell in enumerate(row)]
            for level in range(max(map(len, parts))):
                shown = [
                    pad(part[level] if level < len(part) else "", widths[i], i in right)
                    for i, part in enumerate(parts)
                ]
                self._write(" " * indent + self._styled((" " * GAP).join(shown).rstrip(), style))

    def _styled(self, text: str, style: str) -> str:
        if not style or not text or not self._coloured:
            return text
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m"

    def _write(self, text: str) -> None:
        encoding = self._out.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self._out)
