"""What a run is, read from the context that Airflow gives its tasks and callbacks: its as-of time, its name, who asked for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from evergreen import dag_kinds
from evergreen_airflow.forms import moment

AS_OF_AHEAD = timedelta(minutes=5)


def as_of(context: dict[str, Any]) -> datetime:
    """The as-of time of a run: the Param, else the newest event's, else the interval's end, else the queue time.

    Raises:
        AirflowFailException: the Param is no time, or lies in the future.
    """
    run = context["dag_run"]
    given = (context.get("params") or {}).get("as_of")
    if given:
        value = moment(given)
        if value > datetime.now(UTC) + AS_OF_AHEAD:
            raise AirflowFailException(f"As of: {given} lies in the future; give a time that has passed")
        return value
    times = [moment(str(e.extra["as_of"])) for e in events(context) if (e.extra or {}).get("as_of")]
    queued: datetime = run.run_after
    if times:
        return min(max(times), queued.astimezone(UTC))
    end: datetime = context.get("data_interval_end") or queued
    return end.astimezone(UTC)


def events(context: dict[str, Any]) -> list[Any]:
    """The asset events that woke a run; empty for cron and manual runs."""
    return [event for found in (context.get("triggering_asset_events") or {}).values() for event in found]


def run_id(context: dict[str, Any]) -> str:
    """One text for a DAG run, the same in all tries of its tasks."""
    return f"{context['dag_run'].dag_id}/{context['dag_run'].run_id}"


def subject_of(run: str) -> str:
    """The `dataset/NAME` or `model/NAME` that a run (see `run_id`) works for; one that ends with a slash is of a DAG of the whole fleet."""
    kind, _, name = run.partition("/")[0].partition("__")
    return f"{'dataset' if kind in dag_kinds.OF_DATASETS else 'model'}/{name}"


def run_type(context: dict[str, Any]) -> str:
    """What started a run: manual, scheduled, backfill or asset_triggered."""
    found = context["dag_run"].run_type
    found = str(getattr(found, "value", found))
    return "manual" if found == "operator_triggered" else found


def commit(context: dict[str, Any]) -> str | None:
    """The commit that the run's DAG bundle has checked out, of which its DAG files and specs are; None where the bundle has no versions."""
    return getattr(getattr(context["ti"], "bundle_instance", None), "version", None)


def because(context: dict[str, Any]) -> str:
    """What the person said who started the run, and who it was; empty for runs that nobody started."""
    said = ((context.get("params") or {}).get("reason") or "").strip()
    user = asked_by(context)
    return f"{said} (asked by {user})" if said and user else said


def asked_by(context: dict[str, Any]) -> str:
    """The person who started the run; empty where Airflow does not know."""
    return getattr(context["dag_run"], "triggering_user_name", None) or ""


def task_run(context: dict[str, Any], cut_off: datetime) -> Any:
    """This try of this task, for the lineage of what it does; `cut_off` is the as-of time by which it reads."""
    from evergreen.lineage.task_run import TaskRun

    run, ti = context["dag_run"], context["ti"]
    return TaskRun(run.dag_id, ti.task_id, run.run_id, ti.try_number, run.run_after, cut_off)
