"""Which row a record is: its key as the warehouse writes it, and its event time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

Told = Mapping[str, Any]


class NoValue(ValueError):
    """A value that its column cannot hold; the message goes behind the column's name."""


def key_writer(columns: Mapping[str, str]) -> Callable[[Told], str]:
    """A function that writes the key of a record as PostgreSQL's `json_build_array(...)::text` does.

    Args:
        columns: the key's columns with their SQL types, as `format_type` names them.

    Returns:
        It takes a record that has all the columns, and raises `Mistake` for a value that its column cannot hold.
    """
    writers = [(name, _WRITERS.get(type_, _plain)) for name, type_ in columns.items()]

    def write(record: Told) -> str:
        parts = []
        for name, writer in writers:
            try:
                parts.append(writer(record[name]))
            except NoValue as error:
                raise Mistake(name, str(error)) from None
        return f"[{', '.join(parts)}]"

    return write


class Mistake(ValueError):
    """A value of a column that is not what the column holds."""

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"{column}: {problem}")
        self.column, self.problem = column, problem


def moment(value: Any) -> datetime:
    """A time as JSON has it, aware and in UTC; one without a zone is UTC.

    Raises:
        NoValue: it is none.
    """
    if type(value) is str and len(value) <= 40:
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
    at = moment(value)
    # Mostly it is told so already; a week's date (2025-W01-1) is as long.
    if at.tzinfo is UTC and len(value) == 20 and value[10] == "T" and value[19] == "Z" and value[5] != "W":
        return f"{value[:19]}+00:00"
    return at.isoformat()


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
    if type(value) is int or (type(value) is float and value.is_integer()):
        return str(int(value))
    raise NoValue(f"{_shown(value)} is no whole number")


def _number(value: Any) -> str:
    if type(value) is int or type(value) is float:
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
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
    return str(value) if type(value) is int else _text(value)


_WRITERS: dict[str, Callable[[Any], str]] = {
    "timestamp with time zone": _time, "timestamp without time zone": _local_time, "date": _date,
    "smallint": _integer, "integer": _integer, "bigint": _integer, "real": _number, "double precision": _number,
    "boolean": _boolean, "text": _text, "character varying": _text,
}  # fmt: skip


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"
