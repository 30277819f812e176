"""The outbox: e-mails that are owed, kept in PostgreSQL until they went out.

A room that decides calls `raise_incident` in the transaction of its ledger row, so the decision and the mail
it owes stand or fall together, and a mail server that is down holds nothing up. `deliver` sends what is owed.
A mail is owed once per incident, however many runs meet the same incident. Alerts of one subject that wait together
(`Traits.joined`) go out as one letter; what a silence has kept back goes out as one letter when the silence has ended.

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
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from evergreen.alert_kinds import HELD, AlertKind
from evergreen.warehouse.connection import Connection

log = logging.getLogger(__name__)

SUBJECT = re.compile(r"^(dataset|model|fleet)/[a-z][a-z0-9_]*$")
_SECRETS = (
    (re.compile(r"(\w+://)[^\s/@]*@"), r"\1***@"),
    (re.compile(r"(?i)\b(pass(?:word|wd)?|secret|token|api_?key)(['\"]?\s*[=:]\s*)\S+"), r"\1\2***"),
)


def raise_incident(  # noqa: PLR0913  # the columns of the mail's row, written at the call by their names
    conn: Connection,
    incident: str,
    subject: str,
    kind: AlertKind,
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
        kind: which mail it is.
        decision_id: the ledger row with the evidence, if there is one.
        context: what the ledger row does not hold. NaN becomes null; what JSON does not know becomes text.
        thread: the incident whose first mail this one answers; None for a mail that answers none.
        as_of: as of when; default: the decision's.

    Returns:
        False if the incident is already known; nothing is added then.

    Raises:
        ValueError: a subject that the ledger would refuse.
    """
    if not SUBJECT.match(subject):
        raise ValueError(f"{subject!r} is no subject of a mail; write model/NAME, dataset/NAME or fleet/NAME")
    return owe(conn, incident, subject, kind, decision_id, context, thread=thread, as_of=as_of)


def owe(  # noqa: PLR0913  # as raise_incident
    conn: Connection,
    incident: str,
    subject: str,
    kind: AlertKind,
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
                "kind": AlertKind(kind),
                "decision": decision_id,
                "context": json.dumps(storable(context), allow_nan=False, default=str),
                "thread": storable(thread),
                "as_of": as_of,
                "held": HELD,
            },
        )
        return cursor.rowcount == 1


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
