"""Durations and times as microseconds, as PostgreSQL, Arrow and NumPy keep them; times since 1970 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def in_micros(length: timedelta) -> int:
    """A duration in microseconds."""
    return length // timedelta(microseconds=1)


def micros_of(time: datetime) -> int:
    """The microseconds since 1970 of an aware time."""
    return in_micros(time - moment(0))


def moment(micro: int) -> datetime:
    """The UTC time of microseconds since 1970."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micro)
