"""Ranking metrics of rows in cells, as functions of how often each cell is drawn: what a bootstrap needs.

A label may be a probability: then the numbers of positive and negative rows are expected numbers.
"""

from __future__ import annotations

import numpy as np

RANKED = ("roc_auc", "pr_auc")
# Scores are seen in at most about so many groups.
GROUPS = 1024


def table(
    p: np.ndarray, y: np.ndarray, where: np.ndarray, most: int = GROUPS
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of positive and of negative rows by group of scores (largest first) and cell.

    Args:
        p: scores.
        y: labels, 0 to 1.
        where: the cell of each row.
        most: groups of scores; as many as there are rows make the metrics exact.
    """
    scores, group = np.unique(-p, return_inverse=True)
    if len(scores) > most:
        # The upper scores decide pr_auc where positives are rare, so edges follow the positives as well.
        ranks = [np.sort(group), np.sort(group[y > 0.5])]
        edges = [r[np.linspace(0, len(r) - 1, most // 4).astype(np.int64)] for r in ranks if len(r)]
        group = np.searchsorted(
            np.unique(np.concatenate([e + i for e in edges for i in (0, 1)])), group, "right"
        )
    height, width = int(group.max()) + 1, int(where.max()) + 1
    place = group * width + where
    up, down = (np.bincount(place, rows, height * width).reshape(height, width) for rows in (y, 1.0 - y))
    return up, down


def value(metric: str, up: np.ndarray, down: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The metric for each row of weights; NaN where a class is missing.

    Args:
        metric: one of `RANKED`; pr_auc is scikit-learn's average precision.
        up: positive rows by group and cell.
        down: negative ones.
        weights: by resample and cell.
    """
    return of_counts(metric, up @ weights.T, down @ weights.T)


def of_counts(metric: str, won: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """The same from positive and negative rows by group (largest scores first) and resample."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "roc_auc":
            # Ties count half.
            below = lost.sum(axis=0) - np.cumsum(lost, axis=0) + 0.5 * lost
            return np.asarray((won * below).sum(axis=0) / (won.sum(axis=0) * lost.sum(axis=0)))
        above = np.cumsum(won, axis=0)
        precision = np.where(won > 0, above / (above + np.cumsum(lost, axis=0)), 0.0)
        return np.asarray((won * precision).sum(axis=0) / won.sum(axis=0))
