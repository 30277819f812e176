"""The gate: may a challenger become champion? A pure function of three evaluations on the same holdout rows.

Every check is recorded with its value and limit, passed or not; the first that failed is the reason. What is
missing, stale or not comparable fails: it is never taken for good.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from evergreen.spec import LARGER_IS_BETTER, ModelSpec


class GateReason(str, Enum):
    """Why a challenger passed or not."""

    FIRST_CHAMPION = "first_champion"
    BETTER_THAN_CHAMPION = "better_than_champion"
    STALE_EVALUATION = "stale_evaluation"
    SNAPSHOT_MISMATCH = "snapshot_mismatch"
    DIFFERENT_ROWS = "different_rows"
    TOO_FEW_ROWS = "too_few_rows"
    CHALLENGER_METRIC_MISSING = "challenger_metric_missing"
    BASELINE_METRIC_MISSING = "baseline_metric_missing"
    WORSE_THAN_BASELINE = "worse_than_baseline"
    CHAMPION_UNAVAILABLE = "champion_unavailable"
    CHAMPION_METRIC_MISSING = "champion_metric_missing"
    OLDER_THAN_CHAMPION = "older_than_champion"
    NOT_BETTER_THAN_CHAMPION = "not_better_than_champion"


@dataclass(frozen=True)
class Evaluation:
    """How one candidate did: its metrics, and by what and when they were measured.

    Args:
        metrics: by name; empty where the candidate could not be evaluated.
        rows: number of holdout rows.
        keys: digest of those rows' keys, in order.
        fingerprint: of the snapshot they are from.
        run_id: the training that evaluated.
        as_of: the as-of time of that training.
        problem: why there are no metrics.
    """

    metrics: dict[str, float]
    rows: int
    keys: str
    fingerprint: str
    run_id: str
    as_of: datetime
    problem: str | None = None


@dataclass(frozen=True)
class Check:
    """One rule: what was found, what the limit is."""

    check: str
    value: float | str | None
    limit: float | str | None
    passed: bool


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


def judge(
    model: ModelSpec,
    challenger: Evaluation,
    baseline: Evaluation,
    champion: Evaluation | None,
    *,
    champion_as_of: datetime | None,
    run_id: str,
    as_of: datetime,
    fingerprint: str,
) -> Verdict:
    """Judge a challenger.

    Args:
        model: its gate section: primary metric, margin, beat_baseline.
        challenger: on the holdout.
        baseline: on the same rows.
        champion: on the same rows; None only where there is no champion yet.
        champion_as_of: training cut-off of the champion; None only where there is no champion yet.
        run_id: the training that asks.
        as_of: its as-of time.
        fingerprint: its snapshot's.
    """
    metric = model.gate_metric
    judged = [("challenger", challenger), ("baseline", baseline)]
    if champion is not None or champion_as_of is not None:
        judged.append(("champion", champion or _absent(challenger)))
    failed: list[GateReason] = []
    checks: list[Check] = []

    def check(name: str, value: Any, limit: Any, passed: bool, reason: GateReason) -> bool:
        checks.append(Check(name, _plain(value), _plain(limit), bool(passed)))
        if not passed:
            failed.append(reason)
        return passed

    for who, found in judged:
        check(f"{who}_run", found.run_id, run_id, found.run_id == run_id, GateReason.STALE_EVALUATION)
        check(f"{who}_as_of", found.as_of, as_of, found.as_of == as_of, GateReason.STALE_EVALUATION)
        check(f"{who}_snapshot", found.fingerprint[:16], fingerprint[:16], found.fingerprint == fingerprint,
              GateReason.SNAPSHOT_MISMATCH)  # fmt: skip
        same = found.rows == challenger.rows and found.keys == challenger.keys
        check(f"{who}_rows", found.rows, challenger.rows, same, GateReason.DIFFERENT_ROWS)
    least = model.training.min_holdout_rows
    check("holdout_rows", challenger.rows, least, challenger.rows >= least, GateReason.TOO_FEW_ROWS)
    value = _number(challenger.metrics.get(metric))
    check(f"challenger_{metric}", value, "finite", value is not None, GateReason.CHALLENGER_METRIC_MISSING)

    if model.gate.beat_baseline:
        bar = _number(baseline.metrics.get(metric))
        if check(f"baseline_{metric}", bar, "finite", bar is not None, GateReason.BASELINE_METRIC_MISSING):
            better = value is not None and bar is not None and _beats(metric, value, bar, bar)
            check("beats_baseline", value, bar, better, GateReason.WORSE_THAN_BASELINE)

    if len(judged) == 3:
        known = champion is not None and champion.problem is None
        problem = champion.problem if champion is not None else "it was not evaluated"
        check("champion_available", problem or "yes", "yes", known, GateReason.CHAMPION_UNAVAILABLE)
        ruling = None if champion is None else _number(champion.metrics.get(metric))
        check(f"champion_{metric}", ruling, "finite", ruling is not None, GateReason.CHAMPION_METRIC_MISSING)
        check("not_older", as_of, champion_as_of, champion_as_of is not None and as_of >= champion_as_of,
              GateReason.OLDER_THAN_CHAMPION)  # fmt: skip
        if ruling is not None:
            limit = limit_of(metric, ruling, model.gate.margin)
            better = value is not None and _beats(metric, value, ruling, limit)
            check("beats_champion", value, limit, better, GateReason.NOT_BETTER_THAN_CHAMPION)

    won = GateReason.BETTER_THAN_CHAMPION if len(judged) == 3 else GateReason.FIRST_CHAMPION
    return Verdict(not failed, failed[0] if failed else won, tuple(checks))


def limit_of(metric: str, champion: float, margin: float) -> float:
    """The value a challenger must reach: the champion's distance from perfect, smaller by the share `margin`.

    Perfect is 0 for errors and 1 for r2, roc_auc and pr_auc, so that 2 % mean the same effort at an AUC of 0.6
    and of 0.98, and an r2 below zero is no special case.
    """
    if metric in LARGER_IS_BETTER:
        return 1.0 - (1.0 - champion) * (1.0 - margin)
    return champion * (1.0 - margin)


def _beats(metric: str, value: float, other: float, limit: float) -> bool:
    """Strictly better than the other, and at least at the limit."""
    if metric in LARGER_IS_BETTER:
        return value > other and value >= limit
    return value < other and value <= limit


def _absent(like: Evaluation) -> Evaluation:
    return Evaluation(
        {}, like.rows, like.keys, like.fingerprint, like.run_id, like.as_of, "it was not evaluated"
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _plain(value: Any) -> float | str | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (int, float, str)) else str(value)
