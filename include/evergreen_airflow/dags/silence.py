"""
### Silence: keep the alerts of a model or dataset back, for a reason and until a time

**What.** Writes a row of the ledger with the person, the reason and the end. Until then drift, data problems, batches held
back, failed runs, rejected challengers and the ends of these are kept and marked, not sent. A new champion and a rollback are
told all the same: they change what is served. `make silence MODEL=... UNTIL=... REASON=...` does the same.

**When.** By hand.

**Params.** *Of*: the model or dataset. *Until*: a time (UTC where it names no zone), a duration such as `3d`, or `now` to end a
silence. *Reason*: required.

**Then.** When the silence has ended, one letter says what was held; the DAG `mail` sends it. Nothing is lost.

**How to recover.** A silence is replaced by the next one of the same model or dataset, and ended with *Until* `now`.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_parsing_context, task
from airflow.sdk.exceptions import AirflowFailException

from evergreen_airflow import forms, mailing, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.project import Project

log = logging.getLogger("evergreen")


def _subjects(project: Project) -> list[str]:
    """What can be silenced; only its own task and the DAG processor read all specs for it."""
    if get_parsing_context().dag_id not in (None, "silence"):
        return []
    found = project.specs()
    return [f"model/{n}" for n in sorted(found.models)] + [f"dataset/{n}" for n in sorted(found.datasets)]


def build(project: Project) -> DAG:
    """Build the DAG that silences."""
    callbacks = Callbacks(project)
    known = _subjects(project)
    with DAG(
        "silence",
        description="Keep alerts back for a while",
        doc_md=__doc__,
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(minutes=30),
        default_args=callbacks.default_args("evergreen"),
        tags=["evergreen", "silence"],
        params={
            "subject": forms.required_param(
                **({"enum": known} if known else {}),
                title="Of",
                description="The model or dataset whose alerts are kept back.",
            ),
            "until": Param(
                "1d",
                type="string",
                pattern=r"^\s*([nN][oO][wW]|\d+\s*[mhdwMHDW]|\d{4}-\d\d.*)\s*$",  # as browsers read it, too
                title="Until",
                description="A time like 2026-05-01T06:00 (UTC), a duration like 3d or 12h, or now to end a silence.",
            ),
            "reason": forms.required_param(
                title="Reason",
                description="Why; it goes to the ledger, the digest and the letter at the end.",
            ),
        },
    ) as dag:

        @task(on_failure_callback=None, on_success_callback=None)
        def silence(**context: Any) -> dict[str, Any]:
            """Write the silence, or its end; then send what may go out now."""
            from evergreen.incidents import silences
            from evergreen.warehouse.connection import connect

            params, run = context["params"], context["dag_run"]
            subject = params["subject"]
            if not subject:
                raise AirflowFailException("Of: a silence needs a model or dataset; choose one")
            by = getattr(run, "triggering_user_name", None) or "not recorded"
            with connect() as conn:
                made = silences.silence(
                    conn,
                    subject,
                    params["until"],
                    params["reason"] or "",
                    by,
                    runs.as_of(context),
                    runs.run_id(context),
                )
            if mailing.mails_wait(subject):
                mailing.deliver(project, subject)
            end = silences.until(made)
            ended = made.reason == "silence_ended"
            message = f"alerts of {subject} " + (
                "are sent again" if ended else f"are kept back until {end:%Y-%m-%d %H:%M} UTC"
            )
            log.info("%s", notes.tell(context, message))
            return {
                "message": message,
                "subject": subject,
                "decision": made.reason,
                "until": end.isoformat(),
            }

        silence()
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """This one DAG, by its id, for the specs that lie beside a DAG file."""
    return {"silence": build(Project(dag_file))}
