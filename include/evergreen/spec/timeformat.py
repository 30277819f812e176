"""How a file writes a time: strptime's directives, or an epoch; strict, in English whatever the machine's language.

A format becomes one regular expression with a named group for each part. `evergreen.warehouse.files.localtime` makes times
of what the groups hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# Of each: how many microseconds one of its units has.
EPOCHS = {
    "epoch_s": Decimal(1_000_000),
    "epoch_ms": Decimal(1_000),
    "epoch_us": Decimal(1),
    "epoch_ns": Decimal("0.001"),
}
_ZONE = r"Z|UTC|[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?"


def _names(words: tuple[str, ...]) -> str:
    short = [word[:3] for word in words]
    return f"(?i:{'|'.join([*words, 'sept', *short] if words is MONTHS else [*words, *short])})"


# Of each directive: the part that it gives ("" for one that is read and not needed) and what it looks like.
_DIRECTIVES: dict[str, tuple[str, str]] = {
    "Y": ("year", r"\d{4}"),
    "y": ("year2", r"\d{2}"),
    "m": ("month", r"\d{1,2}"),
    "b": ("name", _names(MONTHS)),
    "B": ("name", _names(MONTHS)),
    "d": ("day", r"\d{1,2}"),
    "j": ("yearday", r"\d{1,3}"),
    "H": ("hour", r"\d{1,2}"),
    "I": ("hour12", r"\d{1,2}"),
    "p": ("half", r"(?i:am|pm)"),
    "M": ("minute", r"\d{1,2}"),
    "S": ("second", r"\d{1,2}"),
    "f": ("fraction", r"\d{1,9}"),
    "z": ("zone", _ZONE),
    "a": ("", _names(_WEEKDAYS)),
    "A": ("", _names(_WEEKDAYS)),
}
# Whole width, for a number that touches another one: 2014113 would else be two days.
_FULL = {"m": 2, "d": 2, "j": 3, "H": 2, "I": 2, "M": 2, "S": 2}
_SAME = {"e": "%d", "k": "%H", "l": "%I", "h": "%b", "D": "%m/%d/%y", "F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M"}  # fmt: skip
_NEEDS = {
    "day": ("month", "name"), "hour12": ("half",), "half": ("hour12",), "minute": ("hour", "hour12"),
    "second": ("minute",), "fraction": ("second",),
}  # fmt: skip
_ALTERNATIVES = (("year", "year2"), ("month", "name", "yearday"), ("day", "yearday"), ("hour", "hour12"))
_KNOWN = "%Y %y %m %b %B %d %j %H %I %p %M %S %f %z %a %A"


@dataclass(frozen=True)
class TimeFormat:
    """One way to write a time.

    Args:
        text: as the spec has it.
        pattern: a regular expression of the whole value, in the grammar that Python's `re` and RE2 share.
        parts: the names of its groups, in their order; a part that is not there reads as the first or as zero.
    """

    text: str
    pattern: str
    parts: tuple[str, ...]

    @property
    def has_time(self) -> bool:
        """Whether it names an hour."""
        return "hour" in self.parts or "hour12" in self.parts


ISO = TimeFormat(
    "ISO 8601",
    r"^ *(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:(?:T| +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    rf" *(?P<zone>{_ZONE})? *$",
    ("year", "month", "day", "hour", "minute", "second", "fraction", "zone"),
)


@lru_cache(maxsize=256)
def time_format(text: str) -> TimeFormat:
    """The meaning of a `format`, epochs aside.

    Numbers may come without leading zeros, except where two of them touch. A blank stands for one or more blanks.
    `%b` and `%B` take the English name of a month, short or whole. `%y` is of 1969 to 2068. `%z` takes an offset or Z.

    Raises:
        ValueError: it names no date, contradicts itself, or holds a directive that is not known; with the remedy.
    """
    tokens = _tokens(text)
    parts = [_DIRECTIVES[letter][0] for letter, _ in tokens if letter]
    _check([part for part in parts if part])
    pattern = ""
    for index, (letter, literal) in enumerate(tokens):
        if not letter:
            pattern += " +" if literal == " " else re.escape(literal)
            continue
        part, looks = _DIRECTIVES[letter]
        if letter in _FULL and any(_numeric(tokens, near) for near in (index - 1, index + 1)):
            looks = rf"\d{{{_FULL[letter]}}}"
        elif letter == "f" and _numeric(tokens, index + 1):
            looks = r"\d{6}"
        blank = " ?" if letter == "d" and looks == r"\d{1,2}" else ""
        pattern += f"{blank}(?P<{part}>{looks})" if part else f"(?:{looks})"
    return TimeFormat(text, f"^ *{pattern} *$", tuple(part for part in parts if part))


def _tokens(text: str) -> list[tuple[str, str]]:
    """The format as directives (letter, "") and characters ("", character); a run of blanks is one."""
    for letter, longer in _SAME.items():
        text = re.sub(f"(?<!%)((?:%%)*)%{letter}", rf"\g<1>{longer}", text)
    tokens: list[tuple[str, str]] = []
    rest = text.strip()
    while rest:
        if not rest.startswith("%"):
            character = " " if rest[0].isspace() else rest[0]
            if not (character == " " and tokens and tokens[-1] == ("", " ")):
                tokens.append(("", character))
            rest = rest[1:]
        elif rest.startswith("%%"):
            tokens.append(("", "%"))
            rest = rest[2:]
        else:
            letter = rest.removeprefix("%").removeprefix("-")[:1]
            if letter not in _DIRECTIVES:
                raise ValueError(
                    f"format {text!r}: %{letter} is not known; known: {_KNOWN}, or one of {', '.join(EPOCHS)}"
                    + ("; write the zone's letters as they stand" if letter == "Z" else "")
                )
            tokens.append((letter, ""))
            rest = rest[2 if rest[1] != "-" else 3 :]
    if not any(letter for letter, _ in tokens):
        raise ValueError(
            f"format {text!r} holds no directive; write one such as '%d/%m/%Y %H:%M' ({_KNOWN}), or one of"
            f" {', '.join(EPOCHS)}"
        )
    return tokens


def _numeric(tokens: list[tuple[str, str]], index: int) -> bool:
    if not 0 <= index < len(tokens):
        return False
    letter, literal = tokens[index]
    return letter in ("Y", "y", "f", *_FULL) or literal.isdigit()


def _check(parts: list[str]) -> None:
    twice = sorted({part for part in parts if parts.count(part) > 1})
    twice += [
        " and ".join(same) for several in _ALTERNATIVES if len(same := [p for p in several if p in parts]) > 1
    ]
    if twice:
        raise ValueError(f"format names the {twice[0].replace('2', '')} twice; keep one of them")
    if not {"year", "year2"} & set(parts):
        raise ValueError("format names no year; add the column that holds it (from: [year, month, day])")
    for part, needed in _NEEDS.items():
        if part in parts and not set(needed) & set(parts):
            what = {"half": "%p goes with %I, not with %H", "hour12": "%I needs %p"}.get(
                part, f"a {part} needs {needed[0]}"
            )
            raise ValueError(f"format: {what}; mend the format")
