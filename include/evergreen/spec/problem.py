"""One mistake in one file, safe to print, to mail and to keep, whatever bytes the file or its name holds."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LONGEST = 120
LONGEST_REMEDY = 600
MOST_SHOWN = 12
# Beyond, looking for near names costs more than it helps.
MOST_COMPARED = 2000


@dataclass(frozen=True)
class Problem:
    """One mistake in one file.

    Attributes:
        file: `datasets/NAME.yaml`, `models/NAME.yaml`, `models/NAME.sql`; what is no file of these by its own name.
        field: where in the file, such as `training.window`; empty: the whole file.
        value: what stands there.
        remedy: what is wrong and what to do.
        because: the file whose own problems are the cause; empty: this file's.
    """

    file: str
    field: str
    value: str
    remedy: str
    because: str = ""

    def __post_init__(self) -> None:
        """Make all of it printable and of a length that people read."""
        for name, longest in (
            ("file", 255),
            ("field", LONGEST),
            ("value", LONGEST),
            ("remedy", LONGEST_REMEDY),
        ):
            object.__setattr__(self, name, printable(getattr(self, name), longest))

    def __str__(self) -> str:
        shown = f" (value: {self.value})" if self.value else ""
        return (
            f"{self.file}: {self.field}: {self.remedy}{shown}"
            if self.field
            else f"{self.file}: {self.remedy}{shown}"
        )


def printable(text: str, longest: int = LONGEST) -> str:
    """A text in one line of at most so many characters, with what cannot be printed written as escapes."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(c if _prints(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(value: Any) -> str:
    """A value of a file as it is shown; a section or a value that Python cannot write is not."""
    if isinstance(value, dict):
        return ""
    try:
        return printable(repr(value))
    except Exception:  # such as a number of more digits than Python writes
        return f"a {type(value).__name__}"


def near(name: str, known: Iterable[str]) -> str:
    """Which of the known names may be meant, as a clause: `did you mean x?`, else what is known."""
    names = list(known)
    close = (
        difflib.get_close_matches(name[:LONGEST], names[:MOST_COMPARED], n=1) if len(name) <= LONGEST else []
    )
    if close:
        return f"did you mean {close[0]}?"
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"known: {', '.join(names[:MOST_SHOWN])}{more}"


def _prints(character: str) -> bool:
    return character.isprintable() and unicodedata.category(character) not in ("Cs", "Co", "Cf")
