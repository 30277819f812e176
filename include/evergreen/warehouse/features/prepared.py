"""A connection that is prepared to be asked for one model's rows by key, and when that has to be done anew.

The views and the statements are made once and stay: a request runs one of the statements. It is no transaction that stays open, so
nothing in the database is kept from being cleaned up; and as a feature query may not read more than its views, the connection has given
up every other right before the first request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from evergreen.errors import ErrorReason, TerminalError, in_one_line
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import lost
from evergreen.warehouse.features import arrow, feature_query, views
from evergreen.warehouse.features.asked_keys import Asked, entity_columns
from evergreen.warehouse.timed import OutOfTime, TimedConnection

CONNECT_S, PREPARE_S = 2.0, 10
EXACT, NEWEST = "evergreen_exact", "evergreen_newest"  # the prepared statements
# Plans of a few rows by their index: compiling them, or starting workers, takes longer than running them.
_PARAMETERS = {**arrow.WRITTEN, "jit": "off", "max_parallel_workers_per_gather": "0", "lock_timeout": "10000"}
# SQLSTATEs after which views and statements are to be made anew: they are gone, or what they were made on is not what it was.
OUTDATED = ("42P01", "42703", "0A000", "26000", "XX000", "42501")


@dataclass(frozen=True)
class Subject:
    """What is asked about; another one means that connections are prepared anew."""

    specs: Specs
    model: ModelSpec


class Outdated(Exception):
    """The connection was lost, or what it had prepared does not hold any more; it is closed."""

    def __init__(self, said: psycopg2.Error | None = None) -> None:
        super().__init__(str(said or "the datasets have other columns"))
        self._said = said

    def seen_as(self, model: ModelSpec) -> Exception:
        """What it is if it is so on a new connection, too."""
        there = self._said is not None and (self._said.pgcode or "08").startswith(("42", "0A", "26", "XX"))
        return unusable(model, self) if there else lost(self)


class Slot:
    """A place for a connection, and what it was prepared for; one thread at a time."""

    def __init__(self) -> None:
        self._connection: TimedConnection | None = None
        self._subject: Subject | None = None
        self._there: dict[str, frozenset[str]] = {}  # datasets that lack columns of their specs
        self.types: dict[str, str] = {}

    @property
    def connection(self) -> TimedConnection:
        """The connection, of a slot that is ready."""
        assert self._connection is not None
        return self._connection

    def ready(self, subject: Subject) -> None:
        """Connect and prepare, unless that has been done for this subject and still holds.

        Raises:
            TerminalError: the query cannot be used, or lacks a feature; no role.
            TransientError: the warehouse does not answer.
        """
        if self._connection is None or self._connection.closed or subject != self._subject:
            self._prepare(subject)

    def try_out(self) -> None:
        """Close the connection if it does not answer any more, so that `ready` makes another one."""
        if self._connection is not None and not self._connection.closed:
            self._connection.deadline = time.monotonic() + CONNECT_S
            try:
                self._connection.run(sql.SQL("SELECT 1"))
            except (psycopg2.Error, OutOfTime):
                self.close()

    def require_columns(self, subject: Subject) -> None:
        """See that no dataset has gained a column that these views show as NULL; costs nothing where none is missing.

        Raises:
            Outdated: one has.
        """
        for name, there in self._there.items():
            if views.present(self.connection, subject.specs.datasets[name]) != there:
                self.close()
                raise Outdated

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._subject = None

    def _prepare(self, subject: Subject) -> None:
        specs, model = subject.specs, subject.model
        self.close()
        try:
            self._connection = made = TimedConnection(_PARAMETERS, CONNECT_S, name="evergreen-lookup")
        except (psycopg2.OperationalError, OutOfTime) as error:
            raise lost(str(error) or f"no answer within {CONNECT_S:g} s") from error
        try:
            # The query goes to the server as one statement and is judged there; a session of this driver would run several.
            with views.reading(specs, model, feature_query.LATEST, timeout_s=PREPARE_S) as reader:
                self.types = feature_query.types(reader)
            _require_columns(model, self.types)
            made.deadline = time.monotonic() + PREPARE_S
            made.run(sql.SQL("BEGIN"))
            there = {}
            if model.serving.features == "query":
                there = views.stand(made, specs, model, list(self.types))
            for name, columns, query in _statements(model, self.types):
                types = ", ".join(feature_query.array_type(self.types[c]) for c in columns)
                made.run(sql.SQL(f"PREPARE {name} ({types}) AS ") + query)
            made.run(sql.SQL("COMMIT; SET default_transaction_read_only = on"))
        except psycopg2.Error as error:
            gone = made.closed
            self.close()
            raise lost(error) if gone else unusable(model, error) from error
        except OutOfTime:
            self.close()
            raise lost(f"no answer within {PREPARE_S} s") from None
        except BaseException:
            self.close()
            raise
        self._there = {n: found for n, found in there.items() if found < set(specs.datasets[n].columns)}
        self._subject = subject


def _statements(
    model: ModelSpec, types: Mapping[str, str]
) -> list[tuple[str, tuple[str, ...], sql.Composable]]:
    """The statements of a model: name, columns of the arrays, text."""
    kinds = [(EXACT, model.key, False)]
    if others := newest_by(model):
        kinds.append((NEWEST, others, True))
    if model.serving.features == "query":
        return [
            (name, columns, feature_query.asked_query(model, columns, types, newest=newest))
            for name, columns, newest in kinds
        ]
    return [(name, columns, _latest_query(model, columns, types)) for name, columns, _ in kinds]


def newest_by(model: ModelSpec) -> tuple[str, ...]:
    """The columns by which the newest row of an entity is asked; none where a key is always asked whole."""
    return entity_columns(model) if model.event_time in model.key else ()


def _latest_query(model: ModelSpec, columns: Sequence[str], types: Mapping[str, str]) -> sql.Composable:
    names = {name: sql.Identifier("_asked", f"_{i}") for i, name in enumerate(columns, 1)}
    where = [
        sql.SQL("l.model = {}").format(sql.Literal(model.name)),
        sql.SQL("l.entity = json_build_array({})::text").format(
            sql.SQL(", ").join(names[name] for name in entity_columns(model))
        ),
    ]
    if model.event_time in names:
        where.append(sql.SQL("l.event_time = {}::timestamptz").format(names[model.event_time]))
    return sql.SQL(
        "SELECT _position, l.key, l.event_time, l.features FROM {} JOIN evergreen.latest_features AS l ON {}"
    ).format(feature_query.asked(columns, types), sql.SQL(" AND ").join(where))


def _require_columns(model: ModelSpec, types: Mapping[str, str]) -> None:
    lacks = feature_query.lacking(model, types)
    lacks |= {n: "the feature query does not return it now" for n in model.key if n not in types}
    if lacks:
        told = "; ".join(f"{name}: {why}" for name, why in lacks.items())
        raise TerminalError(
            f"{model.name}: features by key need {', '.join(lacks)} ({told}); put them back into models/{model.name}.sql",
            ErrorReason.REGISTRY_MISMATCH,
        )


def execute(statement: str, columns: Sequence[str], asked: Sequence[Asked], left_s: float) -> sql.Composable:
    """Run a prepared statement for keys, with what is left of their time, in seconds; one message to the server."""
    arrays = [array([a.values[i] for a in asked]) for i in range(len(columns))]
    return sql.SQL("SET LOCAL statement_timeout = {}; EXECUTE {} ({})").format(
        sql.Literal(max(1, round(left_s * 1000))),
        sql.SQL(statement),
        sql.SQL(", ").join(map(sql.Literal, arrays)),
    )


def array(values: Sequence[str]) -> str:
    """Texts as PostgreSQL reads an array of any type."""
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"


def unusable(model: ModelSpec, error: Exception) -> TerminalError:
    """What an error is that comes of the query and not of the server."""
    return TerminalError(
        f"{model.name}: the feature query cannot be asked by key: {in_one_line(error)}; mend models/{model.name}.sql or the key in "
        f"models/{model.name}.yaml",
        ErrorReason.BAD_QUERY,
    )
