"""One incident from its first sign to its end: mails, decisions and runs as one time line. Its id, of its first mail, never changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from evergreen.alert_kinds import AlertKind
from evergreen.health.told import LedgerRow, in_short
from evergreen.incidents import threads
from evergreen.incidents.threads import Thread
from evergreen.ledger import find, words
from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.connection import Connection, fetch

MOST_DECISIONS = 500
# Of a drift or a failure these belong to its story; batches are of another subject.
_STORY = (
    DecisionKind.RETRAIN_REQUESTED, DecisionKind.RETRAIN_SUPPRESSED, DecisionKind.AWAITING_APPROVAL, DecisionKind.PROMOTED,
    DecisionKind.REJECTED, DecisionKind.ROLLED_BACK, DecisionKind.WATCH_ENDED, DecisionKind.RUN_FAILED, DecisionKind.MAIL_FAILED,
    DecisionKind.RECOVERED, DecisionKind.SILENCED, DecisionKind.BATCH_QUARANTINED, DecisionKind.BATCH_CORRECTED,
    DecisionKind.BATCH_WITHDRAWN, DecisionKind.BATCH_DISMISSED, DecisionKind.SPEC_UNUSABLE,
)  # fmt: skip

_OF_KIND = {AlertKind.SERVING_SKEW: (DecisionKind.SERVING_COMPARED,)}


@dataclass(frozen=True)
class Step:
    """One moment of an incident.

    Attributes:
        time: as of when it was found, decided or owed.
        clock: when it was written down, by the clock; of a mail that went out when it did.
        what: `mail`, `decision` or `begin`.
        words: what happened, in a sentence.
        state: of a mail: `sent`, `waits` or `silenced`; else empty.
        repeated: how many times it was decided alike in a row.
        decision: id of the row, where there is one.
        run_id: `dag_id/run_id` of whose work it is, where it is known.
    """

    time: datetime
    clock: datetime
    what: str
    words: str
    state: str
    repeated: int
    decision: int | None
    run_id: str | None


@dataclass(frozen=True)
class Incident:
    """An incident with its story.

    Attributes:
        id: of its first mail.
        thread: what it is.
        words: its kind as people read it.
        told_as: what it was told as, in words.
        steps: in the order in which they happened.
        runs: the runs that took part, each once, in that order.
    """

    id: int
    thread: Thread
    words: str
    told_as: tuple[str, ...]
    steps: tuple[Step, ...]
    runs: tuple[str, ...]


def subject_of(conn: Connection, mail: int) -> str | None:
    """Whose an incident is: `model/NAME`, `dataset/NAME` or `fleet/NAME`; None where there is no such mail."""
    found = fetch(conn, "SELECT subject FROM evergreen.mail WHERE id = %s", (mail,))
    return str(found[0]["subject"]) if found else None


def incident(conn: Connection, mail: int) -> Incident | None:
    """The incident of which a mail is; None where there is no such mail, or it is of no incident."""
    found = fetch(
        conn, "SELECT coalesce(thread, incident) AS name, subject FROM evergreen.mail WHERE id = %s", (mail,)
    )
    if not found:
        return None
    name, subject = found[0]["name"], found[0]["subject"]
    thread = next((t for t in threads.every(conn, subject, prefix=name) if t.incident == name), None)
    if thread is None:
        return None
    mails = fetch(
        conn,
        "SELECT m.id, m.kind, m.created_at, m.sent_at, coalesce(m.as_of, m.created_at) AS as_of, m.decision_id, d.run_id,"
        " m.held_by IS NOT NULL AS silenced FROM evergreen.mail AS m LEFT JOIN evergreen.decision AS d ON d.id = m.decision_id"
        " WHERE coalesce(m.thread, m.incident) = %s ORDER BY m.id",
        (name,),
    )
    steps = [
        Step(
            m["as_of"], m["sent_at"] or m["created_at"], "mail", _mail_words(m["kind"], index),
            "sent" if m["sent_at"] else "silenced" if m["silenced"] else "waits", 1, m["decision_id"], m["run_id"],
        )
        for index, m in enumerate(mails)
    ]  # fmt: skip
    steps += _decided(conn, thread, [m["decision_id"] for m in mails if m["decision_id"]])
    steps.sort(key=lambda s: (s.clock, s.what == "mail"))
    if thread.since < min(s.time for s in steps):
        steps.insert(0, Step(thread.since, thread.since, "begin", "it began", "", 1, None, None))
    told_as = tuple(words.reason(code) for code in sorted(thread.classes - threads.ANSWERS))
    runs = tuple(dict.fromkeys(s.run_id for s in steps if s.run_id and "/" in s.run_id))
    return Incident(int(mails[0]["id"]), thread, thread.kind.traits.words, told_as, tuple(steps), runs)


def _mail_words(kind: str, index: int) -> str:
    known = AlertKind.of(kind)
    told = known.traits.words if known else kind.replace("_", " ")
    return (
        f"mail: {told}" if index == 0 or (known and known.traits.ends) else f"mail in the same thread: {told}"
    )


def _decided(conn: Connection, thread: Thread, named: list[int]) -> list[Step]:
    """The decisions about the subject while the incident lasted, and those that its mails name; alike ones in a row are one."""
    rows = fetch(
        conn,
        "SELECT id FROM evergreen.decision WHERE subject = %(subject)s AND (id = ANY(%(named)s) OR (kind = ANY(%(kinds)s)"
        " AND as_of >= %(since)s AND (%(end)s IS NULL OR id <= %(end)s))) ORDER BY id LIMIT %(most)s",
        {
            "subject": thread.subject, "named": named, "kinds": [kind.value for kind in (*_STORY, *_OF_KIND.get(thread.kind, ()))], "since": thread.since,
            "end": thread.end.id if thread.end else None, "most": MOST_DECISIONS,
        },
    )  # fmt: skip
    found = sorted(find(conn, ids=[row["id"] for row in rows]), key=lambda d: d.id or 0) if rows else []
    steps: list[Step] = []
    newest: LedgerRow | None = None
    for row in map(in_short, found):
        if (
            newest is not None
            and (row.kind, row.reason) == (newest.kind, newest.reason)
            and row.kind in ("retrain_suppressed", "rejected", "run_failed", "serving_compared")
        ):
            steps[-1] = replace(steps[-1], repeated=steps[-1].repeated + 1)
            continue
        version = f" v{row.version}" if row.version else ""
        steps.append(
            Step(
                row.as_of,
                row.decided_at,
                "decision",
                f"{row.what}{version}: {row.sentence}",
                "",
                1,
                row.id,
                row.run_id,
            )
        )
        newest = row
    return steps
