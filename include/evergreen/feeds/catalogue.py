"""The stories by their names."""

from __future__ import annotations

from evergreen.errors import ErrorReason, TerminalError
from evergreen.feeds.story import Story

NAMES = ("simulated", "bike_sharing")


def get(name: str, *, seed: int | None = None) -> Story:
    """The story of a name, on its own dates.

    Args:
        name: one of `NAMES`.
        seed: of the simulation; default: the one whose story is told in the documentation. Real data has none.

    Raises:
        TerminalError: no story has the name; the real data is not there, or is not the file it should be.
    """
    from evergreen.feeds import bike_sharing, simulated

    if name == "simulated":
        return simulated.story() if seed is None else simulated.story(seed=seed)
    if name == "bike_sharing":
        return bike_sharing.story()
    raise TerminalError(
        f"no story is called {name!r}; choose one of {', '.join(NAMES)}", ErrorReason.BAD_SPEC
    )
