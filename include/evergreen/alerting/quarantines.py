"""The e-mails that ingest owes: one for each batch that was held back, and one when batches are published whole again.

Each batch has its mail, because each has to be mended; those of one spell of a dataset are one thread. It ends with the
batches after it that are published with no row held back: one, or twice as many for each spell that ended lately. Those
of the run that held the last one back do not count: they had landed beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from evergreen.alerting import threads
from evergreen.alerting.outbox import raise_incident
from evergreen.alerting.threads import Ending
from evergreen.ledger import Decision
from evergreen.warehouse.connection import Connection, fetch

KIND = "batch_quarantined"
LATELY = timedelta(days=30)


def held(conn: Connection, decision: Decision, context: Mapping[str, Any]) -> bool:
    """Owe the mail of a batch that was held back, or of which rows were, in the transaction of its decision."""
    open_one = threads.newest(conn, decision.subject, KIND)
    thread = open_one.incident if open_one and open_one.end is None else decision.dedupe_key
    return raise_incident(
        conn, decision.dedupe_key, decision.subject, KIND, decision.id, context, thread=thread
    )


def published(conn: Connection, decision: Decision) -> bool:
    """After a batch was published whole: end the spell of a dataset whose batches were held back.

    Args:
        conn: the transaction of the batch.
        decision: that published it.

    Returns:
        Whether a mail is owed.
    """
    thread = threads.newest(conn, decision.subject, KIND)
    if thread is None or thread.end is not None:
        return False
    needed = threads.patience(conn, thread, 1, LATELY)
    counted = fetch(
        conn,
        "WITH held AS (SELECT id, run_id FROM evergreen.decision WHERE id = (SELECT max(decision_id) FROM evergreen.mail"
        " WHERE kind = 'batch_quarantined' AND coalesce(thread, incident) = %(thread)s))"
        " SELECT count(*)::int AS whole FROM evergreen.decision AS d, held WHERE d.subject = %(subject)s"
        " AND d.kind = 'batch_published' AND d.evidence->>'rows_held' = '0' AND d.id > held.id AND d.run_id <> held.run_id",
        {"thread": thread.incident, "subject": decision.subject},
    )[0]["whole"]
    if counted < needed:
        return False
    still = fetch(
        conn,
        "SELECT count(*)::int AS n FROM evergreen.batch WHERE dataset = %s AND state = 'quarantined'",
        (decision.subject.partition("/")[2],),
    )[0]["n"]
    evidence = {"message": f"{decision.evidence.get('file')} was published whole", "still_held": still}
    return threads.end(conn, thread, Ending("published_again", evidence), decision.as_of, decision.run_id)
