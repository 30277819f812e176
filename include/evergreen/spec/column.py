"""One column of a dataset: its type, what a valid value is, and how the file names and writes it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from evergreen.spec.timeformat import EPOCHS, time_format
from evergreen.spec.types import Strict

ColumnType = Literal["float", "integer", "boolean", "text", "category", "timestamp", "date"]
NUMBERS = ("float", "integer")
TIMES = ("timestamp", "date")


def _several(value: Any) -> Any:
    """A word, or a list of words, as a tuple; numbers and dates as YAML wrote them, truth values and null refused."""
    if value is None:
        return None
    words = list(value) if isinstance(value, (list, tuple)) else [value]
    for word in words:
        if word is None or isinstance(word, bool):
            read, such = ("null", "NULL") if word is None else (str(word).lower(), "YES" if word else "NO")
            raise ValueError(
                f"YAML reads an item as {read}, whatever the file calls it; write the file's word in quotes, such as"
                f' "{such}"'
            )
        if isinstance(word, (list, dict)):
            raise ValueError(f'{word!r} is no word; write a list such as ["NA", "-200"]')
    return tuple(str(word) for word in words)


def _bound(value: Any) -> Any:
    """A number, a date or a time, from what YAML made of it or from a text."""
    if isinstance(value, (date, float, int)) and not isinstance(value, bool):
        return value
    for read in (float, date.fromisoformat, datetime.fromisoformat):
        try:
            return read(value)
        except (ValueError, TypeError):
            continue
    raise ValueError(
        f"{value!r} is no number, date or time; write 5, 2024-03-31 or 2024-03-31T14:00:00+00:00"
    )


def _sources(value: Any) -> Any:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise ValueError(
                f"{item!r} is what YAML makes of it; put the name of a column in quotes, or write its number"
            )
        if isinstance(item, int) and item < 1:
            raise ValueError(f"{item} is no column of a file; the first one is 1")
    if not items:
        raise ValueError("is empty; name the column of the file, or leave it out")
    return tuple(items)


Words = Annotated[
    tuple[str, ...], BeforeValidator(_several, json_schema_input_type=str | float | list[str | float])
]
Bound = Annotated[float | date | datetime, BeforeValidator(_bound, json_schema_input_type=float | str)]
From = Annotated[
    tuple[str | int, ...], BeforeValidator(_sources, json_schema_input_type=str | int | list[str | int])
]


class Written(Strict):
    """How a file writes its values; of a whole dataset in `source`, of one column in that column."""

    missing: Words | None = Field(
        None,
        description="words that mean: no value; an empty field always does; of numbers every spelling (-200, -200.0)",
    )
    decimal: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="the sign before the decimals of a number; default: a point",
    )
    thousands: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="the sign between groups of three digits; a blank: every kind of it",
    )
    true: Words | None = Field(None, description="the words for true, in place of true, t, yes, y, on and 1")
    false: Words | None = Field(
        None, description="the words for false, in place of false, f, no, n, off and 0"
    )

    @model_validator(mode="after")
    def _signs(self) -> Written:
        for name, sign in (("decimal", self.decimal), ("thousands", self.thousands)):
            if sign and (sign.isalnum() or sign in '+-"'):
                raise ValueError(f"{name}: {sign!r} is part of a number itself; write a sign such as , or .")
        if (self.true is None) != (self.false is None):
            raise ValueError("true and false go together; name the words of both")
        both = sorted(set(self.true or ()) & set(self.false or ()))
        if both:
            raise ValueError(f"true and false both name {both[0]!r}; keep it in one")
        return self


class Column(Written):
    """One column of a dataset: its type, what a valid value is, and what the file makes of it."""

    model_config = ConfigDict(populate_by_name=True)

    type: ColumnType = Field(description="what every value must be readable as")
    origin: From | None = Field(
        None,
        alias="from",
        description="the column's name in the file, or its number (the first is 1); several make one time, with a blank"
        " between them; default: the same name",
    )
    format: Words | None = Field(
        None,
        description="how the file writes a timestamp or date: strptime's directives, or epoch_s, epoch_ms, epoch_us,"
        " epoch_ns; of several the first that fits; default: ISO 8601",
    )
    required: bool = Field(
        True,
        description="a missing value in a row is a failed expectation, and a file without the column is held;"
        " else the column is empty there",
    )
    null_share_max: float | None = Field(
        None, ge=0, le=1, description="largest share of missing values in a batch"
    )
    min: Bound | None = Field(
        None,
        description="smallest valid value (numbers; times: ISO 8601, without an offset in source.timezone)",
    )
    max: Bound | None = Field(None, description="largest valid value, as min")
    values: tuple[str, ...] | None = Field(None, description="the valid values (text, category)")
    description: str = Field("", description="what the column holds, for the reader of the file")

    @field_validator("format")
    @classmethod
    def _formats(cls, formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if formats == ():
            raise ValueError("is empty; write a format such as '%d/%m/%Y %H:%M', or leave it out")
        for text in formats or ():
            if text not in EPOCHS:
                time_format(text)
        return formats

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        kind = self.type
        for name, given, kinds in (
            ("decimal", self.decimal, NUMBERS),
            ("thousands", self.thousands, NUMBERS),
            ("true", self.true, ("boolean",)),
            ("format", self.format, TIMES),
            ("values", self.values, ("text", "category")),
        ):
            if given is not None and kind not in kinds:
                raise ValueError(f"{name} is for {' and '.join(kinds)}, not for {kind}; remove it")
        if self.origin and len(self.origin) > 1 and kind not in TIMES:
            raise ValueError(f"from: several columns make a timestamp or a date, not a {kind}; name one")
        for text in (self.format or ()) if kind == "date" else ():
            if text not in EPOCHS and "zone" in time_format(text).parts:
                raise ValueError("format: a date has no offset (%z); make the type timestamp")
        for name, bound in (("min", self.min), ("max", self.max)):
            self._fits(name, bound)
        low, high = self.min, self.max
        if low is not None and high is not None and _order(low) > _order(high):
            raise ValueError(f"min {low} is larger than max {high}; swap them")
        return self

    def _fits(self, name: str, bound: float | date | datetime | None) -> None:
        if bound is None:
            return
        if self.type not in (*NUMBERS, *TIMES):
            raise ValueError(f"min and max are for numbers and times, not for {self.type}; remove them")
        if isinstance(bound, date) != (self.type in TIMES):
            wanted = "a number" if self.type in NUMBERS else "a date or time, such as 2024-03-31"
            raise ValueError(f"{name} {bound} is none of a {self.type}; write {wanted}")
        if self.type == "date" and isinstance(bound, datetime) and bound.time().isoformat() != "00:00:00":
            raise ValueError(f"{name} {bound} has a time of day, the column is a date; write {bound.date()}")


def _order(bound: float | date | datetime) -> float:
    if isinstance(bound, datetime):
        return (bound if bound.tzinfo else bound.replace(tzinfo=UTC)).timestamp()
    if isinstance(bound, date):
        return datetime(bound.year, bound.month, bound.day, tzinfo=UTC).timestamp()
    return bound
