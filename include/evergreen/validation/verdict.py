"""Whether a batch is published, without its bad rows or whole, or held back."""

from __future__ import annotations

from dataclasses import dataclass

from evergreen.ledger.reasons import BatchReason
from evergreen.spec import DatasetSpec
from evergreen.validation.batch_failures import STORABLE
from evergreen.validation.outcome import State
from evergreen.warehouse.batches.staging import SuiteFinding


@dataclass(frozen=True)
class BatchVerdict:
    """What is to be done with a batch, and why: the reason code of its ledger row.

    `whole` says in words why all of it is held back and not its bad rows alone; empty where it is not.
    """

    state: State
    reason: BatchReason
    whole: tuple[str, ...] = ()


def judge_batch(dataset: DatasetSpec, rows: int, held: int, findings: list[SuiteFinding]) -> BatchVerdict:
    """Decide about a batch; pure.

    Args:
        dataset: the spec: `quarantine` and `max_bad_rows`.
        rows: how many rows the file has; 0 if it could not be read.
        held: how many of them fail by themselves.
        findings: everything that failed; one without a query of rows is about the batch as a whole.
    """
    if any(f.failure.expectation == STORABLE for f in findings):
        return BatchVerdict("quarantined", BatchReason.UNPUBLISHABLE)
    if not rows:
        return BatchVerdict("quarantined", BatchReason.UNREADABLE)
    if not findings:
        return BatchVerdict("published", BatchReason.PASSED)
    whole = _whole(dataset, rows, held, findings)
    if not whole:
        return BatchVerdict("published", BatchReason.ROWS_HELD)
    by_row = dataset.quarantine == "rows" and all(f.by_row for f in findings)
    reason = BatchReason.TOO_MANY_BAD_ROWS if by_row else BatchReason.FAILED_EXPECTATIONS
    return BatchVerdict("quarantined", reason, whole)


def _whole(dataset: DatasetSpec, rows: int, held: int, findings: list[SuiteFinding]) -> tuple[str, ...]:
    if dataset.quarantine == "batch":
        return ("the spec says `quarantine: batch`, so one failed expectation holds the whole file",)
    about = tuple(
        dict.fromkeys(
            f"{f.failure.column or 'file'}: {f.failure.expectation} cannot hold back single rows: "
            f"{f.failure.whole or 'it is about the file as a whole'}"
            for f in findings
            if not f.by_row
        )
    )
    if about:
        return about
    if held > dataset.max_bad_rows * rows or held >= rows:
        return (
            f"{held} of {rows} rows fail ({held / rows:.1%}), and max_bad_rows allows {dataset.max_bad_rows:.4g}",
        )
    return ()
