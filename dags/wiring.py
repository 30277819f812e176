"""What all DAG files share: which specs to build, the assets that join the loop, the as-of time of a run,
retries, and how a failure reaches a person. No logic of the loop is here; that is in `evergreen`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import (
    Asset,
    AssetAny,
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    get_parsing_context,
    task,
)
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    DownstreamTasksSkipped,
)

import connecting
import mailing
from evergreen import settings
from evergreen.errors import TRANSIENT, ErrorReason
from evergreen.spec import DatasetSpec, ModelSpec, Specs, load_specs, load_subject
from evergreen.spec.environment import environment_problems

log = logging.getLogger("evergreen")
mails_wait, notify = mailing.mails_wait, mailing.notify

OF_DATASETS = ("ingest", "correct")  # the kinds of DAG whose name ends with a dataset's; else it is a model's
AS_OF_AHEAD = timedelta(minutes=5)
# Windows and cut-offs are counted back from it; a year with a zero in front is a slip of the pen.
EARLIEST, LATEST = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (1900, 2200))
# The same as Airflow's form and API take it: no run is started with another one.
TIME = {"format": "date-time", "pattern": r"^(19|20|21)\d\d-"}
RUN = "(run)"  # stands for the run where no task of it is what failed
TOLD = "told"  # XCom of a task whose failure is in no ledger
CUT_OFF = "the run was ended while this task ran: mostly it hit its time limit"
KILLED = (
    "the task's process ended without a word: it was killed, mostly for want of memory, or its machine was lost. "
    "Look at the end of the task's log and at the machine's memory, then clear the task"
)


def specs() -> Specs:
    """Read all specs, as the files are now: for the DAG processor. A task reads only its own."""
    return load_specs(settings.specs_beside(__file__))


def specs_and_environment() -> Specs:
    """All specs, with what is wrong with the environment variables among the problems: for those who tell of them."""
    found = specs()
    return replace(found, problems=(*environment_problems(found), *found.problems))


def wanted(kind: str) -> Iterator[tuple[str, ModelSpec]]:
    """The models whose `kind` DAG is to be built: all, or the only one that a starting task needs."""
    for spec in _wanted(kind, "model").models.values():
        yield f"{kind}__{spec.name}", spec


def wanted_datasets(kind: str) -> Iterator[tuple[str, DatasetSpec]]:
    """The datasets whose `kind` DAG is to be built."""
    for spec in _wanted(kind, "dataset").datasets.values():
        yield f"{kind}__{spec.name}", spec


def _wanted(kind: str, of: str) -> Specs:
    current = get_parsing_context().dag_id
    if current is None:
        return specs()
    this, _, name = current.partition("__")
    return load_subject(settings.specs_beside(__file__), f"{of}/{name}") if this == kind else Specs()


# ------------------------------------------------------------------ the asset graph


def dataset_asset(name: str) -> Asset:
    """New rows of a dataset were published."""
    return Asset(name=f"dataset_{name}", uri=f"evergreen://dataset/{name}", group="evergreen")


def model_asset(name: str) -> Asset:
    """A model has a new champion."""
    return Asset(name=f"model_{name}", uri=f"evergreen://model/{name}", group="evergreen")


def challenger_asset(name: str) -> Asset:
    """A challenger of a model waits for approval; its evaluation is a row of the ledger."""
    return Asset(name=f"challenger_{name}", uri=f"evergreen://challenger/{name}", group="evergreen")


def predictions_asset(name: str) -> Asset:
    """New predictions of a model were written."""
    return Asset(name=f"predictions_{name}", uri=f"evergreen://predictions/{name}", group="evergreen")


def drift_asset(name: str) -> Asset:
    """A retrain request of a model is open; the request itself is a row of the ledger."""
    return Asset(name=f"drift_{name}", uri=f"evergreen://drift/{name}", group="evergreen")


def schedule(cron: str | None, *assets: Asset) -> Any:
    """A DAG schedule from a spec's cron (UTC) and the assets that wake the DAG, either of which may be absent.

    EVERGREEN_SCHEDULES=off leaves the cron out: for a stack whose data ended in the past.
    """
    if settings.SCHEDULES.read() == "off":
        cron = None
    # By default Airflow starts a new DAG with the tick before it was unpaused, where that is less than a tenth of a period ago:
    # a second training beside the one that a person has just asked for.
    timetable = CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0)) if cron else None
    if timetable and assets:
        return AssetOrTimeSchedule(timetable=timetable, assets=AssetAny(*assets))
    return timetable or (AssetAny(*assets) if assets else None)


def pool(name: str) -> str:
    """The Airflow pool evergreen_NAME (see `settings.POOL_SIZES`), or Airflow's default pool unless EVERGREEN_POOLS is on.

    Airflow never starts a task whose pool does not exist and says so in the scheduler's log alone; so a pool is named only
    where somebody has said that there are pools.
    """
    return f"evergreen_{name}" if settings.POOLS.read() == "on" else "default_pool"


# ------------------------------------------------------------------ a run's as-of time and identity


def as_of_param() -> Param:
    """The Param with which a person sets the as-of time."""
    return Param(
        None,
        type=["null", "string"],
        **TIME,
        title="As of",
        description="Only what was known by then is used (ISO time, UTC where no zone is given). Empty: now.",
    )


def reason_param(required: bool = False) -> Param:
    """The Param with which a person says why; where it is required Airflow starts no run without."""
    what = {
        "title": "Reason",
        "description": "Why this run is started by hand; it goes to the ledger and into the e-mail.",
    }
    return required_param(**what) if required else Param("", type="string", **what)


def required_param(**schema: Any) -> Param:
    """A text that a person must fill in. Only for DAGs that nothing but a person starts."""
    return Param(**{"type": "string", "minLength": 1, "pattern": r"\S", **schema})


def flag_param(title: str, description: str) -> Param:
    """A switch in the trigger form, off by default."""
    return Param(False, type="boolean", title=title, description=description)


def as_of(context: dict[str, Any]) -> datetime:
    """The as-of time of a run: the Param, else the newest event's, else the interval's end, else the queue time.

    Raises:
        AirflowFailException: the Param is no time, or lies in the future.
    """
    run = context["dag_run"]
    given = (context.get("params") or {}).get("as_of")
    if given:
        value = _parse(given)
        if value > datetime.now(timezone.utc) + AS_OF_AHEAD:
            raise AirflowFailException(f"as_of {given} lies in the future; give a time that has passed")
        return value
    times = [_parse(str(e.extra["as_of"])) for e in events(context) if (e.extra or {}).get("as_of")]
    if times:
        return min(max(times), run.run_after.astimezone(timezone.utc))
    return (context.get("data_interval_end") or run.run_after).astimezone(timezone.utc)


def events(context: dict[str, Any]) -> list[Any]:
    """The asset events that woke a run; empty for cron and manual runs."""
    return [event for found in (context.get("triggering_asset_events") or {}).values() for event in found]


def run_id(context: dict[str, Any]) -> str:
    """One text for a DAG run, the same in all tries of its tasks."""
    return f"{context['dag_run'].dag_id}/{context['dag_run'].run_id}"


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


def parse_time(value: str | None) -> datetime | None:
    """A time Param as an aware datetime (UTC where it names no zone), or None where it is empty."""
    return _parse(value) if value else None


def _parse(value: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError as error:
        raise AirflowFailException(f"{value!r} is no ISO time; write it like 2026-05-01T02:00:00Z") from error
    try:
        found = (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except OverflowError:  # such as year 1 east of Greenwich
        found = None
    if found is None or not EARLIEST <= found < LATEST:
        raise AirflowFailException(
            f"{value!r} lies outside of the years {EARLIEST.year} to {LATEST.year - 1}; write a time of the data, like "
            "2026-05-01T02:00:00Z, or leave the Param empty for now"
        )
    return found


def task_run(context: dict[str, Any], cut_off: datetime) -> Any:
    """This try of this task, for the lineage of what it does; `cut_off` is the as-of time by which it reads."""
    from evergreen.lineage.task_run import TaskRun

    run, ti = context["dag_run"], context["ti"]
    return TaskRun(run.dag_id, ti.task_id, run.run_id, ti.try_number, run.run_after, cut_off)


# ------------------------------------------------------------------ specs inside a task


def model_and_specs(name: str) -> tuple[Specs, ModelSpec]:
    """A model and the datasets that it reads, as their files are now.

    Raises:
        AirflowFailException: the model's spec has become unusable since the DAG was built.
    """
    found = load_subject(settings.specs_beside(__file__), f"model/{name}")
    if name not in found.models:
        raise AirflowFailException("\n".join(str(p) for p in found.problems) or f"models/{name}.yaml is gone")
    return found, found.models[name]


def dataset_spec(name: str) -> DatasetSpec:
    """The spec of a dataset as it is now; see `model_and_specs`."""
    found = load_subject(settings.specs_beside(__file__), f"dataset/{name}")
    if name not in found.datasets:
        raise AirflowFailException(
            "\n".join(str(p) for p in found.problems) or f"datasets/{name}.yaml is gone"
        )
    return found.datasets[name]


# ------------------------------------------------------------------ failures and e-mail


def default_args(owner: str) -> dict[str, Any]:
    """Retries with back-off for what may pass, none for what will not; one e-mail when a run has failed."""
    return {
        "owner": owner,
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
        "on_execute_callback": report_start,
        "on_failure_callback": report_failure,
        "on_success_callback": report_success,
        "on_skipped_callback": report_skip,
    }


def report_start(context: dict[str, Any]) -> None:
    """Note that a task begins, so that one which is killed is found (`tell_lost`); the task begins whatever happens here."""
    from evergreen.incidents import unfinished_tasks

    ti = context["ti"]
    connecting.begin(_subject(run_id(context)))
    try:
        # A task without the callback tells by other means, see `_silent`.
        if context["task"].has_on_failure_callback:
            unfinished_tasks.begin(
                run_id(context), ti.task_id, ti.try_number, ti.log_url or "", _cut_off(context)
            )
    except Exception:
        log.warning(
            "that the task begins could not be noted; were it killed, the run would have to tell",
            exc_info=True,
        )


def report_skip(context: dict[str, Any]) -> None:
    """A task that skipped itself has nothing more to tell."""
    _forget(run_id(context), context["ti"].task_id)


def _forget(run: str, task_id: str) -> None:
    from evergreen.incidents import unfinished_tasks
    from evergreen.warehouse.connection import connect

    try:
        with connect() as conn:
            unfinished_tasks.ended(conn, run, task_id)
    except Exception:
        log.warning(
            "how %s of %s ended could not be noted; the DAG mail asks Airflow", task_id, run, exc_info=True
        )


def _cut_off(context: dict[str, Any]) -> datetime:
    """The run's as-of time; when it was due where that cannot be read, as a bad Param may itself be what fails."""
    try:
        return as_of(context)
    except Exception:
        due: datetime = context["dag_run"].run_after
        return due


def report_failure(context: dict[str, Any]) -> None:
    """Record that a task has failed for good and mail it; the same failure again is the same incident.

    If even the ledger cannot be reached, the mail goes out directly: a failure is never silent.
    """
    ti, exception = context["ti"], context.get("exception")
    cut_off = _cut_off(context)
    subject = _subject(run_id(context))
    connecting.begin(subject)
    no_ledger = subject.endswith("/")
    if no_ledger and exception is None:
        return  # Airflow calls this for a lost process in the DAG processor, and `report_run` there too
    code = getattr(exception, "reason", None)
    reason = code if isinstance(code, ErrorReason) else None
    _record(run_id(context), ti.task_id, ti.try_number, str(exception or KILLED), ti.log_url, cut_off, reason)
    if no_ledger:
        with suppress(Exception):  # then it is told again by the run: rather twice than never
            ti.xcom_push(key=TOLD, value=True)
    _deliver(subject)


def report_success(context: dict[str, Any]) -> None:
    """Where this task had failed before, tell that it runs again. The task has succeeded whatever happens here."""
    report_working(context, context["ti"].task_id)


def report_working(context: dict[str, Any], task_id: str) -> None:
    """Where a task of this run's DAG had failed before, tell that it runs again; a failure to tell is only logged."""
    from evergreen.incidents import failures

    run = run_id(context)
    try:
        if failures.worked(_subject(run), run, task_id, as_of(context)):
            mailing.deliver(_subject(run))
    except Exception:
        log.exception(
            "that the task runs again could not be told; its next success or the DAG mail tries again"
        )


def report_run(context: dict[str, Any]) -> None:
    """Record and mail what a failed run could not tell itself. Airflow calls it in the DAG processor.

    A task that raised has told so before Airflow knew of its failure (`report_failure`). One whose process was killed for good,
    or lost its machine, has not. Nor do the tasks of a run that hit its time limit: Airflow skips them.
    """
    dag, reason = context["dag"], str(context.get("reason"))
    name = f"{dag.dag_id}/{context['run_id']}"
    connecting.begin(_subject(name))
    url = f"{settings.AIRFLOW_URL.read()}/dags/{dag.dag_id}/runs/{context['run_id']}"
    try:
        cut_off = as_of(context)
    except Exception:  # the context may hold no more than the DAG, the run id and the reason
        cut_off = datetime.now(timezone.utc)
    for task_id, try_number in _silent(context, name):
        if task_id == RUN:
            error = (
                f"the run took longer than its limit of {dag.dagrun_timeout} and was ended; its tasks were skipped"
                if reason == "timed_out"
                else f"the run failed ({reason}); which task it was could not be found out"
            )
            _record(name, RUN, 0, error, url, cut_off)
        else:
            log_url = f"{url}/tasks/{task_id}" + (f"?try_number={try_number}" if try_number else "")
            _record(name, task_id, try_number, KILLED, log_url, cut_off)
    # Last, as it takes seconds: Airflow ends a callback that takes too long, and what is recorded is sent by the next run.
    _deliver(_subject(name))


def _silent(context: dict[str, Any], name: str) -> list[tuple[str, int]]:
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
    if _subject(name).endswith("/"):
        told = {t for t in failed if ti is not None and ti.xcom_pull(task_ids=t, key=TOLD)}
    else:
        try:
            told = failures.told(name, tries, getattr(context.get("dag_run"), "start_date", None))
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
    from itertools import groupby

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
                _forget(run, one.task_id)
                continue
            task_id, try_number, error = one.task_id, one.try_number, KILLED
            if end is unfinished_tasks.End.CUT_OFF:
                task_id, try_number, error = RUN, 0, CUT_OFF
            told = set() if _subject(run).endswith("/") else failures.told(run, {task_id: try_number}, None)
            if task_id in told or (told and end is unfinished_tasks.End.CUT_OFF):
                _forget(run, one.task_id)
            elif one.doubtful:
                log.warning("%s of %s failed and nobody has told; telling now", task_id, run)
                _record(run, task_id, try_number, error, one.log_url, one.as_of)
                _forget(run, one.task_id)
                count += 1
            else:
                with connect() as conn:
                    unfinished_tasks.doubt(conn, run, one.task_id)
    return count


def _record(
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

    subject = _subject(run)
    if subject.endswith("/"):  # a DAG of no model and no dataset; the ledger has no subject for it
        mailing.tell_fleet(failures.bare_message(run.partition("/")[0], run, task_id, error, url))
        _forget(run, task_id)
        return
    try:
        failures.record(subject, run, task_id, try_number, error, url, cut_off, reason)
    except Exception as second:
        log.exception("the failure could not be recorded; mailing it directly")
        mailing.tell_fleet(failures.bare_message(subject, run, task_id, error, url, second))


def _deliver(subject: str) -> None:
    """Send what waits for a subject; what cannot be sent now waits in evergreen.mail for the next run."""
    if not subject.endswith("/") and mailing.mails_wait(subject):
        mailing.deliver(subject)


def _subject(run: str) -> str:
    kind, _, name = run.partition("/")[0].partition("__")
    return f"{'dataset' if kind in OF_DATASETS else 'model'}/{name}"


def hand_on(context: dict[str, Any], news: dict[str, Any], **due: bool) -> dict[str, Any]:
    """End a task with its result, and skip those tasks after it that have nothing to do.

    What is skipped here needs no process of its own to find that out.

    Args:
        context: the task's.
        news: the result; the XCom that the tasks after it and people read.
        due: by the id of a task directly after this one, whether it has something to do.

    Raises:
        DownstreamTasksSkipped: how Airflow is told; the task succeeds.
    """
    idle = [task_id for task_id, has_work in due.items() if not has_work]
    if not idle:
        return news
    log.info("nothing to do for %s", ", ".join(idle))
    context["ti"].xcom_push(key="return_value", value=news)  # a task that raises returns nothing
    raise DownstreamTasksSkipped(tasks=idle)


def owed(asset: str, own: bool, run_as_of: datetime) -> dict[str, Any]:
    """What `announce` needs to know: whether an event is due, of this run or left by one that died, and as of when.

    Args:
        asset: see `evergreen.ledger.events.owe`.
        own: whether this run has something to tell, also if it told it in an earlier try.
        run_as_of: as-of time of this run.
    """
    from evergreen.ledger import events
    from evergreen.warehouse.connection import connect

    with connect() as conn:
        left = events.owed(conn, asset)
    newest = max(run_as_of, left.as_of) if left else run_as_of
    return {"due": own or left is not None, "upto": left.upto if left else 0, "as_of": newest.isoformat()}


def told(asset: Asset) -> Any:
    """The callback that notes that Airflow has an event: called once the task's success, and with it the event, is stored."""

    def forget(context: dict[str, Any]) -> None:
        from evergreen.ledger import events
        from evergreen.warehouse.connection import connect

        try:
            with connect() as conn:
                events.told(conn, _owed_name(asset), int(context["outlet_events"][asset].extra["upto"]))
        except Exception:
            log.exception(
                "that %s was announced could not be noted; the next run announces it again", asset.name
            )

    return forget


def _owed_name(asset: Asset) -> str:
    return asset.name.replace("_", "/", 1)


def announce(asset: Asset, *, unless: str, task_id: str = "announce") -> Any:
    """The task that emits an asset event with the as-of time.

    Args:
        asset: whose event it is.
        task_id: its own, and the key under which the task before it says whether there is something to announce: true or
            false, or what `owed` returned.
        unless: why there may be nothing to announce. The task before has it skipped then, see `hand_on`; a person
            who clears it nonetheless is told this.
    """

    @task(task_id=task_id, outlets=[asset], on_success_callback=[report_success, told(asset)])
    def emit(news: dict[str, Any], outlet_events: Any = None) -> None:
        """Tell the next DAG of the loop, through its asset."""
        said = news.get(task_id)
        more = said if isinstance(said, dict) else {"due": bool(said), "upto": 0}
        if not more["due"]:
            raise AirflowSkipException(unless)
        extra = {k: v for k, v in news.items() if not k.startswith("announce")} | more
        outlet_events[asset].extra = {k: v for k, v in extra.items() if k != "due"}

    return emit


def doc(module_doc: str | None, spec: DatasetSpec | ModelSpec) -> str:
    """The DAG's page in the UI: the file's docstring, headed by what the spec says."""
    return f"**{spec.name}**: {spec.description}\n\n{module_doc or ''}"


MODEL_DAG: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 1,
    "dagrun_timeout": timedelta(hours=8),
    "on_failure_callback": report_run,
}
