"""Values as a file writes them, as the one text that PostgreSQL, Arrow and Python read alike.

A number has a point, a truth is `true` or `false`, a time is ISO 8601 in UTC, no value is NULL. What does not fit what
the spec says of the file is not bent: it stays as it was, behind a mark that no type accepts, so that the check of the
types names it with its reason, and its row can be held back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evergreen.spec import Column, DatasetSpec
from evergreen.spec.column import NUMBERS, TIMES
from evergreen.warehouse.files.failure import Failure, UnreadableError
from evergreen.warehouse.files.localtime import WallClock
from evergreen.warehouse.files.moments import UNTOLD, moments

# How the file itself has a column: as text, or typed, as Parquet and JSON do; mixed: one value so, another one so.
Kind = Literal["text", "number", "time", "truth", "mixed"]

# A noncharacter: legal UTF-8 that no file means as text.
MARK = "\ufdd0"
# The mark and its reason, for PostgreSQL's regexp_replace: the rest is what the file has.
MARKED = f"^{MARK}."
_BLANKS = " \t\u00a0\u202f"
_DAY = 86_400_000_000


class UnreadReason(StrEnum):
    """Why a value stayed as the file has it."""

    UNREADABLE = "u"
    TWICE = "t"
    NEVER = "n"
    PARTIAL = "p"


def marked(values: pa.Array, where: pa.Array, why: UnreadReason) -> pa.Array:
    """The values, those of `where` behind the mark and its reason."""
    if not pc.any(where).as_py():
        return values
    return pc.if_else(where, pc.binary_join_element_wise(MARK + why.value, values, ""), values)


def unmarked(value: str | None) -> str | None:
    """A value as the file has it."""
    return value[2:] if value and value.startswith(MARK) else value


def kind_of(found: Iterable[Kind]) -> Kind:
    """The kind of a column of which some values, or some parts of the file, are of these kinds."""
    kinds = set(found)
    return "text" if not kinds else kinds.pop() if len(kinds) == 1 else "mixed"


def converts(dataset: DatasetSpec, name: str) -> bool:
    """Whether the values of a column may need another form than the file's; False: it can go as it is."""
    column, written = dataset.columns[name], dataset.written(name)
    return bool(
        [word for word in written.missing or () if word]
        or written.decimal not in (None, ".")
        or written.thousands
        or written.true
        or column.format
        or (column.origin and len(column.origin) > 1)
        or (column.type == "timestamp" and dataset.source.timezone != "UTC")
    )


@dataclass
class Converter:
    """Turns one column's values into their canonical text, block after block in the order of the file.

    Args:
        dataset: whose column.
        name: the column.
        kinds: how the file has each of the columns that it is made from.

    Raises UnreadableError where a value could mean two numbers.
    """

    dataset: DatasetSpec
    name: str
    kinds: tuple[Kind, ...]

    def __post_init__(self) -> None:
        self.column: Column = self.dataset.columns[self.name]
        self.written = self.dataset.written(self.name)
        self._converts = converts(self.dataset, self.name)
        if self.column.type in NUMBERS and self.kinds == ("mixed",):
            self._refuse_mixed()
        self._clock = WallClock(self.dataset.source.timezone, self.dataset.source.fold)

    def read(self, parts: Sequence[pa.Array], groups: Sequence[pa.Array] = ()) -> pa.Array:
        """Read a block.

        Args:
            parts: the columns of the file it is made from, as text; what is empty is null.
            groups: the columns of the file that say, with a time of the key, which series a row belongs to.
        """
        if not self._converts:
            return parts[0]
        words = self.written.missing or ()
        told = [_without(part, words) for part in parts]
        values = told[0]
        partly = None
        if len(told) > 1:
            missing = [pc.is_null(part) for part in told]
            every, some = missing[0], missing[0]
            for one in missing[1:]:
                every, some = pc.and_(every, one), pc.or_(some, one)
            joined = pc.binary_join_element_wise(*parts, " ", null_handling="replace")
            values, partly = pc.if_else(every, None, joined), pc.and_not(some, every)
        if self.column.type in NUMBERS:
            values = self._numbers(values)
        elif self.column.type == "boolean" and self.written.true and self.kinds[0] != "truth":
            values = _truths(values, self.written.true, self.written.false or ())
        elif self.column.type in TIMES:
            values = self._times(values, partly, groups)
        return values

    def _refuse_mixed(self) -> None:
        """A number has a point and no groups; a text has the spec's signs: 1.234 would be two things in one column."""
        if self.written.decimal in (None, ".") and not self.written.thousands:
            return
        raise UnreadableError(
            Failure(
                "file_readable", self.name, "numbers and texts in one column",
                "one kind, where decimal or thousands says how a text writes a number",
                remedy="write all of its values as numbers, or all as texts, and deliver the file again",
            )
        )  # fmt: skip

    def _numbers(self, values: pa.Array) -> pa.Array:
        decimal, thousands = self.written.decimal or ".", self.written.thousands
        if self.kinds[0] != "text":
            decimal, thousands = ".", None
        words = self.written.missing or ()
        if any(_NAN.fullmatch(word) for word in words):
            found = pc.fill_null(pc.match_substring_regex(values, f"^{_NAN.pattern}$"), False)
            values = pc.if_else(found, None, values)
        if decimal != "." or thousands:
            values = _with_point(values, decimal, thousands)
        given = pa.array(words, pa.string())
        return _without_numbers(values, pa.concat_arrays([given, _with_point(given, decimal, thousands)]))

    def _times(self, values: pa.Array, partly: pa.Array | None, groups: Sequence[pa.Array]) -> pa.Array:
        native = self.kinds == ("time",)
        asked = bool(self.column.format) or len(self.kinds) > 1
        if not asked and not (self.column.type == "timestamp" and self._clock.zone != "UTC"):
            return values
        encoded = values.dictionary_encode()
        unique = _plain(encoded.dictionary) if {"number", "mixed"} & {*self.kinds} else encoded.dictionary
        read = moments(unique, None if native else self.column.format)
        there = ~pc.is_null(values).to_numpy(zero_copy_only=False)
        rows = encoded.indices.drop_null().to_numpy()
        micros, offset, fits = read.micros[rows], read.offset[rows], read.fits[rows]
        if self.column.type == "date":
            fits &= (offset == UNTOLD) | (offset == 0)
            fits &= micros % _DAY == 0
            utc, twice, never = micros, np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        else:
            local = fits & (offset == UNTOLD)
            utc = micros - np.where(offset == UNTOLD, 0, offset)
            twice, never = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
            at = np.flatnonzero(there)[local]
            told = self._clock.utc(micros[local], [group.take(pa.array(at)).to_pylist() for group in groups])
            utc[local], twice[local], never[local] = told
            fits &= (utc >= _MIN) & (utc <= _MAX)
        texts = _iso(np.where(fits & ~twice & ~never, utc, 0), self.column.type == "date")
        result = pc.replace_with_mask(values, pa.array(there), texts)
        for why, rows_of in (
            (UnreadReason.UNREADABLE, ~fits),
            (UnreadReason.TWICE, fits & twice),
            (UnreadReason.NEVER, fits & never),
        ):
            if rows_of.any():
                result = _put_back(result, values, there, rows_of, why)
        if partly is not None and pc.any(partly).as_py():
            result = marked(pc.if_else(partly, values, result), partly, UnreadReason.PARTIAL)
        return result


_MIN, _MAX = (
    np.datetime64(day, "us").astype(np.int64) for day in ("0001-01-01", "9999-12-31T23:59:59.999999")
)


def _put_back(
    result: pa.Array,
    values: pa.Array,
    there: np.ndarray[Any, Any],
    rows: np.ndarray[Any, Any],
    why: UnreadReason,
) -> pa.Array:
    """The result with the file's own text, marked, where `rows` (of those that are there) says so."""
    where = np.zeros(len(values), bool)
    where[np.flatnonzero(there)[rows]] = True
    mask = pa.array(where)
    return marked(pc.if_else(mask, values, result), mask, why)


def _iso(micros: np.ndarray[Any, Any], date: bool) -> pa.Array:
    if date:
        return pa.array(micros.astype("datetime64[us]").astype("datetime64[D]")).cast(pa.string())
    unit = "us" if (micros % 1_000_000).any() else "s"
    texts = pa.array(micros.astype("datetime64[us]").astype(f"datetime64[{unit}]")).cast(pa.string())
    return pc.binary_join_element_wise(texts, "+00:00", "")


def _plain(values: pa.Array) -> pa.Array:
    """Numbers as a typed file has them, without exponents: a format reads digits."""
    from decimal import Decimal

    far = pc.match_substring_regex(values, r"^-?[0-9.]+e[+-]?\d+$")
    if not pc.any(far).as_py():
        return values
    return pa.array([format(Decimal(v.as_py()), "f") if f.as_py() else v.as_py() for v, f in zip(values, far, strict=True)], pa.string())  # fmt: skip


def _without(values: pa.Array, words: Sequence[str]) -> pa.Array:
    """The values without those that are one of the words, blanks around them aside."""
    if not words:
        return values
    found = pc.is_in(
        pc.utf8_trim(values, _BLANKS), value_set=pa.array([w.strip(_BLANKS) for w in words], pa.string())
    )
    return pc.if_else(found, None, values) if pc.any(found).as_py() else values


_NUMBER = r"^[ \t]*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[ \t]*$"
_NAN = re.compile(r"(?i:[ \t]*[+-]?nan[ \t]*)")
# Beyond, neighbours are one number to a float.
_EXACT = 2.0**53


def _without_numbers(values: pa.Array, words: pa.Array) -> pa.Array:
    """The values without those that are the same number as one of the words, however it is written."""
    numbers = _floats(words).drop_null()
    numbers = numbers.filter(pc.less(pc.abs(numbers), _EXACT))
    if not len(numbers):
        return values
    found = pc.is_in(_floats(values), value_set=numbers)
    return pc.if_else(found, None, values) if pc.any(found).as_py() else values


def _floats(values: pa.Array) -> pa.Array:
    fits = pc.match_substring_regex(values, _NUMBER)
    return pc.utf8_ltrim(pc.utf8_trim(pc.if_else(fits, values, None), " \t"), "+").cast(pa.float64())


def _with_point(values: pa.Array, decimal: str, thousands: str | None) -> pa.Array:
    """Numbers in the form that the spec says, with a point and without groups; the others marked."""
    point, group = re.escape(decimal), re.escape(thousands or "")
    if thousands and thousands in _BLANKS:
        group = "[ \u00a0\u202f\u2009]"
    elif thousands in ("'", "\u2019"):
        group = "['\u2019]"
    grouped = rf"\d{{1,3}}(?:{group}\d{{3}})+(?:{point}\d*)?|" if thousands else ""
    form = rf"^[ \t]*[+-]?(?:{grouped}(?:\d+(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?)[ \t]*$"
    fits = pc.match_substring_regex(values, form)
    plain = pc.utf8_trim(values, " \t")
    if thousands:
        plain = pc.replace_substring_regex(plain, group, "")
    if decimal != ".":
        plain = pc.replace_substring(plain, decimal, ".")
    return marked(pc.if_else(fits, plain, values), pc.invert(fits), UnreadReason.UNREADABLE)


def _truths(values: pa.Array, true: Sequence[str], false: Sequence[str]) -> pa.Array:
    trimmed = pc.utf8_trim(values, _BLANKS)
    yes, no = (
        pc.is_in(trimmed, value_set=pa.array([w.strip(_BLANKS) for w in words], pa.string()))
        for words in (true, false)
    )
    result = pc.if_else(yes, "true", pc.if_else(no, "false", values))
    return marked(result, pc.and_(pc.is_valid(values), pc.invert(pc.or_(yes, no))), UnreadReason.UNREADABLE)
