"""
### Digest: the week in one mail

**What.** One mail to each set of recipients about their models and datasets: champion and since when, windows judged, in
violation and not yet judged, the served error with a picture, retrainings asked for and held back and why, promotions and
rejections, batches, open incidents, silences, and mails that never went out. It comes also when nothing happened.

**When.** Mondays at 06:00 UTC, about the seven days before; `EVERGREEN_DIGEST` names another cron, or `off`; while it is
neither, that is told like a bad spec, and the digest comes on Mondays. By hand for any week.

**Params.** *As of*: the end of the week.

**How to recover.** Clear the failed task: a digest is owed once for a day and a set of recipients. One that could not be sent
waits like any other mail; the DAG `mail` tries again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

import mailing
import wiring
from evergreen.spec import environment

with DAG(
    "digest",
    description="The week of all models and datasets, in one mail",
    doc_md=__doc__,
    schedule=wiring.schedule(environment.digest_cron()),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    on_failure_callback=wiring.report_run,
    default_args=wiring.default_args("evergreen"),
    tags=["evergreen", "digest"],
    params={"as_of": wiring.as_of_param()},
):

    @task(on_success_callback=None)
    def owe(**context: Any) -> int:
        """Owe a digest to each set of recipients."""
        from evergreen.alerting.weekly import owe_digests

        return owe_digests(wiring.specs(), wiring.as_of(context))

    @task(retries=3, on_failure_callback=None, on_success_callback=None)
    def send_digests() -> None:
        """Send them."""
        from evergreen.alerting.weekly import SUBJECT

        mailing.deliver(SUBJECT)

    owe() >> send_digests()
