"""One thing that is wrong with a batch, in the one form in which checks of every kind report it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SAMPLES = 5
TEXT = 80


@dataclass(frozen=True)
class Failure:
    """A failed expectation, as it goes to the ledger, into the quarantine and into e-mails.

    Args:
        expectation: its name; Great Expectations' own where that library has one.
        column: the column or, by comma, columns; None for the whole file.
        observed: what was found.
        limit: what was expected.
        failed_rows: how many rows fail; None where rows are not what fails.
        sample: at most five of the values that failed, each shortened to 80 characters.
        remedy: what to do next.
    """

    expectation: str
    column: str | None
    observed: str
    limit: str
    failed_rows: int | None = None
    sample: tuple[str, ...] = ()
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.column}: " if self.column else ""
        return f"{where}{self.expectation}: {self.observed}, expected {self.limit}"

    @property
    def of_row(self) -> str:
        """The failure as the reason for which one row is held back."""
        return f"{self.column or 'row'}: {self.expectation}, expected {self.limit}"

    def to_dict(self) -> dict[str, Any]:
        """The failure as JSON takes it."""
        return {**asdict(self), "sample": list(self.sample)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Failure:
        """The failure that `to_dict` wrote."""
        return cls(**{**value, "sample": tuple(value["sample"])})


def sample_of(values: Any) -> tuple[str, ...]:
    """At most five values as short texts that JSON and PostgreSQL can hold."""
    texts = ("NULL" if v is None else str(v).replace("\x00", "\N{REPLACEMENT CHARACTER}") for v in values)
    shown = (t if len(t) <= TEXT else t[: TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}" for t in texts)
    return tuple(text for text, _ in zip(shown, range(SAMPLES), strict=False))


class UnreadableError(Exception):
    """The file as a whole cannot be taken in; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure
