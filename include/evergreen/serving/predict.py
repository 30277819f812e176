"""The answer to a request for predictions: who asks, what, and what comes out. One call an answer, without a wait but for features by key."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec

from evergreen.serving import records
from evergreen.serving.records import BadRecordsError, Encoded, Problem, Row
from evergreen.serving.served import SLICE, Loaded, Served
from evergreen.serving.spool import Answered, Made

log = logging.getLogger(__name__)

MOST_RECORDS = 1000
MOST_EXPLAINED = 100
_FORMS = ("record", "records", "key", "keys")
_FIELDS = frozenset((*_FORMS, "ranges"))
_DECODE = msgspec.json.Decoder().decode
_START = f"{os.urandom(6).hex()}-"
_NUMBERS = itertools.count(1)
_NO_ROW: tuple[str | None, str | None] = (None, None)


class RefusedError(Exception):
    """A request that gets no predictions: the status of HTTP, and what its answer says."""

    def __init__(
        self, status: int, error: str, problems: Sequence[dict[str, Any]] = (), *, wait_s: float = 0.0
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.problems, self.wait_s = status, error, problems, wait_s

    def body(self) -> dict[str, Any]:
        """The answer."""
        return {"error": self.error, **({"problems": list(self.problems)} if self.problems else {})}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read: records or keys, whether it named one or a list, and whether it wants to be told of the ranges."""

    entries: list[dict[str, Any]]
    by_key: bool
    one: bool
    ranges: bool


class Features(Protocol):
    """Where the features of a request by key come from."""

    async def find(self, served: Served, keys: Sequence[dict[str, Any]]) -> list[Found | None]:
        """The features of each key; None: there is no such row.

        Raises:
            RefusedError: a key is wrong, the warehouse is away, or it took too long.
        """


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the feature query."""

    key: str
    event_time: datetime
    features: dict[str, Any]


def read(body: bytes, most: int = MOST_RECORDS) -> Asked:
    """Read a request.

    Raises:
        RefusedError: it is no JSON, or not of the form that is asked for.
    """
    try:
        told = _DECODE(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from None
    if type(told) is not dict:
        raise RefusedError(422, 'write an object, such as {"record": {…}}')
    forms = [form for form in _FORMS if form in told]
    if len(forms) != 1 or not told.keys() <= _FIELDS:
        unknown = sorted(told.keys() - _FIELDS)[:3]
        also = f"; there is no field {', '.join(map(str, unknown))}" if unknown else ""
        raise RefusedError(422, f"write exactly one of record, records, key and keys{also}")
    form, ranges = forms[0], told.get("ranges", False)
    if type(ranges) is not bool:
        raise RefusedError(422, "ranges is true or false")
    one = not form.endswith("s")
    entries = [told[form]] if one else told[form]
    if type(entries) is not list or not all(type(entry) is dict for entry in entries):
        raise RefusedError(422, f"{form} is {'an object' if one else 'a list of objects'}")
    if not 1 <= len(entries) <= most:
        raise RefusedError(422, f"{form} has {len(entries):,} entries; 1 to {most:,} are answered at once")
    return Asked(entries, form.startswith("key"), one, ranges)


class Predictions:
    """Answers for all models."""

    def __init__(self, features: Features) -> None:
        """With the way to features by key."""
        self._features = features

    async def answer(
        self, served: Served, asked: Asked, client: str
    ) -> tuple[dict[str, Any], Answered, list[Problem]]:
        """Predictions of a request.

        Returns:
            What is answered, what is logged of it, and the values that were taken as missing.

        Raises:
            RefusedError: nothing can be predicted; says all that is wrong.
        """
        model = served.model
        source = "record"
        entries: Sequence[Mapping[str, Any]] = asked.entries
        if asked.by_key:
            source = model.by_key
            found = await self._features.find(served, asked.entries)
            if absent := [position for position, row in enumerate(found) if row is None]:
                raise RefusedError(
                    404,
                    f"{model.name} has no row of {len(absent)} of the keys",
                    records.told([Problem(p, "key", "there is no row of this key") for p in absent]),
                )
            rows = [row for row in found if row is not None]
            entries = [row.features for row in rows]
            known: list[Row | None] = [(row.key, row.event_time.isoformat()) for row in rows]
        else:
            known = self._identify(served, asked.entries)
        logged = model.logged >= 1 or random.random() < model.logged
        made, missing = await self._predict(served, entries, known, logged=logged)
        request = f"{_START}{next(_NUMBERS)}"
        answer = self._told(served, asked, request, made, missing)
        names = served.logged if logged else ()
        return answer, Answered(request, model.name, client, time.time(), source, names, made), missing

    def _identify(self, served: Served, entries: Sequence[dict[str, Any]]) -> list[Row | None]:
        try:
            return served.identifier.identify(entries)
        except BadRecordsError as error:
            problems = list(error.problems)
        # All at once: what is wrong with the features, too.
        try:
            served.champion.encoder.encode(entries, served.allowed)
        except BadRecordsError as error:
            problems += error.problems
        raise _refused(problems)

    async def _predict(
        self,
        served: Served,
        entries: Sequence[Mapping[str, Any]],
        rows: Sequence[Row | None],
        *,
        logged: bool,
    ) -> tuple[list[Made], list[Problem]]:
        chosen = served.choose(entries, rows)
        made: list[Made] = []
        missing: list[Problem] = []
        problems: list[Problem] = []
        for begin in range(0, len(entries), SLICE):
            if begin:
                await asyncio.sleep(0)
            part, those = entries[begin : begin + SLICE], rows[begin : begin + SLICE]
            try:
                encoded = served.champion.encoder.encode(part, served.allowed)
            except BadRecordsError as error:
                problems += _moved(error.problems, begin)
                continue
            if problems:
                continue
            missing += _moved(encoded.missing, begin)
            found = _finite(served.champion, encoded)
            kept = served.written_down(part) if logged else itertools.repeat(None, len(part))
            if chosen is None or served.former is None:
                made += _made(served.champion, found, those, kept)
            else:
                made += _shared(served, found, part, those, kept, chosen[begin : begin + SLICE])
        if problems:
            raise _refused(problems)
        return made, missing

    def _told(
        self, served: Served, asked: Asked, request: str, made: Sequence[Made], missing: Sequence[Problem]
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {"model": served.model.name, "request_id": request}
        if asked.one:
            answer |= {"version": made[0].version, "prediction": made[0].prediction}
        else:
            answer["predictions"] = [{"prediction": one.prediction, "version": one.version} for one in made]
        if missing:
            answer["missing"] = records.told(missing)
        if asked.ranges and not asked.by_key:
            answer["beyond"] = served.champion.encoder.beyond(asked.entries)
        return answer

    async def explain(self, served: Served, asked: Asked) -> dict[str, Any]:
        """What each feature adds to a prediction, of the champion; the margin is the prediction, or for a probability its log odds.

        Raises:
            RefusedError: as `answer`.
        """
        if asked.by_key:
            found = await self._features.find(served, asked.entries)
            entries: Sequence[Mapping[str, Any]] = [row.features for row in found if row is not None]
            if len(entries) < len(found):
                raise RefusedError(
                    404, f"{served.model.name} has no row of {len(found) - len(entries)} of the keys"
                )
        else:
            entries = asked.entries
        try:
            encoded = served.champion.encoder.encode(entries)
        except BadRecordsError as error:
            raise _refused(error.problems) from None
        explained = await asyncio.to_thread(served.champion.explain, encoded.rows)
        unit = "log odds of class 1" if served.model.task == "binary" else "the label's unit"
        told: dict[str, Any] = {"model": served.model.name, "version": served.model.champion, "unit": unit}
        return told | ({"explanation": explained[0]} if asked.one else {"explanations": explained})


def _moved(problems: Sequence[Problem], begin: int) -> Sequence[Problem]:
    """Problems of a slice, with the positions that the records have in the request."""
    return (
        [Problem(p.record + begin, p.field, p.problem) for p in problems] if begin and problems else problems
    )


def _finite(loaded: Loaded, encoded: Encoded) -> list[float]:
    found = loaded.predict(encoded.rows)
    if not all(map(math.isfinite, found)):
        raise RefusedError(
            503,
            f"version {loaded.version.version} predicts no finite number for this; another version is needed",
        )
    return found


def _made(
    loaded: Loaded, found: list[float], rows: Sequence[Row | None], kept: Iterable[tuple[Any, ...] | None]
) -> list[Made]:
    version = loaded.version.version
    return [
        Made(version, value, key, at, features)
        for value, (key, at), features in zip(found, _or_none(rows), kept, strict=True)
    ]


def _or_none(rows: Sequence[Row | None]) -> list[tuple[str | None, str | None]]:
    return [row or _NO_ROW for row in rows]


def _shared(  # a slice, and the two that share it
    served: Served,
    found: list[float],
    part: Sequence[Mapping[str, Any]],
    rows: Sequence[Row | None],
    kept: Iterable[tuple[Any, ...] | None],
    chosen: Sequence[bool],
) -> list[Made]:
    """Both versions predict, so that the watch can compare them on the same rows, and each answers for its share.

    Where the former needs what the records do not have, the champion answers for all.
    """
    champion, former = served.champion, served.former
    assert former is not None
    try:
        others = _finite(former, former.encoder.encode(part))
    except (BadRecordsError, RefusedError):
        return _made(champion, found, rows, kept)
    new, old = champion.version.version, former.version.version
    return [
        Made(new, mine, key, at, features, old, other)
        if by_champion
        else Made(old, other, key, at, features, new, mine)
        for mine, other, (key, at), features, by_champion in zip(
            found, others, _or_none(rows), kept, chosen, strict=True
        )
    ]


def _refused(problems: Sequence[Problem]) -> RefusedError:
    return RefusedError(
        422,
        f"{len(problems)} value{'s are' if len(problems) > 1 else ' is'} not what the model takes"
        + (f"; the first {records.MOST_TOLD} are told" if len(problems) > records.MOST_TOLD else ""),
        records.told(problems),
    )
