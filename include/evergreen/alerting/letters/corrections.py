"""Corrections by hand: what the ledger says of one, and the one e-mail to the owner of the dataset."""

from __future__ import annotations

from evergreen.alerting.content.letter import (
    KnownIncident,
    Letter,
    Table,
    facts,
    known_links,
    numbers,
    recorded,
)
from evergreen.incidents.corrections import _COUNTS, WHAT
from evergreen.ledger import words
from evergreen.links import airflow_dag_url, airflow_run_url
from evergreen.warehouse.connection import Connection

MOST_FILES = 20


def corrected(conn: Connection, known: KnownIncident) -> Letter:
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
        numbers=numbers(
            ("File", known.text("file")),
            *((label.capitalize(), counts.get(name)) for name, label in _COUNTS.items() if counts.get(name)),
            ("Asked by", known.text("by")),
        ),
        facts=facts(
            ("Dataset", known.name),
            ("Reason", known.text("why")),
            ("As of", words.when(known.as_of)),
        ),
        small=recorded(("Batch", known.text("batch")), ("Checksum", known.text("checksum"))),
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
