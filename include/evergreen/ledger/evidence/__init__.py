"""What each kind of decision rests on, as a type: the only writer and the only reader of the ledger's column `evidence`.

A file for each part of the loop. The names of the fields are the keys of the JSON, which SQL and dashboards read, so they stay.
"""

from __future__ import annotations

from typing import Any

from evergreen.ledger.evidence.base import VERSION_KEY, Evidence, Part, Time
from evergreen.ledger.evidence.batches import BatchEvidence, FailedExpectation, FailedRow, KeysTouched
from evergreen.ledger.evidence.challengers import (
    ApprovalAskedEvidence,
    AwaitingEvidence,
    GateAnswer,
    GateCheck,
    SettledEvidence,
    TrainedEvidence,
)
from evergreen.ledger.evidence.champions import (
    AliasEvidence,
    Blocked,
    CanaryEvidence,
    Look,
    RollbackEvidence,
    WatchEvidence,
)
from evergreen.ledger.evidence.incidents import (
    FailedMailEvidence,
    FailedRunEvidence,
    Mistake,
    NewChampion,
    RecoveredEvidence,
    SilenceEvidence,
    SpecEvidence,
)
from evergreen.ledger.evidence.retraining import (
    AskedAgain,
    AskingWindow,
    Effect,
    RetrainEvidence,
    TrainingEnding,
)
from evergreen.ledger.evidence.skew import DifferingClient, DifferingColumn, DifferingPrediction, SkewEvidence
from evergreen.ledger.reasons import DecisionKind

__all__ = [
    "TYPES",
    "VERSION_KEY",
    "AliasEvidence",
    "ApprovalAskedEvidence",
    "AskedAgain",
    "AskingWindow",
    "AwaitingEvidence",
    "BatchEvidence",
    "Blocked",
    "CanaryEvidence",
    "DifferingClient",
    "DifferingColumn",
    "DifferingPrediction",
    "Effect",
    "Evidence",
    "FailedExpectation",
    "FailedMailEvidence",
    "FailedRow",
    "FailedRunEvidence",
    "GateAnswer",
    "GateCheck",
    "KeysTouched",
    "Look",
    "Mistake",
    "NewChampion",
    "Part",
    "RecoveredEvidence",
    "RetrainEvidence",
    "RollbackEvidence",
    "SettledEvidence",
    "SilenceEvidence",
    "SkewEvidence",
    "SpecEvidence",
    "Time",
    "TrainedEvidence",
    "TrainingEnding",
    "WatchEvidence",
    "read",
]

TYPES: dict[DecisionKind, type[Evidence]] = {
    DecisionKind.BATCH_PUBLISHED: BatchEvidence,
    DecisionKind.BATCH_QUARANTINED: BatchEvidence,
    DecisionKind.BATCH_CORRECTED: BatchEvidence,
    DecisionKind.BATCH_WITHDRAWN: BatchEvidence,
    DecisionKind.BATCH_DISMISSED: BatchEvidence,
    DecisionKind.KEYS_DELETED: BatchEvidence,
    DecisionKind.RETRAIN_REQUESTED: RetrainEvidence,
    DecisionKind.RETRAIN_SUPPRESSED: RetrainEvidence,
    DecisionKind.AWAITING_APPROVAL: AwaitingEvidence,
    DecisionKind.APPROVAL_ASKED: ApprovalAskedEvidence,
    DecisionKind.PROMOTED: SettledEvidence,
    DecisionKind.REJECTED: SettledEvidence,
    DecisionKind.ROLLED_BACK: RollbackEvidence,
    DecisionKind.ALIAS_REPAIRED: AliasEvidence,
    DecisionKind.WATCHED: WatchEvidence,
    DecisionKind.WATCH_ENDED: WatchEvidence,
    DecisionKind.CANARY: CanaryEvidence,
    DecisionKind.SERVING_COMPARED: SkewEvidence,
    DecisionKind.RUN_FAILED: FailedRunEvidence,
    DecisionKind.MAIL_FAILED: FailedMailEvidence,
    DecisionKind.RECOVERED: RecoveredEvidence,
    DecisionKind.SILENCED: SilenceEvidence,
    DecisionKind.SPEC_UNUSABLE: SpecEvidence,
}


def read(kind: DecisionKind, row: Any) -> Evidence:
    """The evidence of a decision of a kind, from the JSON of its row."""
    return TYPES[kind].read(row)
