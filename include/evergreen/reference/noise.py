"""By how much each statistic moves by chance alone: resamples of the reference, the same rows for every column.

A resample is a window and a reference, both drawn with replacement from rows of the reference's sample, so that it
holds the chance of both sides. All columns see the same draws: what columns have in common shows in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

from evergreen.reference.drift_statistics import Floats, constant, scale
from evergreen.reference.past_windows import Rows

RESAMPLES = 400
# So many rows stand for the sample: the shape of a column shows in them, and a resample costs as many steps.
ATOMS = 2000
SMALLEST, STEPS = 100, 4

Counts = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Resamples:
    """How often each of some rows was drawn, a column a resample.

    Attributes:
        rows: positions of the rows that are drawn from.
        sizes: of the windows, ascending.
        reference: draws of the reference, by row and resample.
        windows: draws of the window, the same for each size.
    """

    rows: Rows
    sizes: tuple[int, ...]
    reference: Counts
    windows: tuple[Counts, ...]

    @classmethod
    def draw(
        cls,
        sample: Rows,
        usual_rows: float,
        most_rows: int,
        seed: int,
        sizes: tuple[int, ...] | None = None,
    ) -> Resamples:
        """Draw for sizes from 100 rows (or half the usual number, if that is fewer) to the largest sample.

        Args:
            sample: positions of the reference's sample, in time order.
            usual_rows: of a window's sample.
            most_rows: of any window's sample.
            seed: the same seed gives the same draws.
            sizes: other sizes than those.
        """
        rng = np.random.default_rng(seed)
        chosen = np.linspace(0, len(sample) - 1, min(ATOMS, len(sample))).astype(np.intp)
        if sizes is None:
            smallest = max(10, min(SMALLEST, int(usual_rows / 2), most_rows))
            grid = np.geomspace(smallest, max(most_rows, smallest), STEPS).round()
            sizes = tuple(int(n) for n in np.unique(grid))

        def counts(draws: int) -> Counts:
            drawn = rng.multinomial(draws, np.full(len(chosen), 1 / len(chosen)), RESAMPLES)
            return np.ascontiguousarray(drawn.T, dtype=np.float32)

        return cls(sample[chosen], sizes, counts(len(sample)), tuple(counts(n) for n in sizes))

    def numeric(self, values: Floats) -> Floats:
        """The normalised Wasserstein distance by size and resample; NaN where a side has no value.

        Args:
            values: the column's values in `rows`; missing ones are not finite.
        """
        present = np.flatnonzero(np.isfinite(values))
        order = present[np.argsort(values[present], kind="stable")]
        ordered = values[order]
        if not len(order):
            return np.full((len(self.sizes), RESAMPLES), np.nan)
        # Half the digits, in units of the column's range: twice as fast, and its counts stay exact.
        steps = np.diff(ordered)
        unit = float(steps.sum()) or 1.0
        lengths = (steps / unit).astype(np.float32)
        found = np.empty((len(self.sizes), RESAMPLES))
        with np.errstate(invalid="ignore"):
            before, norm = _shares_below(self.reference[order]), self._deviation(order, ordered)
            for number, drawn in enumerate(self.windows):
                gap = _shares_below(drawn[order])
                gap -= before
                found[number] = lengths @ np.abs(gap, out=gap)[:-1] * unit / norm
        return found

    def categorical(self, codes: npt.NDArray[np.int64]) -> Floats:
        """The Jensen-Shannon distance by size and resample; NaN where a side has no value.

        Args:
            codes: the column's categories in `rows` as numbers, -1 for a missing value.
        """
        present = np.flatnonzero(codes >= 0)
        order = present[np.argsort(codes[present], kind="stable")]
        if not len(order):
            return np.full((len(self.sizes), RESAMPLES), np.nan)
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        with np.errstate(invalid="ignore"):
            before = _normed(np.add.reduceat(self.reference[order], starts, axis=0))
            return np.array([
                _divergence(_normed(np.add.reduceat(drawn[order], starts, axis=0)), before) for drawn in self.windows
            ])  # fmt: skip

    def share(self, flags: Flags) -> Floats:
        """The share of flagged rows in each window, by size and resample."""
        return np.array([
            drawn[flags].sum(0) / size for drawn, size in zip(self.windows, self.sizes, strict=True)
        ], dtype=np.float64)  # fmt: skip

    def rise(self, flags: Flags) -> Floats:
        """The share of flagged rows in each window less that in its reference, by size and resample."""
        before: Floats = self.reference[flags].sum(0) / self.reference.sum(0)
        return self.share(flags) - before

    def _deviation(self, order: Rows, values: Floats) -> Floats:
        drawn = self.reference[order]
        rows = np.maximum(drawn.sum(0), 1)
        centred = values - values.mean()
        one, two = centred @ drawn / rows, centred**2 @ drawn / rows
        if constant(values) is not None:
            return np.full(drawn.shape[1], scale(values, values))
        variance = two - one**2
        # Of a draw in which all values are the same nothing can be told; it has no part in what chance does.
        return np.where(variance > 0, np.sqrt(np.maximum(variance, 0)), np.inf)


def _shares_below(drawn: Counts) -> Counts:
    below = np.cumsum(drawn, axis=0)
    below /= below[-1].copy()
    return below


def _normed(counts: Counts) -> Floats:
    shares: Floats = counts / counts.sum(0, dtype=np.float64)
    return shares


def _divergence(now: Floats, before: Floats) -> Floats:
    middle = (now + before) / 2
    distance: Floats = np.sqrt(np.maximum((rel_entr(now, middle) + rel_entr(before, middle)).sum(0) / 2, 0))
    return distance
