"""
### Ingest: files that landed become rows that can be trusted

**What.** Finds files in the dataset's landing folder that were not seen before (by checksum), loads each into a
staging table, runs the dataset's Great Expectations suite on it, and publishes it by upsert in one transaction, or
holds it back (the whole batch, or only its bad rows, as the spec says). The same file twice changes nothing.

**When.** On the spec's schedule, and by hand after a file has landed.

**Params.** *As of*: the time at which the rows count as learnt, where the spec names no other. *Force*: judge
quarantined files again, for instance after the suite was corrected.

**Then.** An event of the dataset's asset wakes the scoring of every model that reads it; also for what an earlier run
published and, because it was killed, never announced.

**How to recover.** A red `verdict` means that a batch was quarantined: the e-mail and `evergreen.batch` say why.
Mend the file and land it again (a new checksum is a new batch), or mend the spec and run with *Force*. What is published is
mended by `correct__DATASET`, which also judges one held file again or dismisses it. A run that was killed leaves nothing behind: clear it or wait for the next one.
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
from evergreen_airflow.schedules import schedule


def build(dag_id: str, spec: DatasetSpec, project: Project) -> DAG:
    """Build the ingest DAG of a dataset."""
    callbacks = Callbacks(project)
    subject = f"dataset/{spec.name}"
    with DAG(
        dag_id,
        description=f"Validate and publish new files of {spec.name}",
        doc_md=doc(__doc__, spec),
        schedule=schedule(spec.schedule),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=8),
        on_failure_callback=callbacks.report_run,
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "ingest", f"dataset:{spec.name}"],
        params={
            "as_of": forms.as_of_param(),
            "force": forms.flag_param("Force", "Judge quarantined files again."),
        },
    ) as dag:

        @task(execution_timeout=timedelta(hours=2))
        def land(**context: Any) -> dict[str, Any]:
            """Load, validate and publish (or quarantine) every new file; skip what then has nothing to do."""
            from evergreen import lineage
            from evergreen.validation import log_lines
            from evergreen.validation.ingest import ingest
            from evergreen.warehouse.files import landing_store

            as_of = runs.as_of(context)
            dataset = project.dataset(spec.name)
            with lineage.ingest(runs.task_run(context, as_of), dataset) as told:
                told.outcome = outcomes = ingest(
                    dataset, as_of, runs.run_id(context), force=context["params"]["force"]
                )
            published = [o.file for o in outcomes if o.state == "published"]
            quarantined = [o.file for o in outcomes if o.state == "quarantined"]
            event = announcements.owed(subject, bool(published), as_of)
            return announcements.hand_on(
                context,
                {
                    "message": notes.tell(
                        context, log_lines.run(outcomes, str(landing_store.place_of(dataset)))
                    ),
                    "announce": event,
                    "as_of": as_of.isoformat(),
                    "published": published,
                    "quarantined": quarantined,
                    "waiting": {o.file: o.failures[0].observed for o in outcomes if o.state == "waiting"},
                },
                announce=event["due"],
                notify=mailing.mails_wait(subject),
                verdict=bool(quarantined),
            )

        @task(retries=0, on_failure_callback=None)
        def verdict(news: dict[str, Any]) -> None:
            """Turn the run red where a batch was quarantined; the e-mail about it is `notify`'s."""
            if news["quarantined"]:
                raise AirflowFailException(
                    f"quarantined: {', '.join(news['quarantined'])}. The e-mail says why; mend and land the file again"
                )

        news: Any = land()
        announcements.announce(
            callbacks,
            assets.dataset_asset(spec.name),
            unless="no file was published, and no earlier one is untold",
        )(news)
        news >> mailing.notify(project, subject)
        verdict(news)
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the datasets whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted_datasets("ingest")}
