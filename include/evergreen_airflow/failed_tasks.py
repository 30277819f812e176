"""How one failure of a task or run is put on record, and mailed where the ledger cannot be reached."""

from __future__ import annotations

import logging
from datetime import datetime

from evergreen.errors import ErrorReason
from evergreen_airflow import mailing, runs

log = logging.getLogger("evergreen")
RUN = "(run)"  # stands for the run where no task of it is what failed
TOLD = "told"  # XCom of a task whose failure is in no ledger
CUT_OFF = "the run was ended while this task ran: mostly it hit its time limit"
KILLED = (
    "the task's process ended without a word: it was killed, mostly for want of memory, or its machine was lost. "
    "Look at the end of the task's log and at the machine's memory, then clear the task"
)


def record(
    run: str,
    task_id: str,
    try_number: int,
    error: str,
    url: str,
    cut_off: datetime,
    reason: ErrorReason | None = None,
) -> None:
    """Write a failure into the ledger and owe its mail; where that cannot be, mail it directly."""
    from evergreen.incidents import failures

    subject = runs.subject_of(run)
    if subject.endswith("/"):  # a DAG of no model and no dataset; the ledger has no subject for it
        mailing.tell_fleet(failures.bare_message(run.partition("/")[0], run, task_id, error, url))
        forget(run, task_id)
        return
    try:
        failures.record(subject, run, task_id, try_number, error, url, cut_off, reason)
    except Exception as second:
        log.exception("the failure could not be recorded; mailing it directly")
        mailing.tell_fleet(failures.bare_message(subject, run, task_id, error, url, second))


def forget(run: str, task_id: str) -> None:
    """Note that a task has ended and has nothing more to tell; where that cannot be noted, the DAG `mail` asks Airflow."""
    from evergreen.incidents import unfinished_tasks
    from evergreen.warehouse.connection import connect

    try:
        with connect() as conn:
            unfinished_tasks.ended(conn, run, task_id)
    except Exception:
        log.warning(
            "how %s of %s ended could not be noted; the DAG mail asks Airflow", task_id, run, exc_info=True
        )
