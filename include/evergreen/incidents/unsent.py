"""The mails that did not go out: what waits, how often it was tried, why it failed. However old, it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from evergreen.alert_kinds import HELD
from evergreen.warehouse.connection import Connection, fetch


@dataclass(frozen=True)
class Unsent:
    """A mail that waits.

    Attributes:
        id: in `evergreen.mail`.
        incident, subject, kind: of its row.
        created: since when it waits.
        attempts: how often the mail server, or another channel that it is owed to, did not take it.
        error: why, the last time, of each that has not got it; None: not tried yet.
        silenced: whether a silence in force keeps it back.
    """

    id: int
    incident: str
    subject: str
    kind: str
    created: datetime
    attempts: int
    error: str | None
    silenced: bool


def unsent(conn: Connection, now: datetime | None = None) -> list[Unsent]:
    """Every mail that waits, oldest first; `now` says whose silences count (None: the warehouse's clock)."""
    rows = fetch(
        conn,
        "SELECT id, incident, subject, kind, created_at AS created, coalesce(attempts, 0) AS attempts, error,"
        " kind = ANY(%(held)s) AND EXISTS (SELECT 1 FROM evergreen.silence AS s WHERE s.subject = m.subject"
        " AND s.until > coalesce(%(now)s::timestamptz, clock_timestamp())) AS silenced"
        " FROM evergreen.mail AS m LEFT JOIN (SELECT mail, max(attempts) AS attempts, string_agg(CASE WHEN channel = 'email'"
        " THEN last_error ELSE channel || ': ' || last_error END, '; ' ORDER BY channel <> 'email', channel) AS error"
        " FROM evergreen.delivery WHERE sent_at IS NULL GROUP BY mail) AS d ON d.mail = m.id WHERE sent_at IS NULL ORDER BY id",
        {"now": now, "held": HELD},
    )
    return [Unsent(**row) for row in rows]
