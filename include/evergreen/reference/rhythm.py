"""When rows usually come: how many in a window of each place in the week, and how long the feed is usually silent.

A shop that is open from nine to five has no row at night, a feed may rest on Sundays, and a season may pause for months. So
what is usual is learnt for each place in the week (or in the day, where the history is short), of the newest windows of
that place. A silence as long as the cycle is a pause: its windows tell nothing of what is usual when rows come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from evergreen.microseconds import in_micros
from evergreen.reference.calendar import ANCHOR, Window, index_of

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
WEEK_US = 7 * DAY_US
WEEK_HOURS = 168
# So many newest windows of a place say how many rows are usual: a feed that grows is measured by what it is now.
NEWEST = 12
# So many say how often it is empty, and how long the feed is silent: a year, because local hours move with summer time.
LOOKED_AT = 52
LEAST_CYCLES = 3
# More places than windows of five minutes have in a week are not told apart.
MOST_PLACES = 2016
# A sample with fewer rows a window does not tell which windows were empty.
DENSE = 10
# The silence of nine in ten weeks: one holiday in ten weeks is no rule.
USUAL_SILENCE = 0.9

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rhythm:
    """What is usual of a feed.

    Attributes:
        usual: rows of a window by its place in the cycle; a window's place is its number modulo their count.
        empty: share of the past windows of a place that had no row at all.
        silence: by hour of the week (from Monday 00:00 UTC), how many hours old the newest row usually is at its beginning.
    """

    usual: tuple[float, ...]
    empty: tuple[float, ...]
    silence: tuple[float, ...] = ()

    def at(self, window: Window) -> tuple[float, float]:
        """The usual number of rows of a window, and how often windows of its place were empty (0 to 1)."""
        place = index_of(window.start, window.end - window.start) % len(self.usual)
        return self.usual[place], self.empty[place]

    @property
    def largest(self) -> float:
        """The usual number of rows in the place that has most."""
        return max(self.usual)

    def newest_at(self, time: datetime) -> datetime:
        """Of when the newest row usually is at a time: the beginning of its hour, less the usual silence."""
        hours = (time - ANCHOR) // timedelta(hours=1)
        silent = self.silence[hours % WEEK_HOURS] if self.silence else 0.0
        return ANCHOR + timedelta(hours=hours - silent)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Rhythm:
        """The reverse of `to_dict`."""
        return cls(**{name: tuple(map(float, values)) for name, values in told.items()})


def learn(times: Ints, length: timedelta, numbers: Ints, counts: Ints, scale: float = 1.0) -> Rhythm:
    """Learn what is usual.

    Args:
        times: event times in microseconds since 1970, ascending; at least one.
        length: of a window.
        numbers: of the whole windows that have rows, ascending.
        counts: their rows.
        scale: how many rows each of the rows stands for, where they are a sample.
    """
    silence = _silence(times)
    if not len(numbers):
        return Rhythm((_rate(times, length) * scale,), (0.0,), silence)
    pooled = float(np.median(counts[-NEWEST:])) * scale
    if scale > 1 and np.median(counts) < DENSE:
        return Rhythm((pooled,), (0.0,), silence)
    for places in _cycles(length):
        found, rows = _dense(numbers, counts, places)
        if len(found) < LEAST_CYCLES * places:
            continue
        usual, empty = [], []
        for place in range(places):
            here = rows[found % places == place]
            few = len(here) < LEAST_CYCLES
            usual.append(pooled if few else float(np.median(here[-NEWEST:])) * scale)
            empty.append(0.0 if few else round(float(np.mean(here == 0)), 4))
        return Rhythm(tuple(usual), tuple(empty), silence)
    return Rhythm((pooled,), (0.0,), silence)


def whole_windows(ordered: Ints, length: timedelta, edge: float) -> tuple[Ints, Ints, Ints]:
    """The windows that have rows: their numbers, and where in the rows each begins and ends.

    The two at the ends count only if the rows reach to their far side, but for the share `edge` of a window. Empty windows are
    not listed: one row of the year 1 would make a million of them.

    Args:
        ordered: event times in microseconds since 1970, ascending; at least one.
        length: of a window.
        edge: see above.
    """
    step = in_micros(length)
    since = ordered - int(ANCHOR.timestamp() * 1e6)
    numbers, begins = np.unique(since // step, return_index=True)
    ends = np.append(begins[1:], len(ordered))
    keep = np.ones(len(numbers), dtype=bool)
    if since[0] - numbers[0] * step > edge * step:
        keep[0] = False
    if (numbers[-1] + 1) * step - since[-1] > edge * step:
        keep[-1] = False
    return numbers[keep], begins[keep], ends[keep]


def _cycles(length: timedelta) -> Iterator[int]:
    """How many windows a cycle has: a week's (or what of weeks is whole windows), then a day's."""
    step = in_micros(length)
    for cycle in (math.lcm(step, WEEK_US), DAY_US if DAY_US % step == 0 else step):
        if 1 <= cycle // step <= MOST_PLACES:
            yield cycle // step


def _dense(numbers: Ints, counts: Ints, places: int) -> tuple[Ints, Ints]:
    """The newest windows with their rows, empty ones among them; those of a pause are left out."""
    gaps = np.diff(numbers, prepend=numbers[0] - 1) - 1
    gaps[gaps >= places] = 0
    wanted = np.cumsum((gaps + 1)[::-1])[::-1] <= LOOKED_AT * places
    wanted[-1] = True
    numbers, counts, gaps = numbers[wanted], counts[wanted], gaps[wanted]
    found = np.concatenate([np.arange(n - gap, n + 1) for n, gap in zip(numbers, gaps, strict=True)])
    rows = np.zeros(len(found), dtype=np.int64)
    rows[np.cumsum(gaps + 1) - 1] = counts
    return found, rows


def _silence(times: Ints) -> tuple[float, ...]:
    since = times - int(ANCHOR.timestamp() * 1e6)
    weeks = np.unique(since // WEEK_US)[-LOOKED_AT:]
    grid = weeks[:, None] * WEEK_US + np.arange(WEEK_HOURS) * HOUR_US
    before = np.searchsorted(since, grid, "right") - 1
    age = (grid - since[np.maximum(before, 0)]) / HOUR_US
    # After the last row nothing is known, before the first neither, and a silence of a week is a pause.
    age[(before < 0) | (grid > since[-1]) | (age >= WEEK_HOURS)] = np.nan
    silent = np.zeros(WEEK_HOURS)
    known = np.isfinite(age).sum(axis=0) >= LEAST_CYCLES
    if known.any():
        silent[known] = np.nanquantile(age[:, known], USUAL_SILENCE, axis=0)
    return tuple(round(float(hours), 3) for hours in silent)


def _rate(times: Ints, length: timedelta) -> float:
    span = float(times[-1] - times[0])
    if len(times) < 2 or span <= 0:
        return float(len(times))
    return (len(times) - 1) / span * (length / timedelta(microseconds=1))
