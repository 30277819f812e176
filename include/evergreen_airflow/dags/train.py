"""
### Train: a challenger is made, judged on the same rows as the champion, and promoted or rejected

**What.** Takes the snapshot of the feature query as of a time (only rows whose features and label had arrived by
then), chooses window and parameters where the spec leaves them open, fits XGBoost, evaluates challenger, champion and a naive baseline on the same holdout rows, registers the
challenger in MLflow, and promotes it only if it passes the gate. Every decision is a row of the ledger with its
numbers and limits.

**When.** Nightly on the spec's schedule; when the monitor has opened a retrain request, because of a drift or without
one (the drift asset wakes this DAG, the request itself is a ledger row, so none is lost); and by hand. One training of a
model at a time.

**Params.** *As of*: the cut-off. *Reason*: why, for a run by hand. *Dry run*: fit and evaluate, register and decide nothing.

**Then.** A promotion emits the model's asset, which wakes the scoring; the e-mail names the numbers. `announce` is
skipped where nothing was promoted, `notify` where no e-mail waits. With `gate.approval: manual` a challenger that passed
waits for a person instead, in `promote__MODEL`, which `announce_challenger` wakes. So it does where the champion cannot be
evaluated any more (lost in MLflow, or it needs a feature that is gone): then only a person can say that the challenger may take
its place.

**How to recover.** Clear the failed task: each step finds what an earlier try left and never registers or promotes
twice. A bad promotion is undone by the monitor's watch, or by hand by the DAG `rollback__MODEL`. What the watch took
back is not promoted again on the same rows, unless the spec changes what is trained (`blocked_after_rollback`).
Backfills work over past intervals; a challenger that is older than the champion is evaluated, but not promoted.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.spec import ModelSpec
from evergreen_airflow import announcements, assets, forms, mailing, notes, runs
from evergreen_airflow.callbacks import Callbacks
from evergreen_airflow.pools import pool
from evergreen_airflow.project import Project, doc
from evergreen_airflow.schedules import schedule


def build(dag_id: str, spec: ModelSpec, project: Project) -> DAG:
    """Build the training DAG of a model."""
    callbacks = Callbacks(project)
    subject = f"model/{spec.name}"
    with DAG(
        dag_id,
        description=f"Train, judge and promote {spec.name}",
        doc_md=doc(__doc__, spec),
        schedule=schedule(spec.schedule, assets.drift_asset(spec.name)),
        default_args=callbacks.default_args(spec.owner),
        tags=["evergreen", "train", f"model:{spec.name}"],
        params={
            "as_of": forms.as_of_param(),
            "reason": forms.reason_param(),
            "dry_run": forms.flag_param("Dry run", "Fit and evaluate; register and decide nothing."),
        },
        **callbacks.model_dag(),
    ) as dag:

        @task
        def snapshot(**context: Any) -> dict[str, Any]:
            """Find out why this run is here and which requests it answers, then write the training rows to a file.

            Before that the spec is held against the warehouse. The rows as of the cut-off become one Parquet file
            with a fingerprint.
            """
            from dataclasses import asdict
            from datetime import datetime

            from evergreen import ledger, settings
            from evergreen.progress import counted
            from evergreen.training.plan import plan_run
            from evergreen.warehouse.connection import connect
            from evergreen.warehouse.features import feature_query
            from evergreen.warehouse.features import snapshot_store as snapshots
            from evergreen.warehouse.storage.bucket import place

            found, model = project.model(spec.name)
            feature_query.require_valid(found, model)
            with connect() as conn:
                waits = ledger.awaiting_approval(conn, model.name) is not None
            if waits:  # one that nobody asks about any more would keep its requests for ever
                from evergreen.promotion import approval

                approval.expire(model, datetime.now(UTC), runs.run_id(context))
            with connect() as conn:
                requests = ledger.unclaimed_requests(conn, model.name)
            planned = plan_run(
                runs.run_type(context), runs.as_of(context), requests, woken=bool(runs.events(context))
            )
            if planned is None:
                message = notes.tell(
                    context,
                    "nothing to train: the retrain request that woke this run is answered already, or its challenger waits for approval",
                )
                return announcements.hand_on(context, {"message": message}, fit=False, settle=False)
            taken = snapshots.take(found, model, planned.as_of, place(settings.SNAPSHOTS))
            return {
                "message": f"{counted(taken.rows, 'row')}, {taken.start[:16]} to {taken.end[:16]}, {taken.fingerprint[:16]}",
                "as_of": planned.as_of.isoformat(),
                "trigger": planned.trigger,
                "reason": runs.because(context),
                "requests": list(planned.requests),
                "dry_run": context["params"]["dry_run"],
                "snapshot": asdict(taken),
            }

        @task(execution_timeout=timedelta(hours=4), pool=pool("training"))
        def fit(plan: dict[str, Any], **context: Any) -> dict[str, Any]:
            """Fit the challenger, judge it against champion and baseline, register it with its evidence."""
            from datetime import datetime

            from evergreen import lineage
            from evergreen.training.record.headline import headline
            from evergreen.training.train import train
            from evergreen.warehouse.features.snapshot import Snapshot

            found, model = project.model(spec.name)
            taken, as_of = Snapshot(**plan["snapshot"]), datetime.fromisoformat(plan["as_of"])
            with lineage.train(runs.task_run(context, as_of), found, model, taken) as told:
                told.outcome = outcome = train(
                    found,
                    model,
                    taken,
                    as_of,
                    runs.run_id(context),
                    trigger=plan["trigger"],
                    requests=tuple(plan["requests"]),
                    dry_run=plan["dry_run"],
                    commit=runs.commit(context),
                )
            notes.tell(context, headline(outcome))
            return outcome.to_dict()

        @task
        def settle(plan: dict[str, Any], outcome: dict[str, Any], **context: Any) -> dict[str, Any]:
            """Promote, reject or let it wait: one row in the ledger, then the aliases in MLflow.

            Then announce is skipped unless it promoted, and notify unless e-mails wait. announce_challenger tells the
            promotion DAG as long as a challenger waits for a person, be it an earlier one.
            """
            from datetime import datetime

            from evergreen import ledger
            from evergreen.promotion.settlement import settle as settle_outcome
            from evergreen.training.record.headline import headline
            from evergreen.training.record.outcome import TrainingOutcome
            from evergreen.warehouse.connection import connect

            if plan["dry_run"]:
                raise AirflowSkipException("dry run: nothing is decided")
            found, model = project.model(spec.name)
            trained = TrainingOutcome.from_dict(outcome)
            decision = settle_outcome(
                found,
                model,
                trained,
                runs.run_id(context),
                because=plan["reason"],
            )
            promoted = decision.kind.value == "promoted"
            event = announcements.owed(subject, promoted, datetime.fromisoformat(plan["as_of"]))
            with connect() as conn:
                waits = ledger.awaiting_approval(conn, model.name) is not None
            return announcements.hand_on(
                context,
                {
                    "message": notes.tell(context, headline(trained, decision)),
                    "announce": event,
                    "announce_challenger": waits,
                    "as_of": plan["as_of"],
                    "decision": decision.kind.value,
                    "decision_id": decision.id,
                    "version": decision.version,
                },
                announce=event["due"],
                notify=mailing.mails_wait(subject),
                announce_challenger=waits,
            )

        planned: Any = snapshot()
        fitted: Any = fit(planned)
        settled = settle(planned, fitted)
        announcements.announce(
            callbacks,
            assets.model_asset(spec.name),
            unless="the challenger was rejected, and no earlier change is untold",
        )(settled)
        announcements.announce(
            callbacks,
            assets.challenger_asset(spec.name),
            unless="no challenger waits",
            task_id="announce_challenger",
        )(settled)
        settled >> mailing.notify(project, subject)
    return dag


def dags(dag_file: str) -> dict[str, DAG]:
    """The DAGs of this kind, by their ids, of the models whose specs lie beside a DAG file."""
    project = Project(dag_file)
    return {dag_id: build(dag_id, spec, project) for dag_id, spec in project.wanted("train")}
