"""Records as a request tells them: held against what a version learnt, and made the model's numbers.

It makes of a record exactly what `registry.encoding.encode` makes of a row of the feature query: a test holds the two together to the
last bit. What the batch predictions take as missing (a category that is not known, a number beyond what float32 holds) is missing here,
too, and told; what no row of a query could be (a text for a number, a field that is not there) is a mistake.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evergreen.serving.identity import NoValue, iso, key_writer, value_writers
from evergreen.serving.kept import Model, Version

LARGEST = float(np.finfo(np.float32).max)
MOST_TOLD = 100
MANY = 16
"""So many records are faster column by column."""
_ABSENT = object()
_NAN = float("nan")
_NUMBERS = frozenset((float, int, type(None)))


Row = tuple[str, str]
"""The key of a row, as `evergreen.prediction` has it, and its event time (ISO, UTC)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a field of a record (counted from 0)."""

    record: int
    field: str
    problem: str


class BadRecordsError(ValueError):
    """Records that cannot be predicted, with everything that is wrong with them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Encoded:
    """Records as the model's numbers.

    Attributes:
        rows: float32, records x features; NaN is missing.
        missing: values that were taken as missing, each with why.
    """

    rows: np.ndarray
    missing: Sequence[Problem] = ()


class Encoder:
    """Makes a version's numbers of records."""

    def __init__(self, version: Version) -> None:
        """Of a version."""
        self.version = version
        self._numeric = version.numeric
        self._categorical = [
            (name, {category: float(code) for code, category in enumerate(categories)})
            for name, categories in version.categorical.items()
        ]
        self._coded: list[tuple[str, dict[Any, float]]] = [
            (name, {**codes, None: _NAN}) for name, codes in self._categorical
        ]
        self._features = len(version.features)

    def encode(self, records: Sequence[Mapping[str, Any]], allowed: frozenset[str] | None = None) -> Encoded:
        """The records as numbers.

        Args:
            records: by the features' names.
            allowed: the fields that they may have; None: any, and those that are no feature of this version do not count.

        Raises:
            BadRecordsError: with everything that is wrong with them.
        """
        rows = self._by_column(records, allowed) if len(records) >= MANY else None
        return self._by_record(records, allowed) if rows is None else Encoded(rows)

    def _by_column(
        self, records: Sequence[Mapping[str, Any]], allowed: frozenset[str] | None
    ) -> np.ndarray | None:
        """The rows of records of which each value is a number or a category that the version holds, or missing; None: one is not.

        It takes half the time of the other way, which tells what is wrong.
        """
        rows = np.empty((len(records), self._features), np.float32)
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is seen below
                for column, name in enumerate(self._numeric):
                    values = [record[name] for record in records]
                    if not _NUMBERS.issuperset(map(type, values)):
                        return None
                    rows[:, column] = values
            for column, (name, codes) in enumerate(self._coded, len(self._numeric)):
                rows[:, column] = [codes[record[name]] for record in records]
        except (KeyError, TypeError, OverflowError):
            return None
        if not (np.abs(rows) >= LARGEST).any() and (
            allowed is None or allowed.issuperset(itertools.chain.from_iterable(records))
        ):
            return rows
        return None

    def _by_record(self, records: Sequence[Mapping[str, Any]], allowed: frozenset[str] | None) -> Encoded:
        values: list[float] = []
        missing: list[Problem] = []
        problems: list[Problem] = []
        add, largest, nan = values.append, LARGEST, _NAN
        for position, record in enumerate(records):
            for name in self._numeric:
                value = record.get(name, _ABSENT)
                kind = type(value)
                if (kind is float or kind is int) and -largest <= value <= largest:
                    add(value)
                else:
                    add(nan)
                    _odd_number(missing, problems, Problem(position, name, ""), value)
            for name, codes in self._categorical:
                value = record.get(name, _ABSENT)
                code = codes.get(value) if type(value) is str else None
                if code is None:
                    code = _odd_category(missing, problems, Problem(position, name, ""), value, codes)
                add(code)
            if allowed is not None and (problems or len(record) > self._features):
                problems += [Problem(position, n, _near(n, allowed)) for n in record if n not in allowed]
        if problems:
            raise BadRecordsError(problems)
        return Encoded(np.array(values, np.float32).reshape(len(records), self._features), missing)

    def beyond(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The numbers that are beyond what the version learnt, each with the range of the reference."""
        found = []
        for position, record in enumerate(records):
            for name, low in self.version.lows.items():
                value, high = record.get(name), self.version.highs[name]
                # One that is too large to be predicted is told as missing.
                if type(value) in (int, float) and abs(value) <= LARGEST and not low <= value <= high:  # type: ignore[operator,arg-type]
                    text = f"{name} {value:g} is beyond what it learnt, {low:g} to {high:g}"
                    found.append(
                        {
                            "record": position,
                            "field": name,
                            "value": value,
                            "low": low,
                            "high": high,
                            "text": text,
                        }
                    )
        return found


class Identifier:
    """Which rows records are: their keys and event times."""

    def __init__(self, model: Model) -> None:
        """Of a model."""
        self._key, self._event_time = tuple(model.key), model.event_time
        self._write = key_writer(model.key)
        self._writers = {model.event_time: iso, **value_writers(model.key)}

    def identify(self, records: Sequence[Mapping[str, Any]]) -> list[Row | None]:
        """The key (as `evergreen.prediction` has it) and the event time (ISO, UTC) of each record; None: it names none.

        Raises:
            BadRecordsError: a part of the key, or the event time beside a key, is missing or not what its column holds.
        """
        found: list[Row | None] = []
        problems: list[Problem] = []
        names, event_time, write = self._writers.keys(), self._event_time, self._write
        for position, record in enumerate(records):
            if names.isdisjoint(record):
                found.append(None)
                continue
            try:
                found.append((write(record), iso(record[event_time])))
            except (KeyError, NoValue) as error:
                # Nothing is wrong with a part where it is with the whole: the key is too long.
                told = list(self._wrong(position, record))
                problems += told or [Problem(position, ", ".join(self._key), str(error))]
        if problems:
            raise BadRecordsError(problems)
        return found

    def _wrong(self, position: int, record: Mapping[str, Any]) -> Iterator[Problem]:
        """All that is wrong with the columns by which a record names its row."""
        for name, write in self._writers.items():
            try:
                write(record[name])
            except KeyError:
                yield Problem(position, name, _HALF)
            except NoValue as error:
                yield Problem(position, name, str(error))


_HALF = "is missing; a record names its whole key and its event time, so that its label finds the prediction, or nothing of both"


def _near(name: str, allowed: frozenset[str]) -> str:
    """Of a field that the model does not know: a misspelt one must not be ignored."""
    near = difflib.get_close_matches(name, sorted(allowed), n=1)
    return f"is no feature of the model; did you mean {near[0]}?" if near else "is no feature of the model"


def _odd_number(missing: list[Problem], problems: list[Problem], where: Problem, value: Any) -> None:
    """Of a value that is no usual number: missing, too large, or a mistake."""
    if type(value) is float or type(value) is int:
        if value == value:  # NaN, which a row of the query may have, is missing as it is
            missing.append(replace(where, problem="is larger than the model can hold; taken as missing"))
    elif value is not None:
        problems.append(replace(where, problem=_instead(value, "a number")))


def _odd_category(
    missing: list[Problem], problems: list[Problem], where: Problem, value: Any, codes: Mapping[str, float]
) -> float:
    """The code of a category that is no text, or that is not known."""
    if type(value) is bool:
        text = "true" if value else "false"  # as PostgreSQL writes one
    elif type(value) is int or type(value) is str:
        text = str(value)
    else:
        if value is not None:
            problems.append(replace(where, problem=_instead(value, "a text")))
        return _NAN
    code = codes.get(text)
    if code is None:
        known = ", ".join(list(codes)[:8])
        problem = f"{_shown(text)} is not known to the model ({known}); taken as missing"
        missing.append(replace(where, problem=problem))
        return _NAN
    return code


def _instead(value: Any, wanted: str) -> str:
    if value is _ABSENT:
        return "is missing; write null where it is not known"
    return f"is {_shown(value)}; write {wanted}, or null where it is not known"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"


def told(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems as an answer has them; the first hundred."""
    return [{"record": p.record, "field": p.field, "problem": p.problem} for p in problems[:MOST_TOLD]]
