"""What is wrong with the environment variables that people set: recipients, sender, a cron, switches, numbers, addresses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from evergreen import settings
from evergreen.errors import TerminalError
from evergreen.spec.address import addresses, readable
from evergreen.spec.cron import check_cron
from evergreen.spec.problem import Problem, shown

VARIABLES = frozenset(variable.name for variable in settings.ALL)


def environment_problems() -> list[Problem]:
    """The mistakes in the variables that can be told by their value alone."""
    found = []
    checks: list[tuple[settings.Variable, str, Callable[[str], Any]]] = [
        (settings.MAIL_TO, part, addresses) for part in readable(settings.MAIL_TO.read())[1]
    ]
    checks.append((settings.MAIL_FROM, settings.MAIL_FROM.read(), addresses))
    checks.append((settings.DIGEST, settings.DIGEST.read(), _cron_or_off))
    checks.append(
        (
            settings.SCHEDULES,
            settings.SCHEDULES.read(),
            partial(_on_or_off, "DAGs run on their schedules, as with on"),
        )
    )
    checks.append(
        (
            settings.POOLS,
            settings.POOLS.read(),
            partial(_on_or_off, "tasks take no slots of pools, as with off"),
        )
    )
    for variable in (settings.AIRFLOW_URL, settings.MLFLOW_URL):
        checks.append((variable, variable.read(), _url))
    for variable in (settings.THREADS, settings.TRAINING_MEMORY_MB):
        checks.append((variable, variable.read(), partial(_number, variable)))
    for variable, value, check in checks:
        try:
            check(value)
        except (ValueError, TerminalError) as error:
            found.append(Problem(variable.name, "", shown(value), str(error)))
    return found


def digest_cron() -> str | None:
    """When the digest runs: EVERGREEN_DIGEST, its default where that is no cron (a problem, see above), None for `off`."""
    value = settings.DIGEST.read()
    try:
        return None if value == "off" else str(check_cron(value))
    except ValueError:
        return settings.DIGEST.default


def _cron_or_off(value: str) -> None:
    if value == "off":
        return
    try:
        check_cron(value)
    except ValueError as error:
        raise ValueError(
            f"{error}; or off. Until then the digest runs at {settings.DIGEST.default!r}"
        ) from None


def _on_or_off(meanwhile: str, value: str) -> None:
    if value not in ("on", "off"):
        raise ValueError(f"{value!r} is neither on nor off; until it is mended {meanwhile}")


def _number(variable: settings.Variable, value: str) -> int:
    """What the variable says, read as who uses it reads it."""
    return variable.number()


def _url(value: str) -> None:
    try:
        parts = urlsplit(value)
        good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"{value!r} is no address; write it like http://host:8080, or the links in e-mails lead nowhere"
        )
