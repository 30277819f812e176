"""One run of the monitor: the windows, the watch after a promotion, then the policy, in this order.

The order matters. The policy decides on the windows that were just judged; a rollback before it takes away the champion
that those windows blame, so nothing is asked for that the rollback has mended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from evergreen import ledger
from evergreen.ledger import Decision, Kind
from evergreen.monitoring import after_promotion, early, judge, policy
from evergreen.monitoring.judgement import Judgement
from evergreen.monitoring.waking import wake
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import connect


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes:
        judged: the windows that this run judged, oldest first.
        watched: the look at the newest promotion; None where none was due.
        decision: of the trigger policy; None if nothing asks for a training.
        announce: whether the training is to be woken.
        request: the newest open retrain request.
    """

    judged: tuple[Judgement, ...]
    watched: Decision | None
    decision: Decision | None
    announce: bool
    request: int | None

    @property
    def rolled_back(self) -> bool:
        """Whether the watch returned to the champion before."""
        return self.watched is not None and self.watched.kind is Kind.ROLLED_BACK


def monitor(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> Run | None:
    """Judge every window that is due, compare a new champion with the last one, then apply the trigger policy.

    Args:
        specs: all specs.
        model: whose champion is watched.
        as_of: the cut-off, aware: what came later does not count.
        run_id: `dag_id/run_id`.

    Returns:
        What it came to; None where the model has no champion yet.

    Raises:
        TerminalError: the reference cannot be read, the feature query does not run, or a rollback cannot be done; the
            policy has been applied in the last case, so that a retraining is asked for nonetheless.
        TransientError: warehouse or MLflow do not answer; what was decided stands, and the next try goes on from there.
    """
    with connect() as conn:
        if not ledger.champions(conn, model.name, as_of):
            return None
    judged = judge.judge(specs, model, as_of, run_id)
    try:
        watched = after_promotion.watch(specs, model, as_of, run_id)
    finally:  # a rollback that cannot be done must not keep a retraining from being asked for
        decision = policy.apply(model, as_of, run_id, specs)
    early.tell(model, as_of)
    announce, request = wake(model, decision, as_of)
    return Run(tuple(judged), watched, decision, announce, request)
