"""How far a replay is: steps done, steps a second, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

PLAIN_EVERY_S = 15.0
# The first champions take long, so the first steps say nothing of the time that is left.
TELLING_S, TELLING_STEPS = 20.0, 10


class ReplayProgress:
    """Tells how far the policies are: on a terminal in one line, elsewhere a plain line now and then."""

    def __init__(
        self,
        name: str,
        totals: Mapping[str, int],
        done: Mapping[str, int],
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._name, self._totals, self._say = name, totals, say
        self._before, self._done = sum(done.values()), dict(done)
        self._began = time.monotonic()
        self._told = 0.0
        self._terminal = say is None and sys.stderr.isatty()
        if self._before:
            self._write(f"replay {name}: goes on after {self._before} steps of an earlier run", last=True)

    @property
    def complete(self) -> bool:
        """Whether every policy is done."""
        return all(self._done[n] >= total for n, total in self._totals.items())

    def line(self) -> str:
        """How far it is."""
        done, total = sum(self._done.values()), sum(self._totals.values())
        took = time.monotonic() - self._began
        rate = (done - self._before) / took if took > 0 else 0.0
        telling = took >= TELLING_S and done - self._before >= TELLING_STEPS and done < total
        left = f", {_span((total - done) / rate)} left" if telling else ""
        each = ", ".join(f"{n} {self._done[n]}/{t}" for n, t in self._totals.items())
        return f"replay {self._name}: {done} of {total} windows ({done / total:.0%}), {rate:.1f} a second{left}; {each}"

    def tell(self, done: Mapping[str, int]) -> None:
        """Take in how many steps are done, and say so if it is time."""
        self._done = dict(done)
        now = time.monotonic()
        if self._terminal or now - self._told >= PLAIN_EVERY_S:
            self._told = now
            self._write(self.line())

    def end(self, done: Mapping[str, int]) -> None:
        """Say the last line."""
        self._done = dict(done)
        self._write(f"{self.line()}; {_span(time.monotonic() - self._began)}", last=True)

    def _write(self, text: str, *, last: bool = False) -> None:
        if self._say is not None:
            self._say(text)
        elif self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if last else ""))
            sys.stderr.flush()
        else:
            print(text, file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
