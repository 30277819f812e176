"""What a training run is about: its cut-off, why it runs, and which retrain requests it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from evergreen import ledger
from evergreen.ledger import Decision, reasons
from evergreen.ledger.reasons import TriggerReason
from evergreen.warehouse.connection import Connection


@dataclass(frozen=True)
class Plan:
    """The cut-off (aware, UTC), the reason, and the ids of the requests that are answered."""

    as_of: datetime
    trigger: str
    requests: tuple[int, ...]


def plan_run(run_type: str, as_of: datetime, requests: Sequence[Decision], *, woken: bool) -> Plan | None:
    """Decide what a run does; None if there is nothing left to do for a run that a request woke.

    A nightly or woken run answers every open request, and trains on what was known when the newest was opened even
    if its own time is earlier. A run by hand keeps the time that the person chose and answers what was open by
    then. A backfill only repeats a past night: it keeps its time and answers nothing, since a model of that time is
    no answer to a drift of today.

    Args:
        run_type: manual, scheduled, backfill or asset_triggered.
        as_of: the run's own as-of time.
        requests: the open requests, oldest first.
        woken: whether an asset event started the run.
    """
    if run_type == "backfill":
        return Plan(as_of, TriggerReason.SCHEDULE.value, ())
    if run_type == "manual":
        known = tuple(r.id for r in requests if r.id is not None and r.as_of <= as_of)
        return Plan(as_of, TriggerReason.MANUAL.value, known)
    if not requests:
        return None if woken else Plan(as_of, TriggerReason.SCHEDULE.value, ())
    newest = max([as_of, *(r.as_of for r in requests)])
    return Plan(newest, requests[-1].reason, tuple(r.id for r in requests if r.id is not None))


def answers_drift(conn: Connection, requests: Sequence[int]) -> bool:
    """Whether a training answers a request that a drift opened: then `gate.on_drift` says what must be shown.

    Args:
        conn: the warehouse.
        requests: ids of the requests that the training answers; one that the ledger does not hold excuses nothing.
    """
    asked = ledger.find(conn, ids=requests) if requests else []
    return any(reasons.of_a_drift(request.reason) for request in asked)
