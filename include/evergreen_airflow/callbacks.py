"""Retries, time-outs and what Airflow calls when a task or run begins and ends: how a failure reaches a person."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowTaskTimeout

from evergreen import settings
from evergreen.errors import TRANSIENT, ErrorReason, in_one_line
from evergreen_airflow import connections, failed_tasks, mailing, notes, runs, untold
from evergreen_airflow.project import Project

log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class Callbacks:
    """Those of the DAGs of a project: mails are written by the specs that the DAG file has beside it."""

    project: Project

    def default_args(self, owner: str) -> dict[str, Any]:
        """Retries with back-off for what may pass, none for what will not; one e-mail when a run has failed."""
        return {
            "owner": owner,
            "show_return_value_in_logs": False,  # it is for the next task; the log has the same in words
            "retries": 4,
            "retry_delay": timedelta(seconds=15),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=10),
            "retry_policy": ExceptionRetryPolicy(
                rules=[
                    RetryRule(exception=list(TRANSIENT), action=RetryAction.RETRY, reason="may pass"),
                    # A time-out is a BaseException, so that no `except Exception` in a task swallows it.
                    RetryRule(
                        exception=[Exception, AirflowTaskTimeout],
                        action=RetryAction.FAIL,
                        reason="trying again cannot help",
                    ),
                ]
            ),
            "execution_timeout": timedelta(minutes=30),
            "on_execute_callback": self.report_start,
            "on_failure_callback": self.report_failure,
            "on_success_callback": self.report_success,
            "on_skipped_callback": self.report_skip,
        }

    def model_dag(self) -> dict[str, Any]:
        """Arguments of a model's DAG: single flight, a limit, and a failed run tells what its tasks could not."""
        return {
            "catchup": False,
            "max_active_runs": 1,
            "dagrun_timeout": timedelta(hours=8),
            "on_failure_callback": self.report_run,
        }

    def report_start(self, context: dict[str, Any]) -> None:
        """Note that a task begins, so that one which is killed is found (`untold.tell_lost`); the task begins whatever happens here."""
        from evergreen.incidents import unfinished_tasks

        ti = context["ti"]
        connections.begin(runs.subject_of(runs.run_id(context)))
        try:
            # A task without the callback tells by other means, see `untold.silent_tasks`.
            if context["task"].has_on_failure_callback:
                unfinished_tasks.begin(
                    runs.run_id(context), ti.task_id, ti.try_number, ti.log_url or "", _cut_off(context)
                )
        except Exception:
            log.warning(
                "that the task begins could not be noted; were it killed, the run would have to tell",
                exc_info=True,
            )

    def report_skip(self, context: dict[str, Any]) -> None:
        """A task that skipped itself has nothing more to tell."""
        failed_tasks.forget(runs.run_id(context), context["ti"].task_id)

    def report_failure(self, context: dict[str, Any]) -> None:
        """Record that a task has failed for good and mail it; the same failure again is the same incident.

        If even the ledger cannot be reached, the mail goes out directly: a failure is never silent.
        """
        ti, exception = context["ti"], context.get("exception")
        cut_off = _cut_off(context)
        subject = runs.subject_of(runs.run_id(context))
        connections.begin(subject)
        no_ledger = subject.endswith("/")
        if no_ledger and exception is None:
            return  # Airflow calls this for a lost process in the DAG processor, and `report_run` there too
        from evergreen.incidents.outbox import redact

        code = getattr(exception, "reason", None)
        reason = code if isinstance(code, ErrorReason) else None
        failed_tasks.record(
            runs.run_id(context),
            ti.task_id,
            ti.try_number,
            str(exception or failed_tasks.KILLED),
            ti.log_url,
            cut_off,
            reason,
        )
        if no_ledger:
            with suppress(Exception):  # then it is told again by the run: rather twice than never
                ti.xcom_push(key=failed_tasks.TOLD, value=True)
        with suppress(Exception):  # the ledger and the mail have it
            notes.tell(
                context, f"failed in {ti.task_id}: {redact(in_one_line(exception or failed_tasks.KILLED))}"
            )
        self._deliver(subject)

    def report_success(self, context: dict[str, Any]) -> None:
        """Where this task had failed before, tell that it runs again. The task has succeeded whatever happens here."""
        self.report_working(context, context["ti"].task_id)

    def report_working(self, context: dict[str, Any], task_id: str) -> None:
        """Where a task of this run's DAG had failed before, tell that it runs again; a failure to tell is only logged."""
        from evergreen.incidents import failures

        run = runs.run_id(context)
        try:
            if failures.worked(runs.subject_of(run), run, task_id, runs.as_of(context)):
                mailing.deliver(self.project, runs.subject_of(run))
        except Exception:
            log.exception(
                "that the task runs again could not be told; its next success or the DAG mail tries again"
            )

    def report_run(self, context: Any) -> None:
        """Record and mail what a failed run could not tell itself. Airflow calls it in the DAG processor.

        A task that raised has told so before Airflow knew of its failure (`report_failure`). One whose process was killed for good,
        or lost its machine, has not. Nor do the tasks of a run that hit its time limit: Airflow skips them.
        """
        dag, reason = context["dag"], str(context.get("reason"))
        name = f"{dag.dag_id}/{context['run_id']}"
        connections.begin(runs.subject_of(name))
        url = f"{settings.AIRFLOW_URL.read()}/dags/{dag.dag_id}/runs/{context['run_id']}"
        try:
            cut_off = runs.as_of(context)
        except Exception:  # the context may hold no more than the DAG, the run id and the reason
            cut_off = datetime.now(UTC)
        for task_id, try_number in untold.silent_tasks(context, name):
            if task_id == failed_tasks.RUN:
                error = (
                    f"the run took longer than its limit of {dag.dagrun_timeout} and was ended; its tasks were skipped"
                    if reason == "timed_out"
                    else f"the run failed ({reason}); which task it was could not be found out"
                )
                failed_tasks.record(name, failed_tasks.RUN, 0, error, url, cut_off)
            else:
                log_url = f"{url}/tasks/{task_id}" + (f"?try_number={try_number}" if try_number else "")
                failed_tasks.record(name, task_id, try_number, failed_tasks.KILLED, log_url, cut_off)
        # Last, as it takes seconds: Airflow ends a callback that takes too long, and what is recorded is sent by the next run.
        self._deliver(runs.subject_of(name))

    def _deliver(self, subject: str) -> None:
        """Send what waits for a subject; what cannot be sent now waits in evergreen.mail for the next run."""
        if not subject.endswith("/") and mailing.mails_wait(subject):
            mailing.deliver(self.project, subject)


def _cut_off(context: dict[str, Any]) -> datetime:
    """The run's as-of time; when it was due where that cannot be read, as a bad Param may itself be what fails."""
    try:
        return runs.as_of(context)
    except Exception:
        due: datetime = context["dag_run"].run_after
        return due
