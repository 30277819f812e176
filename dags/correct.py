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
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

import wiring
from evergreen.spec import DatasetSpec

ACTIONS = ["judge_again", "withdraw", "delete_keys", "dismiss"]


def build(dag_id: str, spec: DatasetSpec) -> DAG:
    """Build the correction DAG of a dataset."""
    subject = f"dataset/{spec.name}"
    with DAG(
        dag_id,
        description=f"Correct what was published of {spec.name}",
        doc_md=wiring.doc(__doc__, spec),
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=8),
        on_failure_callback=wiring.report_run,
        default_args=wiring.default_args(spec.owner),
        tags=["evergreen", "correct", f"dataset:{spec.name}"],
        params={
            "action": wiring.required_param(enum=ACTIONS, title="Action", description="What is to be done."),
            "file": wiring.required_param(
                title="File",
                description="The landed file by its name, or its batch by number; delete_keys: a file of keys.",
            ),
            "reason": wiring.reason_param(required=True),
            "dry_run": wiring.flag_param("Dry run", "Say what would change; change nothing."),
        },
    ) as dag:

        @task(execution_timeout=timedelta(hours=2))
        def correct(**context: Any) -> dict[str, Any]:
            """Correct and write the decision, in one transaction."""
            from evergreen.validation import undo

            params, as_of = context["params"], wiring.as_of(context)
            if not (params["reason"] or "").strip():
                raise AirflowFailException("a correction needs a reason; fill the field Reason")
            done = undo.correct(
                wiring.dataset_spec(spec.name),
                params["action"],
                params["file"],
                as_of,
                wiring.run_id(context),
                why=params["reason"],
                by=wiring.asked_by(context),
                dry_run=params["dry_run"],
            )
            if done.decision is None:
                raise AirflowSkipException(done.message)
            event = wiring.owed(subject, done.decision.kind.value != "batch_dismissed", as_of)
            return wiring.hand_on(
                context,
                {
                    "announce": event,
                    "as_of": as_of.isoformat(),
                    "message": done.message,
                    "decision_id": done.decision.id,
                },
                announce=event["due"],
                notify=wiring.mails_wait(subject),
            )

        done = correct()
        wiring.announce(wiring.dataset_asset(spec.name), unless="no row was changed")(done)
        done >> wiring.notify(subject)
    return dag


for _dag_id, _spec in wiring.wanted_datasets("correct"):
    globals()[_dag_id] = build(_dag_id, _spec)
