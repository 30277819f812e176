"""Whether a run of the monitor wakes the training for an open retrain request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from evergreen import ledger
from evergreen.ledger import Decision
from evergreen.ledger.evidence import FailedRunEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.spec import ModelSpec
from evergreen.warehouse.connection import connect

QUIET_AFTER_FAILURE = timedelta(hours=24)


def should_wake(
    open_requests: Sequence[Decision],
    failures: Sequence[Decision],
    opened_now: Decision | None,
    as_of: datetime,
) -> bool:
    """Whether to wake the training.

    Yes if this run opened the request: the wake-up is its own. Otherwise, if a request is open, because a wake-up
    can be lost; but not within 24 h of a failed training that came after the newest open request, or each run of
    the monitor would start a training that cannot succeed. The training's own schedule takes up what is open.

    Args:
        open_requests: of the model, in any order.
        failures: failed runs (`run_failed`) of the model, in any order; those of other DAGs than
            `train__MODEL` do not count.
        opened_now: the decision of this run. The policy returns an earlier run's request where nothing is new;
            by its as-of time that one is not this run's.
        as_of: of this run; ages are measured between as-of times.
    """
    if (
        opened_now is not None
        and opened_now.kind is DecisionKind.RETRAIN_REQUESTED
        and opened_now.as_of == as_of
    ):
        return True
    if not open_requests:
        return False
    newest = max(open_requests, key=_order)
    training = f"train__{newest.subject.partition('/')[2]}"
    return not any(
        f.kind is DecisionKind.RUN_FAILED
        and FailedRunEvidence.of(f).dag_id == training
        and _order(f) > _order(newest)
        and as_of - f.as_of < QUIET_AFTER_FAILURE
        for f in failures
    )


def wake(model: ModelSpec, decision: Decision | None, as_of: datetime) -> tuple[bool, int | None]:
    """Whether a run of the monitor wakes the training, as the ledger stands.

    A request whose challenger waits for approval needs no training; it is answered by what the person says.

    Args:
        model: whose.
        decision: what `live_trigger.apply` returned in this run.
        as_of: of this run; requests of a later time are not its business.

    Returns:
        Whether to wake, and the id of the newest open request that needs a training; without one (False, None).

    Raises:
        TransientError: the warehouse does not answer.
    """
    with connect() as conn:
        waiting = [d for d in ledger.unclaimed_requests(conn, model.name) if d.as_of <= as_of]
        failures = ledger.find(conn, ledger.model_subject(model.name), (DecisionKind.RUN_FAILED,))
    if not waiting:
        return False, None
    opened = decision if decision is not None and decision.id in {d.id for d in waiting} else None
    return should_wake(waiting, failures, opened, as_of), max(waiting, key=_order).id


def _order(decision: Decision) -> tuple[datetime, int]:
    return decision.as_of, decision.id or 0
