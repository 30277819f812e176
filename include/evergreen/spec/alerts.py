"""An entry of `alerts`: an e-mail address, the name of a channel, or one of these with what it is told of.

Addresses are read by the standard library's parser when a spec is checked and again when a mail is addressed. A channel's URL holds a
secret, so a spec has its name alone: that of `channel:oncall` is in EVERGREEN_CHANNEL_ONCALL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email import policy
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.headerregistry import Address
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Discriminator, Field, Tag

from evergreen.alert_kinds import AlertKind, Severity
from evergreen.spec.problem import near
from evergreen.spec.types import Strict

PREFIX = "channel:"
CHANNEL = re.compile(r"\Achannel:[a-z][a-z0-9_]{0,39}\Z")
# The end of an incident goes to those who were told of the incident, so nobody asks for it.
KINDS = tuple(kind.value for kind in AlertKind if not kind.traits.ends)
LONGEST = 254
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*|\[[0-9A-Fa-f.:]+\]"
)
# Between two addresses, outside of quotes and of angle brackets.
_ONE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,])+')


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


def addresses(text: str) -> tuple[Address, ...]:
    """The addresses of a text: one, or several with commas between them.

    Raises:
        ValueError: none is there, or one is none; says which and what to write.
    """
    if not text.strip():
        raise ValueError("an empty text is no address; write one such as jane@example.org, or remove it")
    if any(not c.isprintable() for c in text):
        raise ValueError(
            f"{text[:LONGEST]!r} holds a line break or another character that no address has; remove it"
        )
    try:
        header = policy.default.header_factory("To", text)
        found, groups = header.addresses, [g for g in header.groups if g.display_name is not None]
        defects = [d for d in header.defects if not isinstance(d, ObsoleteHeaderDefect)]
    except Exception:  # of a few broken texts the parser makes an IndexError
        found, groups, defects = (), [], [ValueError(text)]
    if any(isinstance(d, NonASCIILocalPartDefect) for d in defects):
        raise ValueError(
            f"{text!r} has letters beyond ASCII before the @, which most mail servers refuse, for all recipients of the mail; "
            "use an address in plain letters"
        )
    if ";" in _ONE.sub(lambda m: re.sub(r'"[^"]*"', "", m[0]), text):
        raise ValueError(f"{text!r}: separate addresses by commas, not by semicolons")
    for one in found:
        if not one.domain.isascii():
            raise ValueError(f"{text!r}: write the domain in ASCII{_punycode(one.domain)}")
    if (
        defects or groups or not found
        or any(not a.username or not _DOMAIN.fullmatch(a.domain) or len(a.addr_spec) > LONGEST for a in found)
    ):  # fmt: skip
        comma = (
            ' (a name with a comma stands in quotes: "Doe, Jane" <jane@example.org>)' if "," in text else ""
        )
        raise ValueError(
            f"{text[:LONGEST]!r} is no e-mail address; write jane@example.org or Jane Doe <jane@example.org>{comma}"
        )
    return tuple(found)


def readable(text: str) -> tuple[list[str], list[str]]:
    """The addresses of a list with commas that can be read, as header text; and the parts that cannot.

    One that is wrong must not keep a mail from the others.
    """
    good: list[str] = []
    bad: list[str] = []
    for part in [m[0].strip() for m in _ONE.finditer(text) if m[0].strip()]:
        try:
            good += map(str, addresses(part))
        except ValueError:
            bad.append(part)
    return list(dict.fromkeys(good)), bad


def _punycode(domain: str) -> str:
    try:
        return f", {domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        return ""


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
