"""Keys as a client writes them in JSON: which rows of a model they ask for, and everything that is wrong with them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class BadKey:
    """What is wrong with a key: its position among those that were asked for, from 0, and the column; empty: the key as a whole."""

    position: int
    column: str
    message: str


class BadKeysError(ValueError):
    """Keys that name no row of the model, whatever there is; `problems` has each mistake. Asking again cannot help."""

    def __init__(self, problems: Iterable[BadKey]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"key {p.position}: {p.column} {p.message}" for p in self.problems))


@dataclass(frozen=True, slots=True)
class Asked:
    """A key as texts, in the order of the columns that it is asked by; `newest`: all but the event time, the newest row is meant."""

    position: int
    values: tuple[str, ...]
    newest: bool


def entity_columns(model: ModelSpec) -> tuple[str, ...]:
    """The columns of a model's key but the event time; none where a row is known by its event time alone."""
    return tuple(name for name in model.key if name != model.event_time)


def read(model: ModelSpec, keys: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """Which rows the keys ask for.

    A value is a text, a number or a boolean; PostgreSQL gives it the column's type later. A key without the event time asks for the
    newest row of what the other columns name.

    Args:
        model: whose key.
        keys: by column.

    Raises:
        BadKeysError: columns that are not the key's, or are missing, or values that no column can have.
    """
    found: list[Asked] = []
    bad: list[BadKey] = []
    for position, key in enumerate(keys):
        if not isinstance(key, Mapping):
            bad.append(BadKey(position, "", f"is no object; {_known(model)}"))
            continue
        problems = [
            BadKey(position, str(n), f"is no key column; {_known(model)}") for n in key if n not in model.key
        ]
        columns = _columns(model, key)
        problems += [BadKey(position, n, f"is missing; {_known(model)}") for n in columns if n not in key]
        values = []
        for name in columns:
            if name in key:
                text, problem = _text(key[name])
                values.append(text)
                problems += [BadKey(position, name, problem)] if problem else []
        bad += problems
        if not problems:
            found.append(Asked(position, tuple(values), columns != model.key))
    if bad:
        raise BadKeysError(bad)
    return found


def _columns(model: ModelSpec, key: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns by which a key asks: the whole key, or all but the event time where that is not named."""
    others = entity_columns(model)
    return others if others and model.event_time not in key else model.key


def _known(model: ModelSpec) -> str:
    others = entity_columns(model)
    told = f"the key of {model.name} is {', '.join(model.key)}"
    if model.event_time in model.key and others:
        told += f"; without {model.event_time} the newest row is meant"
    return told


def _text(value: Any) -> tuple[str, str]:
    """A value as PostgreSQL reads it, and what is wrong with it (empty: nothing)."""
    if isinstance(value, bool):
        return str(value).lower(), ""
    if isinstance(value, int | float):
        # Python refuses to write out more digits than any column has.
        return (
            ("", "is too large")
            if isinstance(value, int) and value.bit_length() > 9999
            else (repr(value), "")
        )
    if not isinstance(value, str):
        return "", f"is {'null' if value is None else 'no single value'}; write a text or a number"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "", "is no text: half a pair of surrogates is no character"
    return (
        (value, "") if "\0" not in value else ("", "holds a NUL character, which no text in PostgreSQL has")
    )
