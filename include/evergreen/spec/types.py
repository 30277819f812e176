"""The kinds of values that stand in a spec: names, durations, cron expressions; and the strictness of all of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}$")
CRON = re.compile(r"^\s*(\S+\s+){4}\S+\s*$")
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(min|m|h|d|w)\s*$")
_UNITS = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SQL_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:''|[^'])*'", re.DOTALL)
RESERVED_COLUMNS = (
    "_arrived_at", "_superseded_at", "_batch", "_row", "_key",
    "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid",
)  # fmt: skip


def parse_duration(value: Any) -> timedelta:
    """Turn `90m`, `36h`, `14d` or `2w` into a timedelta.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.match(str(value))
    if not match:
        raise ValueError(
            f"{value!r} is not a duration; write a number and a unit, such as 90m, 36h, 14d or 2w"
        )
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def format_duration(value: timedelta) -> str:
    """Write a timedelta as people write it in a spec: `14d`, `36h`, `90m`."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds // 60}m"


def _check_name(value: Any) -> Any:
    if not isinstance(value, str) or not NAME.match(value):
        raise ValueError(
            f"{value!r} is not a usable name; use small letters, digits and _, start with a letter, at most 48"
        )
    return value


def _check_cron(value: Any) -> Any:
    if value is None or (isinstance(value, str) and CRON.match(value)):
        return value
    raise ValueError(f"{value!r} is not a cron expression of five fields, such as '0 2 * * *'")


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]
Name = Annotated[str, BeforeValidator(_check_name, json_schema_input_type=str)]
Cron = Annotated[str | None, BeforeValidator(_check_cron, json_schema_input_type=str | None)]


class Strict(BaseModel):
    """A model in which an unknown field is a mistake: a misspelt one must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that a column is not known, and what may be meant."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"{what}: no column {name!r}; {hint}"
