"""Corrections by hand: what the ledger says of one, and the one e-mail to the owner of the dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evergreen.alerting import quarantines, threads, words
from evergreen.alerting.letter import Known, Letter, Table, facts, known_links
from evergreen.alerting.links import airflow_dag_url, airflow_run_url
from evergreen.alerting.outbox import raise_incident
from evergreen.ledger import Decision, Kind
from evergreen.warehouse.connection import Connection
from evergreen.warehouse.correction import Corrected
from evergreen.warehouse.store import Place

KIND = "batch_corrected"
WHAT = {
    Kind.BATCH_CORRECTED: "a file was judged again",
    Kind.BATCH_WITHDRAWN: "a batch was withdrawn",
    Kind.KEYS_DELETED: "keys were deleted",
}
MOST_FILES = 20


def evidence(done: Corrected, why: str, by: str) -> dict[str, Any]:
    """What the ledger keeps of a correction."""
    return {"why": why, "by": by, "corrected": asdict(done), "keys_changed": done.rows}


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


def told(conn: Connection, decision: Decision, folder: Place | None) -> None:
    """Owe the mail of a correction, and end the spell of batches that were held back if nothing is left of it.

    Args:
        conn: the transaction of the correction.
        decision: its row of the ledger.
        folder: in which the files land.
    """
    if decision.kind in WHAT:
        raise_incident(conn, decision.dedupe_key, decision.subject, KIND, decision.id, {})
    thread = threads.newest(conn, decision.subject, quarantines.KIND)
    if thread is not None and thread.end is None:
        quarantines.over(conn, thread, str(decision.evidence.get("message")), decision, folder)


def corrected(conn: Connection, known: Known) -> Letter:
    """Published rows were corrected by hand."""
    what = WHAT.get(known.decision.kind, "rows were corrected") if known.decision else "rows were corrected"
    said, others = known.text("message"), known.items("later_with_equal_rows")
    known.told |= {
        "checksum", "quarantine", "failures", "failures_in_all", "replaces", "verdict", "keys_changed", "path", "held_whole",
        *(f"rows_{n}" for n in ("read", "new", "changed", "unchanged", "duplicate", "held", "deleted")),
    }  # fmt: skip
    counts = known.mapping("corrected")
    return Letter(
        headline=f"{known.name}: {what}",
        summary=f"{known.name}: {said}",
        lead=(
            f"{said}. Runs as of {words.when(known.as_of)} and later see it so; whatever is computed as of an earlier time is "
            "what it was.",
        ),
        facts=facts(
            ("Dataset", known.name),
            ("File", known.text("file")),
            ("Batch", known.text("batch")),
            ("Asked by", known.text("by")),
            ("Reason", known.text("why")),
            *((label, counts.get(name)) for name, label in _COUNTS.items() if counts.get(name)),
            ("As of", words.when(known.as_of)),
        ),
        tables=(
            Table(
                "Later files that brought rows as they were", ("File",), tuple((str(f),) for f in others[:MOST_FILES]),
                note="Rows of theirs that were equal to those of this batch went with it: judge these files again.",
            ),
        ) if others else (),
        next_title="What still works, and what to do",
        steps=(
            "Champions stay as they are: one that has learnt such rows is replaced when a training passes the gate. Start "
            "train__MODEL if that should not wait for the next one.",
            f"A correction is itself undone by a correction: start correct__{known.name} (docs/corrections.md).",
        ),
        links=known_links(
            ("Airflow run", airflow_run_url(known.run_id)), ("Corrections", airflow_dag_url(f"correct__{known.name}"))
        ),
    )  # fmt: skip


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
