"""E-mail addresses, read by the standard library's parser when a spec is checked and again when a mail is addressed."""

from __future__ import annotations

import re
from email import policy
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.headerregistry import Address

LONGEST = 254
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*|\[[0-9A-Fa-f.:]+\]"
)
# Between two addresses, outside of quotes and of angle brackets.
_ONE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,])+')


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

