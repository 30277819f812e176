"""
### Digest: the week in one mail

**What.** One mail to each set of recipients about their models and datasets: champion and since when, windows judged, in
violation and not yet judged, the served error with a picture, retrainings asked for or suppressed and why, promotions and
rejections, batches, open incidents, silences, and mails that never went out. It comes also when nothing happened.

**When.** Mondays at 06:00 UTC, about the seven days before; `EVERGREEN_DIGEST` names another cron, or `off`; while it is
neither, that is told like a bad spec, and the digest comes on Mondays. By hand for any week.

**Params.** *As of*: the end of the week.

**How to recover.** Clear the failed task: a digest is owed once for a day and a set of recipients. One that could not be sent
waits like any other mail; the DAG `mail` tries again.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from evergreen.spec import environment
from evergreen_airflow import forms, mailing, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.project import Project
from evergreen_airflow.schedules import schedule

log = logging.getLogger("evergreen")


def build(project: Project) -> DAG:
    """Build the DAG of the digest."""
    callbacks = Callbacks(project)
    with DAG(
        "digest",
        description="The week of all models and datasets, in one mail",
        doc_md=__doc__,
        schedule=schedule(environment.digest_cron()),
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=1),
        on_failure_callback=callbacks.report_run,
        default_args=callbacks.default_args("evergreen"),
        tags=["evergreen", "digest"],
        params={"as_of": forms.as_of_param()},
    ) as dag:

        @task(on_success_callback=None)
        def owe(**context: Any) -> int:
            """Owe a digest to each set of recipients."""
            from evergreen.alerting.weekly import owe_digests
            from evergreen.progress import counted

            owed = owe_digests(project.specs(), runs.as_of(context))
            message = (
                f"{counted(owed, 'digest')} owed"
                if owed
                else "no digest is owed: this day's are there already"
            )
            log.info("%s", notes.tell(context, message))
            return owed

        @task(retries=3, on_failure_callback=None, on_success_callback=None)
        def send_digests() -> None:
            """Send them."""
            from evergreen.alerting.weekly import SUBJECT

            mailing.deliver(project, SUBJECT)

        owe() >> send_digests()
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """This one DAG, by its id, for the specs that lie beside a DAG file."""
    return {"digest": build(Project(dag_file))}
