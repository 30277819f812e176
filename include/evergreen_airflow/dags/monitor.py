"""
### Monitor: is the champion still right about the world?

**What.** Judges each complete window once, and again when labels, rows or predictions come late: freshness
and volume first, then input drift, prediction drift and, where labels are in, the served error, each against the
champion's own reference.
Evidently computes and draws; the report is kept with the model in MLflow, its numbers in PostgreSQL. A champion that was
promoted within the spec's `watch.period` is compared with the one before it, on the rows that both have predicted and
whose label is in; where it is surely worse by more than `watch.margin`, the one before it is champion again, and the same
challenger is not promoted twice. Once a day a sample of what the prediction service answered is compared with what a batch predicts of
the same rows. The trigger policy may then open a retrain request: because of a drift, or, where the
spec asks for that, because the spec changed, enough new rows came or the model is old (`docs/trigger-policy.md`).

**When.** On the spec's schedule, after scoring, and by hand.

**Params.** *As of*: windows that were complete by then are judged.

**Then.** An open request emits the drift asset, which wakes the training; a rollback emits the model's asset, which wakes
the scoring (so does a change of champion whose run was killed before it could announce it); a mail goes out, one per incident. What has nothing to tell of `announce`, `announce_rollback` and `notify`
is skipped. What could not be done (a reference is lost, a rollback fails) keeps nothing else from being done; `verdict` then
turns the run red and says what it was.

**How to recover.** Mend what `verdict` names and clear `judge`; a window that was judged is not judged twice. "Stale" or
"insufficient" is never "healthy": look at the data first (`ingest__DATASET`), a retraining does not help there. A rollback that fails
because the earlier champion cannot be loaded or fails its probe leaves the new one: name another with `rollback__MODEL`.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from evergreen.errors import ErrorReason, TerminalError
from evergreen.spec import ModelSpec
from evergreen_airflow import announcements, assets, forms, mailing, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.pools import pool
from evergreen_airflow.project import Project, doc
from evergreen_airflow.schedules import schedule


def build(dag_id: str, spec: ModelSpec, project: Project) -> DAG:
    """Build the monitoring DAG of a model."""
    callbacks = Callbacks(project)
    subject = f"model/{spec.name}"
    with DAG(
        dag_id,
        description=f"Freshness, drift and performance of {spec.name}",
        doc_md=doc(__doc__, spec),
        schedule=schedule(spec.monitoring.schedule, assets.predictions_asset(spec.name)),
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "monitor", f"model:{spec.name}"],
        params={"as_of": forms.as_of_param()},
        **callbacks.model_dag(),
    ) as dag:

        @task(pool=pool("judging"))
        def judge(**context: Any) -> dict[str, Any]:
            """Judge every window that is due, compare a new champion with the last one, then apply the trigger policy.

            Decisions are ledger rows; the tasks after this one are skipped where there is nothing for them to do.
            """
            from evergreen import lineage
            from evergreen.monitoring.monitor import monitor
            from evergreen.monitoring.windows.error_text import verdict

            found, model = project.model(spec.name)
            as_of = runs.as_of(context)
            with lineage.monitor(runs.task_run(context, as_of), found, model) as told:
                told.outcome = run = monitor(found, model, as_of, runs.run_id(context))
            if run is None:
                message = notes.tell(
                    context, f"nothing to judge: no champion yet, run train__{model.name} first"
                )
                idle = dict.fromkeys(("announce", "announce_rollback", "notify", "verdict"), False)
                return announcements.hand_on(context, {"message": message, "problems": []}, **idle)
            if not run.problems:
                callbacks.report_working(context, "verdict")  # which is skipped, and cannot say so itself
            champion = announcements.owed(subject, run.rolled_back, as_of)
            return announcements.hand_on(
                context,
                {
                    "message": notes.tell(context, run.sentence()),
                    "announce": run.announce,
                    "announce_rollback": champion,
                    "as_of": as_of.isoformat(),
                    "windows": [
                        f"{j.window_start:%Y-%m-%d %H:%M} v{j.version} {verdict(j)}" for j in run.judged
                    ],
                    "watch": run.watched.reason if run.watched else None,
                    "decision": run.decision.kind.value if run.decision else None,
                    "request": run.request,
                    "problems": list(run.problems),
                    "reason": run.reason.value if run.reason else None,
                },
                announce=run.announce,
                announce_rollback=champion["due"],
                notify=mailing.mails_wait(subject),
                verdict=bool(run.problems),
            )

        @task
        def verdict(news: dict[str, Any]) -> None:
            """Turn the run red where a part of the monitor could not be done; the others were."""
            told = ". ".join(news["problems"])
            if told and news.get("reason"):
                raise TerminalError(told, ErrorReason(news["reason"]))
            if told:
                raise AirflowFailException(told)

        judged: Any = judge()
        announcements.announce(
            callbacks,
            assets.drift_asset(spec.name),
            unless="no retrain request is open, or its training has just failed",
        )(judged)
        announcements.announce(
            callbacks,
            assets.model_asset(spec.name),
            unless="nothing was rolled back, and no earlier change of champion is untold",
            task_id="announce_rollback",
        )(judged)
        judged >> mailing.notify(project, subject)
        verdict(judged)
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the models whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted("monitor")}
