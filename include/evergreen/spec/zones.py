"""Time zones by their IANA names; what looks like one and means another thing is refused with the near name."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import BeforeValidator

_OFFSET = re.compile(r"^(?:UTC|GMT|Z)?\s*([+\-\N{MINUS SIGN}])\s*(\d{1,2})(?::?(\d{2}))?$", re.IGNORECASE)
_POSIX = re.compile(r"^(?:[A-Za-z]{3,}|<[^>]*>)[+-]?\d{1,2}(?::?\d{2})*(?:[A-Za-z]{3,}.*)?$")
# What tz databases of machines hold beside names of places and UTC.
_NO_PLACE = ("localtime", "Factory", "EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT")
# Letters mean several zones (IST: India, Ireland, Israel); these are what people mean most.
_LETTERS = {
    "CET": "Europe/Berlin", "CEST": "Europe/Berlin", "BST": "Europe/London", "EEST": "Europe/Athens", "WEST": "Europe/Lisbon", "MSK": "Europe/Moscow",
    "MEZ": "Europe/Berlin", "MESZ": "Europe/Berlin", "IST": "Asia/Kolkata", "JST": "Asia/Tokyo", "KST": "Asia/Seoul",
    "EDT": "America/New_York", "EST5EDT": "America/New_York", "ET": "America/New_York", "CST": "America/Chicago",
    "CDT": "America/Chicago", "CST6CDT": "America/Chicago", "MDT": "America/Denver", "MST7MDT": "America/Denver",
    "PST": "America/Los_Angeles", "PDT": "America/Los_Angeles", "PST8PDT": "America/Los_Angeles",
    "Z": "UTC", "AEST": "Australia/Sydney", "AEDT": "Australia/Sydney", "NZST": "Pacific/Auckland", "NZDT": "Pacific/Auckland",
}  # fmt: skip
_PARTS_OF_AN_HOUR = {
    "+0330": "Asia/Tehran", "+0430": "Asia/Kabul", "+0530": "Asia/Kolkata", "+0545": "Asia/Kathmandu",
    "+0630": "Asia/Yangon", "+0930": "Australia/Darwin", "-0330": "America/St_Johns", "-0930": "Pacific/Marquesas",
}  # fmt: skip


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    return frozenset(available_timezones()) - set(_NO_PLACE)


@lru_cache(maxsize=64)
def zone_problem(name: str) -> str | None:
    """Why a text is no usable time zone, with the next step; None for `UTC` and names of the IANA database.

    `UTC+2`, `+02:00` and `Berlin2` are POSIX's forms, whose sign is the other way round: PostgreSQL takes them for two
    hours west of Greenwich.
    """
    if name == "UTC" or name in _known():
        return None
    offset = _OFFSET.match(name.strip())
    if offset:
        return f"{name!r} is no time zone by name, and POSIX reads its sign the other way round; {_fixed(offset)}"
    near = _near(name)
    hint = f"write {near}" if near else "write an IANA name such as Europe/Berlin, or UTC"
    if _POSIX.match(name):
        return f"{name!r} has POSIX's form, whose number counts hours west of Greenwich; {hint}"
    return f"{name!r} is no IANA time zone; {hint}"


def sign_problem(name: str) -> str | None:
    """Why PostgreSQL reads a zone that SQL names otherwise than it looks: its number has POSIX's sign; None where it does not.

    Of what `zone_problem` refuses, abbreviations (`CET`) and zones that differ in case are PostgreSQL's own and mean what they say.
    """
    if name in available_timezones() or name.strip("+-:0 ").upper() in ("", "UTC", "GMT", "Z"):
        return None
    signed = _OFFSET.match(name.strip()) or _POSIX.match(name.strip())
    return zone_problem(name) if signed else None


def _fixed(offset: re.Match[str]) -> str:
    sign = "+" if offset[1] == "+" else "-"
    hours, minutes = int(offset[2]), int(offset[3] or 0)
    if not hours and not minutes:
        return "write UTC"
    if minutes:
        place = _PARTS_OF_AN_HOUR.get(f"{sign}{hours:02d}{minutes:02d}", "Asia/Kolkata")
        return f"write a place that has it, such as {place}"
    there = f"Etc/GMT{'-' if sign == '+' else '+'}{hours}"
    side = "east" if sign == "+" else "west"
    always = f", or {there}: {hours} h {side} of Greenwich all year (IANA turns the sign round)" if there in _known() else ""  # fmt: skip
    return f"write a place, such as Europe/Berlin{always}"


def _near(name: str) -> str | None:
    letters = re.split(r"[^A-Za-z]", name.strip().upper())[0]
    if name.strip().upper() in _LETTERS or (letters in _LETTERS and any(c.isdigit() for c in name)):
        return _LETTERS.get(name.strip().upper()) or _LETTERS[letters]
    plain = re.sub(r"[^a-z/_]", "", name.strip().lower().replace(" ", "_"))
    by_lower = {known.lower(): known for known in sorted(_known(), reverse=True)}
    if plain in by_lower:
        return by_lower[plain]
    cities: dict[str, str] = {}
    for known in sorted(_known(), key=lambda n: (n.count("/"), n)):
        if "/" in known and not known.startswith(("Etc/", "SystemV/")):
            cities.setdefault(known.rpartition("/")[2].lower(), known)
    city = plain.rpartition("/")[2]
    if city in cities:
        return cities[city]
    close = difflib.get_close_matches(plain, by_lower, n=1) or difflib.get_close_matches(
        city, cities, n=1, cutoff=0.75
    )
    return by_lower.get(close[0]) or cities.get(close[0]) if close else None


def _check(value: Any) -> Any:
    problem = zone_problem(value) if isinstance(value, str) else None
    if problem:
        raise ValueError(problem)
    return value


TimeZone = Annotated[str, BeforeValidator(_check, json_schema_input_type=str)]
