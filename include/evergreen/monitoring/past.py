"""The past windows of the rows a champion learnt from: what a quiet window looks like, and how many rows it has."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from evergreen.monitoring.windows import ANCHOR
from evergreen.spec import Monitoring

LEAST_WINDOWS = 4
RESAMPLES = 20
EDGE_GAP = 0.1
# More past windows say little more, and each costs a pass over the sample; seeded ones of all times of day are taken.
MOST_WINDOWS = 400

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class PastWindows:
    """Past windows as row positions, their basis and the usual number of rows.

    `basis` is `history` where at least four whole windows could have been judged. It is `resampled` where there
    are fewer: then the windows are consecutive stretches of the usual number of rows at seeded places, which
    overlap and know no season that the history does not hold.
    """

    rows: tuple[Rows, ...]
    basis: str
    usual_rows: float
    whole: int


def sample_of(hashes: npt.NDArray[np.int64], limit: int) -> Rows:
    """Positions of at most `limit` rows, those with the smallest hash of their key, in row order.

    The judged window is sampled in SQL by the same rule (`ORDER BY _hash, _key`).
    """
    if len(hashes) <= limit:
        return np.arange(len(hashes), dtype=np.intp)
    largest = np.partition(hashes, limit - 1)[limit - 1]
    below, equal = np.flatnonzero(hashes < largest), np.flatnonzero(hashes == largest)
    return np.sort(np.concatenate([below, equal[: limit - len(below)]]))


def split(times: npt.NDArray[np.int64], monitoring: Monitoring, seed: int) -> PastWindows:
    """Cut the rows into past windows, aligned as the monitored ones.

    Args:
        times: event times in microseconds since 1970, UTC, in any order; at least one.
        monitoring: window length, least rows, volume.
        seed: for the places of resampled windows.
    """
    length = monitoring.window.total_seconds() * 1e6
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    position = (ordered - ANCHOR.timestamp() * 1e6) / length
    first, last = int(np.floor(position[0])), int(np.floor(position[-1]))
    # The windows at the two ends are whole only if the rows reach to their far side.
    first += position[0] - first > EDGE_GAP
    last -= last + 1 - position[-1] > EDGE_GAP
    edges = np.searchsorted(position, np.arange(first, last + 2))
    counts = np.diff(edges)
    usual = float(np.median(counts)) if len(counts) else _rate(ordered, length)
    least = max(monitoring.min_rows, monitoring.volume.min * usual, 1)
    rng = np.random.default_rng(seed)
    whole = [(a, b) for a, b in pairwise(edges) if b - a >= least]
    if len(whole) > MOST_WINDOWS:
        whole = [whole[i] for i in np.sort(rng.choice(len(whole), MOST_WINDOWS, replace=False))]
    rows = [np.sort(order[a:b]) for a, b in whole]
    if len(rows) >= LEAST_WINDOWS and len(times) - max(map(len, rows)) > 0:
        return PastWindows(tuple(rows), "history", usual, len(counts))
    size = int(min(max(usual, 1), max(len(times) // 2, 1)))
    starts = rng.integers(0, len(times) - size + 1, RESAMPLES)
    return PastWindows(tuple(np.sort(order[s : s + size]) for s in starts), "resampled", usual, len(counts))


def _rate(ordered: npt.NDArray[np.int64], length: float) -> float:
    span = float(ordered[-1] - ordered[0])
    if len(ordered) < 2 or span <= 0:
        return float(len(ordered))
    return (len(ordered) - 1) / span * length
