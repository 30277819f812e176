"""The way of what is owed to the mail server: what is due, which rows make one letter, and what is recorded of each try."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from smtplib import SMTPRecipientsRefused
from typing import Any

from psycopg2 import sql

from evergreen.alert_kinds import ASKING, ENDING, HELD, JOINED
from evergreen.incidents.outbox import SUBJECT, one_line
from evergreen.ledger import Decision, append, find
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch

log = logging.getLogger(__name__)

LOST_AFTER = 3
_KINDS = {"held": HELD, "ending": ENDING, "asking": ASKING}


# What is not sent and not held. A silence that is in force holds what it holds, whether it is marked or not. A mail that names
# the page with a question goes out when a run asks there; where none does so soon, it goes out and says that.
_DUE = sql.SQL(
    " WHERE m.sent_at IS NULL AND NOT (m.kind = ANY(%(held)s) AND EXISTS (SELECT 1 FROM evergreen.silence AS s"
    " WHERE s.subject = m.subject AND s.until > coalesce(%(now)s::timestamptz, clock_timestamp())))"
    " AND (m.kind <> ALL(%(asking)s) OR m.created_at < clock_timestamp() - interval '15 minutes' OR EXISTS (SELECT 1"
    " FROM evergreen.decision AS a WHERE a.subject = m.subject AND a.kind = 'approval_asked'"
    " AND (a.evidence->>'awaiting')::bigint = m.decision_id))"
)


_LETTER = (
    sql.SQL(
        "SELECT id, incident, subject, kind, decision_id, context, created_at, attempts, thread, held_by, taken_by,"
        " clock_timestamp() AS now, kind = ANY(%(ending)s) AND EXISTS (SELECT 1 FROM evergreen.mail AS o"
        " WHERE o.incident = m.thread AND o.sent_at IS NULL AND o.taken_by IS NULL) AS behind FROM evergreen.mail AS m"
    )
    + _DUE
    + sql.SQL(" AND id <> ALL(%(tried)s)")
)


_FIRST = sql.SQL(
    " AND (%(subject)s IS NULL OR subject = %(subject)s) AND (kind <> ALL(%(ending)s) OR NOT EXISTS (SELECT 1"
    " FROM evergreen.mail AS o WHERE o.incident = m.thread AND o.sent_at IS NULL AND o.taken_by IS NULL))"
    " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
)


_GOES_WITH = sql.SQL(
    " AND subject = %(subject)s AND id > %(id)s AND (held_by IS NOT NULL) = %(was_held)s"
    " AND taken_by IS NOT DISTINCT FROM %(taken_by)s::text[]"
    " AND (%(was_held)s OR kind = ANY(%(kinds)s)) AND (%(thread)s IS NULL OR thread = %(thread)s)"
    " ORDER BY id FOR UPDATE SKIP LOCKED"
)


@dataclass(frozen=True)
class DeliveryResult:
    """What one call of `deliver` did; `pending` counts the mails that are still owed afterwards."""

    sent: int
    failed: int
    pending: int
    errors: tuple[str, ...] = field(default=())


def deliver(
    specs: Specs,
    send: Callable[[EmailMessage], None],
    *,
    subject: str | None = None,
    now: datetime | None = None,
) -> DeliveryResult:
    """Send every mail that is owed, oldest first, each letter in its own transaction.

    Two calls at once share the work: each mail is sent by one of them. A mail that cannot be sent is counted,
    stays owed and is tried again by the next call; after three failures its loss is a ledger row
    (`mail_failed`). A mail that cannot be laid out goes out as its raw facts. What a silence holds stays, and is marked.

    Args:
        specs: names the recipients.
        send: hands one message to the mail server; any exception means that it was not taken, SMTPRecipientsRefused that
            it was taken for all but those whom it names.
        subject: only the mails of this model or dataset.
        now: whose silences count; None for the warehouse's clock.

    Raises:
        TransientError: the warehouse does not answer. A failing `send` raises nothing.
    """
    sent, errors, tried = 0, [], [0]
    with connect() as conn:
        _hold(conn, now)
    while True:
        with connect() as conn:
            rows = _next(conn, tried, subject, now)
            if not rows:
                break
            tried += [row["id"] for row in rows]
            try:
                message = _compose(conn, specs, rows)
                if message["To"]:
                    send(message)
                elif not rows[0]["taken_by"]:  # else the rest are no recipients any more
                    raise ValueError(
                        "there is nobody to send it to; EVERGREEN_MAIL_TO or `alerts` must name an address"
                    )
            except Exception as error:
                if conn.closed:
                    raise
                text = one_line(error)
                log.warning("mail %s was not sent: %s", rows[0]["incident"], text)
                errors.append(f"{rows[0]['incident']}: {text}")
                for row in rows:
                    _record_failure(conn, row, text)
                if isinstance(error, SMTPRecipientsRefused):
                    _record_taken(conn, rows, message, error.recipients)
            else:
                sent += 1
                _execute(
                    conn,
                    "UPDATE evergreen.mail SET sent_at = clock_timestamp(), message_id = %s WHERE id = ANY(%s)",
                    (message["Message-ID"], [row["id"] for row in rows]),
                )
    with connect() as conn:
        pending = waiting(conn, subject, now)
    return DeliveryResult(sent, len(errors), pending, tuple(errors))


def waiting(conn: Connection, subject: str | None = None, now: datetime | None = None) -> int:
    """How many mails could go out and are not sent yet: of this model or dataset, or of all; not what a silence holds."""
    return len(_waiting(conn, subject, now))


def subjects_waiting(conn: Connection, now: datetime | None = None) -> list[str]:
    """Whose mails could go out and are not sent yet."""
    return sorted({row["subject"] for row in _waiting(conn, None, now)})


def _waiting(conn: Connection, subject: str | None, now: datetime | None) -> list[dict[str, Any]]:
    return fetch(
        conn,
        sql.SQL("SELECT subject FROM evergreen.mail AS m")
        + _DUE
        + sql.SQL(" AND (%(subject)s IS NULL OR subject = %(subject)s)"),
        {**_KINDS, "subject": subject, "now": now},
    )


def _execute(conn: Connection, query: str, params: tuple[Any, ...]) -> None:
    with conn.cursor() as cursor:
        cursor.execute(query, params)


def _hold(conn: Connection, now: datetime | None) -> None:
    """Mark what waits and is silenced, also what was owed before the silence."""
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE evergreen.mail AS m SET held_by = s.id FROM evergreen.silence AS s WHERE m.subject = s.subject"
            " AND s.until > coalesce(%(now)s::timestamptz, clock_timestamp())"
            " AND m.sent_at IS NULL AND m.kind = ANY(%(held)s) AND m.held_by IS DISTINCT FROM s.id",
            {**_KINDS, "now": now},
        )


def _next(
    conn: Connection, tried: Sequence[int], subject: str | None, now: datetime | None
) -> list[dict[str, Any]]:
    """Lock and return the rows of the next letter, oldest first: the first that is due, and what goes with it.

    The end of an incident never goes out before its first mail: it goes with it, or after it.
    """
    values = {**_KINDS, "tried": list(tried), "subject": subject, "now": now}
    found = fetch(conn, _LETTER + _FIRST, values)
    if not found:
        return []
    first = found[0]
    together = first["kind"] in JOINED
    own = not together and first["held_by"] is None
    more = fetch(
        conn,
        _LETTER + _GOES_WITH,
        {
            **values,
            "subject": first["subject"],
            "id": first["id"],
            "taken_by": first["taken_by"],
            "was_held": first["held_by"] is not None,
            "kinds": ENDING if own else JOINED,
            "thread": (first["thread"] or first["incident"]) if own else None,
        },
    )
    letter = [first]
    for row in more:
        if not row["behind"] or row["thread"] in {r["incident"] for r in letter}:
            letter.append(row)
    return letter


def _compose(conn: Connection, specs: Specs, rows: Sequence[dict[str, Any]]) -> EmailMessage:
    # Drawing is heavy to import, and a room that only raises incidents draws nothing.
    from evergreen.alerting import compose

    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_compose")
        try:
            message = compose.letter(conn, specs, rows)
        except Exception as error:
            if conn.closed:
                raise
            text = one_line(error)
            log.warning(
                "mail %s could not be laid out, its raw facts are sent: %s", rows[0]["incident"], text
            )
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_compose")
            message = compose.plain(specs, rows, text)
        cursor.execute("RELEASE SAVEPOINT evergreen_compose")
    return message


def _record_taken(
    conn: Connection, rows: Sequence[dict[str, Any]], message: EmailMessage, refused: Mapping[str, Any]
) -> None:
    """Remember who has got a letter that was refused for others."""
    taken = {address.addr_spec for address in message["To"].addresses} - refused.keys()
    if taken:
        _execute(
            conn,
            "UPDATE evergreen.mail SET taken_by = coalesce(taken_by, '{}') || %s::text[], message_id = %s WHERE id = ANY(%s)",
            (sorted(taken), message["Message-ID"], [row["id"] for row in rows]),
        )


def _record_failure(conn: Connection, row: dict[str, Any], error: str) -> None:
    attempts = row["attempts"] + 1
    _execute(
        conn,
        "UPDATE evergreen.mail SET attempts = %s, last_error = %s WHERE id = %s",
        (attempts, error, row["id"]),
    )
    if attempts < LOST_AFTER or not SUBJECT.match(row["subject"]):
        return
    told = find(conn, ids=[row["decision_id"]]) if row["decision_id"] is not None else []
    append(
        conn,
        Decision(
            as_of=told[0].as_of if told else row["created_at"],
            subject=row["subject"],
            kind=DecisionKind.MAIL_FAILED,
            reason=row["kind"],
            version=told[0].version if told else None,
            run_id=told[0].run_id if told else f"mail/{row['id']}",
            dedupe_key=f"mail_failed:{row['incident']}",
            evidence={"attempts": attempts, "error": error, "incident": row["incident"], "mail": row["id"]},
        ),
    )
