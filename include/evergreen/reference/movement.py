"""By how much a champion's error moves between windows where nothing has changed, and the limit that follows from it.

Everything is told of the logarithm of the metric's distance from perfect (an error itself; 1 less an area under the curve
r2, accuracy or f1), because errors move by factors. Only predictions of rows that the predicting model had not learnt count. The limit is
the larger of two:

- *chance*: windows are resampled from the holdout as blocks of consecutive time (`training.compare` names the sources),
  as long in time as a window, and as many rows of them as the judged window has. The holdout is one draw too: its own
  chance is added, by squares.
- *the past*: some weeks are harder than others, and the holdout may have been an easy one. Small fits that had not learnt
  them (`training.outside`) predict past windows and the holdout; how much harder than the holdout the windows were has a
  mean and a spread, and the next window keeps to mean + t sd √(1 + 1/K) (Hahn and Meeker 1991, Statistical
  Intervals, 4.7). What chance explains of the spread is taken off, and chance in the judged window's rows put back.

Chance has as many degrees of freedom as the holdout has blocks: its quantiles are Student's, too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from evergreen.metrics import paired_bootstrap, ranking, resampled
from evergreen.reference.calendar import ANCHOR
from evergreen.reference.past_windows import LEAST_WINDOWS
from evergreen.spec import LARGER_IS_BETTER

RESAMPLES = 1000
SMALLEST, STEPS = 100, 4
# Past windows of fewer rows say more of chance than of movement.
LEAST_ROWS = 20
# A window may be lucky without end; only so much of it counts as movement.
LUCK = 0.2
TAIL = 0.01
# What is learnt from some windows of a skewed error has heavier tails than this model. Of unchanged windows of the bike data
# (60 champions, 10 windows each) 1.3 to 3.2 % were beyond what one in a hundred should be, and 0.7 to 0.8 % are beyond quantiles
# that are larger by this: `benchmarks.decisions_error`, rmse and log loss, 100 and 1,000 rows, with and without a season.
CAUTION = 1.2
NOTHING = 1e-12
FAR = np.iinfo(np.int64).min

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outside:
    """Rows in time order with predictions of models that had not learnt them; labels and predictions are finite."""

    times: Ints
    y: Floats
    p: Floats

    @classmethod
    def of(cls, times: Ints, y: Floats, p: Floats) -> Outside:
        """Those of some rows whose label and prediction are known."""
        known = np.isfinite(y) & np.isfinite(p)
        return cls(times[known], y[known], p[known])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Movement:
    """How the watched metric's distance from perfect moves, in logarithms.

    Attributes:
        metric: which one.
        blocks: how many independent pieces of time the holdout is worth; 0 where nothing could be learnt.
        sizes: rows of the resampled windows, ascending.
        shift: median of the resampled windows less the holdout, by size.
        spread: the standard deviation of their upper tail, by size.
        holdout: standard deviation of the holdout's own value.
        windows: past windows, the holdout's among them; 0 where they are too few.
        harder: by how much they were harder than the holdout on average.
        between: their variance.
        between_chance: how much of it chance explains.
        zero: chance in what they are compared with, the holdout's rows in the reference's sample (a variance).
    """

    metric: str
    blocks: int = 0
    sizes: tuple[int, ...] = ()
    shift: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    holdout: float = 0.0
    windows: int = 0
    harder: float = 0.0
    between: float = 0.0
    between_chance: float = 0.0
    zero: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Movement:
        """The reverse of `to_dict`."""
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in told.items()}
        return cls(**plain)

    def factor(self, rate: float, rows: int) -> float:
        """By what an unchanged window's distance from perfect exceeds the holdout's with at most this probability, at least 1.

        Args:
            rate: of false alarms.
            rows: of the window that have a label and a prediction.
        """
        if self.blocks < 2:
            return 1.0
        quantile = CAUTION * _quantile(rate, self.blocks)
        here = (quantile * self._spread(rows)) ** 2
        shift = float(np.interp(np.log(max(rows, 1)), np.log(self.sizes), self.shift))
        away = shift + math.sqrt(here + (quantile * self.holdout) ** 2)
        if self.windows >= LEAST_WINDOWS:
            away_from_mean = CAUTION * float(stats.t.isf(rate, self.windows - 1))
            moved = away_from_mean**2 * self.between * (1 + 1 / self.windows)
            lasting = max(moved - quantile**2 * self.between_chance, 0.0)
            away = max(away, self.harder + math.sqrt(here + quantile**2 * self.zero + lasting))
        return max(math.exp(away), 1.0)

    def _of_rows(self, rows: int) -> float:
        """The variance that chance gives to the holdout's value in so many rows of it.

        Fewer rows than a window's are as uncertain as a window of so many; more are between that and the whole holdout. Chance
        does not shrink with the rows alone: rows of a week share the week.
        """
        return max(self.holdout, self._spread(rows) if rows < self.sizes[-1] else 0.0) ** 2

    def _spread(self, rows: float) -> float:
        # Fewer rows than the smallest size: chance goes with the root of their number.
        fewer = math.sqrt(max(1.0, self.sizes[0] / max(rows, 1)))
        return fewer * float(np.interp(np.log(max(rows, 1)), np.log(self.sizes), self.spread))


def learn(
    metric: str,
    holdout: Outside,
    past: Outside,
    window: float,
    window_rows: float,
    seed: int,
    cut: float | None = None,
) -> Movement:
    """Learn how a metric moves.

    Args:
        metric: one of `spec.METRICS`.
        holdout: the rows whose metric windows are compared with.
        past: a sample of all rows, the holdout's among them.
        window: length of a window in microseconds.
        window_rows: usual number of rows in a window's sample.
        seed: the same seed gives the same answer.
        cut: `ModelSpec.cut`.
    """
    if len(np.unique(holdout.times)) < paired_bootstrap.FEWEST_CELLS:
        return Movement(metric)
    where, moments = paired_bootstrap.cells(holdout.times)
    count = int(where.max()) + 1
    value = resampled.statistic(metric, where, holdout.y, holdout.p, cut)

    def logs(weights: Floats) -> Floats:
        return _logs(metric, value(weights))

    (whole,) = logs(np.ones((1, count)))
    if not np.isfinite(whole) or whole <= math.log(NOTHING):
        return Movement(metric)
    _, _, own, blocks = paired_bootstrap.bounds(logs, where, moments, confidence=1 - TAIL, seed=seed)
    if own is None or blocks < 2:
        return Movement(metric)
    length = paired_bootstrap.block_length(logs, count, moments)
    span = float(holdout.times[-1] - holdout.times[0]) * moments / (moments - 1)
    cells = max(1, round(count * window / span))
    largest = max(int(window_rows), 10)
    whole_windows = _windows(past, window)
    usual = float(np.median([b - a for a, b in whole_windows])) if whole_windows else float(largest)
    # What chance explains of the past windows is asked at their own number of rows.
    smallest = max(10, min(SMALLEST, largest // 2, int(usual)))
    sizes = tuple(int(n) for n in np.unique(np.geomspace(smallest, largest, STEPS).round()))
    drawn = _drawn(metric, holdout, where, _blocks(length, cells, count), sizes, seed, cut)
    with np.errstate(invalid="ignore"):
        middle, upper = np.nanquantile(drawn, [0.5, 1 - TAIL], axis=1)
    if not np.isfinite(upper).all():
        return Movement(metric)
    spread = (upper - middle) / stats.norm.isf(TAIL)
    learnt = Movement(metric, blocks, sizes, _short(middle - whole), _short(spread), float(f"{own:.6g}"))
    chance = float(np.interp(np.log(usual), np.log(sizes), np.nanvar(drawn, axis=1)))
    return _with_past(learnt, past, int(holdout.times[0]), whole_windows, chance, cut)


def _blocks(length: int, cells: int, count: int) -> list[int]:
    """How many cells each block of a window has that is so many cells long; `count` is how many cells there are."""
    length = min(length, cells, count)
    return [length] * (cells // length) + ([cells % length] if cells % length else [])


def _drawn(
    metric: str,
    rows: Outside,
    where: Ints,
    lengths: list[int],
    sizes: tuple[int, ...],
    seed: int,
    cut: float | None,
) -> Floats:
    """The logarithm by size and resample; a window is blocks of so many cells."""
    rng = np.random.default_rng(seed)
    count = int(where.max()) + 1
    # Twice around, so that a block that begins at the end goes on at the beginning.
    edges = np.searchsorted(where, np.arange(count + 1))
    order = np.concatenate([np.arange(len(rows))] * 2)
    edges = np.concatenate([edges[:-1], edges + len(rows)])
    group = np.unique(-rows.p, return_inverse=True)[1] if metric in ranking.RANKED else None
    if group is not None and group.max() >= ranking.GROUPS:
        group = group * ranking.GROUPS // (int(group.max()) + 1)
    each = None if group is not None else resampled.parts(metric, rows.y, rows.p, cut)
    found = np.full((len(sizes), RESAMPLES), np.nan)
    for number in range(RESAMPLES):
        starts = rng.integers(0, count, len(lengths))
        parts = [order[edges[a] : edges[a + n]] for a, n in zip(starts, lengths, strict=True)]
        window = np.concatenate(parts)
        for place in range(len(sizes) - 1, -1, -1):
            # A smaller window is a part of the larger one, as a sample is.
            if len(window) > sizes[place]:
                window = rng.choice(window, sizes[place], replace=False, shuffle=False)
            found[place, number] = _value(metric, rows.y[window], window, each, group)
    return _logs(metric, found)


def _value(metric: str, y: Floats, rows: Ints, each: Floats | None, group: Ints | None) -> float:
    if group is not None:
        up, down = (np.bincount(group[rows], v)[:, None] for v in (y, 1.0 - y))
        return float(ranking.of_counts(metric, up, down)[0])
    assert each is not None
    return float(resampled.of_sums(metric, each[rows].sum(axis=0)))


def _windows(past: Outside, window: float) -> list[tuple[int, int]]:
    """Where each past window of enough rows begins and ends."""
    number = (past.times - int(ANCHOR.timestamp() * 1e6)) // int(window)
    edges = np.flatnonzero(np.diff(number, prepend=FAR, append=FAR))
    return [(int(a), int(b)) for a, b in pairwise(edges) if b - a >= LEAST_ROWS]


def _with_past(
    learnt: Movement,
    past: Outside,
    begin: int,
    windows: list[tuple[int, int]],
    chance: float,
    cut: float | None,
) -> Movement:
    """The movement with what past windows show beside the holdout, which began at a moment.

    `chance` is the variance that chance gives to windows of their rows.
    """
    held = past.times >= begin
    if held.sum() < LEAST_ROWS or held.all():
        return learnt
    zero = _log(learnt.metric, past.y[held], past.p[held], cut)
    found = np.array([_log(learnt.metric, past.y[a:b], past.p[a:b], cut) for a, b in windows])
    known = np.isfinite(found)
    if known.sum() < LEAST_WINDOWS or not np.isfinite(zero):
        return learnt
    found = np.maximum(found[known], np.median(found[known]) + math.log(LUCK)) - zero
    return replace(
        learnt,
        windows=len(found),
        harder=float(f"{found.mean():.6g}"),
        between=float(f"{found.var(ddof=1):.6g}"),
        between_chance=float(f"{chance:.6g}"),
        zero=float(f"{learnt._of_rows(int(held.sum())):.6g}"),
    )


def _log(metric: str, y: Floats, p: Floats, cut: float | None) -> float:
    return float(_logs(metric, np.array([resampled.value(metric, y, p, cut)]))[0])


def _logs(metric: str, values: Floats) -> Floats:
    away = 1.0 - values if metric in LARGER_IS_BETTER else values
    return np.asarray(np.log(np.maximum(away, NOTHING)))


def _quantile(rate: float, blocks: int) -> float:
    """Of a normal value whose deviation is known from so few blocks."""
    return math.sqrt(blocks / (blocks - 1)) * float(stats.t.isf(rate, blocks - 1))


def _short(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{v:.6g}") for v in values)
