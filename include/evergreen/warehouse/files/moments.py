"""Texts as moments: the parts that a format names, checked and added up; strict, and many at once."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.spec.timeformat import EPOCHS, ISO, MONTHS, TimeFormat, time_format

# The offset of a time that comes without one.
UNTOLD = np.iinfo(np.int64).min
_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_NUMBER = r"^ *[+-]?\d{1,19}(?:\.\d{0,9})?(?:[eE]\+?\d{1,2})? *$"
_SHORT = pa.array([name[:3] for name in MONTHS])


class Moments(NamedTuple):
    """Moments as arrays of one length, microseconds all: since 1970-01-01 on the clock that is meant, and its offset
    from UTC (UNTOLD where the text names none). Only where `fits` do they mean anything."""

    micros: np.ndarray[Any, Any]
    offset: np.ndarray[Any, Any]
    fits: np.ndarray[Any, Any]


def moments(values: pa.Array, formats: Sequence[str] | None) -> Moments:
    """Read texts by the first of the formats that fits each.

    A value must fit as a whole, blanks around it aside, and be a moment that there is: no 30 February, no minute 60. The
    hour 24 is midnight of the next day. Fractions are cut off after the sixth digit.

    Args:
        values: the texts; null never fits.
        formats: of the spec; None: ISO 8601.
    """
    count = len(values)
    result = Moments(np.zeros(count, np.int64), np.full(count, UNTOLD, np.int64), np.zeros(count, bool))
    for text in formats or ("",):
        left = np.flatnonzero(~result.fits)
        if not len(left):
            break
        rest = values if len(left) == count else values.take(pa.array(left))
        read = (
            _epoch(rest, EPOCHS[text])
            if text in EPOCHS
            else _parsed(rest, time_format(text) if text else ISO)
        )
        at = left[read.fits]
        result.micros[at], result.offset[at], result.fits[at] = (part[read.fits] for part in read)
    return result


def _epoch(values: pa.Array, unit: Decimal) -> Moments:
    fits = pc.fill_null(pc.match_substring_regex(values, _NUMBER), False)
    numbers = pc.utf8_ltrim(pc.utf8_trim(pc.if_else(fits, values, "0"), " "), "+")
    try:
        exact = numbers.cast(pa.decimal128(28, 9))
    except pa.ArrowInvalid:
        # One of them is far too large; only such a block is read one by one.
        large = [abs(Decimal(text)) >= 10**18 for text in numbers.to_pylist()]
        fits = pc.and_not(fits, pa.array(large))
        exact = pc.if_else(pa.array(large), "0", numbers).cast(pa.decimal128(28, 9))
    micros = pc.floor(pc.multiply(exact, pa.scalar(unit)))
    there = pc.and_(fits, pc.less(pc.abs(micros), pa.scalar(Decimal(10**18))))
    whole = (
        pc.if_else(there, micros, pa.scalar(Decimal(0), micros.type))
        .cast(pa.decimal128(38, 0))
        .cast(pa.int64())
    )
    return Moments(whole.to_numpy(), np.zeros(len(values), np.int64), there.to_numpy(zero_copy_only=False))


def _parsed(values: pa.Array, form: TimeFormat) -> Moments:
    found = pc.extract_regex(values, form.pattern)
    fits = pc.is_valid(found).to_numpy(zero_copy_only=False).copy()
    texts = {part: pc.fill_null(pc.struct_field(found, [part]), "") for part in form.parts}

    def number(part: str, default: int = 0) -> np.ndarray[Any, Any]:
        if part not in texts:
            return np.full(len(values), default, np.int64)
        text = texts[part]
        found: np.ndarray = pc.if_else(pc.equal(text, ""), str(default), text).cast(pa.int64()).to_numpy()
        return found

    year = number("year", 1)
    if "year2" in texts:
        short = number("year2")
        year = np.where(short < 69, 2000, 1900) + short
    month = number("month", 1)
    if "name" in texts:
        month = _named(texts["name"])
    day = number("yearday") if "yearday" in texts else number("day", 1)
    days, real = _days(year, month, day, by_year="yearday" in texts)
    hour = number("hour")
    if "hour12" in texts:
        half = number("hour12", 12)
        fits &= (half >= 1) & (half <= 12)
        hour = half % 12 + 12 * pc.equal(pc.utf8_lower(texts["half"]), "pm").to_numpy(zero_copy_only=False)
    minute, second = number("minute"), number("second")
    fraction = np.zeros(len(values), np.int64)
    if "fraction" in texts:
        digits = pc.utf8_slice_codeunits(pc.utf8_rpad(texts["fraction"], 6, "0"), 0, 6)
        fraction = digits.cast(pa.int64()).to_numpy()
    fits &= real & (year >= 1) & (minute < 60) & (second < 60)
    fits &= (hour < 24) | ((hour == 24) & (minute + second + fraction == 0))
    micros = ((days * 24 + hour) * 3600 + minute * 60 + second) * _SECOND + fraction
    offset = np.full(len(values), UNTOLD, np.int64)
    if "zone" in texts:
        offset, known = _offsets(texts["zone"])
        fits &= known
    return Moments(micros, offset, fits)


def _named(names: pa.Array) -> np.ndarray[Any, Any]:
    index = pc.index_in(pc.utf8_slice_codeunits(pc.utf8_lower(names), 0, 3), value_set=_SHORT)
    found: np.ndarray = pc.add(pc.fill_null(index, 0), 1).cast(pa.int64()).to_numpy()
    return found


def _days(
    year: np.ndarray[Any, Any], month: np.ndarray[Any, Any], day: np.ndarray[Any, Any], *, by_year: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Days since 1970-01-01, and whether there is such a day."""
    first = ((year - 1970) * 12 + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    days = first.astype("datetime64[D]") + (day - 1)
    unit = "datetime64[Y]" if by_year else "datetime64[M]"
    same = days.astype(unit) == first.astype(unit)
    return days.astype(np.int64), same & (month >= 1) & (month <= 12) & (day >= 1)


def _offsets(zones: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Offsets from UTC, and whether there is such an offset; Z and UTC are 0, nothing is UNTOLD."""
    told = pc.match_substring_regex(zones, r"^[+-]")
    digits = pc.utf8_rpad(pc.replace_substring_regex(pc.if_else(told, zones, "+000000"), "[+:-]", ""), 6, "0")
    hours, minutes, seconds = (
        pc.utf8_slice_codeunits(digits, at, at + 2).cast(pa.int64()).to_numpy() for at in (0, 2, 4)
    )
    size = hours * _HOUR + (minutes * 60 + seconds) * _SECOND
    west = pc.starts_with(zones, "-").to_numpy(zero_copy_only=False)
    named = pc.equal(zones, "").to_numpy(zero_copy_only=False)
    known = (hours < 16) & (minutes < 60) & (seconds < 60)
    return np.where(named, UNTOLD, np.where(west, -size, size)), known
