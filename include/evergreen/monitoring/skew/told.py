"""The mails about training–serving skew: one when it begins, one when it is over, between them only what is news.

It asks for no retraining: the model is what it was, what is sent to it, or the query, is to be mended.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from evergreen import ledger
from evergreen.alert_kinds import AlertKind
from evergreen.incidents import threads
from evergreen.incidents.threads import Ending, News
from evergreen.ledger import Decision
from evergreen.ledger.evidence import RecoveredEvidence, SkewEvidence
from evergreen.ledger.reasons import DecisionKind, EndReason, SkewReason
from evergreen.monitoring.skew import outcome
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import Connection

RELAPSE = timedelta(days=3)
"""What comes back so soon after its end is the same."""
LATELY = timedelta(days=30)


def tell(conn: Connection, model: ModelSpec, found: Decision, as_of: datetime, run_id: str) -> bool:
    """Owe the mail of a comparison, in its transaction: that skew has begun or become another one, or that it has ended.

    Args:
        conn: the transaction, with the model's lock.
        model: whose.
        found: the row of the comparison.
        as_of, run_id: of the run.

    Returns:
        Whether a mail is owed.
    """
    if found.reason == SkewReason.ALIKE.value:
        return end(conn, model, EndReason.ALIKE_AGAIN, as_of, run_id)
    told = SkewEvidence.of(found)
    news = News(
        incident=found.dedupe_key,
        subject=found.subject,
        kind=AlertKind.SERVING_SKEW,
        decision_id=found.id,
        context={},
        as_of=as_of,
        classes=frozenset({found.reason}),
        details=frozenset(f"column:{name}" for name in outcome.often(told)),
        since=told.since,
        seen=told.until,
    )
    return threads.tell(
        conn, news, threads.newest(conn, found.subject, AlertKind.SERVING_SKEW, as_of), RELAPSE
    )


def end(conn: Connection, model: ModelSpec, why: EndReason, as_of: datetime, run_id: str) -> bool:
    """End the open incident of a model, with its mail; where predictions are alike again, if they have been for long enough.

    One comparison is enough, more where it comes and goes: see `threads.findings_to_end`.
    """
    subject = ledger.model_subject(model.name)
    thread = threads.newest(conn, subject, AlertKind.SERVING_SKEW, as_of)
    if thread is None or thread.end is not None:
        return False
    ended = as_of
    if why is EndReason.ALIKE_AGAIN:
        needed = threads.findings_to_end(conn, thread, 1, LATELY)
        newest = ledger.find(conn, subject, (DecisionKind.SERVING_COMPARED,), limit=needed, as_of=as_of)
        if len(newest) < needed or any(d.reason != SkewReason.ALIKE.value for d in newest):
            return False
        # What it was alike from: the first of these comparisons.
        ended = max(SkewEvidence.of(newest[-1]).since or as_of, thread.since)
    ending = Ending(why, RecoveredEvidence(), None, ended)
    return threads.end(conn, thread, ending, as_of, run_id)
