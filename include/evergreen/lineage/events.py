"""The events of a step, by OpenLineage's own classes, and the client that sends them."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    JobFacet,
    RunFacet,
    error_message_run,
    job_type_job,
    nominal_time_run,
    parent_run,
    processing_engine_run,
    set_producer,
)
from openlineage.client.uuid import generate_static_uuid

from evergreen import settings
from evergreen.lineage.names import without_login
from evergreen.lineage.steps import StepFacts
from evergreen.lineage.task_run import TaskRun

LONGEST_REASON = 2000

set_producer("evergreen://lineage")


def client() -> OpenLineageClient:
    """The client, by its own settings, but that it says nothing of the checkout: an address in it may hold a token."""
    return OpenLineageClient(config={"facets": {"source_code_location": {"disabled": True}}})


def started(run: TaskRun, at: datetime) -> RunEvent:
    """The event of a task that begins; `at` is aware."""
    return _event(run, RunState.START, at, StepFacts(), {})


def ended(run: TaskRun, at: datetime, facts: StepFacts, error: BaseException | None = None) -> RunEvent:
    """The event of a task that has ended, with the reason where it failed; `at` is aware."""
    if error is None:
        return _event(run, RunState.COMPLETE, at, facts, {})
    reason = without_login(f"{type(error).__name__}: {error}")[:LONGEST_REASON]
    why = error_message_run.ErrorMessageRunFacet(message=reason, programmingLanguage="PYTHON")
    return _event(run, RunState.FAIL, at, facts, {"errorMessage": why})


def _event(
    run: TaskRun, state: RunState, at: datetime, facts: StepFacts, more: dict[str, RunFacet]
) -> RunEvent:
    namespace = settings.LINEAGE_NAMESPACE.read()
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=_id(run.due, namespace, run.dag_id, run.run_id)),
        job=parent_run.Job(namespace=namespace, name=run.dag_id),
    )
    job: dict[str, JobFacet] = {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="EVERGREEN", jobType="TASK"
        ),
        **facts.job,
    }
    return RunEvent(
        eventType=state,
        eventTime=_iso(at),
        run=Run(
            runId=_id(run.due, namespace, run.dag_id, run.run_id, run.task_id, str(run.try_number)),
            facets={
                "parent": parent,
                "nominalTime": nominal_time_run.NominalTimeRunFacet(nominalStartTime=_iso(run.as_of)),
                # Servers tell by it what kind of job this is; DataHub refuses an event of a producer that it does not know without.
                "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                    version=metadata.version("apache-airflow-core"), name="Airflow"
                ),
                **more,
            },
        ),
        job=Job(namespace=namespace, name=f"{run.dag_id}.{run.task_id}", facets=job),
        inputs=facts.inputs,
        outputs=facts.outputs,
    )


def _id(due: datetime, *parts: str) -> str:
    """The same id for the same parts, whoever asks and whenever."""
    return str(generate_static_uuid(due, "\n".join(parts).encode()))


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()
