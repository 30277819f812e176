"""Corrections by hand: what the ledger says of one, and that its owner is told."""

from __future__ import annotations

from dataclasses import asdict

from evergreen.alert_kinds import AlertKind
from evergreen.incidents import quarantines, threads
from evergreen.incidents.outbox import raise_incident
from evergreen.ledger import Decision
from evergreen.ledger.evidence import BatchEvidence, KeysTouched
from evergreen.ledger.reasons import DecisionKind
from evergreen.warehouse.batches.correction import Corrected
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.storage.bucket import Place

WHAT = {
    DecisionKind.BATCH_CORRECTED: "a file was judged again",
    DecisionKind.BATCH_WITHDRAWN: "a batch was withdrawn",
    DecisionKind.KEYS_DELETED: "keys were deleted",
}


def evidence(done: Corrected, why: str, by: str) -> BatchEvidence:
    """What the ledger keeps of a correction."""
    return BatchEvidence(why=why, by=by, corrected=KeysTouched(**vars(done)), keys_changed=done.rows)


def judged_again(file: str, done: Corrected, held: int) -> str:
    """A file that was judged again, in a sentence."""
    return f"{file} was judged again: {_counts(done)}" + (f"; {held} rows are held back" if held else "")


def withdrawn(file: str, done: Corrected) -> str:
    """A batch that was withdrawn, in a sentence."""
    return f"{file} was withdrawn: {_counts(done)}"


def keys_deleted(file: str, asked: int, done: Corrected) -> str:
    """A file of keys, in a sentence."""
    missing = asked - done.gone
    return f"{done.gone} keys of {file} are deleted" + (
        f", {missing} of it were not there" if missing else ""
    )


def owe_mail(conn: Connection, decision: Decision, folder: Place | None) -> None:
    """Owe the mail of a correction, and end the spell of batches that were held back if nothing is left of it.

    Args:
        conn: the transaction of the correction.
        decision: its row of the ledger.
        folder: in which the files land.
    """
    if decision.kind in WHAT:
        raise_incident(
            conn, decision.dedupe_key, decision.subject, AlertKind.BATCH_CORRECTED, decision.id, {}
        )
    thread = threads.newest(conn, decision.subject, AlertKind.BATCH_QUARANTINED)
    if thread is not None and thread.end is None:
        quarantines.over(conn, thread, BatchEvidence.of(decision).message, decision, folder)


_COUNTS = {
    "new": "Keys new",
    "changed": "Keys with other values",
    "restored": "Keys with an earlier batch's values again",
    "gone": "Keys gone",
    "unchanged": "Keys as they were",
    "replaced": "Rows that a later batch has replaced",
}


def _counts(done: Corrected) -> str:
    counts = asdict(done)
    named = [
        f"{label[0].lower()}{label[1:]}: {counts[name]}" for name, label in _COUNTS.items() if counts[name]
    ]
    return ", ".join(named) or "nothing changes"
