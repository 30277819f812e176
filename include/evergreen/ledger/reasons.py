"""Every kind of decision and every reason code that the ledger knows, and the groups that rules and letters make of them.

Three kinds have a name of something else for their reason: `run_failed` the task (in a replay the error's code, `evergreen.errors`),
`mail_failed` the kind of alert, `spec_unusable` itself.
"""

from __future__ import annotations

from enum import StrEnum


class DecisionKind(StrEnum):
    """What was decided."""

    BATCH_PUBLISHED = "batch_published"
    BATCH_QUARANTINED = "batch_quarantined"
    BATCH_CORRECTED = "batch_corrected"
    BATCH_WITHDRAWN = "batch_withdrawn"
    BATCH_DISMISSED = "batch_dismissed"
    KEYS_DELETED = "keys_deleted"
    RETRAIN_REQUESTED = "retrain_requested"
    RETRAIN_SUPPRESSED = "retrain_suppressed"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVAL_ASKED = "approval_asked"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    ALIAS_REPAIRED = "alias_repaired"
    WATCHED = "watched"
    WATCH_ENDED = "watch_ended"
    CANARY = "canary"
    SERVING_COMPARED = "serving_compared"
    RUN_FAILED = "run_failed"
    MAIL_FAILED = "mail_failed"
    RECOVERED = "recovered"
    SILENCED = "silenced"
    SPEC_UNUSABLE = "spec_unusable"


# Decisions on a challenger or a champion; these alone answer a retrain request or the wait for a person.
ANSWERING = (DecisionKind.PROMOTED, DecisionKind.REJECTED, DecisionKind.ROLLED_BACK)


class TriggerReason(StrEnum):
    """Why a training ran or was asked for."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    DATA_DRIFT = "data_drift"
    PREDICTION_DRIFT = "prediction_drift"
    PERFORMANCE = "performance"
    ESTIMATED_PERFORMANCE = "estimated_performance"
    DECAY = "decay"
    STALENESS = "staleness"
    NEW_DATA = "new_data"
    CODE_CHANGE = "code_change"


# Decisions that another DAG waits for: they owe an event of the asset that is named as their subject.
ANNOUNCED = frozenset({
    DecisionKind.BATCH_PUBLISHED, DecisionKind.BATCH_CORRECTED, DecisionKind.BATCH_WITHDRAWN, DecisionKind.KEYS_DELETED, DecisionKind.PROMOTED, DecisionKind.ROLLED_BACK,
})  # fmt: skip


# A drift was seen: of the challenger `gate.on_drift` is asked. A reason that is not named here is asked for what a nightly
# training is, so that one that is new, or is not known, never gets the easier gate.
OF_A_DRIFT = (
    TriggerReason.DATA_DRIFT, TriggerReason.PREDICTION_DRIFT, TriggerReason.PERFORMANCE, TriggerReason.ESTIMATED_PERFORMANCE,
)  # fmt: skip
# What the policy asks for though nothing drifted, or not surely.
OF_UPKEEP = (TriggerReason.DECAY, TriggerReason.STALENESS, TriggerReason.NEW_DATA, TriggerReason.CODE_CHANGE)
# What nobody asked for by a request.
UNASKED = (TriggerReason.SCHEDULE, TriggerReason.MANUAL)


def of_a_drift(reason: str | None) -> bool:
    """Whether the code of a trigger's reason is one of a drift."""
    return reason in {known.value for known in OF_A_DRIFT}


def of_upkeep(reason: str | None) -> bool:
    """Whether the code of a trigger's reason is one of upkeep: a drift was not seen, or not surely."""
    return reason in {known.value for known in OF_UPKEEP}


class GateReason(StrEnum):
    """Why a challenger passed or not."""

    FIRST_CHAMPION = "first_champion"
    BETTER_THAN_CHAMPION = "better_than_champion"
    NOT_WORSE_THAN_CHAMPION = "not_worse_than_champion"
    CHAMPION_CANNOT_BE_EVALUATED = "champion_cannot_be_evaluated"
    STALE_EVALUATION = "stale_evaluation"
    SNAPSHOT_MISMATCH = "snapshot_mismatch"
    DIFFERENT_ROWS = "different_rows"
    TOO_FEW_ROWS = "too_few_rows"
    LEAKED_HOLDOUT = "leaked_holdout"
    PREDICTIONS_NOT_FINITE = "predictions_not_finite"
    PREDICTIONS_OUT_OF_RANGE = "predictions_out_of_range"
    CHALLENGER_METRIC_MISSING = "challenger_metric_missing"
    METRIC_MISMATCH = "metric_mismatch"
    BASELINE_METRIC_MISSING = "baseline_metric_missing"
    WORSE_THAN_BASELINE = "worse_than_baseline"
    CHAMPION_UNAVAILABLE = "champion_unavailable"
    CHAMPION_METRIC_MISSING = "champion_metric_missing"
    OLDER_THAN_CHAMPION = "older_than_champion"
    NOT_COMPARABLE = "not_comparable"
    NOT_ENOUGH_FRESH_ROWS = "not_enough_fresh_rows"
    WORSE_THAN_CHAMPION = "worse_than_champion"
    NOT_BETTER_THAN_CHAMPION = "not_better_than_champion"
    PERHAPS_WORSE_THAN_CHAMPION = "perhaps_worse_than_champion"
    SLICE_ABSENT = "slice_absent"
    SLICE_TOO_SMALL = "slice_too_small"
    SLICE_WORSE = "slice_worse"
    CALIBRATION_WORSE = "calibration_worse"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    UNSTABLE = "unstable"


class RulingReason(StrEnum):
    """Why a challenger that the gate has judged is promoted or not; see `ruling` and `approval`."""

    APPROVED = "approved"
    REFUSED = "refused"
    APPROVAL_TIMED_OUT = "approval_timed_out"
    BLOCKED_AFTER_ROLLBACK = "blocked_after_rollback"
    CHAMPION_CHANGED_MEANWHILE = "champion_changed_meanwhile"
    SUPERSEDED = "superseded"


ChallengerReason = GateReason | RulingReason


PASSED: tuple[ChallengerReason, ...] = (
    GateReason.FIRST_CHAMPION,
    GateReason.BETTER_THAN_CHAMPION,
    GateReason.NOT_WORSE_THAN_CHAMPION,
    GateReason.CHAMPION_CANNOT_BE_EVALUATED,
    RulingReason.APPROVED,
)

# The gate could not hold the challenger against the champion, so a person is asked whatever the spec says.
NEEDS_A_PERSON = (GateReason.CHAMPION_CANNOT_BE_EVALUATED,)

# A comparison with the champion was lost.
COMPARED = (
    GateReason.WORSE_THAN_CHAMPION,
    GateReason.NOT_BETTER_THAN_CHAMPION,
    GateReason.PERHAPS_WORSE_THAN_CHAMPION,
    GateReason.SLICE_WORSE,
    GateReason.CALIBRATION_WORSE,
)

# The challenger learnt too little of the new world, or the features do not tell of it.
NO_BETTER = (GateReason.WORSE_THAN_BASELINE, *COMPARED)

# An answer: the challenger was judged, by the gate, by the watch that took back a model of the same rows and spec, or by a person, and another one of
# the same spec would meet the same. Silence is an answer too: the question was asked, and is not asked for ever.
CONCLUSIVE: tuple[ChallengerReason, ...] = (
    *NO_BETTER,
    GateReason.PREDICTIONS_NOT_FINITE,
    GateReason.PREDICTIONS_OUT_OF_RANGE,
    GateReason.SLICE_ABSENT,
    GateReason.SLICE_TOO_SMALL,
    GateReason.TOO_SLOW,
    GateReason.TOO_LARGE,
    GateReason.UNSTABLE,
    RulingReason.BLOCKED_AFTER_ROLLBACK,
    RulingReason.REFUSED,
    RulingReason.APPROVAL_TIMED_OUT,
)

# No answer: the champion, the rows or an evaluation were not there to judge by, or another challenger takes its place. A later
# try may succeed.
INCONCLUSIVE: tuple[ChallengerReason, ...] = (
    GateReason.STALE_EVALUATION,
    GateReason.SNAPSHOT_MISMATCH,
    GateReason.DIFFERENT_ROWS,
    GateReason.TOO_FEW_ROWS,
    GateReason.LEAKED_HOLDOUT,
    GateReason.CHALLENGER_METRIC_MISSING,
    GateReason.METRIC_MISMATCH,
    GateReason.BASELINE_METRIC_MISSING,
    GateReason.CHAMPION_UNAVAILABLE,
    GateReason.CHAMPION_METRIC_MISSING,
    GateReason.OLDER_THAN_CHAMPION,
    GateReason.NOT_COMPARABLE,
    GateReason.NOT_ENOUGH_FRESH_ROWS,
    RulingReason.CHAMPION_CHANGED_MEANWHILE,
    RulingReason.SUPERSEDED,
)


class WatchReason(StrEnum):
    """What a look of the watch after a promotion came to, or how that watch ended."""

    WORSE = "worse_than_previous"
    CONTINUES = "watch_continues"
    PASSED = "watch_passed"
    INCONCLUSIVE = "watch_inconclusive"
    CANNOT_COMPARE = "cannot_compare"
    SUPERSEDED = "superseded"


class CanaryReason(StrEnum):
    """Why a new champion answers for another share of the keys online, see `promotion.canary`."""

    STARTED = "canary_started"
    GROWN = "canary_grown"
    ENDED = "canary_ended"


class SkewReason(StrEnum):
    """What a comparison of online predictions with batch ones came to, see `monitoring.skew`."""

    ALIKE = "served_as_batch"
    FEATURES = "other_features"
    NUMBERS = "other_numbers"
    UNEXPLAINED = "other_predictions"


class AliasReason(StrEnum):
    """What was wrong with the alias in MLflow that was put right."""

    MOVED = "alias_moved"
    REMOVED = "alias_removed"


class BatchReason(StrEnum):
    """Why a batch is published, with its bad rows held back or without any, or held back as a whole."""

    PASSED = "passed"
    ROWS_HELD = "rows_held"
    TOO_MANY_BAD_ROWS = "too_many_bad_rows"
    FAILED_EXPECTATIONS = "failed_expectations"
    UNREADABLE = "unreadable"
    UNPUBLISHABLE = "unpublishable"


class CorrectionReason(StrEnum):
    """What a person had done with a batch that was decided."""

    JUDGED_AGAIN = "judged_again"
    WITHDRAWN = "withdrawn"
    KEYS_DELETED = "keys_deleted"
    DISMISSED = "dismissed"


class EndReason(StrEnum):
    """Why an incident has ended."""

    WINDOWS_OK = "windows_ok"
    NEW_CHAMPION = "new_champion"
    DATA_BACK = "data_back"
    COLUMNS_BACK = "columns_back"
    WORKS_AGAIN = "works_again"
    PUBLISHED_AGAIN = "published_again"
    SPEC_USABLE = "spec_usable"
    ALIKE_AGAIN = "alike_again"
    NOT_COMPARED = "not_compared"


class SilenceReason(StrEnum):
    """Whether a person began a silence or ended one."""

    SILENCED = "silenced"
    SILENCE_ENDED = "silence_ended"


class Hold(StrEnum):
    """Why something that asks for a training opens no request."""

    ALREADY_OPEN = "already_open"
    ALREADY_ANSWERED = "already_answered"
    COOLDOWN = "cooldown"
    BUDGET_SPENT = "budget_spent"
    TOO_LITTLE_NEW_DATA = "too_little_new_data"
    TOO_FEW_VIOLATIONS = "too_few_violations"
