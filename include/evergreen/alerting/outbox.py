"""The outbox: e-mails that are owed, kept in PostgreSQL until they went out.

A room that decides calls `raise_incident` in the transaction of its ledger row, so the decision and the mail
it owes stand or fall together, and a mail server that is down holds nothing up. `deliver` sends what is owed.
A mail is owed once per incident, however many runs meet the same incident.

Delivery is exactly once as long as the database answers: a row is locked while its mail is sent, and marked
in the same transaction. If the warehouse dies between the two, the mail is sent again with the same
Message-ID, by which a mail program can tell: a doubled mail is better than a lost one.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from evergreen.ledger import Decision, Kind, append, find
from evergreen.spec import Specs
from evergreen.warehouse.connection import Connection, connect, fetch

log = logging.getLogger(__name__)

LOST_AFTER = 3
_SUBJECT = re.compile(r"^(dataset|model)/[a-z][a-z0-9_]*$")
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
) -> bool:
    """Owe one mail for an incident, in the caller's transaction.

    Args:
        conn: the transaction of the decision that the mail tells about.
        incident: what happened, the same text whenever the same thing is met again.
        subject: `model/NAME` or `dataset/NAME`.
        kind: which mail it is, see `evergreen.alerting.compose.KINDS`.
        decision_id: the ledger row with the evidence, if there is one.
        context: what the ledger row does not hold. NaN becomes null; what JSON does not know becomes text.

    Returns:
        False if the incident is already known; nothing is added then.

    Raises:
        ValueError: a subject that the ledger would refuse.
    """
    if not _SUBJECT.match(subject):
        raise ValueError(f"{subject!r} is no subject of a mail; write model/NAME or dataset/NAME")
    known = json.dumps(storable(context), allow_nan=False, default=str)
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO evergreen.mail (incident, subject, kind, decision_id, context)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (incident) DO NOTHING",
            (storable(incident), subject, kind, decision_id, known),
        )
        return cursor.rowcount == 1


def deliver(specs: Specs, send: Callable[[EmailMessage], None], *, subject: str | None = None) -> Delivery:
    """Send every mail that is owed, oldest first, each in its own transaction.

    Two calls at once share the work: each mail is sent by one of them. A mail that cannot be sent is counted,
    stays owed and is tried again by the next call; after three failures its loss is a ledger row
    (`mail_failed`). A mail that cannot be laid out goes out as its raw facts.

    Args:
        specs: names the recipients.
        send: hands one message to the mail server; any exception means that it was not taken.
        subject: only the mails of this model or dataset.

    Raises:
        TransientError: the warehouse does not answer. A failing `send` raises nothing.
    """
    sent, errors, last = 0, [], 0
    while True:
        with connect() as conn:
            row = _next(conn, last, subject)
            if row is None:
                break
            last = row["id"]
            try:
                send(_compose(conn, specs, row))
            except Exception as error:
                if conn.closed:
                    raise
                text = one_line(error)
                log.warning("mail %s was not sent: %s", row["incident"], text)
                errors.append(f"{row['incident']}: {text}")
                _record_failure(conn, row, text)
            else:
                sent += 1
                _execute(conn, "UPDATE evergreen.mail SET sent_at = clock_timestamp() WHERE id = %s", (last,))
    with connect() as conn:
        pending = waiting(conn, subject)
    return Delivery(sent, len(errors), pending, tuple(errors))


def waiting(conn: Connection, subject: str | None = None) -> int:
    """How many mails are owed and not sent yet: of this model or dataset, or of all."""
    found = fetch(
        conn,
        "SELECT count(*)::int AS n FROM evergreen.mail WHERE sent_at IS NULL"
        " AND (%(subject)s IS NULL OR subject = %(subject)s)",
        {"subject": subject},
    )
    return int(found[0]["n"])


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


def _next(conn: Connection, after: int, subject: str | None) -> dict[str, Any] | None:
    rows = fetch(
        conn,
        "SELECT id, incident, subject, kind, decision_id, context, created_at, attempts,"
        " clock_timestamp() AS now FROM evergreen.mail"
        " WHERE sent_at IS NULL AND id > %(after)s AND (%(subject)s IS NULL OR subject = %(subject)s)"
        " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        {"after": after, "subject": subject},
    )
    return rows[0] if rows else None


def _compose(conn: Connection, specs: Specs, row: dict[str, Any]) -> EmailMessage:
    # Drawing is heavy to import, and a room that only raises incidents draws nothing.
    from evergreen.alerting import compose

    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_compose")
        try:
            message = compose.compose(conn, specs, row)
        except Exception as error:
            if conn.closed:
                raise
            text = one_line(error)
            log.warning("mail %s could not be laid out, its raw facts are sent: %s", row["incident"], text)
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_compose")
            message = compose.plain(specs, row, text)
        cursor.execute("RELEASE SAVEPOINT evergreen_compose")
    return message


def _record_failure(conn: Connection, row: dict[str, Any], error: str) -> None:
    attempts = row["attempts"] + 1
    _execute(
        conn,
        "UPDATE evergreen.mail SET attempts = %s, last_error = %s WHERE id = %s",
        (attempts, error, row["id"]),
    )
    if attempts < LOST_AFTER:
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
