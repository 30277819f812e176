"""What is said about a task that failed."""

from __future__ import annotations

from evergreen.alerting.content.letter import KnownIncident, Letter, facts, known_links, numbers, recorded
from evergreen.incidents.failures import SHARED
from evergreen.ledger import words
from evergreen.links import airflow_dag_url, airflow_run_url
from evergreen.warehouse.connection import Connection

LONGEST_ERROR = 80
SAME = "Whatever else runs for this model (training, scoring, monitor) and fails for the same reason belongs to this e-mail."


def run_failed(conn: Connection, known: KnownIncident) -> Letter:
    """What is said about a failed task."""
    dag, task = known.text("dag_id"), known.text("task_id")
    error = known.text("error")
    short = _short(error)
    log, reason = known.get("log_url"), known.get("reason")
    return Letter(
        headline=f"{dag} failed in {task}",
        summary=f"{known.name}: {_kind(dag, known.name)} failed in {task}{f': {short}' if short else ''}",
        lead=(
            f"The task {task} of {dag} failed and is not tried again by itself: mend what the error names and clear the task.",
            "Until something works again, or until the next week begins, later failures of it with the same error go "
            "to the ledger and bring no e-mail. When the task succeeds you get one.",
            *((SAME,) if reason in {one.value for one in SHARED} else ()),
        ),
        tone="bad",
        numbers=numbers(
            ("Error", short),
            ("Kind of error", words.reason(str(reason)) if reason else None),
            ("Task", task),
            ("Try", known.get("try_number")),
            ("As of", words.when(known.as_of)),
        ),
        facts=facts(("Error", error)) if not short or error != short else (),
        small=recorded(("DAG run", known.run_id)),
        next_title="What to do",
        steps=(
            "Read the error above and the end of the log; mend the cause it names.",
            "Then clear the failed task in Airflow: it goes on where it stopped, and nothing is done twice.",
            "Until then the last champion stays in place." if known.subject.startswith("model/")
            else "Until then the data published so far stays in place, and models are scored on it.",
        ),
        links=known_links(
            ("Log", log if isinstance(log, str) else None),
            ("Airflow run", airflow_run_url(known.run_id)),
            ("DAG", airflow_dag_url(dag) if known.run_id else None),
        ),
    )  # fmt: skip


def _kind(dag: str, name: str) -> str:
    """The kind of a DAG of this model or dataset: its name stands before it."""
    return dag.removesuffix(f"__{name}")


def _short(error: str) -> str:
    """The first line of an error, for a subject."""
    first = next((line.strip() for line in error.splitlines() if line.strip()), "")
    if first == words.MISSING:
        return ""
    return first if len(first) <= LONGEST_ERROR else f"{first[: LONGEST_ERROR - 1]}…"
