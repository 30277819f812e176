"""Which row a record is: its key as the warehouse writes it, and its event time."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

Told = Mapping[str, Any]
LONGEST_KEY = 2000
"""Bytes of a key: what an index of PostgreSQL surely takes."""


class NoValue(ValueError):
    """A value that its column cannot hold; the message goes behind the column's name."""


def key_writer(columns: Mapping[str, str]) -> Callable[[Told], str]:
    """A function that writes the key of a record as PostgreSQL's `json_build_array(...)::text` does.

    Args:
        columns: the key's columns with their SQL types, as `format_type` names them.

    Returns:
        It raises `KeyError` where the record lacks a column, and `NoValue` for a value that its column cannot hold.
    """
    writers = list(value_writers(columns).items())

    def write(record: Told) -> str:
        key = f"[{', '.join([writer(record[name]) for name, writer in writers])}]"
        if len(key) > LONGEST_KEY // 4 and len(key.encode()) > LONGEST_KEY:
            raise NoValue(f"is longer than the {LONGEST_KEY:,} bytes that a key may have")
        return key

    return write


def value_writers(columns: Mapping[str, str]) -> dict[str, Callable[[Any], str]]:
    """For each column what writes a value of it, or raises `NoValue`."""
    return {name: _WRITERS.get(type_, _plain) for name, type_ in columns.items()}


def moment(value: Any) -> datetime:
    """A time as JSON has it, aware and in UTC; one without a zone is UTC.

    Raises:
        NoValue: it is none.
    """
    if type(value) is str and len(value) <= _LONGEST:
        try:
            found = datetime.fromisoformat(value)
            zone = found.tzinfo
            return found if zone is UTC else found.astimezone(UTC) if zone else found.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            pass
    raise NoValue(f"{_shown(value)} is no time; write one such as 2025-06-02T13:00:00Z")


def iso(value: Any) -> str:
    """A time as JSON has it in ISO and UTC, as `datetime.isoformat` writes it.

    Raises:
        NoValue: it is none.
    """
    if type(value) is str and len(value) <= _LONGEST:
        return _iso(value)
    return moment(value).isoformat()


_LONGEST = 40
"""Characters of a time: no form of one is longer."""
# To the second and in UTC: so most times are told. 24:00, which some versions of Python take for the next day's midnight, is another form.
_USUAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:Z|[+]00:00)")


@lru_cache(maxsize=128)  # records of one request share times, and often one is the key, too
def _iso(value: str) -> str:
    at = moment(value)
    return f"{value[:19]}+00:00" if _USUAL.fullmatch(value) else at.isoformat()


def _time(value: Any) -> str:
    text = iso(value)
    # PostgreSQL leaves the last zeros of a fraction out.
    return f'"{text}"' if len(text) == 25 else f'"{text[:-6].rstrip("0")}+00:00"'


def _local_time(value: Any) -> str:
    return f'"{_clock(moment(value))}"'


def _clock(at: datetime) -> str:
    text = at.replace(tzinfo=None).isoformat()
    return text.rstrip("0") if at.microsecond else text


def _date(value: Any) -> str:
    try:
        return f'"{date.fromisoformat(value).isoformat()}"'
    except (TypeError, ValueError):
        raise NoValue(f"{_shown(value)} is no date; write one such as 2025-06-02") from None


def _integer(value: Any) -> str:
    if (type(value) is int or (type(value) is float and value.is_integer())) and abs(value) < 1 << 63:
        return str(int(value))
    raise NoValue(f"{_shown(value)} is no whole number")


def _number(value: Any) -> str:
    if (type(value) is int or type(value) is float) and abs(value) <= sys.float_info.max:
        return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(float(value))
    raise NoValue(f"{_shown(value)} is no number")


def _boolean(value: Any) -> str:
    if type(value) is bool:
        return "true" if value else "false"
    raise NoValue(f"{_shown(value)} is neither true nor false")


def _text(value: Any) -> str:
    if type(value) is str and "\0" not in value:
        return json.dumps(value, ensure_ascii=False)
    raise NoValue(f"{_shown(value)} is no text")


def _plain(value: Any) -> str:
    """A value of a type that is rare in a key: a number as it is told, or a text."""
    return _integer(value) if type(value) is int else _text(value)


_WRITERS: dict[str, Callable[[Any], str]] = {
    "timestamp with time zone": _time, "timestamp without time zone": _local_time, "date": _date,
    "smallint": _integer, "integer": _integer, "bigint": _integer, "real": _number, "double precision": _number,
    "boolean": _boolean, "text": _text, "character varying": _text,
}  # fmt: skip


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"
