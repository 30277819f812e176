"""The drift statistics of Evidently, for many windows against the rest of one reference at once.

A reference needs its numbers for every past window, hundreds of times, so they are computed here from one sorting of the
column; so are the distances of a judged window (`measure.py`), where Evidently's take most of the time of judging.
Evidently draws. A test holds the two equal.

Numeric: Wasserstein distance divided by the standard deviation of the reference (Evidently's `wasserstein`). Two kinds of
column are measured in another unit, because Evidently's is never smaller than 0.001, whatever a column's own unit is: one whose
deviation is smaller than that by its own, one that is constant by its size (`scale`). Evidently is given them in that unit.
Categorical: Jensen-Shannon distance with the natural logarithm (Evidently's `jensenshannon`). Missing values,
NaN and infinities are left out of both and counted as missing instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import distance

NUMERIC = "wasserstein"
CATEGORICAL = "jensenshannon"
SMALLEST_NORM = 0.001
# So many of the values are the same, up to rounding: then their deviation says nothing of what is usual.
CONSTANT, ROUNDING = 0.999, 1e-6

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]


def numeric(values: Floats, sample: Flags, windows: Sequence[Rows]) -> Floats:
    """The normalised Wasserstein distance of each window to the sampled rows outside it.

    Args:
        values: the column, one value a row; missing ones are NaN.
        sample: the rows that are in the reference's sample.
        windows: for each window the rows of its own sample, as positions in `values`.

    Returns:
        One distance a window; NaN where either side has no value.
    """
    finite = np.isfinite(values)
    rows = np.flatnonzero(sample & finite)
    rows = rows[np.argsort(values[rows], kind="stable")]
    outside = np.ones(len(values), dtype=bool)
    found = np.full(len(windows), np.nan)
    for number, window in enumerate(windows):
        outside[window] = False
        rest = values[rows[outside[rows]]]
        outside[window] = True
        current = np.sort(values[window][finite[window]])
        if len(rest) and len(current):
            found[number] = _distance(rest, current) / scale(rest, current)
    return found


def normed(before: Floats, now: Floats) -> float:
    """The normalised Wasserstein distance of two samples without missing values, in any order."""
    before, now = np.sort(before), np.sort(now)
    return _distance(before, now) / scale(before, now)


def constant(ordered: Floats) -> float | None:
    """The value that all but one in a thousand of some sorted values have; None where there is none."""
    middle = float(ordered[len(ordered) // 2])
    room = ROUNDING * abs(middle)
    first = int(np.searchsorted(ordered, middle - room, side="left"))
    last = int(np.searchsorted(ordered, middle + room, side="right"))
    return middle if last - first >= CONSTANT * len(ordered) else None


def scale(before: Floats, now: Floats) -> float:
    """What a distance is divided by: the reference's standard deviation.

    Where the reference is constant, or nearly, the largest size that it or the window has: then all rows at another value of
    that size are a distance of about 1, a few rows of them their share, and what is small beside the constant is small.

    Args:
        before, now: the reference and the window, sorted, without missing values.
    """
    same = constant(before)
    if same is not None:
        ends = np.array([before[0], before[-1], now[0], now[-1]])
        return max(abs(same), float(np.abs(ends - same).max()), SMALLEST_NORM)
    return float(np.std(before))


def unit(before: Floats, now: Floats) -> float:
    """What both sides are divided by, so that Evidently's own statistic is `normed`; 1 where it is without that."""
    own = scale(np.sort(before), np.sort(now))
    if own == max(float(np.std(before)), SMALLEST_NORM):
        return 1.0
    return own / SMALLEST_NORM if constant(np.sort(before)) is not None else own


def _distance(rest: Floats, current: Floats) -> float:
    """First Wasserstein distance of two sorted samples: the area between their distribution functions."""
    places = np.searchsorted(rest, current, side="right") + np.arange(len(current))
    from_current = np.zeros(len(rest) + len(current), dtype=bool)
    from_current[places] = True
    both = np.empty(len(from_current))
    both[places], both[~from_current] = current, rest
    seen = np.cumsum(from_current)
    gap = seen / len(current) - (np.arange(1, len(both) + 1) - seen) / len(rest)
    return float(np.dot(np.abs(gap[:-1]), np.diff(both)))


def categorical(
    codes: npt.NDArray[np.int64], categories: int, sample: Flags, windows: Sequence[Rows]
) -> Floats:
    """The Jensen-Shannon distance of each window to the sampled rows outside it.

    Args:
        codes: the column as numbers of its categories, -1 for a missing value.
        categories: how many categories there are.
        sample, windows: as for `numeric`.
    """
    found = np.full(len(windows), np.nan)
    total = _counts(codes[sample], categories)
    for number, window in enumerate(windows):
        rest = total - _counts(codes[window[sample[window]]], categories)
        current = _counts(codes[window], categories)
        if rest.sum() and current.sum():
            found[number] = divergence(rest, current)
    return found


def divergence(before: Floats, now: Floats) -> float:
    """The Jensen-Shannon distance of two sides, from how often each category is in them."""
    value = distance.jensenshannon(before / before.sum(), now / now.sum())
    # Rounding can make the divergence of equal shares a hair negative, and its root NaN.
    return 0.0 if np.isnan(value) else float(value)


def unseen(codes: npt.NDArray[np.int64], categories: int, windows: Sequence[Rows]) -> Floats:
    """The share of each window's rows whose category occurs nowhere outside the window."""
    total = _counts(codes, categories)
    found = np.zeros(len(windows))
    for number, window in enumerate(windows):
        current = _counts(codes[window], categories)
        found[number] = current[total == current].sum() / max(len(window), 1)
    return found


def alone(codes: npt.NDArray[np.int64], categories: int) -> Flags:
    """The rows that are alone in their category."""
    lone = np.append(_counts(codes, categories) == 1, False)
    return lone[codes]


def missing_rise(missing: Flags, sample: Flags, windows: Sequence[Rows]) -> Floats:
    """The share of missing values in each window less that of the sampled rows outside it."""
    found = np.zeros(len(windows))
    held, rows = int(missing[sample].sum()), int(sample.sum())
    for number, window in enumerate(windows):
        inside = window[sample[window]]
        rest = rows - len(inside)
        if len(window) and rest:
            found[number] = missing[window].mean() - (held - int(missing[inside].sum())) / rest
    return found


def _counts(codes: npt.NDArray[np.int64], categories: int) -> Floats:
    return np.bincount(codes[codes >= 0], minlength=categories).astype(np.float64)
