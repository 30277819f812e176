"""Whether there are rows enough for a first champion at FROM, and if not, from when on there are."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

from evergreen.errors import ErrorReason, TerminalError
from evergreen.reference import calendar
from evergreen.spec import ModelSpec, Specs
from evergreen.training.data.split import read, split
from evergreen.warehouse.features import snapshot

TOO_EARLY = (ErrorReason.NO_ROWS, ErrorReason.TOO_FEW_ROWS, ErrorReason.ONE_CLASS)


def require(specs: Specs, model: ModelSpec, begin: datetime, end: datetime) -> None:
    """Check that a champion can be trained as of the beginning.

    Args:
        specs: all specs.
        model: whose.
        begin: of the replay, the start of a window.
        end: of the replay.

    Raises:
        TerminalError: it cannot; the message names the earliest window start from which it can, if there is one.
        TransientError: the warehouse does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="evergreen-replay-") as name:
        problem = _problem(specs, model, begin, Path(name))
        if problem is None:
            return
        length = model.monitoring.window
        later = [w.start for w in calendar.complete(length, begin, end)][1:]
        low, high = 0, len(later)
        while low < high:  # rows only become more
            middle = (low + high) // 2
            if _problem(specs, model, later[middle], Path(name)) is None:
                high = middle
            else:
                low = middle + 1
    hint = (
        f"the earliest FROM that works is {later[low]:%Y-%m-%dT%H:%MZ}"
        if low < len(later)
        else "no FROM before TO works; land more history"
    )
    raise TerminalError(f"no first champion can be trained as of FROM: {problem}; {hint}", problem.reason)


def _problem(specs: Specs, model: ModelSpec, as_of: datetime, folder: Path) -> TerminalError | None:
    try:
        taken = snapshot.take(specs, model, as_of, folder)
        try:
            split(model, read(model, taken))
        finally:
            taken.remove()
    except TerminalError as error:
        if error.reason not in TOO_EARLY:
            raise
        return error
    return None
