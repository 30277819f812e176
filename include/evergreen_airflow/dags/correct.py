"""
### Correct: take back or judge again what ingest decided, without changing what was known

**What.** One of four: *judge_again* reads a landed file once more under today's spec (a wrong time zone, a forgotten missing
marker), *withdraw* takes back what a batch brought, *delete_keys* deletes the keys in a file, *dismiss* leaves a batch that was
held back as it is. Always a new version of history: a snapshot as of an earlier time stays what it was. The decision, its reason
and who asked are a row of the ledger.

**When.** By hand.

**Params.** *Action*: which of the four. *File*: the name of the landed file, or the number of its batch; for *delete_keys* a file
that has the dataset's key columns, by its path below EVERGREEN_LANDING. *Reason*: required. *Dry run*: say what would change.

**Then.** An event of the dataset's asset wakes the scoring of every model that reads it; an e-mail tells the dataset's owner.

**How to recover.** A correction is undone by another one: a batch that was withdrawn comes back by *judge_again*, keys that were
deleted come back when the batch of their file is withdrawn. A run that failed or was killed has changed nothing. See
docs/corrections.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from evergreen.spec import DatasetSpec
from evergreen_airflow import announcements, assets, forms, mailing, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.project import Project, doc

ACTIONS = ["judge_again", "withdraw", "delete_keys", "dismiss"]


def build(dag_id: str, spec: DatasetSpec, project: Project) -> DAG:
    """Build the correction DAG of a dataset."""
    callbacks = Callbacks(project)
    subject = f"dataset/{spec.name}"
    with DAG(
        dag_id,
        description=f"Correct what was published of {spec.name}",
        doc_md=doc(__doc__, spec),
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=8),
        on_failure_callback=callbacks.report_run,
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "correct", f"dataset:{spec.name}"],
        params={
            "action": forms.required_param(enum=ACTIONS, title="Action", description="What is to be done."),
            "file": forms.required_param(
                title="File",
                description="The landed file by its name, or its batch by number; delete_keys: a file of keys.",
            ),
            "reason": forms.reason_param(required=True),
            "dry_run": forms.flag_param("Dry run", "Say what would change; change nothing."),
        },
    ) as dag:

        @task(execution_timeout=timedelta(hours=2))
        def correct(**context: Any) -> dict[str, Any]:
            """Correct and write the decision, in one transaction."""
            from evergreen.validation import undo

            params, as_of = context["params"], runs.as_of(context)
            if not (params["reason"] or "").strip():
                raise AirflowFailException("Reason: a correction needs one; fill the field")
            done = undo.correct(
                project.dataset(spec.name),
                params["action"],
                params["file"],
                as_of,
                runs.run_id(context),
                why=params["reason"],
                by=runs.asked_by(context),
                dry_run=params["dry_run"],
            )
            message = notes.tell(context, done.message)
            if done.decision is None:  # a dry run, or there was nothing to do
                nothing = {"announce": {"due": False}, "message": message}
                return announcements.hand_on(context, nothing, announce=False, notify=False)
            event = announcements.owed(subject, done.decision.kind.value != "batch_dismissed", as_of)
            return announcements.hand_on(
                context,
                {
                    "announce": event,
                    "as_of": as_of.isoformat(),
                    "message": message,
                    "decision_id": done.decision.id,
                },
                announce=event["due"],
                notify=mailing.mails_wait(subject),
            )

        done = correct()
        announcements.announce(callbacks, assets.dataset_asset(spec.name), unless="no row was changed")(done)
        done >> mailing.notify(project, subject)
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the datasets whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted_datasets("correct")}
