"""One thing that is wrong with a batch, in the one form in which checks of every kind report it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SAMPLES = 5
TEXT = 80


@dataclass(frozen=True)
class Example:
    """A row that fails, so that a person finds it.

    Args:
        row: its number among the rows of the file; the first one is 1.
        value: what failed of it, or all that did, by comma; shortened to 80 characters.
        key: the values of its key columns, by comma; shortened likewise.
        line: the line of the file on which it begins, the first one is 1; None for a file without lines.
    """

    row: int
    value: str
    key: str
    line: int | None = None


@dataclass(frozen=True)
class Failure:
    """A failed expectation, as it goes to the ledger, into the quarantine and into e-mails.

    Args:
        expectation: its name; Great Expectations' own where that library has one.
        column: the column or, by comma, columns; None for the whole file.
        observed: what was found.
        limit: what was expected.
        failed_rows: how many rows fail; None where rows are not what fails.
        sample: at most five different values that failed, each shortened to 80 characters.
        remedy: what to do next.
        rows: where such values stand, one row for each value; empty where rows are not what fails.
        whole: why this holds the whole batch back, and not the rows alone; empty where it does not.
    """

    expectation: str
    column: str | None
    observed: str
    limit: str
    failed_rows: int | None = None
    sample: tuple[str, ...] = ()
    remedy: str = ""
    rows: tuple[Example, ...] = ()
    whole: str = ""

    def __str__(self) -> str:
        where = f"{self.column}: " if self.column else ""
        return f"{where}{self.expectation}: {self.observed}, expected {self.limit}"

    @property
    def of_row(self) -> str:
        """The failure as the reason for which one row is held back."""
        return f"{self.column or 'row'}: {self.expectation}, expected {self.limit}"

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON takes it."""
        return {**asdict(self), "sample": list(self.sample), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Failure:
        """The failure that `to_dict` wrote."""
        rows = tuple(Example(**row) for row in value.get("rows", ()))
        return cls(**{**value, "sample": tuple(value["sample"]), "rows": rows})


def sample_of(values: Any) -> tuple[str, ...]:
    """At most five different values as short texts that JSON and PostgreSQL can hold."""
    return tuple(text for text, _ in zip(dict.fromkeys(map(short, values)), range(SAMPLES), strict=False))


def short(value: Any) -> str:
    """A value as a text of at most 80 characters that JSON and PostgreSQL can hold."""
    text = "NULL" if value is None else str(value).replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= TEXT else text[: TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}"


class UnreadableError(Exception):
    """The file as a whole cannot be taken in; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def empty_file(observed: str) -> Failure:
    """A file without any content."""
    return Failure(
        "file_not_empty", None, observed, "a header and at least one row",
        remedy="deliver the file again, whole",
    )  # fmt: skip
