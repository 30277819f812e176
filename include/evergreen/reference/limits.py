"""From where on a statistic counts, so that a check of an unchanged window alarms with the chance that the spec states.

A check is one window with all its columns and statistics; they share one budget of false alarms. Each statistic is
brought to a scale on which it is near normal: a drift distance by its root (the fourth root of a chi-squared value:
Hawkins and Wixley 1986, The American Statistician 40, 296), a share by the arcsine of its root. Two limits come from there:

- *chance*: the normal quantile of resamples of the judged window's size (`noise.py`);
- *the past*: the limit that the next value keeps to after K past windows, mean + t sd √(1 + 1/K) with Student's t (Hahn
  and Meeker 1991, Statistical Intervals, 4.7), and never below what a past window showed. Few windows tell little of a
  column's spread, so the columns' variances are moderated by each other (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3, 3).

The chance that a column's quantile leaves is its weight times a level that all columns share. The level is learnt from
the smallest weighted p-value of each resample or past window, so columns that move together pay once (the idea of
Westfall and Young 1993). For K past windows those are taken for exponential and the level is exact for that:
((1 - rate)^(-1/K) - 1) times their sum. Of the many resamples, only the smallest twentieth is: so a tail that is not
normal shows.

A window of another size than the past ones has its own chance, and the movement that the past showed beyond chance: the
squares add. With fewer rows than usual the movement is taken for chance that lasts, and grows as chance does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import digamma, polygamma

from evergreen.reference.profile import DRIFT, ColumnProfile, restored, transformed
from evergreen.spec import Drift

# The part of the budget that all features share equally; the rest goes by their share of the champion's gain.
EQUAL = 0.2
# Without past windows nothing is known of what lasts longer than a row: the limits are this much wider.
RESAMPLED_WIDENING = 1.5
# The smallest p-values from this share of the resamples say how the tail is.
TAIL = 0.05
LEAST_SPREAD = 1e-6
MOST_PRIOR = 30.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StatisticsFamily:
    """What all statistics of a reference have in common.

    Attributes:
        sizes: rows of the resampled windows, ascending.
        smallest: for each size the smallest weighted p-value of each resample, ascending.
        window_rows: usual number of rows of a past window's sample.
        basis: see `past_windows.PastWindows`.
    """

    sizes: tuple[int, ...]
    smallest: tuple[tuple[float, ...], ...]
    window_rows: float
    basis: str


def weights(gains: Mapping[str, float | None]) -> dict[str, float]:
    """How many equal shares of the budget each feature gets: 1 on average, never less than `EQUAL`.

    Args:
        gains: each feature's share of the champion's gain; None where it is not known, then all are equal.
    """
    known = [g or 0.0 for g in gains.values()]
    if any(g is None for g in gains.values()) or sum(known) <= 0:
        return dict.fromkeys(gains, 1.0)
    shares = {name: gain / sum(known) for name, gain in zip(gains, known, strict=True)}
    return {name: EQUAL + (1 - EQUAL) * len(gains) * share for name, share in shares.items()}


def weights_of(columns: Mapping[str, ColumnProfile]) -> dict[str, float]:
    """The weights of a reference's features; predictions and labels are missing in it, theirs is 1."""
    return weights({c.name: c.gain for c in columns.values() if c.role == "feature"})


def limits(
    columns: Mapping[str, ColumnProfile], family: StatisticsFamily, drift: Drift, rows: int
) -> dict[tuple[str, str], float]:
    """The limit of each statistic of each column for a window of so many measured rows.

    Args:
        columns: the reference's profiles.
        family: what they have in common.
        drift: the rate of false alarms and the smallest effects that count.
        rows: of the judged window's sample.

    Returns:
        By column and kind of statistic (`drift`, `missing`, `unseen`).
    """
    weighted = weights_of(columns)
    # The label is shown only: it gets a limit, and takes nothing of the budget.
    asked = [(c, kind) for c in columns.values() for kind in c.learnt]
    weight = np.array([weighted.get(c.name, 1.0) for c, _ in asked])
    judged = np.array([c.role != "label" for c, _ in asked])
    with np.errstate(invalid="ignore"):  # an endless quantile of a column that does not move
        now, usual = (
            _chance(asked, weight, family, drift.false_alarms, n) for n in (rows, family.window_rows)
        )
    past = _past(asked, weight, judged, family, drift.false_alarms)
    lasting = np.maximum(past**2 - usual**2, 0) * max(1.0, family.window_rows / max(rows, 1))
    value = np.sqrt(now**2 + lasting) * (RESAMPLED_WIDENING if family.basis == "resampled" else 1.0)
    # What no limit can be learnt for alarms from the smallest effect on; an endless limit would never alarm.
    found = {(c.name, kind): float(v) for (c, kind), v in zip(asked, value, strict=True) if np.isfinite(v)}
    return {
        (c.name, kind): max(floor(c, kind, drift), found.get((c.name, kind), 0.0))
        for c in columns.values()
        for kind in c.kinds
    }


def floor(column: ColumnProfile, kind: str, drift: Drift) -> float:
    """The smallest effect that counts. To a model an unknown category is as good as a missing value."""
    if kind != DRIFT:
        return drift.missing
    return drift.numeric if column.numeric else drift.categorical


def p_values(values: Floats, weight: float) -> Floats:
    """The weighted p-values of one statistic's resamples, against all of them; 1 where the statistic does not move.

    Args:
        values: transformed, by size and resample.
        weight: of the column.
    """
    mean, spread = values.mean(axis=1, keepdims=True), values.std(axis=1, keepdims=True)
    moves = np.isfinite(spread) & (spread > LEAST_SPREAD)
    p = stats.norm.sf((values - mean) / np.where(moves, spread, 1.0)) / weight
    return np.where(moves, p, 1.0)


def _chance(
    asked: Sequence[tuple[ColumnProfile, str]],
    weight: Floats,
    family: StatisticsFamily,
    rate: float,
    rows: float,
) -> Floats:
    """The limits by chance alone at a number of rows: between the sizes on a straight line of the logarithms."""
    at = np.empty((len(family.sizes), len(asked)))
    for number, least in enumerate(family.smallest):
        first = max(1, int(np.ceil(max(TAIL, rate) * len(least))))
        # As if two standard deviations more of them had been so small: the luck of the draws does not raise the rate.
        level = rate * len(least) * least[first - 1] / (first + 2 * np.sqrt(first))
        z = stats.norm.isf(np.minimum(level * weight, 0.5))
        for place, (column, kind) in enumerate(asked):
            learnt = column.learnt[kind]
            at[number, place] = restored(
                kind, learnt.mean[number] + z[place] * learnt.spread[number], column.missing
            )
    logs, wanted = np.log(family.sizes), np.log(max(rows, 1))
    tiny = np.log(np.maximum(at, 1e-12))
    found = np.exp([np.interp(wanted, logs, tiny[:, place]) for place in range(len(asked))])
    # Fewer rows than the smallest size: chance goes with the root of their number.
    scaled: Floats = found * np.sqrt(max(1.0, family.sizes[0] / max(rows, 1)))
    return scaled


def _past(
    asked: Sequence[tuple[ColumnProfile, str]],
    weight: Floats,
    judged: npt.NDArray[np.bool_],
    family: StatisticsFamily,
    rate: float,
) -> Floats:
    """The limits that the past windows set, at their number of rows; 0 for a statistic without two of them."""
    seen = np.array([[np.nan if v is None else v for v in c.learnt[kind].past] for c, kind in asked]).T
    values = np.full(seen.shape, np.nan)
    for place, (column, kind) in enumerate(asked):
        values[:, place] = transformed(kind, seen[:, place], column.missing)
    count = np.isfinite(values).sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(count, 1)
    squares = np.nansum((values - mean) ** 2, axis=0)
    moves = (count >= 3) & (squares > LEAST_SPREAD**2)
    largest: Floats = np.maximum(np.max(np.where(np.isfinite(seen), seen, 0.0), axis=0, initial=0.0), 0.0)
    if not moves.any():
        return largest
    # Columns are alike in how much more than by chance they move, not in how much they move.
    at = np.interp(np.log(family.window_rows), np.log(family.sizes), np.arange(len(family.sizes)))
    unit = np.array([np.interp(at, np.arange(len(family.sizes)), c.learnt[kind].spread) for c, kind in asked])
    alike = moves & (unit > LEAST_SPREAD)
    prior, common = np.zeros(len(asked)), np.zeros(len(asked))
    prior[alike], common[alike] = _prior(
        squares[alike] / (count - 1)[alike] / unit[alike] ** 2, (count - 1)[alike]
    )
    common = common * unit**2
    level = _level(_Spread(values, mean, squares, count, prior, common), moves & judged, weight, rate)
    free = np.where(moves, prior + count - 1, 1.0)
    spread = np.sqrt((prior * common + squares) / free * (1 + 1 / np.maximum(count, 1)))
    wanted = mean + spread * stats.t.isf(np.minimum(level * weight, 0.5), free)
    back = [restored(kind, wanted[place], column.missing) for place, (column, kind) in enumerate(asked)]
    held: Floats = np.where(moves, np.maximum(back, largest), largest)
    return held


@dataclass(frozen=True)
class _Spread:
    """What the past windows show of each statistic, on its scale; an item a statistic.

    `values` has a row a window, NaN where it was not measured; `squares` are the sums of squares about the `mean` of the
    `count` that were. The other columns' variances, `common`, are worth `prior` degrees of freedom.
    """

    values: Floats
    mean: Floats
    squares: Floats
    count: npt.NDArray[np.int_]
    prior: Floats
    common: Floats


def _level(past: _Spread, used: npt.NDArray[np.bool_], weight: Floats, rate: float) -> float:
    """The chance for a column of weight 1, from each past window's smallest weighted p-value among the others."""
    if not used.any():
        return rate
    y, k = past.values[:, used], past.count[used]
    mean, prior = past.mean[used], past.prior[used]
    without = (k * mean - y) / (k - 1)
    rest = np.maximum(past.squares[used] - (y - mean) ** 2 * k / (k - 1), 0)
    free = prior + k - 2
    spread = np.sqrt((prior * past.common[used] + rest) / free * (1 + 1 / (k - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.t.sf((y - without) / spread, free) / weight[used]
    least = np.minimum(np.where(np.isfinite(p), p, 1.0).min(axis=1), 1.0)
    return float(((1 - rate) ** (-1 / len(least)) - 1) * least.sum())


def _prior(variances: Floats, free: npt.NDArray[np.int_]) -> tuple[float, float]:
    """How many degrees of freedom the other columns' variances are worth for each, and their common variance.

    Smyth's moments of the logarithms: what they scatter beyond what their degrees of freedom explain is difference
    between columns. Fewer than three columns tell nothing of each other.
    """
    if len(variances) < 3:
        return 0.0, 1.0
    half = free / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    beyond = float(np.var(logs, ddof=1) - np.mean(polygamma(1, half)))
    worth = np.arange(0.5, MOST_PRIOR + 0.5, 0.5)
    prior = float(worth[np.argmin(np.abs(polygamma(1, worth / 2) - beyond))])
    return prior, float(np.exp(np.mean(logs) + digamma(prior / 2) - np.log(prior / 2)))
