"""The parts of an SQL text that are no SQL: comments and quoted texts, by PostgreSQL's rules (its manual, 4.1).

What a query means only PostgreSQL tells (`evergreen.warehouse.features.views`); this is for what is said about a text without it.
"""

from __future__ import annotations

import re

_PART = re.compile(
    r"""
    (?P<comment>--[^\n]*)
    | (?P<nested>/\*)
    | (?P<escaped>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<plain>'(?:[^']|'')*(?:'|\Z))
    | (?P<name>"[^"]*(?:"|\Z))
    | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$(?P<dollar>.*?)(?:\$(?P=tag)\$|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
# What a time zone follows.
_ZONE = re.compile(r"\bAT\s+TIME\s+ZONE\b|\btimezone\s*\(", re.IGNORECASE)
_TEXT = re.compile(r"\s*'((?:[^']|'')*)'")


def blank(text: str, *, texts: bool = False) -> str:
    """The same text with spaces in place of comments, and of quoted texts too if asked; lines stay lines."""
    parts, at = [], 0
    while found := _PART.search(text, at):
        end = _end_of_comment(text, found.end()) if found["nested"] else found.end()
        parts.append(text[at : found.start()])
        gone = found["nested"] or found["comment"] or (texts and not found["name"])
        parts.append(re.sub(r"[^\n]", " ", text[found.start() : end]) if gone else text[found.start() : end])
        at = end
    return "".join([*parts, text[at:]])


def several(text: str) -> bool:
    """Whether a text holds more than one statement."""
    return ";" in re.sub(r'"[^"]*"', "", blank(text, texts=True)).rstrip("; \t\r\n\f")


def zones(text: str) -> list[str]:
    """The time zones that are named by a quoted text, in the order of the query."""
    plain, bare = blank(text), blank(text, texts=True)
    texts = (_TEXT.match(plain, place.end()) for place in _ZONE.finditer(bare))
    return [found[1].replace("''", "'") for found in texts if found]


def _end_of_comment(text: str, at: int) -> int:
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(text, at)):
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return len(text) if depth else at
