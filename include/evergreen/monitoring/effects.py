"""What of a window a retraining could answer: its effects, and the causes they have."""

from __future__ import annotations

from collections.abc import Sequence

from evergreen.ledger import TriggerReason
from evergreen.monitoring.judgement import Judgement, Status, Violation, What
from evergreen.spec import LARGER_IS_BETTER, ModelSpec

REASONS = {
    What.PERFORMANCE: TriggerReason.PERFORMANCE,
    What.DATA_DRIFT: TriggerReason.DATA_DRIFT,
    What.MISSING: TriggerReason.DATA_DRIFT,
    What.NEW_CATEGORY: TriggerReason.DATA_DRIFT,
    What.PREDICTION_DRIFT: TriggerReason.PREDICTION_DRIFT,
}


def effects(model: ModelSpec, judged: Judgement, kinds: Sequence[What] = tuple(REASONS)) -> list[Violation]:
    """The violations of a window that a retraining could answer: a value beyond its limit, on enough rows."""
    if judged.status is not Status.VIOLATION or judged.rows < model.monitoring.min_rows:
        return []
    unreadable = {v.column for v in judged.violations if v.kind is What.UNREADABLE}
    return [v for v in judged.violations if v.kind in kinds and v.column not in unreadable and _beyond(v)]


def causes(
    model: ModelSpec, judgements: Sequence[Judgement], kinds: Sequence[What] = tuple(REASONS)
) -> set[str]:
    """The causes of the effects of windows, as `kind:column`."""
    return {f"{v.kind.value}:{v.column}" for j in judgements for v in effects(model, j, kinds)}


def _beyond(violation: Violation) -> bool:
    value, limit = violation.value, violation.limit
    if value is None or limit is None:
        return False
    if violation.kind is What.PERFORMANCE:
        return value < limit if violation.statistic in LARGER_IS_BETTER else value > limit
    return value >= limit
