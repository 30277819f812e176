"""What the ledger keeps of a batch of rows: what a file held, what became of it, and how a person corrected it."""

from __future__ import annotations

from evergreen.ledger.evidence.base import Evidence, Part, rare


class KeysTouched(Part):
    """What became of the keys that a correction touched, as numbers; see `warehouse.batches.correction.Corrected`."""

    gone: int = 0
    restored: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    replaced: int = 0


class FailedRow(Part):
    """A row that fails; see `warehouse.files.failure.Example`."""

    row: int
    value: str = ""
    key: str = ""
    line: int | None = None


class FailedExpectation(Part):
    """A failed expectation; see `warehouse.files.failure.Failure`."""

    expectation: str
    column: str | None = None
    observed: str = ""
    limit: str = ""
    failed_rows: int | None = None
    sample: tuple[str, ...] = ()
    remedy: str = ""
    rows: tuple[FailedRow, ...] = ()
    whole: str = ""


class BatchEvidence(Evidence):
    """Of a batch that was published, held back, judged again, withdrawn or dismissed, and of keys that were deleted.

    Attributes:
        file: its name in the landing folder.
        path: where it lay.
        checksum: SHA-256 of its content, hexadecimal; of a file of keys with the run's id.
        batch: id in evergreen.batch.
        rows_read, rows_new, rows_changed, rows_unchanged, rows_duplicate, rows_held: see `validation.outcome.BatchOutcome`; of a
            file of keys `rows_read` counts the keys.
        quarantine: of the dataset: what a failed expectation holds back, `batch` or `rows`.
        failures: what failed; the first ones.
        failures_in_all: how many there were.
        held_whole: why the batch was held back as a whole, a text each; the first ones.
        columns_absent: columns of the spec that the file did not have.
        columns_ignored: columns of the file that the spec does not have; the first ones.
        max_bad_rows: the largest share of bad rows, where that is what held the batch back.
        rows_deleted: how many of its rows said that their key is deleted.
        message: a correction in a sentence.
        why, by: what the person gave as the reason, and who it was.
        corrected: what became of the keys.
        keys_changed: how many rows of the dataset are others than before.
        verdict: the reason code of the new judgement.
        replaces: the batch that was judged again.
        later_with_equal_rows: later files whose rows went with a withdrawn batch, because they were equal to its.
    """

    file: str | None = None
    path: str | None = None
    checksum: str | None = None
    batch: int | None = None
    rows_read: int = 0
    rows_new: int = 0
    rows_changed: int = 0
    rows_unchanged: int = 0
    rows_duplicate: int = 0
    rows_held: int = 0
    quarantine: str | None = None
    failures: tuple[FailedExpectation, ...] = ()
    failures_in_all: int | None = None
    held_whole: tuple[str, ...] = rare(())
    columns_absent: tuple[str, ...] = rare(())
    columns_ignored: tuple[str, ...] = rare(())
    max_bad_rows: float | None = rare(None)
    rows_deleted: int = rare(0)
    message: str = rare("")
    why: str | None = rare(None)
    by: str | None = rare(None)
    corrected: KeysTouched | None = rare(None)
    keys_changed: int | None = rare(None)
    verdict: str | None = rare(None)
    replaces: int | None = rare(None)
    later_with_equal_rows: tuple[str, ...] = rare(())
