"""What ingest says: of each file in the log, and of a whole run in one line."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from evergreen.ledger import Decision, words
from evergreen.ledger.evidence import BatchEvidence
from evergreen.ledger.reasons import DecisionKind
from evergreen.progress import counted, took
from evergreen.spec import DatasetSpec
from evergreen.validation.outcome import BatchOutcome

log = logging.getLogger(__name__)

MOST_TOLD = 10
STATES = {"published": "published", "quarantined": "held back", "waiting": "left for the next run"}


def file(dataset: DatasetSpec, decision: Decision, seconds: float) -> None:
    """Log what became of a file: rows, rate, and each expectation that failed; what is held back is a warning."""
    found = BatchEvidence.of(decision)
    held = decision.kind is DecisionKind.BATCH_QUARANTINED
    level = logging.WARNING if held or found.rows_held else logging.INFO
    log.log(
        level, "%s: %s: %s: %s %s",
        dataset.name, found.file, f"held back, {words.reason(decision.reason)}" if held else "published",
        _rows(found), took(found.rows_read, seconds),
    )  # fmt: skip
    for failure in found.failures[:MOST_TOLD]:
        log.log(
            level, "%s: %s: %s: %s: %s, expected %s",
            dataset.name, found.file, failure.column or "file", failure.expectation, failure.observed, failure.limit,
        )  # fmt: skip
    if (more := (found.failures_in_all or 0) - MOST_TOLD) > 0:
        log.log(level, "%s: %s: and %s more", dataset.name, found.file, counted(more, "failed expectation"))


def run(outcomes: Sequence[BatchOutcome], place: str) -> str:
    """A run in one line, such as `2 files published, 1 held back: 5,038 rows new, 12 changed, 90 held back`.

    Args:
        outcomes: of `ingest`.
        place: where the files land.
    """
    if not outcomes:
        return f"nothing new in {place}"
    states = Counter(o.state for o in outcomes)
    first, *others = (f"{n} {STATES[state]}" for state, n in states.items())
    number, _, state = first.partition(" ")
    files = ", ".join([f"{counted(int(number), 'file')} {state}", *others])
    rows = {
        "new": sum(o.rows_new for o in outcomes),
        "changed": sum(o.rows_changed for o in outcomes),
        "held back": sum(o.rows_held for o in outcomes),
    }
    return f"{files}: {_numbers(rows)}"


def _rows(found: BatchEvidence) -> str:
    return f"{counted(found.rows_read, 'row')} read, " + _numbers(
        {
            "new": found.rows_new,
            "changed": found.rows_changed,
            "as they were": found.rows_unchanged,
            "double": found.rows_duplicate,
            "deleted": found.rows_deleted,
            "held back": found.rows_held,
        }
    ).removeprefix("rows ")


def _numbers(rows: dict[str, int]) -> str:
    """Counts of rows, without those that are zero."""
    some = [f"{number:,} {what}" for what, number in rows.items() if number]
    return ", ".join(some) if some else "no row"
