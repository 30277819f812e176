"""What is said of a drift that retraining did not help, by how its trainings ended: why not, and what a person can do."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.ledger import words
from evergreen.ledger.evidence import AskedAgain, TrainingEnding
from evergreen.ledger.reasons import NO_BETTER, DecisionKind, GateReason, RulingReason
from evergreen.monitoring.trigger import reopen_rule

# What a person looks at where challengers were no better, or became champion and the drift is still there.
WORLD = (
    "is the feed right (unit, sensor, a source that changed)? If the world has changed, new features, a longer or shorter "
    "training.window, or other limits under monitoring are the way."
)
_SLICE = (
    "does the feed still have that slice? A longer training.holdout, a lower gate.slice_min_rows or other gate.slices let the "
    "gate judge it."
)
REMEDIES = {
    **{reason.value: WORLD for reason in NO_BETTER},
    GateReason.PREDICTIONS_NOT_FINITE.value: "are the newest labels and features right? Numbers out of all proportion, and "
    "training.params that do not suit them, make such models.",
    GateReason.PREDICTIONS_OUT_OF_RANGE.value: "are the newest labels right? If they are, label.min, label.max and "
    "gate.range_slack say what a prediction may be.",
    GateReason.SLICE_ABSENT.value: _SLICE,
    GateReason.SLICE_TOO_SMALL.value: _SLICE,
    GateReason.TOO_SLOW.value: "gate.max_predict_ms is the limit; fewer training.max_rounds or shallower trees in "
    "training.params make a faster model.",
    GateReason.TOO_LARGE.value: "gate.max_size_mb is the limit; fewer training.max_rounds or shallower trees in "
    "training.params make a smaller model.",
    GateReason.UNSTABLE.value: "gate.stability is the limit; a longer training.window, or training.params that leave less to "
    "chance, make models that are more alike.",
    RulingReason.BLOCKED_AFTER_ROLLBACK.value: "do labels still arrive? A training on newer rows makes another challenger; the "
    "rollback DAG with To version returns to this one.",
    RulingReason.REFUSED.value: "what must be different for the next one to be approved? The comment stands with the refusal.",
    RulingReason.APPROVAL_TIMED_OUT.value: "does the question reach somebody who may answer it, and is gate.approval_timeout "
    "long enough?",
}


def times(number: int) -> str:
    """How often, in words."""
    return "twice" if number == 2 else f"{number} times"


def later(again: AskedAgain | None) -> str:
    """When the drift is asked for again, as a clause; empty where the evidence, of an older release, does not say."""
    return reopen_rule.sentence(again) if again else ""


def because(endings: Sequence[TrainingEnding]) -> str:
    """Why retraining did not help, as a clause.

    Args:
        endings: of the suppression, see `episode.endings`; a row of before there were any is of challengers that were no
            better.
    """
    if all(_no_better(ending) for ending in endings):
        return "the data of now does not mend this"
    if _promoted(endings[-1]):
        return "the last challenger became champion, and that did not end it"
    return f"the last challenger was rejected: {words.reason(endings[-1].reason)}"


def remedy(endings: Sequence[TrainingEnding]) -> str:
    """What a person can look at, by how the last training ended; see `because`."""
    return REMEDIES.get(str(endings[-1].reason), WORLD) if endings else WORLD


def _no_better(ending: TrainingEnding) -> bool:
    return _promoted(ending) or ending.reason in {reason.value for reason in NO_BETTER}


def _promoted(ending: TrainingEnding) -> bool:
    return ending.kind == DecisionKind.PROMOTED.value
