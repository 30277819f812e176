"""
### Mail: what could not be sent is tried again; specs that cannot be used and failures that nobody told are told

**What.** Looks at all specs, and owes a mail to EVERGREEN_MAIL_TO for each file, or variable of the environment, that cannot be used: once, and once more when
it is good again. Asks Airflow about the tasks that have begun and not told how they ended: one whose process was killed, and whose
run could not tell of it either, is recorded and mailed as a failed task, half an hour later at most. Then sends every e-mail that waits in `evergreen.mail`: those that the mail server did not take (where it
refused some recipients, or a channel did not take it: on these ways alone), and what a silence had kept back once it has ended (one letter for each model or
dataset). Runs that have something to tell send it themselves; this DAG does not wait for the next run of the same model.

**When.** Every 15 minutes: one short task, and no more than a look at the files and a query where nothing is wrong or waits. By hand to send at once.

**Params.** None.

**Then.** A red run means that mails wait: its log names the error, as do `make status`, `make mail` and the weekly digest.

**How to recover.** Check the Airflow connection `evergreen_smtp` (or `smtp_default`), and the URLs of channels. Nothing needs to be cleared: the next
run tries again, however old a mail is. No mail is sent about mail that cannot be sent.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from evergreen_airflow import mailing, notes, runs, untold
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.project import Project
from evergreen_airflow.schedules import schedule

log = logging.getLogger("evergreen")


def build(project: Project) -> DAG:
    """Build the DAG that sends what waits."""
    callbacks = Callbacks(project)
    with DAG(
        "mail",
        description="Try again to send what waits",
        doc_md=__doc__,
        schedule=schedule("*/15 * * * *"),
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(minutes=30),
        default_args=callbacks.default_args("evergreen"),
        tags=["evergreen", "mail"],
    ) as dag:

        @task(
            retries=0,
            execution_timeout=timedelta(minutes=10),
            on_failure_callback=None,
            on_success_callback=None,
        )
        def send_waiting(**context: Any) -> list[str]:
            """Tell of specs that cannot be used, and send what waits, of every model and dataset."""
            from evergreen.alerting.letters import spec_problems

            if "dag_run" in context:  # who only wants the mails sent has no run
                spec_problems.tell(project.specs_and_environment(), runs.as_of(context), runs.run_id(context))
                try:
                    untold.tell_lost()
                finally:  # what else waits does not wait for Airflow's answer
                    subjects = mailing.deliver_all(project)
                if subjects:
                    notes.tell(context, f"sent what waited for {', '.join(subjects)}")
                else:
                    log.info("%s", notes.tell(context, "nothing waits to be sent"))
                return subjects
            return mailing.deliver_all(project)

        send_waiting()
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """This one DAG, by its id, for the specs that lie beside a DAG file."""
    return {"mail": build(Project(dag_file))}
