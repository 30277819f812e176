"""Failures that no task could tell itself: its process was killed, or its run was ended. Airflow is asked what became of them."""

from __future__ import annotations

import logging
from itertools import groupby
from typing import Any

from evergreen_airflow import runs
from evergreen_airflow.failed_tasks import CUT_OFF, KILLED, RUN, TOLD, forget, record

log = logging.getLogger("evergreen")


def silent_tasks(context: dict[str, Any], name: str) -> list[tuple[str, int]]:
    """The tasks of a failed run that have not told of their failure, each with its try (0: unknown); RUN is the run itself."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    from evergreen.incidents import failures

    dag, run_id, ti = context["dag"], context["run_id"], context.get("ti")
    timed_out = [(RUN, 0)] if context.get("reason") == "timed_out" else []
    try:
        states = RuntimeTaskInstance.get_task_states(dag_id=dag.dag_id, run_ids=[run_id])[run_id]
        # A task without the callback tells by other means: of a quarantined batch, or of mails that wait, there is a row.
        failed = [t for t, s in states.items() if s == "failed" and dag.get_task(t).has_on_failure_callback]
    except Exception:
        log.exception("which tasks of %s failed cannot be found out", name)
        return timed_out or [(RUN, 0)]
    tries = {ti.task_id: ti.try_number} if ti is not None else {}
    if runs.subject_of(name).endswith("/"):
        told = {t for t in failed if ti is not None and ti.xcom_pull(task_ids=t, key=TOLD)}
    else:
        try:
            told = failures.recorded_tasks(name, tries, getattr(context.get("dag_run"), "start_date", None))
        except Exception:
            log.exception("what was recorded of %s cannot be read", name)
            told = set()  # rather twice than never
    return timed_out + [(t, tries.get(t, 0)) for t in failed if t not in told]


def tell_lost() -> int:
    """Record and mail tasks that failed and of which nobody has told: their process was killed, and so was their run's callback.

    To be called in a task: what is left in `evergreen.begun` is held against the states that Airflow gives it. What failed is
    told by the second look, as the run's own callback may be about to.

    Returns:
        How many failures were told.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    from evergreen.incidents import failures, unfinished_tasks
    from evergreen.warehouse.connection import connect

    with connect() as conn:
        left = unfinished_tasks.left(conn)
    count = 0
    for run, tasks in groupby(sorted(left, key=lambda one: one.run_id), key=lambda one: one.run_id):
        dag_id, _, own_id = run.partition("/")
        states = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[own_id]).get(own_id, {})
        for one in tasks:
            state = states.get(one.task_id)
            failed = state == "skipped" and RuntimeTaskInstance.get_dagrun_state(dag_id, own_id) == "failed"
            end = unfinished_tasks.end_of(state, there=one.task_id in states, run_failed=failed)
            if end is unfinished_tasks.End.NOT_YET:
                continue
            if end is unfinished_tasks.End.NOTHING_TO_TELL:
                forget(run, one.task_id)
                continue
            task_id, try_number, error = one.task_id, one.try_number, KILLED
            if end is unfinished_tasks.End.CUT_OFF:
                task_id, try_number, error = RUN, 0, CUT_OFF
            told = (
                set()
                if runs.subject_of(run).endswith("/")
                else failures.recorded_tasks(run, {task_id: try_number}, None)
            )
            if task_id in told or (told and end is unfinished_tasks.End.CUT_OFF):
                forget(run, one.task_id)
            elif one.doubtful:
                log.warning("%s of %s failed and nobody has told; telling now", task_id, run)
                record(run, task_id, try_number, error, one.log_url, one.as_of)
                forget(run, one.task_id)
                count += 1
            else:
                with connect() as conn:
                    unfinished_tasks.doubt(conn, run, one.task_id)
    return count
