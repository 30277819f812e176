"""The ways of what is owed to the mail server and to other channels: what is due, which rows make one letter, and what is recorded of each try."""

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
from evergreen.alerting import channels
from evergreen.alerting.channels import Channel
from evergreen.incidents.outbox import SUBJECT, one_line
from evergreen.incidents.recipients import EMAIL, ways_of
from evergreen.ledger import Decision, append, find
from evergreen.ledger.evidence import FailedMailEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.progress import counted
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

# With the kind of the incident that an alert belongs to: its first mail's.
_OF = sql.SQL("(SELECT o.kind FROM evergreen.mail AS o WHERE o.incident = m.thread) AS of")

# On this channel the first mail of the incident is still owed, and nobody has it.
_BEHIND = sql.SQL(
    "m.kind = ANY(%(ending)s) AND EXISTS (SELECT 1 FROM evergreen.mail AS o JOIN evergreen.delivery AS od ON od.mail = o.id"
    " AND od.channel = d.channel WHERE o.incident = m.thread AND o.sent_at IS NULL AND od.sent_at IS NULL AND od.taken_by IS NULL)"
)

_LETTER = (
    sql.SQL(
        "SELECT m.id, m.incident, m.subject, m.kind, m.decision_id, m.context, m.created_at, m.thread, m.held_by,"
        " d.channel, d.attempts, d.taken_by, clock_timestamp() AS now, "
    )
    + _OF
    + sql.SQL(", ")
    + _BEHIND
    + sql.SQL(
        " AS behind FROM evergreen.mail AS m JOIN evergreen.delivery AS d ON d.mail = m.id AND d.channel = %(channel)s"
    )
    + _DUE
    + sql.SQL(" AND d.sent_at IS NULL AND m.id = ANY(%(owed)s)")
)

_FIRST = sql.SQL(" AND NOT (") + _BEHIND + sql.SQL(") ORDER BY m.id LIMIT 1 FOR UPDATE OF d SKIP LOCKED")


_GOES_WITH = sql.SQL(
    " AND m.subject = %(subject)s AND m.id > %(id)s AND (m.held_by IS NOT NULL) = %(was_held)s"
    " AND d.taken_by IS NOT DISTINCT FROM %(taken_by)s::text[]"
    " AND (%(was_held)s OR m.kind = ANY(%(kinds)s)) AND (%(thread)s IS NULL OR m.thread = %(thread)s)"
    " ORDER BY m.id FOR UPDATE OF d SKIP LOCKED"
)


@dataclass(frozen=True)
class DeliveryResult:
    """What one call of `deliver` did; `pending` counts the mails that are still owed afterwards."""

    sent: int
    failed: int
    pending: int
    errors: tuple[str, ...] = field(default=())

    def sentence(self) -> str:
        """It in one line, such as `2 e-mails sent` or `1 e-mail sent, 1 could not be sent, 1 waits`."""
        parts = [f"{counted(self.sent, 'e-mail')} sent"]
        parts += [f"{self.failed} could not be sent"] if self.failed else []
        parts += [f"{self.pending} wait"] if self.pending else []
        return ", ".join(parts)


def deliver(
    specs: Specs,
    send: Callable[[EmailMessage], None],
    *,
    subject: str | None = None,
    now: datetime | None = None,
) -> DeliveryResult:
    """Send every mail that is owed, oldest first on each channel, each letter in its own transaction.

    A mail is owed once on each way that `evergreen.incidents.recipients.ways_of` names, which is a row of `evergreen.delivery`;
    it waits until it went out on all of them. E-mail comes first, and what one channel does not take holds no other up.
    Two calls at once share the work: each letter is sent by one of them. One that cannot be sent is counted,
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
    sent, errors = 0, list[str]()
    with connect() as conn:
        _hold(conn, now)
        owed = _plan(conn, specs, subject, now)
    for name in sorted(owed, key=lambda name: (name != EMAIL, name)):
        channel, left = channels.channel(name, send), set(owed[name])
        while left:
            with connect() as conn:
                rows = _next(conn, specs, name, sorted(left), now, joins=channel.joins)
                if not rows:
                    break
                left -= {row["id"] for row in rows}
                error = _send(conn, specs, channel, rows)
                if error is None:
                    sent += 1
                else:
                    errors.append(_record_failures(conn, name, rows, error))
    with connect() as conn:
        _plan(conn, specs, subject, now)
        pending = waiting(conn, subject, now)
    return DeliveryResult(sent, len(errors), pending, tuple(errors))


def _plan(conn: Connection, specs: Specs, subject: str | None, now: datetime | None) -> dict[str, list[int]]:
    """Note on which ways what is due is owed, and what went out on all of its ways.

    The ways are those of the specs as they are now: a channel that is named no longer is owed nothing any more, one that is new
    is owed what still waits.

    Returns:
        The ids of what is still owed on each channel.
    """
    rows = fetch(
        conn,
        sql.SQL("SELECT m.id, m.subject, m.kind, m.context, ")
        + _OF
        + sql.SQL(
            ", (SELECT coalesce(array_agg(d.channel), '{}') FROM evergreen.delivery AS d WHERE d.mail = m.id"
            " AND d.sent_at IS NOT NULL) AS sent FROM evergreen.mail AS m"
        )
        + _DUE
        + sql.SQL(" AND (%(subject)s IS NULL OR m.subject = %(subject)s) ORDER BY m.id"),
        {**_KINDS, "subject": subject, "now": now},
    )
    owed: dict[str, list[int]] = {}
    for row in rows:
        missing = [name for name in ways_of(specs, row) if name not in row["sent"]]
        for name in missing:
            owed.setdefault(name, []).append(row["id"])
            _execute(
                conn,
                "INSERT INTO evergreen.delivery (mail, channel) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (row["id"], name),
            )
        if not missing:
            _execute(
                conn,
                "UPDATE evergreen.mail SET sent_at = coalesce((SELECT max(sent_at) FROM evergreen.delivery WHERE mail = id),"
                " clock_timestamp()) WHERE id = %s AND sent_at IS NULL",
                (row["id"],),
            )
    return owed


def _send(
    conn: Connection, specs: Specs, channel: Channel[Any], rows: Sequence[dict[str, Any]]
) -> Exception | None:
    """Send one letter and mark it; returns why it was not taken."""
    ids = [row["id"] for row in rows]
    try:
        message = _compose(conn, specs, channel, rows)
        message_id = channel.send(message, rows)
    except Exception as error:
        if conn.closed:
            raise
        if isinstance(error, SMTPRecipientsRefused):
            _record_taken(conn, ids, message, error.recipients)
        return error
    _execute(
        conn,
        "UPDATE evergreen.delivery SET sent_at = clock_timestamp(), message_id = %s WHERE mail = ANY(%s) AND channel = %s",
        (message_id, ids, rows[0]["channel"]),
    )
    return None


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
    conn: Connection, specs: Specs, channel: str, owed: Sequence[int], now: datetime | None, *, joins: bool
) -> list[dict[str, Any]]:
    """Lock and return the rows of the next letter of a channel, oldest first: the first that is due, and what goes with it.

    The end of an incident never goes out before its first mail: it goes with it, or after it.
    """
    values = {**_KINDS, "channel": channel, "owed": list(owed), "now": now}
    found = fetch(conn, _LETTER + _FIRST, values)
    if not found or not joins:
        return found
    first = found[0]
    to = ways_of(specs, first).get(channel)
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
        if ways_of(specs, row).get(channel) != to:
            continue  # others are told of it
        if not row["behind"] or row["thread"] in {r["incident"] for r in letter}:
            letter.append(row)
    return letter


def _compose(conn: Connection, specs: Specs, channel: Channel[Any], rows: Sequence[dict[str, Any]]) -> Any:
    with conn.cursor() as cursor:
        cursor.execute("SAVEPOINT evergreen_compose")
        try:
            message = channel.laid_out(conn, specs, rows)
        except Exception as error:
            if conn.closed:
                raise
            text = one_line(error)
            log.warning(
                "mail %s could not be laid out, its raw facts are sent: %s", rows[0]["incident"], text
            )
            cursor.execute("ROLLBACK TO SAVEPOINT evergreen_compose")
            message = channel.raw(specs, rows, text)
        cursor.execute("RELEASE SAVEPOINT evergreen_compose")
    return message


def _record_taken(
    conn: Connection, ids: Sequence[int], message: EmailMessage, refused: Mapping[str, Any]
) -> None:
    """Remember who has got a letter that was refused for others."""
    taken = {address.addr_spec for address in message["To"].addresses} - refused.keys()
    if taken:
        _execute(
            conn,
            "UPDATE evergreen.delivery SET taken_by = coalesce(taken_by, '{}') || %s::text[], message_id = %s"
            " WHERE mail = ANY(%s) AND channel = %s",
            (sorted(taken), message["Message-ID"], list(ids), EMAIL),
        )


def _record_failures(conn: Connection, channel: str, rows: Sequence[dict[str, Any]], error: Exception) -> str:
    text = one_line(error)
    log.warning("mail %s was not sent by %s: %s", rows[0]["incident"], channel, text)
    for row in rows:
        _record_failure(conn, channel, row, text)
    return f"{rows[0]['incident']}: {text}"


def _record_failure(conn: Connection, channel: str, row: dict[str, Any], error: str) -> None:
    attempts = row["attempts"] + 1
    _execute(
        conn,
        "UPDATE evergreen.delivery SET attempts = %s, last_error = %s WHERE mail = %s AND channel = %s",
        (attempts, error, row["id"], channel),
    )
    if attempts < LOST_AFTER or not SUBJECT.match(row["subject"]):
        return
    told = find(conn, ids=[row["decision_id"]]) if row["decision_id"] is not None else []
    by = [] if channel == EMAIL else [channel]
    append(
        conn,
        Decision(
            as_of=told[0].as_of if told else row["created_at"],
            subject=row["subject"],
            kind=DecisionKind.MAIL_FAILED,
            reason=row["kind"],
            version=told[0].version if told else None,
            run_id=told[0].run_id if told else f"mail/{row['id']}",
            dedupe_key=":".join(["mail_failed", row["incident"], *by]),
            evidence=FailedMailEvidence(
                attempts=attempts,
                error=error,
                incident=row["incident"],
                mail=row["id"],
                channel=by[0] if by else None,
            ),
        ),
    )
