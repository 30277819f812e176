"""What long work tells of itself in a log: numbers and durations in words, and a pace that a person can read along with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

FIRST_S, EVERY_S = 10.0, 30.0


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, such as `5,038 rows` or `1 row`; `many` where the plural is not the noun with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def span(seconds: float) -> str:
    """A duration, such as `0.4 s`, `12 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, more = divmod(minutes, 60)
    return f"{hours} h {more} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def took(rows: int, seconds: float) -> str:
    """How long rows took, and how many a second that is: `in 12 s (420 rows/s)`."""
    return f"in {span(seconds)} ({rows / max(seconds, 1e-3):,.0f} rows/s)"


def moment(at: datetime) -> str:
    """A time to the minute, as logs write it: `2026-05-01 06:00`."""
    return f"{at:%Y-%m-%d %H:%M}"


class Progress:
    """Tells at a human pace how far some work is: first after ten seconds, then each half a minute, never for each batch.

    Args:
        log: where to.
        what: the work, such as `bike_demand: scoring`.
        total: of how many steps or rows; None where nobody knows.
        noun: what is counted.
        clock: seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        total: int | None = None,
        noun: str = "row",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._what, self._total, self._noun, self._clock = log, what, total, noun, clock
        self._began = clock()
        self._next = self._began + FIRST_S

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return self._clock() - self._began

    def tell(self, done: int, more: str = "") -> None:
        """Say so if it is time: how much is done, at which rate, and how long the rest takes at that rate.

        Args:
            done: how many so far.
            more: what else there is to say, such as the newest score.
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_S
        said = f"{done:,} of {counted(self._total, self._noun)}" if self._total else counted(done, self._noun)
        self._log.info("%s: %s after %s%s%s", self._what, said, span(self.seconds), self.left(done), more)

    def left(self, done: int) -> str:
        """How long the rest takes at the rate so far: `, about 3 min 20 s left`; empty where nobody can tell."""
        if not self._total or not 0 < done < self._total:
            return ""
        return f", about {span(self.seconds / done * (self._total - done))} left"
