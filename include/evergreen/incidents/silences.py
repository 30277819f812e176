"""Silences: a person keeps the alerts of a model or dataset back, for a reason and until a time.

A silence is a row of the ledger, and the newest one of a subject is in force. One that is to end at once is a newer row
whose end has come. Nothing is lost while a silence lasts: what it holds waits in `evergreen.mail`, marked with the
silence, and goes out as one letter when the silence has ended.

Held are alerts that ask for attention (`Traits.held`): drift, data that cannot be judged, batches held back, failed runs,
rejected challengers; and the ends of those that have one (`Traits.begins`), which a rejection has not. A new champion and a rollback are not: they change what is served, which
nobody should learn a week later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from evergreen.alert_kinds import HELD
from evergreen.errors import ErrorReason, TerminalError
from evergreen.ledger import Decision, append, find
from evergreen.ledger.evidence import SilenceEvidence
from evergreen.ledger.reasons import DecisionKind, SilenceReason
from evergreen.warehouse.connection import Connection, fetch

LONGEST = timedelta(days=366)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"^(\d+)\s*([mhdw])$")


@dataclass(frozen=True)
class Silence:
    """A silence in force: whose, until when (UTC), why, by whom, since when, and how many alerts it holds."""

    id: int
    subject: str
    until: datetime
    why: str
    by: str
    since: datetime
    held: int


def silence(
    conn: Connection, subject: str, until: str, why: str, by: str, now: datetime, run_id: str
) -> Decision:
    """Silence a subject, replace its silence, or end it (`until` is `now`).

    Args:
        conn: the caller's transaction.
        subject: `model/NAME` or `dataset/NAME`.
        until: a date or time (UTC where it names no zone), a duration from now such as `3d`, or `now`.
        why: the person's reason.
        by: who it is.
        now: the time at which they ask.
        run_id: `dag_id/run_id`, or the command that was used; the same one silences once.

    Raises:
        TerminalError: no reason, an end that cannot be read or has passed, or one that is more than a year away.
    """
    why, end = " ".join(why.split()), end_of(until, now)
    if not why:
        raise TerminalError("a silence needs a reason; say why (REASON=...)", ErrorReason.BAD_SPEC)
    ended = end <= now
    return append(
        conn,
        Decision(
            as_of=now,
            subject=subject,
            kind=DecisionKind.SILENCED,
            reason=(SilenceReason.SILENCE_ENDED if ended else SilenceReason.SILENCED).value,
            run_id=run_id,
            dedupe_key=f"silence:{subject}:{run_id}",
            evidence=SilenceEvidence(until=end, why=why, by=by),
        ),
    )


def until(made: Decision) -> datetime:
    """When a silence ends that a person has made (UTC)."""
    found = SilenceEvidence.of(made).until
    assert found is not None
    return found


def end_of(until: str, now: datetime) -> datetime:
    """The end that a person means.

    Raises:
        TerminalError: it cannot be read, has passed, or is more than a year away.
    """
    text = until.strip()
    if text.lower() == "now":
        return now
    found = _DURATION.match(text.lower())
    if found:
        length = timedelta(**{_UNITS[found[2]]: min(int(found[1]), 10**6)})
        end = now + min(length, 2 * LONGEST)
    else:
        try:
            end = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError as error:
            raise TerminalError(
                f"{until!r} is no end of a silence; write a time like 2026-05-01T06:00, a duration like 3d, or now",
                ErrorReason.BAD_SPEC,
            ) from error
        end = (end if end.tzinfo else end.replace(tzinfo=UTC)).astimezone(UTC)
    if end <= now:
        raise TerminalError(
            f"{until!r} has passed (it is {now:%Y-%m-%d %H:%M} UTC); name a later end, or `now` to end the silence",
            ErrorReason.BAD_SPEC,
        )
    if end - now > LONGEST:
        raise TerminalError(
            f"{until!r} is more than a year away; a silence has an end within a year", ErrorReason.BAD_SPEC
        )
    return end


def active(conn: Connection, now: datetime | None = None) -> list[Silence]:
    """The silences in force, the one that ends first first.

    Args:
        conn: the warehouse.
        now: as of when; None for the warehouse's clock.
    """
    rows = fetch(
        conn,
        "SELECT s.id, s.until, (SELECT count(*)::int FROM evergreen.mail AS m WHERE m.subject = s.subject AND m.sent_at IS NULL"
        " AND m.kind = ANY(%(held)s)) AS held FROM evergreen.silence AS s"
        " WHERE s.until > coalesce(%(now)s::timestamptz, clock_timestamp()) ORDER BY s.until, s.id",
        {"now": now, "held": HELD},
    )
    found = {d.id: d for d in find(conn, ids=[row["id"] for row in rows])} if rows else {}
    told = {identifier: SilenceEvidence.shown(d) for identifier, d in found.items()}
    return [
        Silence(
            id=row["id"],
            subject=found[row["id"]].subject,
            until=row["until"],
            why=told[row["id"]].why,
            by=told[row["id"]].by,
            since=found[row["id"]].as_of,
            held=row["held"],
        )
        for row in rows
    ]
