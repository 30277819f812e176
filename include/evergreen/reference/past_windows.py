"""The past windows of the rows a champion learnt from: what a quiet window looks like, and how many rows it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evergreen.reference.rhythm import Rhythm, learn, whole_windows
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

    `usual_rows` is the median of the windows that have rows: those of a pause, or of a night, say nothing of it.
    """

    rows: tuple[Rows, ...]
    basis: str
    usual_rows: float
    whole: int
    rhythm: Rhythm


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
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    numbers, begins, ends = whole_windows(ordered, monitoring.window, EDGE_GAP)
    counts = ends - begins
    rhythm = learn(ordered, monitoring.window, numbers, counts)
    usual = float(np.median(counts)) if len(counts) else rhythm.largest
    here = np.array(rhythm.usual)[numbers % len(rhythm.usual)]
    least = np.maximum(max(monitoring.min_rows, 1), monitoring.volume.min * here)
    rng = np.random.default_rng(seed)
    judged = np.flatnonzero(counts >= least)
    if len(judged) > MOST_WINDOWS:
        judged = judged[np.sort(rng.choice(len(judged), MOST_WINDOWS, replace=False))]
    rows = [np.sort(order[begins[i] : ends[i]]) for i in judged]
    if len(rows) >= LEAST_WINDOWS and len(times) - max(map(len, rows)) > 0:
        return PastWindows(tuple(rows), "history", usual, len(counts), rhythm)
    size = int(min(max(usual, 1), max(len(times) // 2, 1)))
    starts = rng.integers(0, len(times) - size + 1, RESAMPLES)
    return PastWindows(
        tuple(np.sort(order[s : s + size]) for s in starts), "resampled", usual, len(counts), rhythm
    )
