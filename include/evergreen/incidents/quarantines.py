"""The e-mails that ingest owes: one for each batch that was held back, and one when nothing of them is left.

Each batch has its mail, because each has to be mended; those of one spell of a dataset are one thread. It ends with the
batches after it that are published with no row held back (one, or twice as many for each spell that ended lately) once
nothing of the spell is left: each batch of it was judged again and published, or a file of its name was published whole
since, or each of its rows was, or its file is no longer in the folder, or a person has dismissed it. Batches of the run
that held the last one back do not count: they had landed beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from evergreen.alert_kinds import AlertKind
from evergreen.errors import EvergreenError
from evergreen.incidents import threads
from evergreen.incidents.held_batches import HeldBatch, of_spells
from evergreen.incidents.outbox import raise_incident
from evergreen.incidents.threads import Ending, Thread
from evergreen.ledger import Decision
from evergreen.ledger.evidence import BatchEvidence, RecoveredEvidence
from evergreen.ledger.reasons import EndReason
from evergreen.warehouse.batches import held as held_rows
from evergreen.warehouse.connection import Connection, fetch
from evergreen.warehouse.files import landing_store
from evergreen.warehouse.storage.bucket import Place

LATELY = timedelta(days=30)


def held(conn: Connection, decision: Decision, context: Mapping[str, Any]) -> bool:
    """Owe the mail of a batch that was held back, or of which rows were, in the transaction of its decision."""
    open_one = threads.newest(conn, decision.subject, AlertKind.BATCH_QUARANTINED)
    thread = open_one.incident if open_one and open_one.end is None else decision.dedupe_key
    return raise_incident(
        conn,
        decision.dedupe_key,
        decision.subject,
        AlertKind.BATCH_QUARANTINED,
        decision.id,
        context,
        thread=thread,
    )


def published(conn: Connection, decision: Decision, folder: Place | None = None) -> bool:
    """After a batch was published whole: end the spell of a dataset whose batches were held back, if it is over.

    Args:
        conn: the transaction of the batch.
        decision: that published it.
        folder: in which the files land; None: it is not known which files are still there.

    Returns:
        Whether a mail is owed.
    """
    thread = threads.newest(conn, decision.subject, AlertKind.BATCH_QUARANTINED)
    if thread is None or thread.end is not None:
        return False
    needed = threads.findings_to_end(conn, thread, 1, LATELY)
    counted = fetch(
        conn,
        "WITH held AS (SELECT id, run_id FROM evergreen.decision WHERE id = (SELECT max(decision_id) FROM evergreen.mail"
        " WHERE kind = %(kind)s AND coalesce(thread, incident) = %(thread)s))"
        " SELECT count(*)::int AS whole FROM evergreen.decision AS d, held WHERE d.subject = %(subject)s"
        " AND d.kind = 'batch_published' AND d.evidence->>'rows_held' = '0' AND d.id > held.id AND d.run_id <> held.run_id",
        {"kind": AlertKind.BATCH_QUARANTINED, "thread": thread.incident, "subject": decision.subject},
    )[0]["whole"]
    if counted < needed:
        return False
    return over(conn, thread, f"{BatchEvidence.of(decision).file} was published whole", decision, folder)


def over(
    conn: Connection, thread: Thread, message: str, decision: Decision, folder: Place | None = None
) -> bool:
    """End a spell of which nothing is left.

    Args:
        conn: the transaction of the decision.
        thread: the open incident.
        message: what ended it.
        decision: of whose run it is.
        folder: as for `published`.

    Returns:
        Whether a mail is owed; False where something is left.
    """
    there = left(conn, thread)
    gone = [batch for batch in there if folder is not None and not _lies_in(batch, folder)]
    if len(gone) < len(there):
        return False
    for batch in batches_of(conn, thread):
        held_rows.forget(conn, batch.id)
    evidence = RecoveredEvidence(message=message, removed_files=tuple(batch.file for batch in gone))
    return threads.end(
        conn, thread, Ending(EndReason.PUBLISHED_AGAIN, evidence), decision.as_of, decision.run_id
    )


def left(conn: Connection, thread: Thread) -> list[HeldBatch]:
    """The batches of a spell of which something is still held back, the first one first."""
    name = thread.subject.partition("/")[2]
    return [batch for batch in batches_of(conn, thread) if held_rows.missing(conn, name, batch.id) != 0]


def batches_of(conn: Connection, thread: Thread) -> list[HeldBatch]:
    """The batches of a spell that were neither judged again and published, nor followed by one of their name, nor dismissed."""
    return of_spells(conn, [thread])[thread.incident]


def _lies_in(batch: HeldBatch, folder: Place) -> bool:
    """Whether the file of a batch is still in the folder as it was when it was held back."""
    try:
        found = landing_store.standing(folder, batch.file)
    except (OSError, EvergreenError):  # it cannot be told, so it is not gone
        return True
    return found is not None and (found.size, found.mtime_ns) == (batch.size, batch.mtime_ns)
