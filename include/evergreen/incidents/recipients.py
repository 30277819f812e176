"""Who is told about what, and on which way. An address that cannot be read never keeps a mail from the others; the mail says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen import settings
from evergreen.alert_kinds import AlertKind, Severity
from evergreen.spec import DatasetSpec, ModelSpec, Specs
from evergreen.spec.alerts import AlertEntry, entry, targets

EMAIL = "email"

Ways = dict[str, list[str]]
"""EMAIL with the addresses, and `channel:NAME` with nothing, in the order in which they are tried."""


def ways(specs: Specs, subject: str, kind: AlertKind | None) -> Ways:
    """On which ways an alert goes out: those of the entries of `alerts` that take it, or of EVERGREEN_MAIL_TO.

    What no entry takes goes to those who answer for the fleet, unless it is for information alone: that is owed to nobody then.

    Args:
        specs: a subject whose spec is bad or gone has no entries.
        subject: `model/NAME`, `dataset/NAME` or another.
        kind: None for one of a later release.
    """
    group, _, name = subject.partition("/")
    spec: ModelSpec | DatasetSpec | None = None
    if group == "model":
        spec = specs.models.get(name)
    elif group == "dataset":
        spec = specs.datasets.get(name)
    entries = [entry(given) for given in spec.alerts] if spec else []
    taking = [one for one in entries if one.takes(kind)]
    if not entries or (not taking and (kind is None or kind.traits.severity > Severity.INFO)):
        taking = [AlertEntry.model_construct(to=settings.MAIL_TO.read())]
    return _ways([one.to for one in taking])


def ways_of(specs: Specs, row: Mapping[str, Any]) -> Ways:
    """The same for a row of `evergreen.mail`. The end of an incident goes the way of the incident, whose kind `of` is."""
    kind, context = AlertKind.of(row["kind"]), row.get("context")
    if kind is not None and kind.traits.addressed and isinstance(context, dict) and context.get("to"):
        return _ways(list(map(str, context["to"])))
    if kind is not None and kind.traits.ends:
        kind = AlertKind.of(row.get("of") or "")
    return ways(specs, row["subject"], kind)


def fleet() -> list[str]:
    """The addresses of those who answer for the fleet: EVERGREEN_MAIL_TO."""
    return targets([settings.MAIL_TO.read()]).addresses


def fleet_channels() -> list[str]:
    """Their channels, as `channel:NAME`."""
    return targets([settings.MAIL_TO.read()]).channels


def unreadable() -> list[str]:
    """The parts of EVERGREEN_MAIL_TO that are neither."""
    return targets([settings.MAIL_TO.read()]).unreadable


def _ways(to: list[str]) -> Ways:
    found = targets(to)
    # Without anybody, a mail to nobody: it fails, and is seen to.
    by_mail = {EMAIL: found.addresses} if found.addresses or (to and not found.channels) else {}
    return by_mail | {channel: [] for channel in sorted(found.channels)}
