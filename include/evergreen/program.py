"""How a person types a command of Evergreen where this runs; for messages that name the next step."""

from __future__ import annotations

import os

STARTED_BY_MAKE = "EVERGREEN_MAKE"
"""Set by the Makefile; what the stack starts has it, too."""


def typed(command: str, make: str = "") -> str:
    """A command in backticks: `evergreen up`, or `make up` where the Makefile has started what speaks.

    Args:
        command: the command and its arguments.
        make: the target and its variables, where they differ.
    """
    return f"`make {make or command}`" if os.environ.get(STARTED_BY_MAKE) else f"`evergreen {command}`"
