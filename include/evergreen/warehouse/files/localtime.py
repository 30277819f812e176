"""From the clock on the wall to UTC, many times at once, by Python's own time zones.

In autumn the clock shows an hour twice, in spring it leaves one out. Nothing here guesses: a time that is not told
comes back as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

Fold = Literal["first", "second", "by_order"]

SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = (datetime(y, m, d, tzinfo=UTC) for y, m, d in ((1, 1, 3), (9999, 12, 29)))


class Offsets(NamedTuple):
    """What may lie between local time and UTC, in microseconds; `first` is the earlier of two passes.

    Where they are equal the time is told; where `first` is larger the clock shows it twice, where it is smaller never.
    `until` is the local time at which the doubled stretch ends, 0 where there is none.
    """

    first: np.ndarray[Any, Any]
    second: np.ndarray[Any, Any]
    until: np.ndarray[Any, Any]


def offsets(local: np.ndarray[Any, Any], zone: str) -> Offsets:
    """The offsets of local times from UTC.

    Args:
        local: microseconds since 1970-01-01 on the wall clock, int64, of the years 1 to 9999.
        zone: UTC or an IANA name.
    """
    first, second, until = (np.zeros(len(local), np.int64) for _ in range(3))
    if zone == "UTC" or not len(local):
        return Offsets(first, second, until)
    years = local.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    for year in np.unique(years):
        there = years == year
        walls, steps = _changes(zone, int(year))
        times = local[there]
        # At a change the wall clock shows the times from the smaller to the larger of both walls twice, or never.
        before, after = (np.searchsorted(wall, times, side="right") for wall in (walls.max(0), walls.min(0)))
        first[there], second[there] = steps[before], steps[after]
        ends = np.append(walls.max(0), 0)
        until[there] = np.where(steps[before] > steps[after], ends[before], 0)
    return Offsets(first, second, until)


@lru_cache(maxsize=1024)
def _changes(zone: str, year: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The changes of a zone in a year and the days around it.

    Returns:
        Two rows of wall clock times in microseconds, a column for each change: by the offset before and after it. And
        the offsets, one more than changes.
    """
    place = ZoneInfo(zone)

    def offset(at: datetime) -> timedelta:
        return at.astimezone(place).utcoffset() or timedelta(0)

    at = max(datetime(max(year, 1), 1, 1, tzinfo=UTC), _FIRST + timedelta(days=2)) - timedelta(days=2)
    last = min(datetime(year, 12, 31, tzinfo=UTC), _LAST - timedelta(days=3)) + timedelta(days=3)
    walls: list[tuple[int, int]] = []
    known = offset(at)
    steps = [known]
    while at < last:
        later = at + timedelta(days=1)
        new = offset(later)
        if new != known:
            low, high = at, later
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
                low, high = (middle, high) if offset(middle) == known else (low, middle)
            walls.append((_micros(high - _EPOCH + known), _micros(high - _EPOCH + new)))
            steps.append(new)
            known = new
        at = later
    return np.array(walls, np.int64).reshape(-1, 2).T, np.array([_micros(s) for s in steps], np.int64)


def _micros(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


class UtcTimes(NamedTuple):
    """Times in UTC as far as they are told: microseconds since 1970, and where the clock shows it twice or never."""

    utc: np.ndarray[Any, Any]
    twice: np.ndarray[Any, Any]
    never: np.ndarray[Any, Any]


class WallClock:
    """Turns the local times of one column into UTC, block after block in the order of the file.

    Args:
        zone: UTC or an IANA name.
        fold: how a time is read that the clock shows twice; None: it is not told. By order: of the rows of one group, in
            the file's order, the second pass begins where the time does not go on; in a file that mostly goes back in
            time the passes come the other way round. A third pass is not told.
    """

    def __init__(self, zone: str, fold: Fold | None) -> None:
        self.zone = zone
        self.fold = fold
        self._last: int | None = None
        self._forth = 0
        self._passes: dict[tuple[Any, ...], tuple[int, int]] = {}

    def utc(self, local: np.ndarray[Any, Any], groups: Sequence[Sequence[Any]] = ()) -> UtcTimes:
        """Read a block of times.

        Args:
            local: microseconds since 1970-01-01 on the wall clock, in the order of the rows.
            groups: columns of the same length that say whose time it is.
        """
        found = offsets(local, self.zone)
        twice = found.first > found.second
        never = found.first < found.second
        if len(local):
            steps = np.diff(local, prepend=local[0] if self._last is None else self._last)
            self._forth += int(np.sign(steps).sum())
            self._last = int(local[-1])
        second = np.full(len(local), self.fold == "second")
        if self.fold == "by_order":
            for row in np.flatnonzero(twice):
                number = self._pass(
                    int(local[row]), int(found.until[row]), tuple(g[int(row)] for g in groups)
                )
                second[row], twice[row] = number == 1, number not in (0, 1)
        elif self.fold is not None:
            twice = np.zeros(len(local), bool)
        return UtcTimes(local - np.where(second, found.second, found.first), twice, never)

    def _pass(self, local: int, until: int, group: tuple[Any, ...]) -> int:
        """Which pass of the doubled stretch a row is in: 0, 1, or another number where that is not told."""
        falling = self._forth < 0
        last, passed = self._passes.get((until, group), (None, 0))
        if last is not None and (local >= last if falling else local <= last):
            passed += 1
        self._passes[until, group] = (local, passed)
        return 1 - passed if falling else passed
