"""The outbox: e-mails that are owed, kept in PostgreSQL until they went out.

A room that decides calls `raise_incident` in the transaction of its ledger row, so the decision and the mail
it owes stand or fall together, and a mail server that is down holds nothing up. `deliver` sends what is owed.
A mail is owed once per incident, however many runs meet the same incident. Alerts of one subject that wait together
(TOGETHER) go out as one letter; what a silence has kept back goes out as one letter when the silence has ended.

Delivery is exactly once as long as the database answers: a row is locked while its mail is sent, and marked
in the same transaction. Where the mail server refuses some of its recipients, it is owed to these alone from then on.
If the warehouse dies between the two, the mail is sent again with the same
Message-ID (if nothing has joined it), by which a mail program can tell: a doubled mail is better than a lost one.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from smtplib import SMTPRecipientsRefused
from typing import Any

from psycopg2 import sql

from evergreen.alerting.silences import HELD
from evergreen.ledger import Decision, Kind, append, find
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch

log = logging.getLogger(__name__)

LOST_AFTER = 3
# A new champion, a rejected challenger, a rollback and a failed run each keep a letter of their own.
TOGETHER = ("drift", "data_problem", "batch_quarantined", "spec_unusable", "recovered")
_SUBJECT = re.compile(r"^(dataset|model|fleet)/[a-z][a-z0-9_]*$")
# What is not sent and not held. A silence that is in force holds what it holds, whether it is marked or not. A mail that names
# the page with a question goes out when a run asks there; where none does so soon, it goes out and says that.
_DUE = sql.SQL(
    " WHERE m.sent_at IS NULL AND NOT (m.kind = ANY(%(held)s) AND EXISTS (SELECT 1 FROM evergreen.silence AS s"
    " WHERE s.subject = m.subject AND s.until > coalesce(%(now)s::timestamptz, clock_timestamp())))"
    " AND (m.kind <> 'approval' OR m.created_at < clock_timestamp() - interval '15 minutes' OR EXISTS (SELECT 1"
    " FROM evergreen.decision AS a WHERE a.subject = m.subject AND a.kind = 'approval_asked'"
    " AND (a.evidence->>'awaiting')::bigint = m.decision_id))"
)
_LETTER = (
    sql.SQL(
        "SELECT id, incident, subject, kind, decision_id, context, created_at, attempts, thread, held_by, taken_by,"
        " clock_timestamp() AS now, kind = 'recovered' AND EXISTS (SELECT 1 FROM evergreen.mail AS o"
        " WHERE o.incident = m.thread AND o.sent_at IS NULL AND o.taken_by IS NULL) AS behind FROM evergreen.mail AS m"
    )
    + _DUE
    + sql.SQL(" AND id <> ALL(%(tried)s)")
)
_FIRST = sql.SQL(
    " AND (%(subject)s IS NULL OR subject = %(subject)s) AND (kind <> 'recovered' OR NOT EXISTS (SELECT 1"
    " FROM evergreen.mail AS o WHERE o.incident = m.thread AND o.sent_at IS NULL AND o.taken_by IS NULL))"
    " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_GOES_WITH = sql.SQL(
    " AND subject = %(subject)s AND id > %(id)s AND (held_by IS NOT NULL) = %(was_held)s"
    " AND taken_by IS NOT DISTINCT FROM %(taken_by)s::text[]"
    " AND (%(was_held)s OR kind = ANY(%(kinds)s)) AND (%(thread)s IS NULL OR thread = %(thread)s)"
    " ORDER BY id FOR UPDATE SKIP LOCKED"
)
_SECRETS = (
    (re.compile(r"(\w+://)[^\s/@]*@"), r"\1***@"),
    (re.compile(r"(?i)\b(pass(?:word|wd)?|secret|token|api_?key)(['\"]?\s*[=:]\s*)\S+"), r"\1\2***"),
)


@dataclass(frozen=True)
class Delivery:
    """What one call of `deliver` did; `pending` counts the mails that are still owed afterwards."""

    sent: int
    failed: int
    pending: int
    errors: tuple[str, ...] = field(default=())


def raise_incident(
    conn: Connection,
    incident: str,
    subject: str,
    kind: str,
    decision_id: int | None,
    context: Mapping[str, Any],
    *,
    thread: str | None = None,
    as_of: datetime | None = None,
) -> bool:
    """Owe one mail for an incident, in the caller's transaction.

    Args:
        conn: the transaction of the decision that the mail tells about.
        incident: what happened, the same text whenever the same thing is met again.
        subject: `model/NAME`, `dataset/NAME` or `fleet/specs`.
        kind: which mail it is, see `evergreen.alerting.compose.KINDS`.
        decision_id: the ledger row with the evidence, if there is one.
        context: what the ledger row does not hold. NaN becomes null; what JSON does not know becomes text.
        thread: the incident whose first mail this one answers; None for a mail that answers none.
        as_of: as of when; default: the decision's.

    Returns:
        False if the incident is already known; nothing is added then.

    Raises:
        ValueError: a subject that the ledger would refuse.
    """
    if not _SUBJECT.match(subject):
        raise ValueError(f"{subject!r} is no subject of a mail; write model/NAME, dataset/NAME or fleet/NAME")
    return owe(conn, incident, subject, kind, decision_id, context, thread=thread, as_of=as_of)


def owe(
    conn: Connection,
    incident: str,
    subject: str,
    kind: str,
    decision_id: int | None,
    context: Mapping[str, Any],
    *,
    thread: str | None = None,
    as_of: datetime | None = None,
) -> bool:
    """The same for any subject, such as the digest's."""
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.mail (incident, subject, kind, decision_id, context, thread, as_of, held_by)"
            " VALUES (%(incident)s, %(subject)s, %(kind)s, %(decision)s, %(context)s, %(thread)s,"
            " coalesce(%(as_of)s, (SELECT as_of FROM evergreen.decision WHERE id = %(decision)s)),"
            " (SELECT s.id FROM evergreen.silence AS s WHERE s.subject = %(subject)s AND %(kind)s = ANY(%(held)s)"
            " AND s.until > clock_timestamp()))"
            " ON CONFLICT (incident) DO NOTHING",
            {
                "incident": storable(incident),
                "subject": subject,
                "kind": kind,
                "decision": decision_id,
                "context": json.dumps(storable(context), allow_nan=False, default=str),
                "thread": storable(thread),
                "as_of": as_of,
                "held": list(HELD),
            },
        )
        return cursor.rowcount == 1


def deliver(
    specs: Specs,
    send: Callable[[EmailMessage], None],
    *,
    subject: str | None = None,
    now: datetime | None = None,
) -> Delivery:
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
    return Delivery(sent, len(errors), pending, tuple(errors))


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
        {"subject": subject, "now": now, "held": list(HELD)},
    )


def one_line(error: BaseException) -> str:
    """An exception as one line of at most 300 characters, without passwords."""
    return redact(" ".join(f"{type(error).__name__}: {error}".split()).replace("\x00", ""))[:300]


def redact(text: str) -> str:
    """A text with the passwords of addresses, and what follows `password=` and the like, blotted out."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def storable(value: Any) -> Any:
    """A value as jsonb takes it: no NaN, NUL or broken character, numpy's numbers as plain ones."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else ("infinity" if value > 0 else "-infinity")
    if isinstance(value, Mapping):
        return {storable(str(k)): storable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [storable(v) for v in value]
    if hasattr(value, "tolist"):
        return storable(value.tolist())
    return storable(str(value))


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
            {"now": now, "held": list(HELD)},
        )


def _next(
    conn: Connection, tried: Sequence[int], subject: str | None, now: datetime | None
) -> list[dict[str, Any]]:
    """Lock and return the rows of the next letter, oldest first: the first that is due, and what goes with it.

    The end of an incident never goes out before its first mail: it goes with it, or after it.
    """
    values = {"tried": list(tried), "subject": subject, "now": now, "held": list(HELD)}
    found = fetch(conn, _LETTER + _FIRST, values)
    if not found:
        return []
    first = found[0]
    together = first["kind"] in TOGETHER
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
            "kinds": ["recovered"] if own else list(TOGETHER),
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
    if attempts < LOST_AFTER or not _SUBJECT.match(row["subject"]):
        return
    told = find(conn, ids=[row["decision_id"]]) if row["decision_id"] is not None else []
    append(
        conn,
        Decision(
            as_of=told[0].as_of if told else row["created_at"],
            subject=row["subject"],
            kind=Kind.MAIL_FAILED,
            reason=row["kind"],
            version=told[0].version if told else None,
            run_id=told[0].run_id if told else f"mail/{row['id']}",
            dedupe_key=f"mail_failed:{row['incident']}",
            evidence={"attempts": attempts, "error": error, "incident": row["incident"], "mail": row["id"]},
        ),
    )
