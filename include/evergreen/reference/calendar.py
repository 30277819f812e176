"""The calendar of windows: pieces of event time of one length, end to end since a fixed Monday."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

ANCHOR = datetime(1970, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Window:
    """A range of event time in UTC: `start` included, `end` excluded."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"


def index_of(time: datetime, length: timedelta) -> int:
    """The number of the window in which a time lies; window 0 starts at the anchor."""
    return (time - ANCHOR) // length


def window_at(index: int, length: timedelta) -> Window:
    """The window of a number."""
    return Window(ANCHOR + index * length, ANCHOR + (index + 1) * length)


def window_of(time: datetime, length: timedelta) -> Window:
    """The window in which a time lies."""
    return window_at(index_of(time, length), length)


def complete(length: timedelta, after: datetime, as_of: datetime) -> list[Window]:
    """The complete windows whose end is after `after`, oldest first."""
    first, end = index_of(after, length), index_of(as_of, length)
    return [window_at(i, length) for i in range(first, end)]
