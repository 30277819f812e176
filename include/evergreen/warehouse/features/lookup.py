"""The features of rows by their keys, as of now: what the prediction service asks for in the middle of a request.

They come from the model's own feature query, through views that a connection makes once (`views.stand`), or from the newest features
of each entity, which the scoring keeps (`evergreen.latest_features`). Either way a request is one statement on a connection that
waits for it, and no transaction is open between two of them.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2
from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError, TransientError, in_one_line
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import lost
from evergreen.warehouse.features import feature_query
from evergreen.warehouse.features.asked_keys import Asked, BadKey, BadKeysError, read
from evergreen.warehouse.features.prepared import (
    EXACT,
    NEWEST,
    OUTDATED,
    PREPARE_S,
    Outdated,
    Slot,
    Subject,
    array,
    execute,
    newest_by,
    unusable,
)
from evergreen.warehouse.timed import OutOfTime, TimedConnection

__all__ = ["BadKey", "BadKeysError", "Found", "Lookup"]

GRACE_S = 0.1  # the server's own limit comes first, as the connection outlives it
MOST_COMBINATIONS = 1000  # of the values of several key columns, in one statement


@dataclass(frozen=True, slots=True)
class Found:
    """The features of a row: `key` as in evergreen.prediction, `event_time` aware (UTC), numbers and texts by name."""

    key: str
    event_time: datetime
    features: dict[str, float | str | None]


class Lookup:
    """Looks up the features of one model by key; any number of threads may ask at once."""

    def __init__(self, specs: Specs, model: ModelSpec, *, connections: int = 2) -> None:
        """Connect to nothing yet, see `prepare`.

        Args:
            specs: all specs.
            model: whose features, as the versions see them that predict on them (`ModelSpec.seeing`).
            connections: how many requests the warehouse answers at once.
        """
        self._subject = Subject(specs, model)
        self._idle: queue.LifoQueue[Slot] = queue.LifoQueue()
        self._count, self._lock, self._closed = connections, threading.Lock(), False
        for _ in range(connections):
            self._idle.put(Slot())

    def rows(self, keys: Sequence[Mapping[str, Any]], *, timeout_s: float) -> list[Found | None]:
        """The rows of keys, one for each in order; None where there is no such row.

        A key without the event time asks for the newest row of what its other columns name.

        Args:
            keys: values by column of the key, as JSON has them; a text without a time zone is a time in UTC.
            timeout_s: longest that the rows may take, in seconds, waiting for a connection included. Only a connection that has
                to be made and prepared first (the first request, after a restart of the server) may take longer.

        Raises:
            BadKeysError: keys that are none of the model, every mistake at once.
            TerminalError: the query returns two rows for a key, or does not run (BAD_QUERY); it lacks a feature (REGISTRY_MISMATCH);
                there is no role for feature queries (NO_ROLE).
            TransientError: not in time (BUSY), the warehouse does not answer (UNREACHABLE), or the scoring has not filled the
                newest features yet (NO_ROWS).
        """
        deadline = time.monotonic() + timeout_s
        subject = self._subject
        asked = read(subject.model, keys)
        if not asked:
            return []
        slot = self._take(subject.model, deadline, timeout_s)
        try:
            return _answer(slot, subject, asked, deadline, timeout_s)
        finally:
            self._give_back(slot)

    def prepare(self) -> None:
        """Make every connection ready, so that no request has to wait for that; those that are ready and answer stay as they are.

        Raises:
            TerminalError: as `rows`.
            TransientError: as `rows`.
        """
        subject, taken = self._subject, []
        deadline = time.monotonic() + PREPARE_S
        try:
            for _ in range(self._count):
                taken.append(self._take(subject.model, deadline, PREPARE_S))
                taken[-1].try_out()
                taken[-1].ready(subject)
        finally:
            for slot in taken:
                self._give_back(slot)

    def follow(self, specs: Specs, model: ModelSpec) -> None:
        """Ask by other specs from the next request on; where they are the same, nothing happens."""
        subject = Subject(specs, model)
        if subject != self._subject:
            self._subject = subject

    def close(self) -> None:
        """Close the connections; one that is in use is closed when its request is answered."""
        with self._lock:
            self._closed = True
            while not self._idle.empty():
                self._idle.get_nowait().close()

    def _take(self, model: ModelSpec, deadline: float, timeout_s: float) -> Slot:
        if self._closed:
            raise TransientError(
                f"{model.name}: these connections for features by key are closed; others take their place",
                ErrorReason.BUSY,
            )
        try:
            return self._idle.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            raise _busy(model, timeout_s, "every connection is busy") from None

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            if self._closed:
                slot.close()
            else:
                self._idle.put(slot)


def _answer(
    slot: Slot, subject: Subject, asked: list[Asked], deadline: float, timeout_s: float
) -> list[Found | None]:
    """Ask, and once more on a new connection where the first one turned out to be of no use any more."""
    for last in (False, True):
        try:
            slot.ready(subject)
            return _ask(slot, subject, asked, deadline)
        except Outdated as error:
            if last:
                raise error.seen_as(subject.model) from error
        except OutOfTime:
            raise _busy(subject.model, timeout_s, "the query takes longer") from None
        except psycopg2.errors.QueryCanceled as error:
            raise _busy(subject.model, timeout_s, in_one_line(error)) from error
        except psycopg2.Error as error:
            slot.close()
            raise lost(error) from error
    raise AssertionError


def _ask(slot: Slot, subject: Subject, asked: list[Asked], deadline: float) -> list[Found | None]:
    model, connection = subject.model, slot.connection
    found: dict[int, Found] = {}
    try:
        connection.deadline = deadline + GRACE_S
        slot.require_columns(subject)
        for newest, columns, statement in ((False, model.key, EXACT), (True, newest_by(model), NEWEST)):
            some = [a for a in asked if a.newest is newest]
            for part in _portions(some) if statement == EXACT else [some] if some else []:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise OutOfTime
                rows = connection.fetch(execute(statement, columns, part, left))
                _gather(model, part, rows, found, newest=newest)
        if model.serving.features == "latest" and len(found) < len(asked):
            _require_filled(connection, model)
    except (psycopg2.errors.QueryCanceled, TerminalError):
        raise
    except psycopg2.Error as error:
        raise _meaning(slot, model, asked, error) from error
    except (ValueError, OverflowError) as error:
        raise TerminalError(
            f"{model.name}: the event time of a row is none that can be read ({error}); mend the data, or name another row",
            ErrorReason.BAD_QUERY,
        ) from error
    return [found.get(a.position) for a in asked]


def _portions(asked: list[Asked]) -> Iterator[list[Asked]]:
    """Keys in portions that an index finds fast: of several columns it looks for every combination of their values."""
    values = [len({a.values[i] for a in asked}) for i in range(len(asked[0].values))] if asked else []
    if math.prod(values) <= max(MOST_COMBINATIONS, len(asked)):
        if asked:
            yield asked
        return
    asked = sorted(asked, key=lambda a: a.values)
    half = len(asked) // 2
    yield from _portions(asked[:half])
    yield from _portions(asked[half:])


def _gather(
    model: ModelSpec,
    asked: Sequence[Asked],
    rows: Sequence[tuple[Any, ...]],
    found: dict[int, Found],
    *,
    newest: bool,
) -> None:
    """Put rows to the positions of the keys that asked for them.

    Raises:
        TerminalError: two rows for one key, or for the newest time of an entity.
    """
    latest = model.serving.features == "latest"
    for number, key, at, *values in rows:
        position = asked[number - 1].position
        before = found.get(position)
        if before is not None and (not newest or before.event_time == at):
            raise TerminalError(
                f"{model.name}: the feature query returns the key {key} more than once; a key names one row. Mend the SQL (a join "
                f"that doubles rows?) or the key in models/{model.name}.yaml",
                ErrorReason.BAD_QUERY,
            )
        if before is None or before.event_time < at:
            features = (
                _kept(model, values[0]) if latest else dict(zip(model.features.all, values, strict=True))
            )
            found[position] = Found(key, at, features)


def _kept(model: ModelSpec, features: Mapping[str, Any]) -> dict[str, float | str | None]:
    """Features out of evergreen.latest_features; what JSON has no number for stands there as a text that Python reads as one.

    Raises:
        TerminalError: one is not among them (REGISTRY_MISMATCH).
    """
    try:
        numbers = {n: None if (v := features[n]) is None else float(v) for n in model.features.numeric}
        return numbers | {n: features[n] for n in model.features.categorical}
    except (KeyError, ValueError) as error:
        raise TerminalError(
            f"{model.name}: the newest features that are kept do not have what is needed ({error}): the spec was changed since. Run "
            f"score__{model.name}, which writes them anew",
            ErrorReason.REGISTRY_MISMATCH,
        ) from error


def _require_filled(connection: TimedConnection, model: ModelSpec) -> None:
    query = sql.SQL("SELECT 1 FROM evergreen.latest_filled WHERE model = {}").format(sql.Literal(model.name))
    if not connection.fetch(query):
        raise TransientError(
            f"{model.name}: its newest features are not there yet; run score__{model.name}, which fills them",
            ErrorReason.NO_ROWS,
        )


def _meaning(slot: Slot, model: ModelSpec, asked: Sequence[Asked], error: psycopg2.Error) -> Exception:
    """What an error of the server is to the one who asked."""
    code = error.pgcode or ""
    if slot.connection.closed or code.startswith(("08", "57P")) or code in OUTDATED:
        slot.close()
        return Outdated(error)
    if code.startswith("22") and (bad := _uncastable(slot, model, asked)):
        return BadKeysError(bad)
    if code.startswith(("53", "55", "40")):
        return TransientError(
            f"the warehouse is busy ({in_one_line(error)}); try again in a moment", ErrorReason.BUSY
        )
    return unusable(model, error)


def _uncastable(slot: Slot, model: ModelSpec, asked: Sequence[Asked]) -> list[BadKey]:
    """The values that are not of their columns' types; each is tried by itself, as the server tells of the first one alone."""
    said: dict[tuple[str, str], str] = {}
    bad = []
    for key in asked:
        columns = newest_by(model) if key.newest else model.key
        for column, value in zip(columns, key.values, strict=True):
            if (column, value) not in said:
                said[column, value] = _refusal(slot, column, value)
            if message := said[column, value]:
                bad.append(BadKey(key.position, column, message))
    return bad


def _refusal(slot: Slot, column: str, value: str) -> str:
    type_ = feature_query.array_type(slot.types[column])
    try:
        slot.connection.fetch(
            sql.SQL("SELECT ({}::{}) IS NULL").format(sql.Literal(array([value])), sql.SQL(type_))
        )
    except psycopg2.DataError as error:
        return f"is no {slot.types[column]}: {in_one_line(error.diag.message_primary or error)}"
    return ""


def _busy(model: ModelSpec, timeout_s: float, why: str) -> TransientError:
    return TransientError(
        f"{model.name}: no features by key within {timeout_s * 1000:,.0f} ms ({why}). Try again; if it stays, raise serving.timeout_ms, or "
        "write the query so that an index finds a key's rows, see docs/feature-sql.md",
        ErrorReason.BUSY,
    )
