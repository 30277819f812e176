"""An incident from its first mail to its last: one thread of mails, few however long it lasts or often it comes back.

The first mail opens the thread; a mail of the same thread follows when the incident becomes another one (a drift that
reaches the served error, a request that is suppressed, a person who must look), and one when it has ended. Which
incident is open is read from `evergreen.mail` and from the ledger's `recovered` rows, nothing is remembered elsewhere.

What keeps it few:

- while an incident is open, more of the same is no mail;
- at most MOST_CHANGES mails between the first and the last, and whatever was sent before: one when it reaches the served
  error, and one for each cause of which a person must look that was not told to need one;
- an incident that comes back soon after its end (`relapse`) is the same one: nothing is sent. If it is still there when
  that time has passed, it is a new one. What people were not told about an incident that ended lately, such as another
  column, or the served error after a drift of the data, does not come back: it is told at once;
- an incident whose like ended lately needs twice the evidence to end, see `findings_to_end`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from evergreen.alert_kinds import BEGINNING, AlertKind
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision, append, find
from evergreen.ledger.evidence import RecoveredEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason, Hold, TriggerReason
from evergreen.warehouse.connection import Connection, fetch

# What names the row, and the mail, of an incident's end: this and the incident.
ENDED = "recovered:"
MOST_CHANGES = 2
MOST_PATIENCE = 3
# Classes that say how a drift was answered and not what it is: a drift that comes back is suppressed for another reason.
ANSWERS = frozenset({"request", "gave_up", *(hold.value for hold in Hold)})


@dataclass(frozen=True)
class Thread:
    """An incident as its mails and the ledger have it.

    Attributes:
        number: the id of its first mail; it never changes.
        incident: the name of its first mail.
        subject: `model/NAME`, `dataset/NAME` or `fleet/specs`.
        kind: of its first mail, one that begins an incident.
        opened: as of when it was first told.
        since: when it began, where that is known to be earlier; else `opened`.
        mails: how many were owed for it so far, without the one of its end.
        classes: what it was told as, such as reason codes.
        details: the finer causes that were told, such as columns.
        version: of the model, as its newest mail has it.
        end: the ledger's row of its end; None while it is open.
    """

    number: int
    incident: str
    subject: str
    kind: AlertKind
    opened: datetime
    since: datetime
    mails: int
    classes: frozenset[str]
    details: frozenset[str]
    version: str | None
    end: Decision | None

    @property
    def ended(self) -> datetime | None:
        """When it ended: the time that the row of its end names, else its as-of time."""
        if self.end is None:
            return None
        return RecoveredEvidence.shown(self.end).ended or self.end.as_of


@dataclass(frozen=True)
class News:
    """What may be owed a mail. See `evergreen.incidents.outbox.raise_incident` for the first six.

    Attributes:
        as_of: of the run that found it.
        classes: what it is, such as reason codes; a class that was not told yet is news.
        details: finer causes; new ones are news once.
        urgent: a new class is told however much was told before, and however soon after an end.
        since: when it began.
        seen: until when it was seen, where that is not `as_of`.
    """

    incident: str
    subject: str
    kind: AlertKind
    decision_id: int | None
    context: dict[str, Any]
    as_of: datetime
    classes: frozenset[str] = frozenset()
    details: frozenset[str] = frozenset()
    urgent: bool = False
    since: datetime | None = None
    seen: datetime | None = None


@dataclass(frozen=True)
class Ending:
    """Why an incident has ended: reason code, evidence, version of the model, and when (None: as of the run)."""

    reason: EndReason
    evidence: RecoveredEvidence = field(default_factory=RecoveredEvidence)
    version: str | None = None
    ended: datetime | None = None


def newest(
    conn: Connection, subject: str, kind: AlertKind, as_of: datetime | None = None, *, prefix: str = ""
) -> Thread | None:
    """The newest incident of a kind, open or not; see `every`."""
    return next(iter(every(conn, subject, kind, as_of, prefix=prefix, limit=1)), None)


def every(
    conn: Connection,
    subject: str | None = None,
    kind: AlertKind | None = None,
    as_of: datetime | None = None,
    *,
    prefix: str = "",
    limit: int | None = None,
    ended: bool = True,
) -> list[Thread]:
    """Incidents, newest first.

    Args:
        conn: the warehouse.
        subject, kind: whose and which; None for all.
        as_of: only what was owed and decided as of this time or earlier; None for all.
        prefix: how the incidents' names begin.
        limit: most incidents.
        ended: also those that have ended.
    """
    rows = fetch(
        conn,
        "SELECT * FROM (SELECT coalesce(thread, incident) AS incident, min(subject) AS subject, min(kind) AS kind, min(id) AS first,"
        " min(coalesce(as_of, created_at)) AS opened, min(context->>'since') AS since, count(*)::int AS mails,"
        " coalesce(jsonb_agg(context->'classes') FILTER (WHERE context ? 'classes'), '[]') AS classes,"
        " coalesce(jsonb_agg(context->'details') FILTER (WHERE context ? 'details'), '[]') AS details,"
        " (array_agg(decision_id ORDER BY id DESC) FILTER (WHERE decision_id IS NOT NULL))[1] AS decision"
        " FROM evergreen.mail WHERE kind = ANY(%(kinds)s) AND (%(subject)s IS NULL OR subject = %(subject)s)"
        " AND starts_with(coalesce(thread, incident), %(prefix)s)"
        " AND (%(as_of)s::timestamptz IS NULL OR coalesce(as_of, created_at) <= %(as_of)s)"
        " GROUP BY coalesce(thread, incident)) AS t WHERE %(ended)s OR NOT EXISTS (SELECT 1 FROM evergreen.decision AS e"
        " WHERE e.dedupe_key = %(end)s || t.incident AND (%(as_of)s::timestamptz IS NULL OR e.as_of <= %(as_of)s))"
        " ORDER BY first DESC LIMIT %(limit)s",
        {
            "kinds": [kind] if kind else BEGINNING,
            "subject": subject,
            "prefix": prefix,
            "as_of": as_of,
            "limit": limit,
            "ended": ended,
            "end": ENDED,
        },
    )
    if not rows:
        return []
    ends = _ends(conn, [row["incident"] for row in rows], as_of)
    told = {d.id: d for d in find(conn, ids=[row["decision"] or 0 for row in rows])}
    return [
        Thread(
            number=row["first"],
            incident=row["incident"],
            subject=row["subject"],
            kind=AlertKind(row["kind"]),
            opened=row["opened"],
            since=_time(row["since"]) or row["opened"],
            mails=row["mails"],
            classes=_union(row["classes"]),
            details=_union(row["details"]),
            version=told[row["decision"]].version if row["decision"] in told else None,
            end=ends.get(row["incident"]),
        )
        for row in rows
    ]


def open_ones(
    conn: Connection,
    subject: str | None = None,
    kind: AlertKind | None = None,
    as_of: datetime | None = None,
    *,
    prefix: str = "",
) -> list[Thread]:
    """The incidents of `every` that have not ended."""
    return every(conn, subject, kind, as_of, prefix=prefix, ended=False)


def is_open(conn: Connection, incident: str) -> bool:
    """Whether no end of an incident is in the ledger."""
    return not find(conn, dedupe_key=f"{ENDED}{incident}")


def tell(conn: Connection, news: News, thread: Thread | None, relapse: timedelta) -> bool:
    """Owe a mail for news, in the caller's transaction, unless it is more of what people know.

    Args:
        conn: the transaction of the decision.
        news: what was found.
        thread: the newest incident of its kind, see `newest`.
        relapse: how soon after its end an incident that comes back is the same one, where all that it is was told.

    Returns:
        Whether a mail is owed now that was not before.
    """
    if thread is None:
        return _owe(conn, news, news.incident, {})
    seen = news.seen or news.as_of
    past = every(conn, news.subject, news.kind, news.as_of)
    lately = [t for t in past if t.ended and seen - t.ended < relapse]
    # What was over before an incident ended was part of it, such as windows that are still among the newest.
    if not news.urgent and any(t.ended and seen <= t.ended for t in lately):
        return False
    if thread.end is None:
        if not _is_news(news, thread, lately):
            return False
        return _owe(conn, news, thread.incident, {"update_of": thread.opened.isoformat()})
    if lately and not news.urgent and not any(_untold(news, lately)):
        return False
    # The same name again, after its end: another incident.
    name = news.incident
    if fetch(conn, "SELECT 1 FROM evergreen.mail WHERE incident = %s", (name,)):
        name = f"{name}:again:{thread.end.id}"
    return _owe(conn, news, name, {}, name)


def end(
    conn: Connection, thread: Thread, ending: Ending, as_of: datetime, run_id: str, *, mail: bool = True
) -> bool:
    """Write the end of an incident into the ledger and owe its mail, in the caller's transaction; once.

    The mail says "recovered" to those who got the first one: it never goes out before it.

    Args:
        conn: the transaction.
        thread: the open incident.
        ending: why.
        as_of, run_id: of the run that found out.
        mail: whether a mail is owed.
    """
    known = RecoveredEvidence(
        incident=thread.incident,
        kind=thread.kind,
        classes=tuple(sorted(thread.classes)),
        since=thread.since,
        opened=thread.opened,
        ended=ending.ended or as_of,
    )
    decision = append(
        conn,
        Decision(
            as_of=as_of,
            subject=thread.subject,
            kind=DecisionKind.RECOVERED,
            reason=ending.reason.value,
            run_id=run_id,
            dedupe_key=f"{ENDED}{thread.incident}",
            version=ending.version,
            evidence=known.joined(ending.evidence),
        ),
    )
    if not mail:
        return False
    return raise_incident(
        conn,
        f"{ENDED}{thread.incident}",
        thread.subject,
        AlertKind.RECOVERED,
        decision.id,
        {},
        thread=thread.incident,
    )


def findings_to_end(conn: Connection, thread: Thread, base: int, within: timedelta) -> int:
    """How many good findings in a row end an incident: `base`, doubled for each incident of the same kind that ended lately.

    So what comes and goes is told as one incident, and not once each time.

    Args:
        conn: the warehouse.
        thread: the open incident.
        base: enough for one that did not come back.
        within: how long before its beginning an end is lately.
    """
    before = fetch(
        conn,
        "SELECT count(*)::int AS n FROM evergreen.decision WHERE subject = %s AND kind = %s AND evidence->>'of' = %s"
        " AND as_of > %s AND as_of <= %s",
        (thread.subject, DecisionKind.RECOVERED.value, thread.kind, thread.opened - within, thread.opened),
    )[0]["n"]
    return int(base << min(before, MOST_PATIENCE))


def _is_news(news: News, thread: Thread, lately: Sequence[Thread]) -> bool:
    """Whether news is more than an open incident, and those that ended lately, have told; and is not one mail too many."""
    changes = thread.mails - 1
    classes, details = _untold(news, lately)
    another = (classes | (news.classes & ANSWERS)) - thread.classes
    if another:
        return news.urgent or TriggerReason.PERFORMANCE.value in another or changes < MOST_CHANGES
    return bool(details - _single(thread.details)) and changes < MOST_CHANGES - 1


def _untold(news: News, threads: Sequence[Thread]) -> tuple[frozenset[str], frozenset[str]]:
    """The classes and details of news that none of some incidents told; how it is answered is none of them."""
    classes = frozenset[str]().union(*(t.classes for t in threads))
    details = frozenset[str]().union(*(_single(t.details) for t in threads))
    return news.classes - ANSWERS - classes, _single(news.details) - details


def _single(details: Iterable[str]) -> frozenset[str]:
    """Each column for itself, where a detail names several (`unreadable:a+b`): fewer of them are no news."""
    parts = (detail.partition(":") for detail in details)
    return frozenset(f"{kind}{colon}{name}" for kind, colon, names in parts for name in names.split("+"))


def _owe(conn: Connection, news: News, thread: str, more: dict[str, Any], name: str | None = None) -> bool:
    context = {
        **news.context,
        **more,
        "classes": sorted(news.classes),
        "details": sorted(news.details),
        **({"since": news.since.isoformat()} if news.since else {}),
    }
    return raise_incident(
        conn,
        name or news.incident,
        news.subject,
        news.kind,
        news.decision_id,
        context,
        thread=thread,
        as_of=news.as_of,
    )


def _ends(conn: Connection, incidents: Sequence[str], as_of: datetime | None) -> dict[str, Decision]:
    rows = fetch(
        conn,
        "SELECT id FROM evergreen.decision WHERE dedupe_key = ANY(%s) AND (%s::timestamptz IS NULL OR as_of <= %s)",
        ([f"{ENDED}{name}" for name in incidents], as_of, as_of),
    )
    ids = [row["id"] for row in rows]
    return {d.dedupe_key.removeprefix(ENDED): d for d in find(conn, ids=ids)} if ids else {}


def _union(lists: Iterable[Any]) -> frozenset[str]:
    return frozenset(str(item) for found in lists if isinstance(found, list) for item in found)


def _time(text: str | None) -> datetime | None:
    """A time that a context names; None where it is none, such as in rows of an older version."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)
