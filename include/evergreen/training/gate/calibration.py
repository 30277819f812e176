"""Whether a challenger's probabilities are further from what happens than the champion's.

The measure is the expected calibration error over bins of equally many rows: the mean distance between the predicted and
the observed share of class 1. Equal numbers in a bin, because bins of equal width are nearly empty where predictions
are rare, and more biased (Roelofs, Cain, Shlens, Mozer 2022, "Mitigating Bias in Calibration Error Estimation",
AISTATS). A small holdout's error is mostly noise, also that of a perfect model; so the difference between the models
counts, with a bound from the same resampling of blocks of time as the improvement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evergreen.metrics import paired_bootstrap

BINS = 10
ROWS_A_BIN = 50


@dataclass(frozen=True)
class CalibrationErrors:
    """Calibration errors (0 is perfect) and by how much the challenger's is larger at least, with confidence.

    `worse_by` is a one-sided lower bound of the difference; None where there are too few moments to tell.
    """

    challenger: float
    champion: float
    worse_by: float | None


def calibration(
    times: np.ndarray,
    y: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    *,
    confidence: float,
    seed: int,
) -> CalibrationErrors:
    """Compare the calibration of two models on the same rows.

    Args:
        times: event times, in any integer unit.
        y: labels, 0 or 1.
        challenger: its probabilities of 1.
        champion: likewise.
        confidence: of the bound.
        seed: of the resampling.
    """
    where, moments = paired_bootstrap.cells(times)
    new, old = (_gaps(y, p, where) for p in (challenger, champion))
    rows = np.bincount(where).astype(np.float64)

    def error(gaps: np.ndarray, weights: np.ndarray) -> np.ndarray:
        mean: np.ndarray = np.abs(weights @ gaps.T).sum(axis=1) / (weights @ rows)
        return mean

    def difference(weights: np.ndarray) -> np.ndarray:
        worse: np.ndarray = error(new, weights) - error(old, weights)
        return worse

    low, *_ = paired_bootstrap.bounds(difference, where, moments, confidence=confidence, seed=seed)
    once = np.ones((1, len(rows)))
    return CalibrationErrors(float(error(new, once)[0]), float(error(old, once)[0]), low)


def _gaps(y: np.ndarray, p: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Sum of label minus prediction by bin of predictions and cell; equal predictions share a bin."""
    bins = min(BINS, max(1, len(p) // ROWS_A_BIN))
    edges = np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, p, "right") * (int(where.max()) + 1) + where
    return np.bincount(place, y - p, bins * (int(where.max()) + 1)).reshape(bins, -1)
