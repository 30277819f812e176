"""How well a window's rows tell its metric: an interval by resampling blocks of time.

Rows of near times share weather, campaigns and mistakes, so consecutive pieces of time are resampled, as in the gate's
comparison of two models (`training.compare` names the sources): in a circle, blocks as long as the rows depend on each
other, percentiles widened where there are few blocks.
"""

from __future__ import annotations

import numpy as np

from evergreen.metrics import paired_bootstrap, resampled
from evergreen.metrics.resampled import Statistic

CONFIDENCE = 0.95
RESAMPLES = 1000


def interval(
    metric: str,
    times: np.ndarray,
    y: np.ndarray,
    p: np.ndarray,
    *,
    seed: int,
    confidence: float = CONFIDENCE,
    cut: float | None = None,
) -> tuple[float | None, float | None]:
    """Lower and upper end of a metric; None where the rows are too few moments or have one class too often.

    Args:
        metric: one of `spec.METRICS`.
        times: event times, in any integer unit.
        y: labels, finite; for binary 0 to 1.
        p: predictions, finite.
        seed: of the resampling; the same seed gives the same interval.
        confidence: of the two ends together.
        cut: `ModelSpec.cut`.
    """
    where, moments = paired_bootstrap.cells(times)
    return of(resampled.statistic(metric, where, y, p, cut), where, moments, seed=seed, confidence=confidence)


def of(
    statistic: Statistic, where: np.ndarray, moments: int, *, seed: int, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """The same for any statistic of cells."""
    each = 1.0 - (1.0 - confidence) / 2
    low, high, _, _ = paired_bootstrap.bounds(
        statistic, where, moments, confidence=each, seed=seed, resamples=RESAMPLES
    )
    return low, high
