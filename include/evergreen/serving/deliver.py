"""Brings the log of requests from this disk into the warehouse: a file in one transaction, as often as it takes, once in effect."""

from __future__ import annotations

import io
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

REQUEST = "id, position, model, version, client, asked_at, source, key, event_time, prediction, features"
PREDICTION = "model, version, key, event_time, prediction, as_of, scored_at, run_id"
TRAFFIC = "model, version, minute, instance, requests, records, errors, refused, lost, p50_ms, p99_ms"
# What was answered of the records that name their row.
_ANSWERED = (
    "INSERT INTO evergreen.prediction (model, version, key, event_time, prediction, as_of, scored_at, run_id)"
    " SELECT model, version, key, event_time, prediction, asked_at, asked_at, %(run_id)s FROM _online_request WHERE key IS NOT NULL ON CONFLICT DO NOTHING"
)
DAMAGED = ".damaged"
PIECE = 1 << 16
"""Bytes of COPY that are sent at once."""
MOST_DELETED = 50_000
NULL = "\\N"
GONE = timedelta(days=1)
"""A process that has given no sign of life for so long is forgotten where another one lives."""


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
            if _into(cursor, "request", REQUEST, _requests(segment.answered)):
                cursor.execute(_ANSWERED, {"run_id": f"online/{segment.instance}"})
            _into(cursor, "shadow_prediction", PREDICTION, _beside(segment))
            _into(cursor, "traffic", TRAFFIC, _minutes(segment.instance, segment.minutes))
            if segment.alive:
                cursor.execute(
                    "INSERT INTO evergreen.serving_process AS p VALUES (%s, least(%s, clock_timestamp())) ON CONFLICT (instance)"
                    " DO UPDATE SET alive_at = greatest(p.alive_at, excluded.alive_at)",
                    (segment.instance, _moment(segment.alive)),
                )
    except (psycopg2.DataError, psycopg2.errors.ProgramLimitExceeded) as error:
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
    """Delete requests that are older than `serving.log.keep`, a bounded number at a time, and processes that are gone.

    The newest sign of life stays, however old it is: it says since when the service is away.

    Returns:
        How many requests were deleted.
    """
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
        cursor.execute(
            "DELETE FROM evergreen.serving_process WHERE alive_at < least(%s, (SELECT max(alive_at) FROM evergreen.serving_process))",
            (now - GONE,),
        )
    conn.commit()
    return deleted


def _into(cursor: Any, table: str, columns: str, lines: Iterator[str]) -> bool:
    """Rows, as COPY reads them, into a table, but for those whose key is there; False: there are none.

    They stay in the table `_online_…` until the transaction ends.
    """
    text = "".join(lines).encode()
    if not text:
        return False
    target, names = sql.Identifier("evergreen", table), sql.SQL(columns)
    draft = sql.Identifier(f"_online_{table}")
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            draft, names, target
        )
    )
    cursor.copy_expert(
        sql.SQL("COPY {} ({}) FROM STDIN").format(draft, names).as_string(cursor), io.BytesIO(text), PIECE
    )
    cursor.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT DO NOTHING").format(
            target, names, names, draft
        )
    )
    return True


def _text(value: str | None) -> str:
    """A text as COPY reads it."""
    if value is None:
        return NULL
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if value.isprintable():
        return value
    return value.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _requests(answered: Iterable[Answered]) -> Iterator[str]:
    for one in answered:
        begin = f"\t{one.model}\t"
        middle = f"\t{_text(one.client)}\t{_moment(one.at)}\t{one.source}\t"
        for position, made in enumerate(one.records):
            yield (
                f"{one.id}\t{position}{begin}{made.version}{middle}{_text(made.key)}\t{made.event_time or NULL}\t{made.prediction!r}"
                f"\t{_features(one.features, made.features)}\n"
            )


def _features(names: tuple[str, ...], values: tuple[Any, ...] | None) -> str:
    """The features by name, as JSON. PostgreSQL has no text with the character 0."""
    if values is None:
        return NULL
    told = msgspec.json.encode(dict(zip(names, values, strict=True))).decode()
    if "\\u0000" in told:
        without = (value.replace("\0", "") if isinstance(value, str) else value for value in values)
        told = msgspec.json.encode(dict(zip(names, without, strict=True))).decode()
    # JSON has no line's end and no tab as they are.
    return told.replace("\\", "\\\\") if "\\" in told else told


def _beside(segment: Segment) -> Iterator[str]:
    """What another version predicted beside the one that was answered, of the records that name their row."""
    for one in segment.answered:
        at = _moment(one.at)
        end = f"\t{at}\t{at}\tonline/{segment.instance}\n"
        for made in one.records:
            if made.key is not None and made.beside is not None:
                yield f"{one.model}\t{made.beside}\t{_text(made.key)}\t{made.event_time}\t{made.beside_prediction!r}{end}"


def _minutes(instance: str, minutes: Iterable[Minute]) -> Iterator[str]:
    for m in minutes:
        yield (
            f"{m.model}\t{m.version}\t{_moment(m.minute)}\t{instance}\t{m.requests}\t{m.records}\t{m.errors}\t{m.refused}\t{m.lost}"
            f"\t{m.p50_ms!r}\t{m.p99_ms!r}\n"
        )


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
