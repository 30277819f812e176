"""The drifts that wait for a person because retraining did not help them, and when each is asked for again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from evergreen.alert_kinds import AlertKind
from evergreen.incidents import threads
from evergreen.ledger import find
from evergreen.ledger.evidence import RetrainEvidence
from evergreen.ledger.reasons import DecisionKind, Hold
from evergreen.monitoring.trigger import given_up
from evergreen.warehouse.connection import Connection


@dataclass(frozen=True)
class Waiting:
    """A drift that waits for a person: of which model, since when, and when it is asked for again (empty: not known)."""

    model: str
    since: datetime
    later: str


def waiting(conn: Connection, subject: str | None = None, as_of: datetime | None = None) -> list[Waiting]:
    """The open drifts that are given up, newest first.

    Args:
        conn: the warehouse.
        subject: `model/NAME`; None for all models.
        as_of: as they were known at a time; None for now.
    """
    found = []
    for thread in threads.open_ones(conn, subject, AlertKind.DRIFT, as_of):
        if "gave_up" not in thread.classes:
            continue
        held = [
            d
            for d in find(conn, thread.subject, (DecisionKind.RETRAIN_SUPPRESSED,), as_of=as_of)
            if d.reason == Hold.ALREADY_ANSWERED.value and d.as_of >= thread.opened
        ]
        newest = max(held, key=lambda d: (d.as_of, d.id or 0), default=None)
        later = given_up.later(RetrainEvidence.shown(newest).again) if newest else ""
        found.append(Waiting(thread.subject.partition("/")[2], thread.since, later))
    return found
