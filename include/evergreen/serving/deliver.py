"""Brings the log of requests from this disk into the warehouse: a file in one transaction, as often as it takes, once in effect."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg2
from psycopg2 import sql

from evergreen.errors import in_one_line
from evergreen.serving import spool
from evergreen.serving.spool import Answered, Minute, Segment
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection

log = logging.getLogger(__name__)

REQUEST = (
    "id",
    "position",
    "model",
    "version",
    "client",
    "asked_at",
    "source",
    "key",
    "event_time",
    "prediction",
    "features",
)
PREDICTION = ("model", "version", "key", "event_time", "prediction", "as_of", "scored_at", "run_id")
TRAFFIC = (
    "model",
    "version",
    "minute",
    "instance",
    "requests",
    "records",
    "errors",
    "refused",
    "lost",
    "p50_ms",
    "p99_ms",
)
DAMAGED = ".damaged"
MOST_DELETED = 50_000
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def deliver(conn: Connection, path: Path) -> int:
    """Write a file of the log into the warehouse and delete it; returns how many records it had.

    A file that was written before, by a process that was killed before it deleted it, changes nothing: every row has its key. One that
    cannot be read is put aside and told.

    Raises:
        psycopg2.Error: the warehouse does not take it; nothing of it is there then.
        OSError: the disk.
    """
    try:
        segment = spool.read(path)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return _aside(path, error)
    try:
        with conn.cursor() as cursor:
            _into(cursor, "request", REQUEST, _requests(segment.answered))
            _into(cursor, "prediction", PREDICTION, _predictions(segment, beside=False))
            _into(cursor, "shadow_prediction", PREDICTION, _predictions(segment, beside=True))
            _into(cursor, "traffic", TRAFFIC, _minutes(segment.instance, segment.minutes))
    except psycopg2.DataError as error:
        # No try later would end otherwise, and what is behind it must not wait for ever.
        conn.rollback()
        return _aside(path, error)
    conn.commit()
    path.unlink(missing_ok=True)
    return sum(len(one.records) for one in segment.answered)


def _aside(path: Path, error: Exception) -> int:
    aside = path.with_suffix(DAMAGED)
    path.rename(aside)
    log.error(
        "a file of the log of requests cannot be taken and was put aside as %s: %s", aside, in_one_line(error)
    )
    return 0


def forget_old(conn: Connection, specs: Specs) -> int:
    """Delete requests that are older than `serving.log.keep`, a bounded number at a time; returns how many."""
    deleted = 0
    now = datetime.now(UTC)
    with conn.cursor() as cursor:
        for model in specs.models.values():
            cursor.execute(
                "DELETE FROM evergreen.request WHERE ctid = ANY (ARRAY(SELECT ctid FROM evergreen.request"
                " WHERE model = %s AND asked_at < %s LIMIT %s))",
                (model.name, now - model.serving.log.keep, MOST_DELETED),
            )
            deleted += cursor.rowcount
            cursor.execute(
                "DELETE FROM evergreen.traffic WHERE model = %s AND minute < %s",
                (model.name, now - max(model.serving.log.keep, timedelta(days=90))),
            )
    conn.commit()
    return deleted


def _into(cursor: Any, table: str, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    """Rows into a table, but for those whose key is there."""
    text = "".join(_line(row) for row in rows)
    if not text:
        return
    target, names = sql.Identifier("evergreen", table), sql.SQL(", ").join(map(sql.Identifier, columns))
    draft = sql.Identifier(f"_online_{table}")
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            draft, names, target
        )
    )
    cursor.copy_expert(
        sql.SQL("COPY {} ({}) FROM STDIN").format(draft, names).as_string(cursor), io.StringIO(text)
    )
    cursor.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT DO NOTHING").format(
            target, names, names, draft
        )
    )


def _line(row: Iterable[Any]) -> str:
    return "\t".join("\\N" if v is None else str(v).translate(_ESCAPED) for v in row) + "\n"


def _requests(answered: Iterable[Answered]) -> Iterator[tuple[Any, ...]]:
    for one in answered:
        at = _moment(one.at)
        for position, made in enumerate(one.records):
            features = None if made.features is None else json.dumps(_without_nul(made.features))
            yield (
                one.id, position, one.model, made.version, one.client, at, one.source, made.key, made.event_time,
                repr(made.prediction), features,
            )  # fmt: skip


def _without_nul(features: dict[str, Any]) -> dict[str, Any]:
    """PostgreSQL has no text with the character 0."""
    return {
        name: value.replace("\0", "") if isinstance(value, str) else value for name, value in features.items()
    }


def _predictions(segment: Segment, *, beside: bool) -> Iterator[tuple[Any, ...]]:
    """What was answered, or what another version predicted beside it, of the records that name their row."""
    for one in segment.answered:
        at = _moment(one.at)
        for made in one.records:
            version, value = (
                (made.beside, made.beside_prediction) if beside else (made.version, made.prediction)
            )
            if made.key is not None and version is not None:
                yield (
                    one.model, version, made.key, made.event_time, repr(value), at, at, f"online/{segment.instance}",
                )  # fmt: skip


def _minutes(instance: str, minutes: Iterable[Minute]) -> Iterator[tuple[Any, ...]]:
    for m in minutes:
        yield (
            m.model, m.version, _moment(m.minute), instance, m.requests, m.records, m.errors, m.refused, m.lost,
            repr(m.p50_ms), repr(m.p99_ms),
        )  # fmt: skip


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
