"""Text as a terminal shows it: nothing in it moves the cursor, and its width is counted as the terminal counts."""

from __future__ import annotations

import unicodedata
from typing import Any

ELLIPSIS = "…"
# A control character, one that turns the direction of writing, half of a pair, a break of the line.
_NOT_SHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: Any) -> str:
    """A text on one line; what a terminal would obey instead of showing it stands as its number, such as `\\x1b`."""
    return " ".join("".join(map(_shown, str(text))).split())


def _shown(char: str) -> str:
    if char in "\n\r\t\v\f\x85\u2028\u2029":
        return " "
    if unicodedata.category(char) in _NOT_SHOWN:
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char


def width(text: str) -> int:
    """How many columns a text takes: wide characters two, combining ones none."""
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, most: int) -> str:
    """A text of at most so many columns, with an ellipsis where something is missing."""
    return text if width(text) <= most else _head(text, most - 1) + ELLIPSIS


def pad(text: str, wanted: int, right: bool = False) -> str:
    """A text filled up with spaces to so many columns."""
    spaces = " " * max(0, wanted - width(text))
    return spaces + text if right else text + spaces


def wrapped(text: str, most: int, lines: int | None = None) -> list[str]:
    """A text as lines of at most so many columns, broken at spaces; a longer word is broken, after `/` where it has one.

    Args:
        text: on one line.
        most: columns, at least 2.
        lines: how many at most; the last one ends in an ellipsis where more follows.
    """
    found: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and width(line) + 1 + width(word) <= most:
            line += f" {word}"
            continue
        if line:
            found.append(line)
        while width(word) > most:
            part = _head(word, most)
            part = part[: part.rfind("/") + 1] or part if "/" in part.rstrip("/") else part
            found.append(part)
            word = word[len(part) :]
        line = word
    found.append(line)
    if lines is not None and len(found) > lines:
        last = found[lines - 1]
        found = [*found[: lines - 1], (last if width(last) < most else _head(last, most - 1)) + ELLIPSIS]
    return found


def _head(text: str, most: int) -> str:
    taken, used = 0, 0
    for char in text:
        used += _columns(char)
        if used > most:
            break
        taken += 1
    return text[:taken]
