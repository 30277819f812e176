"""How much better a challenger is than the champion on the same rows, and how sure that is: a paired block bootstrap.

Rows of near times share weather, campaigns and mistakes, so they are not resampled one by one: consecutive pieces of
time are, with both models' predictions in them (moving blocks, Kuensch 1989, Annals of Statistics 17; in a circle,
Politis and Romano 1992, so that the first and the last rows count as often as the others).

1. The moments are put in order into at most CELLS cells of about as many rows; rows of one moment share a cell.
2. A block is so many cells long as Politis and White (2004, Econometric Reviews 23, corrected by Patton, Politis and
   White 2009) find best for the mean of each cell's influence on the improvement; at least three times the cube root of
   the number of moments, because a short holdout hides dependence, and short enough for FEWEST_BLOCKS blocks.
3. Bounds are percentiles of the resampled improvement, at levels widened for the number of blocks (the expanded
   percentile interval: Hesterberg 2015, The American Statistician 69), since few blocks vary less than the truth.

The improvement is the share by which the champion's distance from perfect became smaller. Perfect is 0 for errors and
1 for r2, roc_auc, pr_auc, accuracy and f1, so that 2 % mean the same effort at an AUC of 0.6 and of 0.98, and an r2 below zero is no
special case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, stdtrit

from evergreen.metrics import ranking, resampled
from evergreen.metrics.ranking import RANKED
from evergreen.metrics.resampled import Statistic
from evergreen.spec import METRICS
from evergreen.spec.metrics import best

RESAMPLES = 2000
CELLS = 400
FEWEST_BLOCKS = 8
# Fewer moments than this say nothing about how much moments differ.
FEWEST_CELLS = 5
# A model this near to perfect is taken for perfect, so that rounding is no improvement.
NOTHING = 1e-9
# Of these the improvement is told by the sums of the losses alone, as all else is the same for both models.
POWERS = {"rmse": 0.5, "mae": 1.0, "r2": 1.0, "log_loss": 1.0, "brier": 1.0, "pinball": 1.0}


@dataclass(frozen=True)
class Improvement:
    """The share by which the champion's distance from perfect is smaller with the challenger; below 0 is worse.

    Each of `low` and `high` is a one-sided bound at the confidence that was asked for; None where it cannot be told
    (too few moments, one class only). `spread` is the standard deviation of the resampled improvements. `blocks` is
    the number of blocks that fit into the rows.
    """

    point: float | None
    low: float | None
    high: float | None
    spread: float | None
    blocks: int
    rows: int


@dataclass(frozen=True)
class Paired:
    """What two models predicted of the same rows, and the metric by which they are compared.

    Attributes:
        metric: one of `spec.METRICS`.
        times: event times, in any integer unit; rows of one moment are never torn apart.
        y: labels, finite.
        challenger: its predictions for these rows, finite; probabilities for binary.
        champion: likewise.
        cut: `ModelSpec.cut`.
    """

    metric: str
    times: np.ndarray
    y: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray
    cut: float | None = None

    def at(self, rows: np.ndarray) -> Paired:
        """Some of the rows, by their positions or by a boolean each."""
        return replace(
            self,
            times=self.times[rows],
            y=self.y[rows],
            challenger=self.challenger[rows],
            champion=self.champion[rows],
        )


def improvement(paired: Paired, *, confidence: float, seed: int, resamples: int = RESAMPLES) -> Improvement:
    """Compare two models on the same rows; the same arguments give the same answer.

    Args:
        paired: the rows, with the predictions of both.
        confidence: of each bound alone, such as 0.95.
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: lengths differ, a value is not finite, or the metric is not known.
    """
    y, challenger, champion = paired.y, paired.challenger, paired.champion
    _check(y, paired.times, challenger, champion)
    where, moments = cells(paired.times)
    statistic, value = _statistic(paired.metric, where, y, challenger, champion, paired.cut)
    if value is None:
        return Improvement(None, None, None, None, 0, len(y))
    found = bounds(statistic, where, moments, confidence=confidence, seed=seed, resamples=resamples)
    return Improvement(value, *found, len(y))


def bounds(
    statistic: Statistic,
    where: np.ndarray,
    moments: int,
    *,
    confidence: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float | None, float | None, float | None, int]:
    """Bounds of a statistic by resampling blocks of cells.

    Args:
        statistic: of how often each cell is drawn: (resamples, cells) to (resamples,); NaN where not defined.
        where: the cell of each row, see `cells`.
        moments: how many different times the rows have.
        confidence: of each bound alone.
        seed: of the resampling.
        resamples: how many.

    Returns:
        Lower bound, upper bound, standard deviation (None where they cannot be told), and the number of blocks.
    """
    count = int(where.max()) + 1
    if count < FEWEST_CELLS:
        return None, None, None, count
    length = block_length(statistic, count, moments)
    blocks = count // length
    drawn = statistic(_weights(count, length, resamples, seed))
    # A resample without both classes has no AUC; where that is common, the rows say too little.
    known = drawn[np.isfinite(drawn)]
    if len(known) < 0.95 * resamples:
        return None, None, None, blocks
    tail = widened(1.0 - confidence, blocks)
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return float(low), float(high), float(known.std(ddof=1)), blocks


def point(
    metric: str, y: np.ndarray, challenger: np.ndarray, champion: np.ndarray, cut: float | None = None
) -> float | None:
    """The improvement alone, without its bounds; None where the metric is not defined for the rows."""
    _check(y, challenger, champion)
    return _statistic(metric, np.zeros(len(y), dtype=np.int64), y, challenger, champion, cut)[1]


def _statistic(
    metric: str,
    where: np.ndarray,
    y: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    cut: float | None,
) -> tuple[Statistic, float | None]:
    """The improvement as a function of how often each cell is drawn, and its value for the rows as they are."""
    if metric in RANKED:
        return _ranked(metric, where, y, challenger, champion)
    if metric not in POWERS:
        return _shares(metric, where, y, challenger, champion, cut)
    count = int(where.max()) + 1
    lost = [resampled.losses(metric, y, p, cut) for p in (challenger, champion)]
    sums = resampled.by_cell(where, np.stack(lost, axis=1))
    nothing = (
        NOTHING * len(y)
        if metric == "log_loss"
        else resampled.losses(metric, y, y * (1.0 - NOTHING), cut).sum()
    )
    floor = max(float(nothing), np.finfo(np.float64).tiny)
    power = POWERS[metric]

    def found(weights: np.ndarray) -> np.ndarray:
        total = np.maximum(weights @ sums, floor)
        better: np.ndarray = 1.0 - (total[:, 0] / total[:, 1]) ** power
        return better

    return found, float(found(np.ones((1, count)))[0])


def _shares(
    metric: str,
    where: np.ndarray,
    y: np.ndarray,
    challenger: np.ndarray,
    champion: np.ndarray,
    cut: float | None,
) -> tuple[Statistic, float | None]:
    """The same for metrics that are shares of something, which the models or the resamples may have more or less of."""
    if metric not in {name for names in METRICS.values() for name in names}:
        raise ValueError(
            f"{metric!r} is no metric; known: {', '.join(n for m in METRICS.values() for n in m)}"
        )
    each = [resampled.statistic(metric, where, y, p, cut) for p in (challenger, champion)]

    def found(weights: np.ndarray) -> np.ndarray:
        new, old = (
            np.maximum(np.abs(best(metric) - statistic(weights)), NOTHING) for statistic in each
        )  # NaN stays NaN
        return 1.0 - new / old

    value = float(found(np.ones((1, int(where.max()) + 1)))[0])
    return found, value if math.isfinite(value) else None


def _ranked(
    metric: str, where: np.ndarray, y: np.ndarray, challenger: np.ndarray, champion: np.ndarray
) -> tuple[Statistic, float | None]:
    positive = (y > 0.5).astype(np.float64)
    everything = np.ones((1, int(where.max()) + 1))
    tables = [ranking.table(p, positive, where) for p in (challenger, champion)]
    if positive.all() or not positive.any():
        return (lambda weights: np.full(len(weights), np.nan)), None
    one = np.zeros(len(y), dtype=np.int64)
    exact = [
        float(ranking.value(metric, *ranking.table(p, positive, one, most=len(y)), np.ones((1, 1)))[0])
        for p in (challenger, champion)
    ]

    def share(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return 1.0 - np.maximum(1.0 - new, NOTHING) / np.maximum(1.0 - old, NOTHING)

    # Groups of scores move the value a little; the resampled values are moved back by as much.
    moved = [e - float(ranking.value(metric, *t, everything)[0]) for e, t in zip(exact, tables, strict=True)]

    def found(weights: np.ndarray) -> np.ndarray:
        parts = []
        for begin in range(0, len(weights), 250):
            some = weights[begin : begin + 250]
            new, old = (ranking.value(metric, *t, some) + m for t, m in zip(tables, moved, strict=True))
            parts.append(share(new, old))
        return np.concatenate(parts)

    return found, float(share(np.array(exact[0]), np.array(exact[1])))


def cells(times: np.ndarray) -> tuple[np.ndarray, int]:
    """The cell of each row, 0 for the oldest, and the number of moments; rows of one moment share a cell."""
    _, moment, rows = np.unique(times, return_inverse=True, return_counts=True)
    middle = np.cumsum(rows) - rows / 2
    place = (middle * (min(len(rows), CELLS) / len(times))).astype(np.int64)
    return np.unique(place, return_inverse=True)[1][moment], len(rows)


def _influence(statistic: Statistic, count: int) -> np.ndarray:
    """How much each cell raises the improvement: what is lost without it."""
    whole = statistic(np.ones((1, count)))[0]
    found = whole - statistic(1.0 - np.eye(count))
    return np.where(np.isfinite(found), found, 0.0)


def block_length(statistic: Statistic, count: int, moments: int) -> int:
    """Cells of a block: Politis and White's choice within the bounds that the module's text gives.

    Args:
        statistic: see `bounds`.
        count: cells.
        moments: how many different times the rows have.
    """
    series = _influence(statistic, count)
    least: int = math.ceil(3 * moments ** (1 / 3) * count / moments)
    return max(1, min(max(least, math.ceil(_politis_white(series))), count // FEWEST_BLOCKS))


def _politis_white(series: np.ndarray) -> float:
    """Their length for the circular block bootstrap; 1 for a constant series."""
    count = len(series)
    centred = series - series.mean()
    longest = min(math.ceil(math.sqrt(count)) + 5, count - 1)
    run = max(5, math.ceil(math.sqrt(math.log10(count))))
    covariances = np.array([centred[k:] @ centred[: count - k] for k in range(longest + 1)]) / count
    if covariances[0] <= 0:
        return 1.0
    small = np.abs(covariances[1:] / covariances[0]) < 2 * math.sqrt(math.log10(count) / count)
    # The first lag after which a run of correlations is small.
    lag = next((k for k in range(len(small)) if small[k : k + run].all()), len(small))
    lags = np.arange(1, min(2 * max(lag, 1), longest) + 1)
    window = np.clip(2 * (1 - lags / (lags[-1] + 1e-12)), 0, 1)
    variance = covariances[0] + 2 * (window * covariances[lags]).sum()
    bend = 2 * (window * lags * covariances[lags]).sum()
    if variance <= 0:
        return float(longest)
    return float((2 * bend**2 / (4 / 3 * variance**2)) ** (1 / 3) * count ** (1 / 3))


def _weights(count: int, length: int, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each cell: blocks from random places of a circle, as many as fill it."""
    rng = np.random.default_rng(seed)
    blocks = -(-count // length)
    starts = rng.integers(0, count, (resamples, blocks)) + np.arange(resamples)[:, None] * count
    begun = np.bincount(starts.ravel(), minlength=resamples * count).reshape(resamples, count)
    running = np.cumsum(np.concatenate([begun[:, count - length :], begun], axis=1), axis=1)
    drawn: np.ndarray = (running[:, length:] - running[:, :count]).astype(np.float64)
    return drawn


def widened(tail: float, blocks: int) -> float:
    """The level of a percentile that leaves `tail` outside, with so few blocks."""
    return float(ndtr(math.sqrt(blocks / (blocks - 1)) * stdtrit(blocks - 1, tail)))


def _check(y: np.ndarray, *others: np.ndarray) -> None:
    if not len(y) or any(len(values) != len(y) for values in others):
        raise ValueError(f"{len(y)} labels with {', '.join(str(len(v)) for v in others)} values beside them")
    for values in (y, *others):
        if not np.isfinite(values).all():
            raise ValueError("a value is not finite")
