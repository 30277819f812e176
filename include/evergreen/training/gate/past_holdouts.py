"""What the newest promotions came to: did retraining help, on rows that neither version had learnt?

Each holdout alone may let a challenger pass that is a little worse, and many little harms add up unseen. But after each promotion
the watch compares both champions on new rows (`monitoring.after_promotion`), and those comparisons are independent of the holdout that
let the challenger pass. Their sum says what the chain of promotions has done: the logarithms of the champions' ratios of their
distance from perfect add up, and so do the squares of their standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from scipy import stats

from evergreen.ledger import Decision
from evergreen.ledger.evidence import Look, WatchEvidence
from evergreen.ledger.reasons import DecisionKind

# The last row of each watch; a version that was taken back has harmed nobody since.
KINDS = (DecisionKind.WATCHED, DecisionKind.WATCH_ENDED)
# Fewer say little; what is older than a year, or before so many others, says little of the recipe and the stream of now.
LEAST, MOST, YEAR = 3, 12, timedelta(days=365)
# By so many standard deviations the sum must be on the side of harm. One (five times in six) is little to promote against, and
# enough to ask for a proof: where retraining neither helps nor harms, waiting for one costs nothing.
DEVIATIONS = 1.0


@dataclass(frozen=True)
class Realised:
    """How much better the newest of some champions is than the first one before them, on rows that came after each promotion.

    Attributes:
        promotions: how many were compared.
        point: the share by which the distance from perfect became smaller; below 0 it grew.
        low, high: the same, `DEVIATIONS` standard deviations to either side.
    """

    promotions: int
    point: float
    low: float
    high: float

    @property
    def harmful(self) -> bool:
        """Whether retraining seems to have done harm."""
        return self.high < 0


def realised(watches: Sequence[Decision], as_of: datetime) -> Realised | None:
    """Sum up the newest promotions; None where fewer than `LEAST` could be compared. A pure function.

    Args:
        watches: the ledger's rows of a model of `KINDS`, newest first.
        as_of: of the training that asks; later rows do not count.
    """
    newest: dict[int | None, tuple[float, float]] = {}
    seen: set[int | None] = set()
    for row in watches:
        told = WatchEvidence.of(row).watch
        if told is None or not as_of - YEAR <= row.as_of <= as_of or told.promotion in seen:
            continue
        # The newest row of a watch that says something is its last word.
        if (found := _of(told)) is not None:
            seen.add(told.promotion)
            newest[told.promotion] = found
        if len(newest) == MOST:
            break
    return summed([*newest.values()])


def summed(found: Sequence[tuple[float, float]]) -> Realised | None:
    """The same from the logarithms of the newest ratios of distances, new by old, and their standard deviations."""
    if len(found) < LEAST:
        return None
    total = sum(log for log, _ in found)
    away = DEVIATIONS * math.sqrt(sum(deviation**2 for _, deviation in found))
    point, low, high = (1.0 - math.exp(total + side * away) for side in (0, 1, -1))
    return Realised(len(found), point, low, high)


def _of(told: Look) -> tuple[float, float] | None:
    """The logarithm of the ratio of the distances, new by old, and its standard deviation; None where a watch could not compare."""
    values = [told.improvement, told.at_least, told.at_most, told.confidence, told.looks]
    known = [float(v) for v in values if v is not None and math.isfinite(v)]
    if len(known) < len(values):
        return None
    point, low, high, confidence, looks = known
    if point >= 1 or not 0 < confidence < 1 or high < low:
        return None
    quantile = float(stats.norm.isf((1.0 - confidence) / looks))
    return math.log1p(-point), (high - low) / (2 * quantile) / (1.0 - point)
