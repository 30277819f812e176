"""What is wrong with the environment variables that hold what a spec could: recipients, sender, a cron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evergreen import settings
from evergreen.spec.address import addresses, readable
from evergreen.spec.cron import check_cron
from evergreen.spec.problem import Problem, shown


def environment_problems() -> list[Problem]:
    """The mistakes in EVERGREEN_MAIL_TO, EVERGREEN_MAIL_FROM and EVERGREEN_DIGEST."""
    found = []
    checks: list[tuple[settings.Variable, str, Callable[[str], Any]]] = [
        (settings.MAIL_TO, part, addresses) for part in readable(settings.MAIL_TO.read())[1]
    ]
    checks.append((settings.MAIL_FROM, settings.MAIL_FROM.read(), addresses))
    if settings.DIGEST.read() != "off":
        checks.append((settings.DIGEST, settings.DIGEST.read(), check_cron))
    for variable, value, check in checks:
        try:
            check(value)
        except ValueError as error:
            found.append(Problem(variable.name, "", shown(value), str(error)))
    return found
