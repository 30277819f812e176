"""What is said about a task that failed."""

from __future__ import annotations

from evergreen.alerting.content.letter import KnownIncident, Letter, facts, known_links
from evergreen.incidents.failures import SHARED
from evergreen.ledger import words
from evergreen.links import airflow_dag_url, airflow_run_url
from evergreen.warehouse.connection import Connection

SAME = "Whatever else runs for this model (training, scoring, monitor) and fails for the same reason belongs to this e-mail."


def run_failed(conn: Connection, known: KnownIncident) -> Letter:
    """What is said about a failed task."""
    dag, task = known.text("dag_id"), known.text("task_id")
    error = known.text("error")
    log, reason = known.get("log_url"), known.get("reason")
    return Letter(
        headline=f"{dag} failed in {task}",
        summary=f"{known.name}: {dag} failed in {task}",
        lead=(
            f"The task {task} of {dag} failed and is not tried again by itself: mend what the error names and clear the task.",
            "Until something works again, or until the next week begins, later failures of it with the same error go "
            "to the ledger and bring no e-mail. When the task succeeds you get one.",
            *((SAME,) if reason in {one.value for one in SHARED} else ()),
        ),
        tone="bad",
        facts=facts(
            ("Error", error),
            *((("Kind of error", words.reason(str(reason))),) if reason else ()),
            ("DAG run", known.run_id),
            ("Task", task),
            ("Try", known.get("try_number")),
            ("As of", words.when(known.as_of)),
        ),
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
