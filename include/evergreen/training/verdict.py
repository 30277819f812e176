"""What the gate says: the reason codes, the checks and the verdict, as the ledger, the mails and the policy read them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class GateReason(str, Enum):
    """Why a challenger passed or not."""

    FIRST_CHAMPION = "first_champion"
    BETTER_THAN_CHAMPION = "better_than_champion"
    NOT_WORSE_THAN_CHAMPION = "not_worse_than_champion"
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
    NOT_BETTER_THAN_CHAMPION = "not_better_than_champion"
    PERHAPS_WORSE_THAN_CHAMPION = "perhaps_worse_than_champion"
    SLICE_ABSENT = "slice_absent"
    SLICE_TOO_SMALL = "slice_too_small"
    SLICE_WORSE = "slice_worse"
    CALIBRATION_WORSE = "calibration_worse"
    TOO_SLOW = "too_slow"
    TOO_LARGE = "too_large"
    UNSTABLE = "unstable"


# A comparison with the champion was lost.
COMPARED = (
    GateReason.NOT_BETTER_THAN_CHAMPION,
    GateReason.PERHAPS_WORSE_THAN_CHAMPION,
    GateReason.SLICE_WORSE,
    GateReason.CALIBRATION_WORSE,
)
# The gate could tell that the challenger is no improvement; every other rejection says that something is broken or missing.
COULD_TELL = (GateReason.WORSE_THAN_BASELINE, *COMPARED)


@dataclass(frozen=True)
class Check:
    """One rule: what was found, what the limit is, the reason code if it fails, and the same as a sentence."""

    check: str
    value: float | str | None
    limit: float | str | None
    passed: bool
    code: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, with every check."""

    passed: bool
    reason: GateReason
    checks: tuple[Check, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "passed": self.passed,
            "reason": self.reason.value,
            "checks": [asdict(c) for c in self.checks],
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Verdict:
        """What `to_dict` gave."""
        return Verdict(
            content["passed"], GateReason(content["reason"]), tuple(Check(**c) for c in content["checks"])
        )
