"""What became of one landed file; small enough for XCom."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from evergreen.warehouse.files.failure import Failure

State = Literal["published", "quarantined", "waiting"]


@dataclass(frozen=True)
class RowCounts:
    """The rows of a batch; of a published one `read` is the sum of the others, of a quarantined one all are held."""

    read: int
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    duplicate: int = 0
    held: int = 0

    def columns(self) -> dict[str, int]:
        """By the names of the columns of evergreen.batch."""
        return {f"rows_{name}": value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class JudgeAgain:
    """A batch that a person wants to be judged again: its id, why, and who it is."""

    batch: int
    why: str
    by: str


@dataclass(frozen=True)
class BatchOutcome:
    """The decision on one file.

    Args:
        dataset: its dataset.
        file: its name in the landing folder.
        checksum: SHA-256 of its content, hexadecimal.
        state: whether it was published (perhaps without some rows), held back as a whole, or is waiting because it may be
            unfinished, which decides nothing.
        rows_read: data rows in the file; 0 where it could not be read to the end.
        rows_new: rows with a key that was not there.
        rows_changed: rows that are another version of a key that was there.
        rows_held: rows held back: all of a quarantined batch.
        failures: what failed; a published batch has some where rows were held back.
        decision_id: the ledger row; None where it waits.
        rows_unchanged: rows that are there with the same values; None where an earlier release decided.
        rows_duplicate: rows that are equal to an earlier one of the file and were dropped; None likewise.
    """

    dataset: str
    file: str
    checksum: str
    state: State
    rows_read: int
    rows_new: int
    rows_changed: int
    rows_held: int
    failures: tuple[Failure, ...]
    decision_id: int | None
    rows_unchanged: int | None = None
    rows_duplicate: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON takes it."""
        return {**asdict(self), "failures": [f.to_dict() for f in self.failures]}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> BatchOutcome:
        """The outcome that `to_dict` wrote."""
        return cls(**{**value, "failures": tuple(Failure.from_dict(f) for f in value["failures"])})
