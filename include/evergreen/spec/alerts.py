"""An entry of `alerts`: an e-mail address, the name of a channel, or one of these with what it is told of.

A channel's address holds a secret, so a spec has its name alone: `channel:oncall` is the URL in EVERGREEN_CHANNEL_ONCALL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Discriminator, Field, Tag

from evergreen.alert_kinds import AlertKind, Severity
from evergreen.spec.address import addresses, readable
from evergreen.spec.problem import near
from evergreen.spec.types import Strict

PREFIX = "channel:"
CHANNEL = re.compile(r"\Achannel:[a-z][a-z0-9_]{0,39}\Z")
# The end of an incident goes to those who were told of the incident, so nobody asks for it.
KINDS = tuple(kind.value for kind in AlertKind if not kind.traits.ends)


class Targets(NamedTuple):
    """Addresses as header text, channels as `channel:NAME`, and what is neither."""

    addresses: list[str]
    channels: list[str]
    unreadable: list[str]


def targets(texts: Sequence[str]) -> Targets:
    """The parts of texts with commas; one that is wrong keeps nothing from the others."""
    found, other = readable(", ".join(texts))
    channels = [part for part in other if CHANNEL.match(part)]
    return Targets(found, list(dict.fromkeys(channels)), [part for part in other if not CHANNEL.match(part)])


def _check_to(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(PREFIX):
        if not CHANNEL.match(value):
            raise ValueError(
                f"{value!r} is no name of a channel; write {PREFIX}NAME, in small letters, digits and _, and set its URL in the "
                "environment (EVERGREEN_CHANNEL_NAME), not here"
            )
    elif isinstance(value, str) and "://" in value:
        raise ValueError(
            f"a URL holds a secret, so it stands in the environment; write {PREFIX}NAME here and set EVERGREEN_CHANNEL_NAME"
        )
    elif isinstance(value, str):
        addresses(value)
    return value


def _one_of(options: Sequence[str], value: Any) -> Any:
    if value not in options:
        raise ValueError(f"{value!r} must be one of {', '.join(options)}; {near(str(value), options)}")
    return value


To = Annotated[str, BeforeValidator(_check_to, json_schema_input_type=str)]
On = Annotated[
    str, BeforeValidator(lambda value: _one_of(KINDS, value)), Field(json_schema_extra={"enum": list(KINDS)})
]
AtLeast = Annotated[
    str,
    BeforeValidator(lambda value: _one_of([s.value for s in Severity], value)),
    Field(json_schema_extra={"enum": [s.value for s in Severity]}),
]


class AlertEntry(Strict):
    """Who is told, and of what."""

    to: To = Field(description="an e-mail address, several with commas between them, or channel:NAME")
    on: tuple[On, ...] = Field((), description="the kinds of alerts; default: all")
    severity: AtLeast = Field("info", description="how much an alert must matter: info, warning, critical")

    def takes(self, kind: AlertKind | None) -> bool:
        """Whether an alert of a kind goes to this entry; None, a kind of a later release: unless it names its kinds."""
        if kind is None:
            return not self.on
        return kind.traits.severity >= Severity(self.severity) and (not self.on or kind.value in self.on)


def _tag(value: Any) -> str:
    return "entry-object" if isinstance(value, dict | AlertEntry) else "entry-text"


Entry = Annotated[
    Annotated[To, Tag("entry-text")] | Annotated[AlertEntry, Tag("entry-object")], Discriminator(_tag)
]


def entry(given: str | AlertEntry) -> AlertEntry:
    """An entry as an object; a text is told of everything."""
    return given if isinstance(given, AlertEntry) else AlertEntry.model_construct(to=given)
