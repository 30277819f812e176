"""What of a window a retraining could answer: its effects, and the causes they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evergreen.ledger.reasons import TriggerReason
from evergreen.monitoring.windows.judgement import HELD_BACK, Judgement, Status, Violation, What
from evergreen.spec import LARGER_IS_BETTER, ModelSpec

REASONS = {
    What.PERFORMANCE: TriggerReason.PERFORMANCE,
    What.DATA_DRIFT: TriggerReason.DATA_DRIFT,
    What.MISSING: TriggerReason.DATA_DRIFT,
    What.NEW_CATEGORY: TriggerReason.DATA_DRIFT,
    What.PREDICTION_DRIFT: TriggerReason.PREDICTION_DRIFT,
    What.ESTIMATED_PERFORMANCE: TriggerReason.ESTIMATED_PERFORMANCE,
}
# What a training cannot mend: a person is told, and no request is opened.
DATA_PROBLEMS = (What.UNREADABLE, *HELD_BACK)
ERRORS = (What.PERFORMANCE, What.ESTIMATED_PERFORMANCE)


def effects(model: ModelSpec, judged: Judgement, kinds: Sequence[What] = tuple(REASONS)) -> list[Violation]:
    """The violations of a window that a retraining could answer: a value beyond its limit, on enough rows.

    An estimated error is one of them only where the spec says `estimate_requests`.
    """
    if judged.status is not Status.VIOLATION or judged.rows < model.monitoring.min_rows:
        return []
    unreadable = {v.column for v in judged.violations if v.kind is What.UNREADABLE}
    if not model.monitoring.performance.estimate_requests:
        kinds = [k for k in kinds if k is not What.ESTIMATED_PERFORMANCE]
    return [v for v in judged.violations if v.kind in kinds and v.column not in unreadable and beyond(v)]


def causes(
    model: ModelSpec, judgements: Sequence[Judgement], kinds: Sequence[What] = tuple(REASONS)
) -> set[str]:
    """The causes of the effects of windows, as `kind:column`."""
    return {f"{v.kind.value}:{v.column}" for j in judgements for v in effects(model, j, kinds)}


def m_of_n(
    model: ModelSpec, judgements: Sequence[Judgement], hit: Callable[[Judgement], object]
) -> list[Judgement]:
    """The hits among the last n windows, oldest first, if they are m or more and the newest window is one of them; else none.

    Args:
        model: m and n of its trigger.
        judgements: the windows that the rule is asked of, oldest first.
        hit: whether a window is one.
    """
    last = judgements[-model.monitoring.trigger.n :]
    hits = [judged for judged in last if hit(judged)]
    return hits if len(hits) >= model.monitoring.trigger.m and hits[-1] is last[-1] else []


def first_of_run(
    judgements: Sequence[Judgement],
    known: Judgement,
    hit: Callable[[Judgement], object],
    ends: Callable[[Judgement], bool],
) -> Judgement:
    """The oldest hit of the unbroken run to which a known one belongs.

    Args:
        judgements: of the champion, oldest first.
        known: a hit of the run.
        hit: whether a window is one; a window that is none and ends nothing is passed over.
        ends: whether a window ends the run.
    """
    first = known
    for judged in reversed([j for j in judgements if j.window_start < known.window_start]):
        if ends(judged):
            break
        if hit(judged):
            first = judged
    return first


def estimated(judged: Judgement) -> bool:
    """Whether a window's error is estimated to be beyond its limit, whether or not estimates may ask for a training."""
    return any(v.kind is What.ESTIMATED_PERFORMANCE and beyond(v) for v in judged.violations)


def beyond(violation: Violation) -> bool:
    """Whether a violation has a value, and that on the wrong side of its limit."""
    value, limit = violation.value, violation.limit
    if value is None or limit is None:
        return False
    if violation.kind in ERRORS:
        return value < limit if violation.statistic in LARGER_IS_BETTER else value > limit
    return value >= limit
