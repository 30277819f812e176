"""What is wrong with the environment variables that people set: recipients, channels, sender, a cron, switches, numbers, addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from evergreen import settings
from evergreen.errors import TerminalError
from evergreen.spec.alerts import PREFIX, addresses, entry, targets
from evergreen.spec.cron import check_cron
from evergreen.spec.load import Specs
from evergreen.spec.problem import Problem, shown

_URL = re.compile(r"[a-z][a-z0-9+-]*://\S+\Z", re.IGNORECASE)
VARIABLES = frozenset(variable.name for variable in settings.ALL)


def is_variable(file: str) -> bool:
    """Whether what a problem is about is a variable of the environment, and no file."""
    return file in VARIABLES or file.startswith(settings.CHANNEL_PREFIX)


def environment_problems(specs: Specs | None = None) -> list[Problem]:
    """The mistakes in the variables that can be told by their value alone, and the channels that specs name and nothing sets."""
    found = _channel_problems(specs or Specs())
    checks: list[tuple[settings.Variable, str, Callable[[str], Any]]] = [
        (settings.MAIL_TO, part, addresses) for part in targets([settings.MAIL_TO.read()]).unreadable
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


def channels(specs: Specs) -> dict[str, list[str]]:
    """The channels that are named, without their prefix, with who names them: files of specs, EVERGREEN_MAIL_TO."""
    named: list[tuple[str, str]] = [(settings.MAIL_TO.name, settings.MAIL_TO.read())]
    for folder, group in (("datasets", specs.datasets), ("models", specs.models)):
        named += [(f"{folder}/{s.name}.yaml", entry(given).to) for s in group.values() for given in s.alerts]
    found: dict[str, list[str]] = {}
    for who, text in named:
        for channel in targets([text]).channels:
            found.setdefault(channel.removeprefix(PREFIX), []).append(who)
    return {name: sorted(set(who)) for name, who in sorted(found.items())}


def _channel_problems(specs: Specs) -> list[Problem]:
    found = []
    in_airflow = {part.strip() for part in settings.CHANNELS.read().split(",")}
    for name, who in channels(specs).items():
        variable = settings.channel(name)
        value = os.environ.get(variable.name)
        # What stands there is a secret: no problem shows it.
        if not value and name not in in_airflow:
            text = (
                f"is not set, and {', '.join(who[:3])} names {PREFIX}{name}, which gets no alert then; set it to the URL of the channel "
                f"as apprise takes it, or put {name} into {settings.CHANNELS.name} where the Airflow connection {variable.connection} "
                "has the URL"
            )
            found.append(Problem(variable.name, "", "", text))
        elif value and not _URL.match(value):
            text = "is no URL; write one as apprise takes it, such as slack://… or json://…"
            found.append(Problem(variable.name, "", "", text))
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
