"""One run of the monitor: the windows, the watch after a promotion, then the policy, in this order; beside them what was served online.

The order matters. The policy decides on the windows that were just judged; a rollback before it takes away the champion
that those windows blame, so nothing is asked for that the rollback has mended.

No part depends on the success of another: a reference that is lost keeps no bad champion live, and a rollback that cannot
be done keeps no retraining from being asked for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from evergreen import ledger
from evergreen.errors import ErrorReason, EvergreenError, may_pass
from evergreen.ledger import Decision, words
from evergreen.ledger.reasons import DecisionKind, SkewReason
from evergreen.monitoring.alarms import early_alarm
from evergreen.monitoring.skew import check
from evergreen.monitoring.trigger import live_trigger
from evergreen.monitoring.trigger.wake_rule import wake
from evergreen.monitoring.windows import live_windows
from evergreen.monitoring.windows.judgement import Judgement, Status
from evergreen.progress import counted
from evergreen.promotion import live_watch
from evergreen.registry.confirm import confirm_alias
from evergreen.spec import ModelSpec, Specs
from evergreen.warehouse.connection import connect
from evergreen.warehouse.features import arrow

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_STATUS = {
    Status.VIOLATION: "in violation",
    Status.STALE: "without new data",
    Status.INSUFFICIENT: "with too few rows",
}


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes:
        judged: the windows that this run judged, oldest first.
        watched: the look at the newest promotion; None where none was due.
        decision: of the trigger policy; None if nothing asks for a training.
        announce: whether the training is to be woken.
        request: the newest open retrain request.
        problems: what could not be done, and why; the other parts were done.
        reason: the code of all problems, where they have one and the same.
        skew: the comparison of online predictions with batch ones; None where none was due.
    """

    judged: tuple[Judgement, ...]
    watched: Decision | None
    decision: Decision | None
    announce: bool
    request: int | None
    problems: tuple[str, ...] = ()
    reason: ErrorReason | None = None
    skew: Decision | None = None

    @property
    def rolled_back(self) -> bool:
        """Whether the watch returned to the champion before."""
        return self.watched is not None and self.watched.kind is DecisionKind.ROLLED_BACK

    def sentence(self) -> str:
        """What it came to, in one line, such as `2 windows judged, 1 in violation; asks for a training: the input data drifted`."""
        states = Counter(j.status for j in self.judged)
        others = [f"{n} {_STATUS[state]}" for state, n in states.items() if state is not Status.OK]
        parts = [", ".join([f"{counted(len(self.judged), 'window')} judged", *others])]
        if not self.judged:
            parts = ["no window was due"]
        if self.rolled_back and self.watched:
            parts.append(f"rolled back to version {self.watched.version}")
        if self.decision is not None:
            parts.append(_policy(self.decision))
        if self.skew is not None and self.skew.reason != SkewReason.ALIKE.value:
            parts.append(words.message(self.skew.reason, self.skew.evidence))
        parts += [f"could not be done: {counted(len(self.problems), 'part')}"] if self.problems else []
        return "; ".join(parts)


def _policy(decision: Decision) -> str:
    """What the trigger policy decided, with the reason in words."""
    asks = decision.kind is DecisionKind.RETRAIN_REQUESTED
    return f"{'asks for' if asks else 'holds back'} a training: {words.reason(decision.reason)}"


def monitor(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> Run | None:
    """Judge every window that is due, compare a new champion with the last one, apply the trigger policy, then see to the alias.

    Args:
        specs: all specs.
        model: whose champion is watched.
        as_of: the cut-off, aware: what came later does not count.
        run_id: `dag_id/run_id`.

    Returns:
        What it came to, with the parts that failed (the reference cannot be read, the feature query does not run, a
        rollback cannot be done); None where the model has no champion yet.

    Raises:
        TransientError: warehouse or MLflow do not answer, or another error that may pass (`errors.may_pass`); what was decided
            stands, and the next try goes on from there.
    """
    with arrow.sharing():
        return _monitor(specs, model, as_of, run_id)


def _monitor(specs: Specs, model: ModelSpec, as_of: datetime, run_id: str) -> Run | None:
    problems: list[str] = []
    reasons: set[ErrorReason | None] = set()

    def attempt(what: str, do: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return do()
        except Exception as error:
            if may_pass(error):
                raise
            log.exception("%s: %s failed; the run goes on without it", model.name, what)
            problems.append(f"{what}: {error}")
            reasons.add(error.reason if isinstance(error, EvergreenError) else None)
            return otherwise

    with connect() as conn:
        if not ledger.champions(conn, model.name, as_of):
            return None
    nothing: list[Judgement] = []
    judged = attempt("judging the windows", lambda: live_windows.judge_windows(specs, model, as_of), nothing)
    try:
        watched = attempt(
            "the watch after the promotion", lambda: live_watch.watch(specs, model, as_of, run_id), None
        )
    finally:  # also where the watch is tried again: what is asked for is in the ledger then
        decision = attempt(
            "the trigger policy", lambda: live_trigger.apply(model, as_of, run_id, specs), None
        )
    attempt("the mails about estimates", lambda: early_alarm.tell(model, as_of, run_id), None)
    skew = attempt(
        "the comparison of online predictions with batch ones",
        lambda: check.compare_served(specs, model, as_of, run_id),
        None,
    )
    attempt("the alias in MLflow", lambda: confirm_alias(model, as_of, run_id), None)
    announce, request = wake(model, decision, as_of)
    reason = reasons.pop() if len(reasons) == 1 else None
    run = Run(tuple(judged), watched, decision, announce, request, tuple(problems), reason, skew)
    if watched is not None:
        log.info(
            "%s: the watch of version %s: %s",
            model.name,
            watched.version,
            words.sentence(watched.kind.value, watched.reason, watched.evidence),
        )
    log.info(
        "%s: the trigger policy %s",
        model.name,
        _policy(decision) + f" ({words.message(decision.reason, decision.evidence)})"
        if decision is not None
        else "asks for no training: neither a drift of the newest windows nor anything else wants one",
    )
    if request is not None:
        log.info("%s: retrain request %s is open", model.name, request)
    log.info("%s: %s", model.name, run.sentence())
    return run
