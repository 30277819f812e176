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

import wiring
from evergreen.spec import DatasetSpec


def build(dag_id: str, spec: DatasetSpec) -> DAG:
    """Build the ingest DAG of a dataset."""
    subject = f"dataset/{spec.name}"
    with DAG(
        dag_id,
        description=f"Validate and publish new files of {spec.name}",
        doc_md=wiring.doc(__doc__, spec),
        schedule=wiring.schedule(spec.schedule),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=8),
        on_failure_callback=wiring.report_run,
        default_args=wiring.default_args(spec.owner),
        tags=["evergreen", "ingest", f"dataset:{spec.name}"],
        params={
            "as_of": wiring.as_of_param(),
            "force": wiring.flag_param("Force", "Judge quarantined files again."),
        },
    ) as dag:

        @task(execution_timeout=timedelta(hours=2))
        def land(**context: Any) -> dict[str, Any]:
            """Load, validate and publish (or quarantine) every new file; skip what then has nothing to do."""
            from evergreen import lineage
            from evergreen.validation.ingest import ingest

            as_of = wiring.as_of(context)
            dataset = wiring.dataset_spec(spec.name)
            with lineage.ingest(wiring.task_run(context, as_of), dataset) as told:
                told.outcome = outcomes = ingest(
                    dataset, as_of, wiring.run_id(context), force=context["params"]["force"]
                )
            published = [o.file for o in outcomes if o.state == "published"]
            quarantined = [o.file for o in outcomes if o.state == "quarantined"]
            event = wiring.owed(subject, bool(published), as_of)
            return wiring.hand_on(
                context,
                {
                    "announce": event,
                    "as_of": as_of.isoformat(),
                    "published": published,
                    "quarantined": quarantined,
                    "waiting": {o.file: o.failures[0].observed for o in outcomes if o.state == "waiting"},
                },
                announce=event["due"],
                notify=wiring.mails_wait(subject),
                verdict=bool(quarantined),
            )

        @task(retries=0, on_failure_callback=None)
        def verdict(news: dict[str, Any]) -> None:
            """Turn the run red where a batch was quarantined; the e-mail about it is `notify`'s."""
            if news["quarantined"]:
                raise AirflowFailException(
                    f"quarantined: {', '.join(news['quarantined'])}. The e-mail says why; mend and land the file again"
                )

        news = land()
        wiring.announce(
            wiring.dataset_asset(spec.name), unless="no file was published, and no earlier one is untold"
        )(news)
        news >> wiring.notify(subject)
        verdict(news)
    return dag


for _dag_id, _spec in wiring.wanted_datasets("ingest"):
    globals()[_dag_id] = build(_dag_id, _spec)
