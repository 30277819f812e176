"""The kinds of values that stand in a spec: names, durations, texts; and the strictness of all of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from evergreen.spec.problem import near

NAME = re.compile(r"\A[a-z][a-z0-9_]{0,47}\Z")
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(min|m|h|d|w)\s*")
# Times before the year 1 or after 9999 cannot be written; a century is far from both.
LONGEST_DURATION = timedelta(days=36525)
_UNITS = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
RESERVED_COLUMNS = (
    "_arrived_at", "_superseded_at", "_batch", "_row", "_key",
    "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid",
)  # fmt: skip


# What the rooms call the columns that they add to the rows of a feature query.
OWN_NAMES = frozenset({
    "_key", "_hash", "_time", "_entity", "_label", "_prediction", "_version", "_outside",
})  # fmt: skip
MOST_NAME_BYTES = 63
# Codecs of Python that make text of other text.
_NO_FILE_HAS = (
    "idna",
    "punycode",
    "undefined",
    "unicode_escape",
    "raw_unicode_escape",
    "raw-unicode-escape",
    "unicode-escape",
)


def parse_duration(value: Any) -> timedelta:
    """Turn `90m`, `36h`, `14d` or `2w` into a timedelta.

    Raises:
        ValueError: anything else, or longer than LONGEST_DURATION.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value))
    if not match:
        raise ValueError(
            f"{value!r} is not a duration; write a number and a unit, such as 90m, 36h, 14d or 2w"
        )
    number, unit = float(match[1]), timedelta(**{_UNITS[match[2]]: 1})
    if number > LONGEST_DURATION / unit:
        raise ValueError(f"{str(value)[:40]!r} is longer than a century (36525d); write a shorter one")
    return number * unit


def parse_span(value: Any) -> timedelta:
    """The same, for what cannot be without length.

    Raises:
        ValueError: anything else, or shorter than a minute.
    """
    found = parse_duration(value)
    if found < timedelta(minutes=1):
        raise ValueError(f"{value!r} is too short; write at least 1m")
    return found


def format_duration(value: timedelta) -> str:
    """Write a timedelta as people write it in a spec: `14d`, `36h`, `90m`."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds // 60}m"


def _check_name(value: Any) -> Any:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a usable name; use small letters, digits and _, start with a letter, at most 48"
        )
    return value


def _check_line(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError(
            "must be one line of plain text; remove line breaks, tabs and what cannot be printed"
        )
    return value


def _check_prose(value: str) -> str:
    if any(not c.isprintable() and c not in "\n\t" for c in value):
        raise ValueError("holds a character that cannot be printed; remove it")
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]
Span = Annotated[
    timedelta,
    BeforeValidator(parse_span, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]
Name = Annotated[str, BeforeValidator(_check_name, json_schema_input_type=str)]
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_line)]
Prose = Annotated[str, Field(max_length=5000), AfterValidator(_check_prose)]


class Strict(BaseModel):
    """A model in which an unknown field is a mistake: a misspelt one must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _check_feature(value: str) -> str:
    if value in OWN_NAMES:
        raise ValueError(f"{value!r} is Evergreen's own name; give the column another one in the SQL (AS)")
    if not value.strip() or not value.isprintable() or len(value.encode()) > MOST_NAME_BYTES:
        raise ValueError(
            f"{value!r} is no usable name of a column; PostgreSQL takes 1 to {MOST_NAME_BYTES} bytes, and they must be printable"
        )
    return value


def _check_encoding(value: str) -> str:
    try:
        codec = codecs.lookup(value)
    except (LookupError, ValueError):
        codec = None
    if codec is None or not codec._is_text_encoding or codec.name in _NO_FILE_HAS:
        raise ValueError(f"{value!r} is no encoding of text files; write utf-8, latin-1, cp1252 or utf-16")
    return value


def _check_delimiter(value: str) -> str:
    if len(value) != 1:
        raise ValueError(f'{value!r} is not one character; write one, a tab as "\\t" in double quotes')
    if value in '\r\n"\\' or not value.isascii() or value.isalnum() or value in ".-+_":
        raise ValueError(
            f"{value!r} cannot stand between two values; write one ASCII character that is no letter, digit, quote, sign or line "
            "break, such as a comma, a semicolon or a tab"
        )
    return value


Feature = Annotated[str, AfterValidator(_check_feature)]
Encoding = Annotated[str, AfterValidator(_check_encoding)]
Delimiter = Annotated[str, AfterValidator(_check_delimiter)]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that a column is not known, and what may be meant."""
    return f"{what}: no column {name!r}; {near(name, known)}"
