"""The records that are compared: what was answered online, and the same rows as the warehouse knew them at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from psycopg2 import sql

from evergreen.registry.models import LoadedModel
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.features import arrow, feature_query
from evergreen.warehouse.features.arrow import Reader

ROWS = 1000
"""So many records are compared: a share of 5 % is then known to 1.4 % (two standard errors)."""
ASKED = 4 * ROWS
"""So many are looked up: the rows of the others may not be in the warehouse yet, or never come."""

_NAMED = sql.SQL(
    "model = %(model)s AND asked_at >= %(since)s AND asked_at < %(until)s AND key IS NOT NULL AND event_time IS NOT NULL"
)
_WHOLE = {"smallint": 15, "integer": 31, "bigint": 63}


@dataclass(frozen=True)
class Record:
    """A record that was answered.

    Attributes:
        key: as `evergreen.prediction` has it.
        event_time, asked_at: aware.
        version: that answered.
        client: who asked.
        prediction: the answer.
        features: by name, as they were kept; None: they were not.
    """

    key: str
    event_time: datetime
    asked_at: datetime
    version: str
    client: str
    prediction: float
    features: dict[str, Any] | None


def sample(conn: Connection, model: ModelSpec, since: datetime, until: datetime) -> list[Record]:
    """At most `ASKED` records with a key that were answered in [since, until): of each key the newest one.

    They are those whose key has the smallest hash, so the sample is the same whenever it is drawn; in this order.
    """
    between = {"model": model.name, "since": since, "until": until, "most": ASKED}
    # The keys first: so the rows of all the others are neither sorted nor kept.
    keys = sql.SQL(
        "SELECT key FROM (SELECT DISTINCT key FROM evergreen.request WHERE {}) AS asked"
        " ORDER BY hashtextextended(key, 0), key LIMIT %(most)s"
    ).format(_NAMED)
    found = [row["key"] for row in fetch(conn, keys, between)]
    newest = sql.SQL(
        "SELECT * FROM (SELECT DISTINCT ON (key) key, event_time, asked_at, version, client, prediction, features"
        " FROM evergreen.request WHERE {} AND key = ANY(%(keys)s) ORDER BY key, asked_at DESC, id DESC, position DESC) AS newest"
        " ORDER BY hashtextextended(key, 0), key"
    ).format(_NAMED)
    return [Record(**row) for row in fetch(conn, newest, {**between, "keys": found})]


def asked_since(conn: Connection, model: ModelSpec, since: datetime, until: datetime) -> bool:
    """Whether any record with a key was answered in [since, until)."""
    query = (
        "SELECT EXISTS (SELECT FROM evergreen.request WHERE model = %s AND asked_at >= %s AND asked_at < %s"
        " AND key IS NOT NULL) AS found"
    )
    return bool(fetch(conn, query, (model.name, since, until))[0]["found"])


def rows(reader: Reader, model: ModelSpec, loaded: LoadedModel, records: Sequence[Record]) -> pa.Table:
    """The rows of records as the reader knows them, with the features of a version: `_key` and these; without those that are not there."""
    seen = loaded.seen_by(model)
    types = feature_query.types(reader)
    among = {
        model.event_time: _array(
            [r.event_time for r in records], f"timestamptz[]::{_of(types, model.event_time)}"
        )
    }
    # The arrays are found by the datasets' indexes; they also give combinations of values that nobody asked for.
    parts = [json.loads(record.key) for record in records]
    for i, column in enumerate(model.key):
        known = _castable([values[i] for values in parts], types[column])
        if known is not None and column != model.event_time:
            among[column] = _array(known, _of(types, column))
    times = [record.event_time for record in records]
    query = feature_query.feature_query(
        seen, min(times), max(times) + timedelta(microseconds=1), ordered=False, among=among
    )
    keys = _array([record.key for record in records], "text[]")
    return reader.table(
        sql.SQL("SELECT f.* FROM ({}) AS f WHERE f._key = ANY ({})").format(query, keys),
        arrow.feature_schema(seen),
    )


def _castable(values: Sequence[Any], type_: str) -> list[str] | None:
    """The values of a key's column that are of its type, as texts; None: of this type that is not known here.

    A client may ask for a key that no row can have, such as a number beyond its type. It must not end the query for all.
    """
    if type_ in ("text", "character varying"):
        return sorted({value for value in values if isinstance(value, str)})
    if type_ in _WHOLE:
        largest = 1 << _WHOLE[type_]
        whole = {v for v in values if isinstance(v, int) and not isinstance(v, bool)}
        return [str(value) for value in sorted(whole) if -largest <= value < largest]
    return None


def _of(types: dict[str, str], column: str) -> str:
    return feature_query.array_type(types[column])


def _array(values: Sequence[Any], type_: str) -> sql.Composable:
    return sql.SQL("{}::{}").format(sql.Literal(list(values)), sql.SQL(type_))
